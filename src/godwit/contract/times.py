"""Times on the wire: RFC 3339, or a number whose unit follows from its magnitude. Inside: int64 nanoseconds UTC.

Numbers are told apart by decade, so that a date from 2001 to 2286 is read right in each unit: below 1e11 seconds, below
1e14 milliseconds, below 1e17 microseconds, else nanoseconds.
"""

import re
from calendar import timegm
from math import isfinite
from typing import Final

from godwit.contract import codes
from godwit.contract.errors import MalformedError

NS: Final = 1_000_000_000
EARLIEST_NS: Final = 946_684_800 * NS
"""2000-01-01. A clock that says less has never been set (most begin at 1970)."""
LATEST_NS: Final = 4_102_444_800 * NS
"""2100-01-01."""

_RFC_3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,18}))?(?:([Zz])|([+-])(\d\d):?(\d\d))?"
)
_DAYS: Final = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_seconds: dict[str, int] = {}
"""Seconds since 1970 of `YYYY-MM-DDTHH:MM:SS`: devices of a fleet send the same seconds."""


def parse_time(value: object) -> tuple[int, bool]:
    """Return (nanoseconds UTC, whether it was a text without zone).

    Raises MalformedError with `time-malformed` or `time-implausible`.
    """
    if type(value) is str:
        # Whole seconds or milliseconds in UTC are by far the most common, and a fleet sends the same seconds.
        size = len(value)
        if size == 20 and value[19] == "Z":
            known = _seconds.get(value[:19])
            if known is not None:
                return known, False
        elif size == 24 and value[23] == "Z" and value[19] == ".":
            known, fraction = _seconds.get(value[:19]), value[20:23]
            if known is not None and fraction.isascii() and fraction.isdigit():
                return known + int(fraction) * 1_000_000, False
        return _parse_text(value)
    if type(value) is int:
        return _plausible(_scale_integer(value), value), False
    if type(value) is float:
        return _plausible(_scale_float(value), value), False
    raise MalformedError("a time is a text (RFC 3339) or a number", code=codes.TIME_MALFORMED)


def _plausible(time: int, said: object) -> int:
    if not EARLIEST_NS <= time < LATEST_NS:
        raise MalformedError(f"{said!r} is not between 2000 and 2100", code=codes.TIME_IMPLAUSIBLE)
    return time


def _scale_integer(value: int) -> int:
    size = abs(value)
    if size < 100_000_000_000:
        return value * NS
    if size < 100_000_000_000_000:
        return value * 1_000_000
    if size < 100_000_000_000_000_000:
        return value * 1_000
    return value


def _scale_float(value: float) -> int:
    if not isfinite(value):
        raise MalformedError("a time is a finite number", code=codes.TIME_MALFORMED)
    whole = int(value)
    scale = _scale_integer(whole) // whole if whole else NS
    # The fraction apart: a float64 of seconds holds about 200 ns, and no more is made up.
    return whole * scale + round((value - whole) * scale)


def _parse_text(text: str) -> tuple[int, bool]:
    found = _RFC_3339.fullmatch(text)
    if found is None:
        raise MalformedError(f"{text[:64]!r} is no RFC 3339 time", code=codes.TIME_MALFORMED)
    fraction, is_utc, sign, hours, minutes = found.group(7, 8, 9, 10, 11)
    time = _whole_seconds(text[:19], found) * NS
    if fraction:
        time += int(fraction[:9].ljust(9, "0"))
    if sign:
        offset = int(hours) * 3_600 + int(minutes) * 60
        if int(hours) > 23 or int(minutes) > 59:
            raise MalformedError(f"{text[:64]!r} has no such zone", code=codes.TIME_MALFORMED)
        time += (-offset if sign == "+" else offset) * NS
    return _plausible(time, text), not is_utc and not sign


def _whole_seconds(key: str, found: re.Match[str]) -> int:
    known = _seconds.get(key)
    if known is not None:
        return known // NS
    year, month, day, hour, minute, second = (int(part) for part in found.group(1, 2, 3, 4, 5, 6))
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days = 28 if month == 2 and not is_leap else _DAYS[month] if 1 <= month <= 12 else 0
    # Second 60 is a leap second (RFC 3339, 5.7): it becomes the next minute's first, as POSIX time has no name for it.
    if not (1 <= day <= days and hour <= 23 and minute <= 59 and second <= 60):
        raise MalformedError(f"{key!r} is no date and time", code=codes.TIME_MALFORMED)
    seconds = timegm((year, month, day, hour, minute, second))
    if EARLIEST_NS <= seconds * NS < LATEST_NS:
        if len(_seconds) >= 4_096:
            _seconds.clear()
        _seconds[key] = seconds * NS
    return seconds


def format_time(time: int) -> str:
    """Return nanoseconds UTC as RFC 3339 with as many digits as needed, and `Z`."""
    from datetime import UTC, datetime  # noqa: PLC0415 - not on the hot path

    seconds, fraction = divmod(time, NS)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if fraction:
        digits = f"{fraction:09d}"
        text += "." + (digits[:3] if digits.endswith("000000") else digits[:6] if digits.endswith("000") else digits)
    return text + "Z"
