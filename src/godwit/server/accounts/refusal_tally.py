"""Which refusals are written down one by one, and how many more there were. Pure: the time is given.

Each place has a bound of its own for each kind of refusal, so that a flood from one hides nothing of another, and one
of a kind hides no other kind. What is beyond the bound is counted, and told as one line: "57 more like this".
"""

from collections import Counter, OrderedDict
from typing import Final, NamedTuple

import msgspec

from godwit.server.accounts.throttle import place_of

EVERY_S: Final = 60.0
"""The same refusal is written once in so long, and what is beyond a bound is told after it."""
OF_ONE_MAX: Final = 20
"""Lines of one `Kind` in `EVERY_S`."""
OF_KIND_MAX: Final = 300
"""Lines of one kind in `EVERY_S`, all places together; the first line of a place may go beyond."""
OF_KIND_FIRST_MAX: Final = 600
COUNTS_MAX: Final = 50
"""Counting lines of one kind at a time; the smallest beyond it are told as one."""
KEPT_MAX: Final = 5_000
KEY_MAX: Final = 256
CODES_MAX: Final = 16


class Refusal(NamedTuple):
    """Who was refused what, and why. Never give it a secret."""

    who: str
    what: str
    about: str
    code: str
    address: str = ""
    tenant: str = ""
    detail: str = ""


class Kind(NamedTuple):
    """Whose refusals count together."""

    what: str
    place: str
    tenant: str


class More(NamedTuple):
    """So many refusals were not written one by one. `places`: from how many; `kind.place` is "" when from several."""

    kind: Kind
    number: int
    codes: dict[str, int]
    places: int = 1


class _Window(msgspec.Struct):
    begun: float
    written: set[tuple[str, str, str]]
    codes: Counter[str]

    def count(self, code: str) -> None:
        self.codes[code if code in self.codes or len(self.codes) < CODES_MAX else "other"] += 1


class RefusalTally:
    """Not thread-safe; `now` in seconds, of a clock that does not step. Its memory is bounded by `KEPT_MAX`."""

    def __init__(self) -> None:
        self._windows: OrderedDict[Kind, _Window] = OrderedDict()
        self._kinds: dict[str, tuple[float, int]] = {}
        self._ended: list[tuple[Kind, Counter[str]]] = []

    def is_new(self, refusal: Refusal, now: float) -> bool:
        """Whether a refusal is to be written as a line of its own; otherwise it is counted."""
        kind = Kind(refusal.what, place_of(refusal.address), refusal.tenant)
        window = self._windows.get(kind)
        if window is not None and now - window.begun >= EVERY_S:
            self._end(kind)
            window = None
        if window is None:
            window = self._windows[kind] = _Window(now, set(), Counter())
            while len(self._windows) > KEPT_MAX:
                self._end(next(iter(self._windows)))
        key = (refusal.who[:KEY_MAX], refusal.about[:KEY_MAX], refusal.code)  # he may say much of himself
        if key in window.written or len(window.written) >= OF_ONE_MAX or not self._has_room(refusal.what, window, now):
            window.count(refusal.code)
            return False
        window.written.add(key)
        return True

    def _has_room(self, what: str, window: _Window, now: float) -> bool:
        begun, lines = self._kinds.get(what, (now, 0))
        if now - begun >= EVERY_S:
            begun, lines = now, 0
        if lines >= (OF_KIND_MAX if window.written else OF_KIND_FIRST_MAX):
            return False
        self._kinds[what] = (begun, lines + 1)
        return True

    def _end(self, kind: Kind) -> None:
        window = self._windows.pop(kind)
        if window.codes:
            self._ended.append((kind, window.codes))
            if len(self._ended) > KEPT_MAX:
                self._ended = [(each.kind, Counter(each.codes)) for each in _told(self._ended)]

    def due(self, now: float, *, at_once: bool = False) -> list[More]:
        """Return the counts whose time is over; `at_once`: all of them, since nothing is counted after this."""
        for kind in [
            kind for kind, window in self._windows.items() if at_once or now - window.begun >= EVERY_S
        ]:  # fmt: skip
            self._end(kind)
        ended, self._ended = self._ended, []
        return _told(ended)


def _told(ended: list[tuple[Kind, Counter[str]]]) -> list[More]:
    """Return counts: the greatest of each kind one by one, the others together."""
    found: list[More] = []
    by_what: dict[str, list[tuple[Kind, Counter[str]]]] = {}
    for kind, codes in ended:
        by_what.setdefault(kind.what, []).append((kind, codes))
    for what, counts in by_what.items():
        counts.sort(key=lambda each: each[1].total(), reverse=True)
        found += [More(kind, codes.total(), dict(codes)) for kind, codes in counts[:COUNTS_MAX]]
        rest = counts[COUNTS_MAX:]
        if rest:
            codes = sum((codes for _, codes in rest), Counter[str]())
            found.append(More(Kind(what, "", ""), codes.total(), dict(codes), len(rest)))
    return found
