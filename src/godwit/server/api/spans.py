"""Times and durations in queries: `from`, `to`, `last=24h`, `every=5m`."""

import re
from time import time_ns
from typing import Final

from godwit.contract.errors import MalformedError, RejectedError
from godwit.contract.times import parse_time

_UNITS_NS: Final = {
    "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000, "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
}  # fmt: skip
_DURATION: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h|d|w)")
DURATION_NS_MAX: Final = 100 * 366 * 86_400_000_000_000
"""A century: from now on it is still an int64 of ns."""
DAY_NS: Final = _UNITS_NS["d"]
END_OF_TIME: Final = 2**62


def duration_ns(text: str, name: str) -> int:
    """Return `5m` and the like in ns. Raises RejectedError (`invalid-duration`)."""
    found = _DURATION.fullmatch(text)
    if found is None or int(found.group(1)) == 0:
        raise RejectedError(
            f"{name}={text[:40]!r}: a number and ms, s, m, h, d or w, such as 5m", code="invalid-duration"
        )
    long = int(found.group(1)) * _UNITS_NS[found.group(2)]
    if long > DURATION_NS_MAX:
        raise RejectedError(f"{name}={text!r}: at most a century", code="invalid-duration")
    return long


def time_of(text: str, name: str) -> int:
    """Return an RFC 3339 time or a number in ns. Raises RejectedError (`invalid-time`)."""
    value: str | float | int = text
    if re.fullmatch(r"-?[0-9]{1,20}", text):
        value = int(text)
    elif re.fullmatch(r"-?[0-9]{1,20}\.[0-9]{1,12}", text):
        value = float(text)
    try:
        return parse_time(value)[0]
    except MalformedError as error:
        raise RejectedError(f"{name}: {error}", code="invalid-time") from error


def span(start: str | None, end: str | None, last: str | None) -> tuple[int, int]:
    """Return (start, end) in ns: `last` back from now, else `from` and `to`; the last 24 h when nothing is said.

    Raises RejectedError (`invalid-time`, `invalid-duration`).
    """
    now = time_ns()
    if last is not None:
        if start is not None:
            raise RejectedError("last and from exclude each other", code="invalid-time")
        until = time_of(end, "to") if end is not None else now + DAY_NS
        begins = (until if end is not None else now) - duration_ns(last, "last")
        if begins < 0:
            raise RejectedError("last reaches back before 1970", code="invalid-duration")
        return begins, until
    begins = time_of(start, "from") if start is not None else now - DAY_NS
    ends = time_of(end, "to") if end is not None else max(now, begins) + DAY_NS
    if ends <= begins:
        raise RejectedError("to lies before from", code="invalid-time")
    return begins, ends
