"""The same thing said again and again, for the audit log: one line at once, then one a period with how many. Pure.

Who is refused a thousand times a second is to stand in the log with all of it, and is not to fill the disk.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")
EVERY_S: Final = 60.0
LINES_MAX: Final = 120
"""New kinds in a period, of all together. The next ones are counted in one line: nobody fills the disk."""


class Repeated(NamedTuple, Generic[T]):
    """Something that happened `times` times since the line before; `what` None: things of many kinds together."""

    what: T | None
    times: int


class _Kind(Generic[T]):
    __slots__ = ("begun", "times", "what")

    def __init__(self, what: T, now: float) -> None:
        self.what, self.begun, self.times = what, now, 0


class Repeats(Generic[T]):
    """Not thread-safe. Times in seconds, of a clock that does not step."""

    def __init__(self, every_s: float = EVERY_S, lines_max: int = LINES_MAX) -> None:
        self._every_s, self._lines_max = every_s, lines_max
        self._kinds: OrderedDict[Hashable, _Kind[T]] = OrderedDict()
        self._begun: float | None = None
        self._lines = self._others = 0

    def is_new(self, kind: Hashable, what: T, now: float) -> bool:
        """Whether to write it down now. If not it is counted: `due` has it later."""
        known = self._kinds.get(kind)
        if known is not None:
            known.times += 1
            known.what = what
            return False
        if self._begun is None or (now - self._begun >= self._every_s and not self._others):
            self._begun, self._lines = now, 0
        if self._lines >= self._lines_max:
            self._others += 1
            return False
        self._lines += 1
        self._kinds[kind] = _Kind(what, now)
        return True

    def due(self, now: float) -> list[Repeated[T]]:
        """Return what was counted and is to be written down now, with how many times since the last line."""
        found: list[Repeated[T]] = []
        while self._kinds:
            kind, known = next(iter(self._kinds.items()))
            if now - known.begun < self._every_s:
                break
            del self._kinds[kind]
            if known.times:
                found.append(Repeated(known.what, known.times))
                known.begun, known.times = now, 0
                self._kinds[kind] = known  # it goes on, perhaps: what follows is counted
        if self._others and self._begun is not None and now - self._begun >= self._every_s:
            found.append(Repeated(None, self._others))
            self._others = self._lines = 0
            self._begun = now
        return found
