"""When the radio may be on. Pure: the policy is asked with what waits and what time it is, and says on or off.

A device that runs on a battery connects when enough has gathered or has waited long enough, inside its send windows, at
once when something urgent was taken, and now and then to hear what the owner wants. In between it is disconnected, and
the server keeps its session.
"""

import datetime as dt
from typing import Final, NamedTuple

DAY_S: Final = 86_400.0


class Window(NamedTuple):
    """A time of day, in seconds after midnight UTC; over midnight too, and all day when it ends as it begins."""

    begin_s: float
    end_s: float

    @classmethod
    def of(cls, text: str) -> "Window":
        """Return the window of a text like `22:00-06:30`. Raises ValueError for what is none."""
        begin, dash, end = text.partition("-")
        if not dash:
            raise ValueError(f"{text!r} is no window: write it like 22:00-06:30")
        return cls(_seconds(begin), _seconds(end))

    def holds(self, time_s: float) -> bool:
        """Whether a time (s since 1970) is in the window."""
        at = time_s % DAY_S
        if self.begin_s == self.end_s:
            return True
        if self.begin_s < self.end_s:
            return self.begin_s <= at < self.end_s
        return at >= self.begin_s or at < self.end_s

    def lasted(self, time_s: float) -> float:
        """Return the seconds since it began, of a window that holds the time."""
        return (time_s % DAY_S - self.begin_s) % DAY_S

    def begins_in(self, time_s: float) -> float:
        """Return the seconds until it begins next; 0 inside."""
        return 0.0 if self.holds(time_s) else (self.begin_s - time_s % DAY_S) % DAY_S


def _seconds(text: str) -> float:
    at = dt.time.fromisoformat(text.strip())
    return at.hour * 3_600.0 + at.minute * 60.0 + at.second


class Waiting(NamedTuple):
    """What the device knows when it asks. Ages in seconds."""

    samples: int
    """In the spool."""
    oldest_s: float
    """How long the oldest of them has waited."""
    has_urgent: bool
    """Whether one of them is of a stream that wakes the radio."""
    quiet_s: float
    """How long nothing was sent or heard, nor anything under way; 0 while something is."""
    off_s: float
    """How long the radio has been off; 0 while it is on, infinite before the first time."""


class Decision(NamedTuple):
    """Whether the radio is to be on, and after how many seconds to ask again at the latest (news ask at once)."""

    is_on: bool
    again_s: float


class PowerPolicy(NamedTuple):
    """When to be connected. Without arguments: always.

    `samples` and `every_s`: connect when so many wait, or when the oldest has waited so long. `windows`: only then,
    and once in each, but for what is urgent. `urgent_priority`: streams of this priority and more urgent ones wake
    the radio at once (None: none does). `listen_s`: connect at least so often, to hear commands. `linger_s`: stay so
    long after the last word. `session_s`: how long the server keeps the session meanwhile.
    """

    samples: int | None = None
    every_s: float | None = None
    windows: tuple[Window, ...] = ()
    urgent_priority: int | None = 0
    listen_s: float | None = None
    linger_s: float = 2.0
    session_s: int = 7 * 86_400

    @property
    def is_always_on(self) -> bool:
        """Whether there is nothing to decide."""
        return self.samples is None and self.every_s is None and not self.windows and self.listen_s is None

    def decide(self, waiting: Waiting, time_s: float) -> Decision:
        """Return whether to be on at a time of day (s since 1970, UTC)."""
        if self.is_always_on or waiting.has_urgent:
            return Decision(is_on=True, again_s=DAY_S)
        if waiting.off_s == 0.0 and waiting.quiet_s < self.linger_s:
            return Decision(is_on=True, again_s=max(0.01, self.linger_s - waiting.quiet_s))
        inside = [each for each in self.windows if each.holds(time_s)]
        if self.windows and not inside:
            return Decision(is_on=False, again_s=min(each.begins_in(time_s) for each in self.windows))
        due = self._due_in(waiting, min((each.lasted(time_s) for each in inside), default=DAY_S))
        return Decision(is_on=due <= 0.0, again_s=DAY_S if due <= 0.0 else due)

    def _due_in(self, waiting: Waiting, window_s: float) -> float:
        """Return the seconds until there is a reason to connect; a window has been open for `window_s`."""
        due = DAY_S
        if waiting.samples:
            if self.samples is not None and waiting.samples >= self.samples:
                return 0.0
            if self.every_s is not None:
                due = min(due, self.every_s - waiting.oldest_s)
            elif self.samples is None and waiting.off_s >= window_s:
                return 0.0  # the window is the only condition: once in each
        if self.listen_s is not None:
            due = min(due, self.listen_s - waiting.off_s)
        return due


ALWAYS_ON: Final = PowerPolicy()
