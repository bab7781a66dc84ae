"""What can still be read from a spool that is damaged, or cannot be written, goes into another one.

Items keep their epoch and number, so that the server recognises what it has already. Numbers that should be there and
are not become a gap ("damaged").
"""

import contextlib
import os
import shutil
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from godwit.spool import schema
from godwit.spool.files import log_of
from godwit.spool.model import DAMAGED, ITEM_BYTES, Track
from godwit.spool.schema import SEQ_BITS, SEQ_MASK, item_checksum, track_checksum
from godwit.spool.store import PAGE_BYTES, Lane, Store, decode_text, is_whole

_BATCH: Final = 500
_TRACKS: Final = "SELECT number, stream, epoch, next_seq, low, items, bytes, crc, priority FROM track ORDER BY number"
_TRACKS_1: Final = "SELECT number, stream, epoch, next_seq, next_seq, 0, 0, NULL, priority FROM track ORDER BY number"
_NAMES: Final = "SELECT number, stream, epoch FROM track INDEXED BY sqlite_autoindex_track_1 ORDER BY stream"
_PAST: Final = "SELECT place, time, crc, payload FROM item WHERE place > ? AND place <= ? ORDER BY place"

Row = tuple[int, int, bytes]


class Salvaged(NamedTuple):
    """How it went."""

    items: int = 0
    lost: int = 0
    """Numbers that are known to be missing."""
    is_readable: bool = False
    """Whether the tracks could be read at all; otherwise nobody knows what is missing."""


def salvage(source: Path, into: Store, *, bytes_max: int = 2**63, is_writable: bool = True) -> Salvaged:
    """Copy what can be read of `source` into `into`, up to `bytes_max`. Raises `sqlite3.Error` of `into` only."""
    for way in ("mode=rw",) if is_writable else ("mode=ro", "mode=ro&immutable=1"):
        with contextlib.closing(_Source(source, way)) as found:
            if found.tracks:
                return _copy(found, into, bytes_max)
    if not is_writable or source.stat().st_size < 2 * PAGE_BYTES:
        return Salvaged()
    with _with_first_page(source) as mended, contextlib.closing(_Source(mended, "mode=rw")) as found:
        return _copy(found, into, bytes_max) if found.tracks else Salvaged()


@contextlib.contextmanager
def _with_first_page(path: Path) -> Iterator[Path]:
    """Make a copy with the first page of an empty spool, without which nothing can be found: all have tables alike."""
    copy = path.with_name(f"{path.name}.copy")
    try:
        with contextlib.suppress(OSError):  # no room
            shutil.copyfile(path, copy)
            if log_of(path).exists():
                shutil.copyfile(log_of(path), log_of(copy))
            _replace_first_page(copy)
        yield copy
    finally:
        for suffix in ("", "-wal", "-shm"):
            copy.with_name(copy.name + suffix).unlink(missing_ok=True)


def _replace_first_page(path: Path) -> None:
    with contextlib.closing(Store(None)) as empty, path.open("r+b") as file:
        page = bytearray(empty.db.serialize()[:PAGE_BYTES])
        pages = file.seek(0, os.SEEK_END) // PAGE_BYTES
        # See "The Database Header" of SQLite's file format: WAL, the size in pages, no list of free pages.
        page[18:20] = b"\2\2"
        page[28:40] = struct.pack(">III", pages, 0, 0)
        page[92:96] = page[24:28]
        file.seek(0)
        file.write(page)


def _copy(source: "_Source", into: Store, bytes_max: int) -> Salvaged:
    items = lost = 0
    for number, track, priority, lowest, high in source.tracks:
        lane, low = into.lanes.get(track), lowest
        if lane is None:
            with into.transaction():
                lane = into.add_lane(track, priority)
        else:  # there was no room for all of it the last time
            low = lane.next
        for batch in _batches(source.items(number, lane.next)):
            size = sum(len(payload) + ITEM_BYTES for _, _, payload in batch)
            if into.bytes + size > bytes_max:
                return Salvaged(items, lost, is_readable=True)
            with into.transaction():
                into.insert_all(lane, batch)
            items += len(batch)
        with into.transaction():
            lost += _count_gaps(into, lane, low, high)
            for first, last, reason in source.gaps(number):
                into.add_gap(lane, first, last, reason)
    return Salvaged(items, lost, is_readable=True)


def _count_gaps(into: Store, lane: Lane, low: int | None, high: int) -> int:
    lane.next = max(lane.next, high)
    lost, at = 0, low
    for first, last in [*into.runs(lane, low or 0, SEQ_MASK), (lane.next, lane.next)]:
        if at is not None and first > at:
            into.add_gap(lane, at, first - 1, DAMAGED)
            lost += first - at
        at = last + 1
    into.note_totals()
    return lost


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


class _Source:
    """A file of which any page may be rubbish."""

    def __init__(self, path: Path, way: str) -> None:
        self._db: sqlite3.Connection | None = None
        self.tracks: list[tuple[int, Track, int, int | None, int]] = []
        """Number, stream and epoch, priority, first and next sequence number (None, 0: not known)."""
        self._has_sums = False
        with contextlib.suppress(sqlite3.Error, ValueError, TypeError):
            self._db = sqlite3.connect(f"{path.absolute().as_uri()}?{way}", uri=True, isolation_level=None)
            self._db.text_factory = decode_text
            self._db.execute("PRAGMA writable_schema = ON")  # or a truncated file could not be read at all
            self._has_sums = schema.version_of(self._db) > 1
            with contextlib.suppress(sqlite3.Error):
                self._read_tracks(self._db)
            self._read_names(self._db)
        self.tracks.sort()

    def _read_tracks(self, db: sqlite3.Connection) -> None:
        for *fields, crc, priority in db.execute(_TRACKS if self._has_sums else _TRACKS_1):
            if crc == track_checksum(*fields) or not self._has_sums:
                number, stream, epoch, next_seq, low, _, _ = fields
                rank = priority if isinstance(priority, int) else 0
                self.tracks.append((number, Track(stream, epoch), rank, low, next_seq))

    def _read_names(self, db: sqlite3.Connection) -> None:
        """Read what the table does not show from its index, which stands on another page."""
        known = {track[0] for track in self.tracks}
        for number, stream, epoch in db.execute(_NAMES):
            if number not in known and "\ufffd" not in stream + epoch:
                self.tracks.append((number, Track(stream, epoch), 0, None, 0))

    def close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()

    def items(self, number: int, first: int) -> Iterator[Row]:
        """Iterate over the items of a track, from a number on, that can be read."""
        base = number << SEQ_BITS
        after, end = base + first - 1, base | SEQ_MASK
        while True:
            try:
                for place, time, payload in self._rows(after, end):
                    yield place & SEQ_MASK, time, payload
                    after = place
            except sqlite3.Error:
                skipped = self._skip(after, end)
                if skipped is None:
                    return
                after = skipped
            else:
                return

    def _rows(self, after: int, end: int) -> Iterator[tuple[int, int, bytes]]:
        assert self._db is not None
        query = _PAST if self._has_sums else _PAST.replace("crc", "NULL")
        with contextlib.closing(self._db.execute(query, (after, end))) as cursor:
            for place, time, crc, payload in cursor:
                known = crc if self._has_sums else item_checksum(place, time, payload)
                if place > after and is_whole(place, time, known, payload):
                    yield place, time, payload
                    after = place  # a broken tree may show a row twice

    def _skip(self, after: int, end: int) -> int | None:
        """Return the place behind a spot that cannot be read: leap until something can be, then go back by halves."""
        step = 1
        while not self._can_read(after + step, end):
            step *= 2
            if after + step > end:
                return None
        bad, good = after + step // 2, after + step
        while good - bad > 1:
            middle = (bad + good) // 2
            if self._can_read(middle, end):
                good = middle
            else:
                bad = middle
        return good

    def _can_read(self, after: int, end: int) -> bool:
        try:
            next(self._rows(after, end), None)
        except sqlite3.Error:
            return False
        return True

    def gaps(self, number: int) -> list[tuple[int, int, str]]:
        """Return the gap records of a track, if they can be read."""
        with contextlib.suppress(sqlite3.Error):
            assert self._db is not None
            rows = self._db.execute("SELECT first, last, reason FROM gap WHERE track = ?", (number,)).fetchall()
            return [row for row in rows if [type(each) for each in row] == [int, int, str] and row[0] <= row[1]]
        return []
