"""What a group changes of dedup, ledger and clocks, as bytes: written with the commit, replayed at start."""

import msgspec
import numpy as np

from godwit.server.ingest.batch import ID_WIDTH, MESSAGE_WIDTH, PRINT_WIDTH, TAKEN_WIDTH, Batch
from godwit.server.ingest.clock_drift import DeviceClocks, Lesson
from godwit.server.ingest.directory import Directory
from godwit.server.ingest.tracks import NO_TIME, MessageIds, Prints
from godwit.server.telemetry.ledger import WIDTH, Account, Ledger
from godwit.server.telemetry.model import StateRow

TRACK = "track"
IDS = "ids"
PRINTS = "prints"
CLOCK = "clock"


class Delta(msgspec.Struct, array_like=True):
    """Columns as bytes: little-endian arrays."""

    ledger_devices: bytes = b""
    """int32"""
    ledger_amounts: bytes = b""
    """int64, n x WIDTH"""
    refusals: list[tuple[int, str]] = []
    tracks: bytes = b""
    """int64, n x 3: track, first, count; as it was before `taken`"""
    ids: bytes = b""
    """uint64, n x 3: device, hash, second"""
    prints: bytes = b""
    """uint64, n x 2: device, fingerprint"""
    taken: bytes = b""
    """int64, n x 4: track, first, count, latest time so far"""
    lost: list[tuple[int, int, int, str]] = []
    """track, first, stop, reason"""
    clocks: list[tuple[int, Lesson]] = []


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
    delta.taken, delta.lost = np.array(batch.taken, np.int64).tobytes(), batch.lost
    delta.ids = np.array(batch.ids, np.uint64).tobytes()
    delta.prints = np.array(batch.prints, np.uint64).tobytes()
    delta.clocks = batch.clocks
    return msgspec.msgpack.encode(delta), devices, rows


def replay(data: bytes, directory: Directory, ledger: Ledger, dirty: "Dirty") -> None:
    """Apply a delta that was committed before a stop; what it changes is not folded yet."""
    delta = msgspec.msgpack.decode(data, type=Delta)
    devices = np.frombuffer(delta.ledger_devices, np.int32)
    ledger.add(devices, np.frombuffer(delta.ledger_amounts, np.int64).reshape(-1, WIDTH))
    for device_no, code in delta.refusals:
        ledger.refuse(device_no, code)
    _replay_tracks(delta, directory, dirty)
    for device_no, hashed, second in np.frombuffer(delta.ids, np.uint64).reshape(-1, ID_WIDTH).tolist():
        entry = directory.by_no[device_no]
        entry.ids = entry.ids or MessageIds()
        entry.ids.put(hashed, second)
        dirty.ids.add(device_no)
    for device_no, value in np.frombuffer(delta.prints, np.uint64).reshape(-1, PRINT_WIDTH).tolist():
        entry = directory.by_no[device_no]
        entry.prints = entry.prints or Prints()
        entry.prints.put(value)
        dirty.prints.add(device_no)
    for device_no, (clock, told) in delta.clocks:
        dirty.clocks.add(device_no)
        entry = directory.by_no[device_no]
        entry.clocks = entry.clocks or DeviceClocks()
        entry.clocks.learn(clock, told)


def _replay_tracks(delta: Delta, directory: Directory, dirty: "Dirty") -> None:
    for number, first, stop, reason in delta.lost:
        if track := directory.track_of(number):
            dirty.tracks.add(number)
            if reason:
                track.lose(first, stop, reason)
            else:
                track.begin(first)
    older = np.frombuffer(delta.tracks, np.int64).reshape(-1, 3).tolist()
    for number, first, count, newest in [
        *([*each, NO_TIME] for each in older),
        *np.frombuffer(delta.taken, np.int64).reshape(-1, TAKEN_WIDTH).tolist(),
    ]:
        if track := directory.track_of(number):
            dirty.tracks.add(number)
            track.take(first, count)
            track.newest = max(track.newest, newest)


class Dirty:
    """Which tracks, id rings, print rings and clocks changed since the last fold."""

    def __init__(self) -> None:
        self.tracks: set[int] = set()
        self.ids: set[int] = set()
        self.prints: set[int] = set()
        self.clocks: set[int] = set()

    def mark(self, batch: Batch) -> None:
        """Note what a batch changes."""
        self.tracks.update(batch.taken[::TAKEN_WIDTH])
        self.tracks.update(number for number, *_ in batch.lost)
        self.ids.update(batch.ids[::ID_WIDTH])
        self.prints.update(batch.prints[::PRINT_WIDTH])
        self.clocks.update(device_no for device_no, _lesson in batch.clocks)

    def dump(self, directory: Directory) -> list[StateRow]:
        """Return the state rows of all that is marked, and forget the marks."""
        rows = []
        tracks = ((number, directory.track_of(number)) for number in self.tracks)
        rows += [StateRow(TRACK, number, track.dump()) for number, track in tracks if track is not None]
        for number in self.ids:
            ids = directory.by_no[number].ids
            if ids is not None:
                rows.append(StateRow(IDS, number, msgspec.msgpack.encode(ids.dump())))
        for number in self.prints:
            prints = directory.by_no[number].prints
            if prints is not None:
                rows.append(StateRow(PRINTS, number, prints.dump()))
        for number in self.clocks:
            clocks = directory.by_no[number].clocks
            if clocks is not None:
                rows.append(StateRow(CLOCK, number, clocks.dump()))
        self.tracks.clear()
        self.ids.clear()
        self.prints.clear()
        self.clocks.clear()
        return rows


def restore(row: StateRow, directory: Directory) -> None:
    """Take up one folded row (others are passed over)."""
    if row.kind == TRACK:
        if track := directory.track_of(row.key):
            track.restore(row.data)
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
    elif row.kind == CLOCK:
        directory.by_no[row.key].clocks = DeviceClocks.restore(row.data)
