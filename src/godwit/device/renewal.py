"""When a device renews its certificate. Pure: time is an argument, in seconds since 1970 as well as it is known.

From 30 days before the end, or a third of the lifetime where that is shorter, each device at a moment of its own. What
is refused or not answered is asked for again, ever less often, for as long as there is a session to ask in.
"""

from typing import Final

from godwit.runtime.backoff import Backoff

DAY_S: Final = 86_400.0
BEFORE_S: Final = 30 * DAY_S
SPREAD: Final = 0.25
"""Of the time before the end: so much of it is what the moments of a fleet are spread over."""
ANNOUNCED_SPREAD_S: Final = 30.0
"""After a notice to all of a fleet."""
ANSWER_S: Final = 30.0
FIRST_S_MIN: Final = 1.0
FIRST_S_MAX: Final = 60.0


def begins(granted: float, ends: float) -> float:
    """Return when a certificate may be renewed from."""
    return ends - min(BEFORE_S, max(0.0, ends - granted) / 3)


class Renewal:
    """The plan for one certificate. `chance` is uniform in [0, 1)."""

    def __init__(self, granted: float, ends: float, chance: float) -> None:
        self._ends = ends
        begin = begins(granted, ends)
        self._window_s = max(FIRST_S_MIN, ends - begin)
        self._due = max(begin + SPREAD * chance * self._window_s, granted + FIRST_S_MIN)
        self._least_s = min(FIRST_S_MAX, max(FIRST_S_MIN, self._window_s / 100))
        self._backoff = self._new_backoff()

    def _new_backoff(self) -> Backoff:
        return Backoff(self._least_s, s_max=max(self._least_s, min(self._window_s / 4, DAY_S)))

    @property
    def answer_s(self) -> float:
        """How long an answer is waited for."""
        return max(FIRST_S_MIN, min(ANSWER_S, self._window_s / 4))

    @property
    def due(self) -> float:
        """When to ask."""
        return self._due

    def no_later_than(self, due: float) -> None:
        """Ask then, where that is earlier: something else goes with the request."""
        self._due = min(self._due, due)

    def is_due(self, now: float) -> bool:
        """Whether to ask now."""
        return now >= self._due

    def wanted(self, now: float, chance: float, *, is_for_all: bool) -> None:
        """Ask soon, since the platform says so; `is_for_all`: as it says to many at once."""
        self._backoff = self._new_backoff()
        spread_s = min(ANNOUNCED_SPREAD_S, self._window_s / 4) if is_for_all else 0.0
        self._due = min(self._due, now + spread_s * chance)

    def failed(self, now: float, chance: float) -> None:
        """Ask again later: it was refused, or nobody answered."""
        self._due = now + self._least_s / 2 + self._backoff.next_s(chance)
