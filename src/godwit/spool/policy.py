"""What goes next and what leaves when the bound is reached. Pure: no file, no clock, no chance.

Priorities are numbers, 0 the first to go and the last to leave. Streams of one priority are served, and leave, by the
stamp of the oldest item. Within a stream order is never by stamp, but by epoch and number: clocks jump.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from godwit.spool.model import Track

NS: Final = 1_000_000_000
CLOCK_STEP_S: Final = 60
"""A clock may run ahead by so much at once and is believed: NTP steps by this little on a healthy machine."""


class Bounds(NamedTuple):
    """How much a spool holds at most; `age_s_max` None: however old."""

    bytes_max: int = 256 * 2**20
    age_s_max: float | None = None


class Waiting(NamedTuple):
    """A track with something to send. `rank` orders the epochs of a stream; `oldest` is the stamp of its next item."""

    track: Track
    priority: int
    rank: int
    oldest: int


def order(waiting: Iterable[Waiting]) -> list[Track]:
    """Return what goes next: by priority, then the stream with the oldest item; of a stream, earlier epochs first."""
    streams: dict[str, list[Waiting]] = {}
    for each in waiting:
        streams.setdefault(each.track.stream, []).append(each)
    for epochs in streams.values():
        epochs.sort(key=lambda each: each.rank)
    ordered = sorted(streams.values(), key=lambda epochs: (epochs[0].priority, epochs[0].oldest, epochs[0].track))
    return [each.track for epochs in ordered for each in epochs]


class Holding(NamedTuple):
    """A stream as it may have to leave: its items in order, as (stamp, bytes)."""

    priority: int
    items: Iterator[tuple[int, int]]


def leaving(holdings: Mapping[str, Holding], over: int, spare: int) -> dict[str, int]:
    """Return how many items of each stream leave, from its front, so that at least `over` bytes become free.

    The lowest priority first, of one priority the oldest. So that it is not called for every append, up to `spare`
    bytes more leave, but only of the last priority that has to give anything.
    """
    heap: list[tuple[int, int, str, int]] = []

    def put(stream: str) -> None:
        found = next(holdings[stream].items, None)
        if found is not None:
            heapq.heappush(heap, (-holdings[stream].priority, found[0], stream, found[1]))

    for stream in holdings:
        put(stream)
    counts: dict[str, int] = {}
    freed, priority = 0, 0
    while heap and (freed < over or (freed < over + spare and heap[0][0] == priority)):
        priority, _, stream, size = heapq.heappop(heap)
        freed += size
        counts[stream] = counts.get(stream, 0) + 1
        put(stream)
    return counts


class BelievedTime:
    """The time of day as far as it may be used to throw data away.

    A clock that goes back is believed at once: nothing is lost by it. One that jumps ahead (a flat battery, a wrong
    century) is believed after it has stood by that for `age_s_max` of running time; until then time only passes.
    Whatever was in the spool before the jump has then waited for that long in any case.
    """

    def __init__(self, wall: int, monotonic_s: float, age_s_max: float) -> None:
        self._wall, self._monotonic_s = wall, monotonic_s
        self._age_s_max = age_s_max
        self._ahead, self._ahead_since = 0, 0.0
        """By how much the clock runs ahead of the steady time (ns, 0: it does not), and since when."""

    def at(self, wall: int, monotonic_s: float) -> int:
        """Return the time (ns) that is believed when the clocks show this."""
        steady = self._wall + round((monotonic_s - self._monotonic_s) * NS)
        ahead = wall - steady
        if ahead > CLOCK_STEP_S * NS:
            if ahead > self._ahead + CLOCK_STEP_S * NS:  # a jump, or another one
                self._ahead_since = monotonic_s
            self._ahead = ahead
            if monotonic_s - self._ahead_since < self._age_s_max:
                return steady
        self._ahead = 0
        self._wall, self._monotonic_s = wall, monotonic_s
        return wall
