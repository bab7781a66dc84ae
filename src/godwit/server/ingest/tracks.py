"""Once: what has arrived already. Pure; state is advanced on arrival and made durable as deltas with the group.

Three kinds of evidence, strongest first: the sample's number in its track `(device, stream, epoch)`; a message id, over
the last 4,096 of a device and at most 24 h; for a plain QoS 1 or 2 redelivery (DUP), client id, packet id and a
checksum of the payload, over the device's last 128 messages.
"""

from array import array
from bisect import bisect_left, bisect_right
from hashlib import blake2b
from zlib import crc32

import msgspec
import numpy as np
from numpy.typing import NDArray

MESSAGE_IDS_MAX = 4_096
MESSAGE_ID_AGE_S_MAX = 86_400
PRINTS_MAX = 128
ISLANDS_MAX = 1_024
"""Holes that a track remembers."""
LOST_MAX = 1_024
"""Ranges of lost samples that a track remembers; of older ones it keeps the count."""
LOST_REASONS_MAX = 16
UNANSWERED = "unanswered"
"""The platform asked for the samples again and again, the device went on without a word, and there is no more room."""
OTHER = "other"
NO_TIME = -(2**63)

Lost = tuple[int, int, str]
"""(first, stop, reason): samples first .. stop - 1 do not exist any more."""


class Track:
    """Which sample numbers of one `(device, stream, epoch)` are settled: durable with their group, or known as lost.

    All below `low` are, and between `_edges[0]` and `_edges[1]`, `_edges[2]` and `_edges[3]`, and so on. What is lost
    is settled, and stands in `_lost` too, so that it can still arrive. A derived track (of a clone) begins at `start`.
    """

    __slots__ = (
        "_closed", "_edges", "_lost", "clock", "device_sent", "epoch", "forks", "low", "newest", "received", "rival",
        "start", "stream", "told", "track_no", "turns", "unanswered_below", "voice",
    )  # fmt: skip

    def __init__(self, track_no: int, stream: str, epoch: str) -> None:
        self.track_no = track_no
        self.stream = stream
        self.epoch = epoch
        self.low = 0
        self.start = 0
        self._edges: list[int] = []
        self._lost: list[Lost] = []
        self._closed: dict[str, int] = {}
        self.newest = NO_TIME
        """The latest time of a sample, by the device's clock."""
        self.forks: list[Track] | None = None
        """What came under the same numbers with other content, apart."""
        self.voice: object = None
        """The connection that spoke last."""
        self.rival: object = None
        """Another one, that repeated what is long known; and how often it spoke in between."""
        self.turns = 0
        self.unanswered_below = 0
        """Holes below were asked for several times, in vain."""
        self.device_sent: int | None = None
        self.clock = ""
        """The clock that `device_sent` is of: UTC, or a boot of the device."""
        self.received = 0
        self.told = 0
        """`received` when the device was told last what is stored."""

    # --- looks -----------------------------------------------------------------------------------------------------

    @property
    def high(self) -> int:
        """The number after the highest one that is settled."""
        return self._edges[-1] if self._edges else self.low

    @property
    def has_holes(self) -> bool:
        """Whether numbers are missing below the highest one.

        Nothing is missing where nothing ever came: a device says by gap records what it has lost of its events, too.
        """
        return bool(self._edges) and self.arrived > 0

    @property
    def missing(self) -> list[tuple[int, int]]:
        """What is missing, as (first, stop)."""
        return self.holes() if self.has_holes else []

    def holes(self, limit: int | None = None) -> list[tuple[int, int]]:
        """Return what is not settled below the highest number, as (first, stop), the oldest first."""
        edges = [self.low, *self._edges[:-1]]
        return list(zip(edges[: None if limit is None else 2 * limit : 2], edges[1::2], strict=False))

    @property
    def gaps(self) -> int:
        """How many numbers are missing below the highest one seen."""
        return sum(stop - first for first, stop in self.missing)

    @property
    def lost(self) -> list[Lost]:
        """What is known as lost, in order; the oldest of very many ranges are only counted."""
        return list(self._lost)

    @property
    def lost_counts(self) -> dict[str, int]:
        """How many samples are lost, by reason."""
        counts = dict(self._closed)
        for first, stop, reason in list(self._lost):
            counts[reason] = counts.get(reason, 0) + stop - first
        return counts

    @property
    def arrived(self) -> int:
        """How many samples arrived."""
        open_numbers = sum(stop - first for first, stop in self.holes())
        return self.high - self.start - open_numbers - sum(self.lost_counts.values())

    def is_settled(self, number: int) -> bool:
        """Whether a number is durable with its group, or lost."""
        return number < self.low or bisect_right(self._edges, number) % 2 == 1

    def has_arrived(self, number: int) -> bool:
        """Whether a number is durable with its group."""
        return self.is_settled(number) and self._lost_at(number) < 0

    def _lost_at(self, number: int) -> int:
        at = bisect_right(self._lost, number, key=_first) - 1
        return at if at >= 0 and number < self._lost[at][1] else -1

    # --- changes ---------------------------------------------------------------------------------------------------

    def take(self, first: int, count: int) -> range | list[int]:
        """Mark numbers first .. first + count - 1 as arrived; return which of them are new."""
        stop = first + count
        if first == self.high:  # in order: nearly always
            if self._edges:
                self._edges[-1] = stop
            else:
                self.low = stop
            return range(first, stop)
        if stop <= self.low and not self._lost:
            return []
        fresh = [number for number in range(first, stop) if not self.has_arrived(number)]
        if fresh:
            self._settle(first, stop)
            if self._lost:
                self._find(first, stop)
        return fresh

    def has_room_for(self, first: int, count: int) -> bool:
        """Whether `take` would not make more holes than can be remembered."""
        at = bisect_left(self._edges, first)
        is_apart = first > self.low and at % 2 == 0 and at == bisect_right(self._edges, first + count)
        return not is_apart or len(self._edges) < 2 * ISLANDS_MAX

    def give_up(self) -> Lost | None:
        """Declare the oldest hole lost if the device was asked for it in vain; for when there is no room."""
        if not self._edges or self._edges[0] > self.unanswered_below:
            return None
        given_up = (self.low, self._edges[0], UNANSWERED)
        self.lose(*given_up)
        return given_up

    def lose(self, first: int, stop: int, reason: str) -> int:
        """Mark what is not settled of first .. stop - 1 as lost; return how many numbers that are."""
        fresh = [
            (max(first, start), min(stop, end), reason)
            for start, end in [*self.holes(), (self.high, max(stop, self.high))]
            if start < stop and end > first and max(first, start) < min(stop, end)
        ]
        if fresh:
            self._settle(first, stop)
            self._lost = sorted([*self._lost, *fresh])
            while len(self._lost) > LOST_MAX:
                start, end, why = self._lost.pop(0)
                if why not in self._closed and len(self._closed) >= LOST_REASONS_MAX:
                    why = OTHER
                self._closed[why] = self._closed.get(why, 0) + end - start
        return sum(end - start for start, end, _ in fresh)

    def begin(self, first: int) -> None:
        """Begin at `first`: what is below belongs to the track that this one is derived from."""
        self.start = first
        self._settle(0, first)

    def _settle(self, first: int, stop: int) -> None:
        edges = self._edges
        at, to = bisect_left(edges, first), bisect_right(edges, stop)
        # Where `first` or `stop` lies in an island, or touches one, that one grows.
        edges[at:to] = [first] * (at % 2 == 0) + [stop] * (to % 2 == 0)
        while edges and edges[0] <= self.low:
            self.low = max(self.low, edges[1])
            del edges[:2]

    def _find(self, first: int, stop: int) -> None:
        """Take first .. stop - 1 out of what is lost."""
        kept: list[Lost] = []
        for start, end, reason in self._lost:
            if start < min(end, first):
                kept.append((start, min(end, first), reason))
            if max(start, stop) < end:
                kept.append((max(start, stop), end, reason))
        self._lost = kept

    # --- folding ---------------------------------------------------------------------------------------------------

    def dump(self) -> bytes:
        """Return the state as bytes."""
        islands = [list(pair) for pair in zip(self._edges[::2], self._edges[1::2], strict=True)]
        return msgspec.msgpack.encode((self.low, islands, self._lost, self._closed, self.newest, self.start))

    def restore(self, data: bytes) -> None:
        """Set the state as it was dumped."""
        low, islands, *more = msgspec.msgpack.decode(data)
        self.low, self._edges = low, [edge for island in islands for edge in island]
        if more:
            lost, self._closed, self.newest, self.start = more
            self._lost = [(first, stop, reason) for first, stop, reason in lost]


def _first(lost: Lost) -> int:
    return lost[0]


def hash_message_id(message_id: str) -> int:
    """Return the 64-bit hash under which a message id is remembered."""
    return int.from_bytes(blake2b(message_id.encode(), digest_size=8).digest(), "little")


class MessageIds:
    """The last message ids of one device, as 64-bit hashes in a ring that grows with use."""

    __slots__ = ("_hashes", "_next", "_seconds")

    def __init__(self) -> None:
        self._hashes: NDArray[np.uint64] = np.zeros(16, np.uint64)
        self._seconds: NDArray[np.uint32] = np.zeros(16, np.uint32)
        self._next = 0

    @property
    def oldest(self) -> int:
        """The second from which on all ids are remembered; 0: all that ever came are."""
        return int(self._seconds[self._next % MESSAGE_IDS_MAX]) if self._next > MESSAGE_IDS_MAX else 0

    def take(self, number: int, second: int) -> bool:
        """Remember a hash; False when it was there already, not longer than a day ago."""
        found = np.flatnonzero(self._hashes == np.uint64(number))
        for at in found:
            if at < self._next and second - int(self._seconds[at]) <= MESSAGE_ID_AGE_S_MAX:
                return False
        self.put(number, second)
        return True

    def put(self, number: int, second: int) -> None:
        """Remember a hash."""
        size = len(self._hashes)
        if self._next == size < MESSAGE_IDS_MAX:
            self._hashes = np.concatenate([self._hashes, np.zeros(size, np.uint64)])
            self._seconds = np.concatenate([self._seconds, np.zeros(size, np.uint32)])
            size *= 2
        self._hashes[self._next % size] = number
        self._seconds[self._next % size] = second
        self._next += 1

    def dump(self) -> tuple[bytes, bytes]:
        """Return hashes and their seconds, oldest first."""
        size = len(self._hashes)
        order = np.arange(max(0, self._next - size), self._next) % size
        return self._hashes[order].tobytes(), self._seconds[order].tobytes()


def fingerprint(client_mark: int, packet_id: int, payload: bytes) -> int:
    """Return the 64 bits by which a redelivery is recognised: payload checksum, client (16 bits), packet id."""
    return crc32(payload) << 32 | client_mark << 16 | packet_id


class Prints:
    """Fingerprints of the last messages of one device that carried neither number nor id."""

    __slots__ = ("_next", "_ring")

    def __init__(self) -> None:
        self._ring = array("Q", bytes(8 * PRINTS_MAX))
        self._next = 0

    def __contains__(self, value: int) -> bool:
        return value in self._ring

    def put(self, value: int) -> None:
        """Remember a fingerprint; the oldest leaves."""
        self._ring[self._next] = value
        self._next = (self._next + 1) % PRINTS_MAX

    def dump(self) -> bytes:
        """Return the fingerprints, oldest first."""
        return (self._ring[self._next :] + self._ring[: self._next]).tobytes()
