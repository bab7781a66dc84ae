"""Time as a thing that is handed in: the system's clocks, and one that stands still until it is told to move on.

Cores take `now` as an argument and need none of this; shells and rooms take a `Clock`.
"""

import sys
import time
from typing import Final, Protocol

NS: Final = 1_000_000_000


class Clock(Protocol):
    """The time of day, which may be set, and two clocks that only go on."""

    def now_ns(self) -> int:
        """Return the time of day, ns UTC since 1970."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds since some moment, never going back."""
        ...

    def uptime_ns(self) -> int:
        """Return ns since the machine was started, those included that it slept through."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        """Return the time of day, ns UTC since 1970."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """Return seconds since some moment, never going back."""
        return time.monotonic()

    def uptime_ns(self) -> int:
        """Return ns since the machine was started, those included that it slept through (on Linux)."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic_ns()


class VirtualClock:
    """A clock for simulations and tests."""

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns
        self._elapsed_ns = 0

    def now_ns(self) -> int:
        """Return the time of day, ns UTC since 1970."""
        return self._now_ns

    def monotonic_s(self) -> float:
        """Return seconds since the clock was made."""
        return self._elapsed_ns / NS

    def uptime_ns(self) -> int:
        """Return ns since the clock was made."""
        return self._elapsed_ns

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        if seconds < 0:
            raise ValueError("time does not go back: use `set_now_ns` for the time of day")
        passed = round(seconds * NS)
        self._now_ns += passed
        self._elapsed_ns += passed

    def set_now_ns(self, now_ns: int) -> None:
        """Set the time of day, as NTP or a person does; the other clock does not notice."""
        self._now_ns = now_ns
