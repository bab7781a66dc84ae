"""Once: what has arrived already. Pure; state is advanced on arrival and made durable as deltas with the group.

Three kinds of evidence, strongest first: the sample's number in its track `(device, stream, epoch)`; a message id, over
the last 4,096 of a device and at most 24 h; for a plain QoS 1 or 2 redelivery (DUP), client id, packet id and a
checksum
of the payload, over the device's last 128 messages.
"""

from array import array
from bisect import bisect_right
from hashlib import blake2b
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

MESSAGE_IDS_MAX = 4_096
MESSAGE_ID_AGE_S_MAX = 86_400
PRINTS_MAX = 128
ISLANDS_MAX = 1_024


class Track:
    """Which sample numbers of one `(device, stream, epoch)` have arrived: all below `low`, and some islands above."""

    __slots__ = ("device_sent", "epoch", "islands", "low", "received", "stream", "track_no")

    def __init__(self, track_no: int, stream: str, epoch: str) -> None:
        self.track_no = track_no
        self.stream = stream
        self.epoch = epoch
        self.low = 0
        self.islands: list[list[int]] = []
        self.device_sent: int | None = None
        self.received = 0

    @property
    def gaps(self) -> int:
        """How many numbers are missing below the highest one seen."""
        missing, end = 0, self.low
        for start, stop in self.islands:
            missing += start - end
            end = stop
        return missing

    def take(self, first: int, count: int) -> range | list[int]:
        """Mark numbers first .. first + count - 1 as arrived; return which of them are new."""
        stop = first + count
        if first == self.low and not self.islands:  # in order: nearly always
            self.low = stop
            return range(first, stop)
        fresh = [number for number in range(first, stop) if not self._has(number)]
        if fresh:
            self._add(first, stop)
        return fresh

    def _has(self, number: int) -> bool:
        if number < self.low:
            return True
        at = bisect_right(self.islands, number, key=lambda island: island[0]) - 1
        return at >= 0 and number < self.islands[at][1]

    def _add(self, first: int, stop: int) -> None:
        merged: list[list[int]] = []
        for island in self.islands:
            if island[1] < first or island[0] > stop:
                merged.append(island)
            else:
                first, stop = min(first, island[0]), max(stop, island[1])
        if first <= self.low:
            self.low = max(self.low, stop)
        else:
            merged.append([first, stop])
            merged.sort()
        # Bounded: with too many holes the oldest ones are given up, and stay counted as gaps in the ledger.
        while len(merged) > ISLANDS_MAX or (merged and merged[0][0] <= self.low):
            self.low = max(self.low, merged.pop(0)[1])
        self.islands = merged

    def restore(self, low: int, islands: list[list[int]]) -> None:
        """Set the state as it was folded."""
        self.low, self.islands = low, islands


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
