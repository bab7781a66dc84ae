"""Times on the wire: RFC 3339, or a number whose unit follows from its magnitude. Inside: int64 nanoseconds UTC.

Numbers are told apart by decade, so that a date from 2000 to 2100 is read right in each unit: below 1e11 seconds, below
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

UPTIME_NS_MAX: Final = 2**62
CLOCK_NS_MIN: Final = -(2**61)
"""1896. What a clock says that is further off, on either side, is no time; differences of the others fit 64 bits."""
CLOCK_NS_MAX: Final = 2**63 - 2**60
"""2225."""

_RFC_3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,18}))?(?:([Zz])|([+-])(\d\d):?(\d\d))?", re.ASCII
)
_DAYS: Final = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_KEPT_MAX: Final = 4_096
_known: dict[str, tuple[int, bool]] = {}
"""What whole seconds mean, as they were written: the devices of a fleet send the same ones."""
_seconds: dict[str, int] = {}
"""Nanoseconds of `YYYY-MM-DDTHH:MM:SS`, for times with a fraction."""


class ImplausibleTimeError(MalformedError):
    """A time can be read, and is none of this century; `time` is what it says, ns since 1970."""

    code = codes.TIME_IMPLAUSIBLE

    def __init__(self, message: str, time: int) -> None:
        super().__init__(message)
        self.time = time


def parse_time(value: object) -> tuple[int, bool]:
    """Return (nanoseconds UTC, whether it was a text without zone).

    Raises MalformedError with `time-malformed` or `time-implausible`.
    """
    if type(value) is str:
        return _known.get(value) or _parse_text(value)
    if type(value) is int:
        return _plausible(_scale_integer(value), value), False
    if type(value) is float:
        return _plausible(_scale_float(value), value), False
    raise MalformedError("a time is a text (RFC 3339) or a number", code=codes.TIME_MALFORMED)


def parse_uptime(value: object) -> tuple[int, bool]:
    """Return (nanoseconds since boot, False). Raises MalformedError with `time-malformed`."""
    if type(value) is int and 0 <= value < UPTIME_NS_MAX:
        return value, False
    raise MalformedError("an uptime is a whole number of nanoseconds since boot", code=codes.TIME_MALFORMED)


def nanoseconds(seconds: float) -> int:
    """Return seconds as nanoseconds, by the digits that a float is written with: 0.1 s are 100,000,000 ns."""
    if type(seconds) is int:
        return seconds * NS
    if not isfinite(seconds):
        raise MalformedError("a time is a finite number", code=codes.TIME_MALFORMED)
    whole = int(seconds)
    text = repr(seconds)
    if "e" in text:  # below 0.0001 or above 1e16
        return whole * NS + round((seconds - whole) * NS)
    fraction = int(text.partition(".")[2][:9].ljust(9, "0"))
    return whole * NS + (-fraction if seconds < 0 else fraction)


def _plausible(time: int, said: object) -> int:
    if not EARLIEST_NS <= time < LATEST_NS:
        text = "the number" if isinstance(said, int) and said.bit_length() > 128 else repr(said)
        if not CLOCK_NS_MIN <= time < CLOCK_NS_MAX:
            raise MalformedError(f"{text[:64]} is not between 2000 and 2100", code=codes.TIME_IMPLAUSIBLE)
        raise ImplausibleTimeError(f"{text[:64]} is not between 2000 and 2100", time)
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
    size = abs(value)
    if size < 1e11 or not isfinite(value):
        return nanoseconds(value)
    if size < 1e14:
        # Floats here are binary fractions of milliseconds; a float64 holds about 0.2 us there.
        return int(value) * 1_000_000 + round((value - int(value)) * 1_000) * 1_000
    return _scale_integer(round(value))


def _parse_text(text: str) -> tuple[int, bool]:
    known = _seconds.get(text[:19])
    if known is not None and text[19:20] == ".":
        # The way of times with a fraction: the second is known, and what follows are digits, then Z or nothing.
        is_zoned = text[-1] == "Z"
        digits = text[20:-1] if is_zoned else text[20:]
        if digits.isdigit() and digits.isascii() and len(digits) <= 18:
            return known + int(digits[:9].ljust(9, "0")), not is_zoned
    found = _RFC_3339.fullmatch(text)
    if found is None:
        raise MalformedError(f"{text[:64]!r} is no RFC 3339 time", code=codes.TIME_MALFORMED)
    fraction, is_utc, sign, hours, minutes = found.group(7, 8, 9, 10, 11)
    time = _whole_seconds(text[:19], found)
    if fraction:
        time += int(fraction[:9].ljust(9, "0"))
    if sign:
        if int(hours) > 23 or int(minutes) > 59:
            raise MalformedError(f"{text[:64]!r} has no such zone", code=codes.TIME_MALFORMED)
        offset = (int(hours) * 3_600 + int(minutes) * 60) * NS
        time += -offset if sign == "+" else offset
    answer = (_plausible(time, text), not is_utc and not sign)
    if not fraction:
        if len(_known) >= _KEPT_MAX:
            _known.clear()
        _known[text] = answer
    return answer


def _whole_seconds(key: str, found: re.Match[str]) -> int:
    known = _seconds.get(key)
    if known is not None:
        return known
    year, month, day, hour, minute, second = (int(part) for part in found.group(1, 2, 3, 4, 5, 6))
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days = 28 if month == 2 and not is_leap else _DAYS[month] if 1 <= month <= 12 else 0
    # Second 60 is a leap second (RFC 3339, 5.7): it becomes the next minute's first, as POSIX time has no name for it.
    if not (1 <= day <= days and hour <= 23 and minute <= 59 and second <= 60):
        raise MalformedError(f"{key!r} is no date and time", code=codes.TIME_MALFORMED)
    if year == 0:  # timegm counts from year 1
        raise MalformedError(f"{key!r} is not between 2000 and 2100", code=codes.TIME_IMPLAUSIBLE)
    time = timegm((year, month, day, hour, minute, second)) * NS
    if EARLIEST_NS <= time < LATEST_NS:
        if len(_seconds) >= _KEPT_MAX:
            _seconds.clear()
        _seconds[key] = time
    return time


def format_time(time: int) -> str:
    """Return nanoseconds UTC as RFC 3339 with as many digits as needed, and `Z`."""
    from datetime import UTC, datetime  # noqa: PLC0415 - not on the hot path

    seconds, fraction = divmod(time, NS)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if fraction:
        digits = f"{fraction:09d}"
        text += "." + (digits[:3] if digits.endswith("000000") else digits[:6] if digits.endswith("000") else digits)
    return text + "Z"
