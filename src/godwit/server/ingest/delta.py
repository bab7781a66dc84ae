"""What a group changes of dedup and ledger, as bytes: written with the commit, replayed at start."""

import msgspec
import numpy as np

from godwit.server.ingest.batch import ID_WIDTH, MESSAGE_WIDTH, PRINT_WIDTH, TAKEN_WIDTH, Batch
from godwit.server.ingest.directory import Directory
from godwit.server.ingest.tracks import MessageIds, Prints
from godwit.server.telemetry.ledger import WIDTH, Account, Ledger
from godwit.server.telemetry.model import StateRow

TRACK = "track"
IDS = "ids"
PRINTS = "prints"


class Delta(msgspec.Struct, array_like=True):
    """Columns as bytes: little-endian arrays."""

    ledger_devices: bytes = b""
    """int32"""
    ledger_amounts: bytes = b""
    """int64, n x WIDTH"""
    refusals: list[tuple[int, str]] = []
    tracks: bytes = b""
    """int64, n x 3: track, first, count"""
    ids: bytes = b""
    """uint64, n x 3: device, hash, second"""
    prints: bytes = b""
    """uint64, n x 2: device, fingerprint"""


def amounts(
    batch: Batch,
) -> tuple["np.ndarray[tuple[int], np.dtype[np.int32]]", "np.ndarray[tuple[int, int], np.dtype[np.int64]]"]:
    """Return devices and what their accounts gain, one row a message."""
    messages = np.array(batch.messages, np.int64).reshape(-1, MESSAGE_WIDTH)
    devices = messages[:, 0].astype(np.int32)
    rows = np.zeros((len(devices), WIDTH), np.int64)
    rows[:, Account.MESSAGES] = 1
    rows[:, Account.ACCEPTED : Account.REFUSED] = messages[:, 1:]
    return devices, rows


def encode(
    batch: Batch,
) -> tuple[bytes, "np.ndarray[tuple[int], np.dtype[np.int32]]", "np.ndarray[tuple[int, int], np.dtype[np.int64]]"]:
    """Return the delta of a batch, and the ledger's part of it as arrays."""
    devices, rows = amounts(batch)
    delta = Delta(devices.tobytes(), rows.tobytes(), batch.refusals)
    delta.tracks = np.array(batch.taken, np.int64).tobytes()
    delta.ids = np.array(batch.ids, np.uint64).tobytes()
    delta.prints = np.array(batch.prints, np.uint64).tobytes()
    return msgspec.msgpack.encode(delta), devices, rows


def replay(data: bytes, directory: Directory, ledger: Ledger, dirty: "Dirty") -> None:
    """Apply a delta that was committed before a stop. What it changes is dirty: the next fold forgets the delta."""
    delta = msgspec.msgpack.decode(data, type=Delta)
    dirty.mark_delta(delta)
    devices = np.frombuffer(delta.ledger_devices, np.int32)
    ledger.add(devices, np.frombuffer(delta.ledger_amounts, np.int64).reshape(-1, WIDTH))
    for device_no, code in delta.refusals:
        ledger.refuse(device_no, code)
    for number, first, count in np.frombuffer(delta.tracks, np.int64).reshape(-1, TAKEN_WIDTH).tolist():
        known = directory.tracks[number]
        if known is not None:
            known[1].take(first, count)
    for device_no, hashed, second in np.frombuffer(delta.ids, np.uint64).reshape(-1, ID_WIDTH).tolist():
        entry = directory.by_no[device_no]
        entry.ids = entry.ids or MessageIds()
        entry.ids.put(hashed, second)
    for device_no, value in np.frombuffer(delta.prints, np.uint64).reshape(-1, PRINT_WIDTH).tolist():
        entry = directory.by_no[device_no]
        entry.prints = entry.prints or Prints()
        entry.prints.put(value)


class Dirty:
    """Which tracks, id rings and print rings changed since the last fold."""

    def __init__(self) -> None:
        self._tracks: set[int] = set()
        self._ids: set[int] = set()
        self._prints: set[int] = set()

    def mark(self, batch: Batch) -> None:
        """Note what a batch changes."""
        self._tracks.update(batch.taken[::TAKEN_WIDTH])
        self._ids.update(batch.ids[::ID_WIDTH])
        self._prints.update(batch.prints[::PRINT_WIDTH])

    def mark_delta(self, delta: Delta) -> None:
        """Note what a delta changes."""
        self._tracks.update(np.frombuffer(delta.tracks, np.int64)[::TAKEN_WIDTH].tolist())
        self._ids.update(np.frombuffer(delta.ids, np.uint64)[::ID_WIDTH].tolist())
        self._prints.update(np.frombuffer(delta.prints, np.uint64)[::PRINT_WIDTH].tolist())

    def dump(self, directory: Directory) -> list[StateRow]:
        """Return the state rows of all that is marked, and forget the marks."""
        rows = []
        for number in self._tracks:
            known = directory.tracks[number]
            if known is not None:
                rows.append(StateRow(TRACK, number, msgspec.msgpack.encode((known[1].low, known[1].islands))))
        for number in self._ids:
            ids = directory.by_no[number].ids
            if ids is not None:
                rows.append(StateRow(IDS, number, msgspec.msgpack.encode(ids.dump())))
        for number in self._prints:
            prints = directory.by_no[number].prints
            if prints is not None:
                rows.append(StateRow(PRINTS, number, prints.dump()))
        self._tracks.clear()
        self._ids.clear()
        self._prints.clear()
        return rows


def restore(row: StateRow, directory: Directory) -> None:
    """Take up one folded row (others are passed over)."""
    if row.kind == TRACK:
        known = directory.tracks[row.key]
        if known is not None:
            known[1].restore(*msgspec.msgpack.decode(row.data, type=tuple[int, list[list[int]]]))
    elif row.kind == IDS:
        hashes, seconds = msgspec.msgpack.decode(row.data, type=tuple[bytes, bytes])
        ids = directory.by_no[row.key].ids = MessageIds()
        for hashed, second in zip(
            np.frombuffer(hashes, np.uint64).tolist(), np.frombuffer(seconds, np.uint32).tolist(), strict=True
        ):
            ids.put(hashed, second)
    elif row.kind == PRINTS:
        prints = directory.by_no[row.key].prints = Prints()
        for value in np.frombuffer(row.data, np.uint64).tolist():
            if value:
                prints.put(value)
