"""The spool's file as SQL: tracks, items, gaps. No lock, no policy, no repair; raises `sqlite3.Error` as it comes.

What a track holds is counted in memory (`Lane`), so that an append writes one row and nothing else. The counts are
written down whenever something is deleted, and now and then; at opening only what came later is counted again.
"""

import contextlib
import sqlite3
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from godwit.spool import schema
from godwit.spool.model import ITEM_BYTES, Depth, Gap, Item, Track
from godwit.spool.schema import SEQ_BITS, SEQ_MASK, item_checksum, track_checksum

GAPS_MAX: Final = 4_096
"""Gap records in a file; beyond, neighbours are joined over what lies between them."""

PAGE_BYTES: Final = 4_096
_PAGES_MAX: Final = 0x3FFF_FFFF

_INSERT: Final = "INSERT INTO item (place, time, crc, payload) VALUES (?, ?, ?, ?)"
_ITEMS: Final = "SELECT place, time, crc, payload FROM item WHERE place BETWEEN ? AND ? ORDER BY place LIMIT ?"
# In a damaged file a stamp may be text; what decides is the checksum, when the item is read.
_HEADS: Final = (
    "SELECT place, CAST(time AS INTEGER), coalesce(length(payload), 0) FROM item"
    " WHERE place BETWEEN ? AND ? ORDER BY place"
)
_PLACES: Final = "SELECT place FROM item WHERE place BETWEEN ? AND ? ORDER BY place LIMIT ?"
_SUM: Final = "SELECT count(*), coalesce(sum(length(payload)), 0) FROM item WHERE place BETWEEN ? AND ?"
_LAST: Final = "SELECT place, CAST(time AS INTEGER) FROM item WHERE place BETWEEN ? AND ? ORDER BY place DESC LIMIT 1"
_TOTALS: Final = "UPDATE track SET next_seq = ?, low = ?, items = ?, bytes = ?, crc = ? WHERE number = ?"


class Head(NamedTuple):
    """The first of some items."""

    seq: int
    time: int
    bytes: int


class Lane:
    """A track as the process knows it: its number in the file, and what it holds."""

    __slots__ = ("base", "bytes", "items", "next", "number", "oldest", "priority", "read", "track")

    def __init__(self, number: int, track: Track, priority: int) -> None:
        self.number, self.track, self.priority = number, track, priority
        self.base = number << SEQ_BITS
        self.next = 0
        """The number that the next item gets."""
        self.items = self.bytes = 0
        self.oldest: int | None = None
        """Stamp of the first item."""
        self.read = -1
        """The last number that was handed out to be sent."""

    def state(self) -> tuple[int, int, int, int | None]:
        """Return what a transaction may change."""
        return self.next, self.items, self.bytes, self.oldest

    def restore(self, state: tuple[int, int, int, int | None]) -> None:
        """Undo a transaction."""
        self.next, self.items, self.bytes, self.oldest = state


def decode_text(data: bytes) -> str:
    """Return text of a file that may be damaged."""
    return data.decode(errors="replace")


def depth_of_lanes(lanes: Iterable[Lane]) -> Depth:
    """Return how much some tracks hold."""
    items = size = 0
    oldest: int | None = None
    for lane in lanes:
        items += lane.items
        size += lane.bytes
        if lane.oldest is not None and (oldest is None or lane.oldest < oldest):
            oldest = lane.oldest
    return Depth(items, size, oldest)


def runs_of(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return rising numbers as runs (first, last)."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def is_whole(place: int, time: object, crc: object, payload: object) -> bool:
    """Whether an item is what was appended."""
    return isinstance(time, int) and isinstance(payload, bytes) and crc == item_checksum(place, time, payload)


class AlteredError(sqlite3.DatabaseError):
    """The disk has altered what was written."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class Store:
    """One open file, or memory when `path` is None."""

    def __init__(self, path: Path | None, *, synchronous: str = "NORMAL", log_pages_max: int = 1_000) -> None:
        # Used by one thread at a time: the spool's lock sees to that.
        self.db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False, timeout=5)
        self.db.text_factory = decode_text
        try:
            # What it had deleted, SQLite as some distributions build it overwrites with zeros: twice the writing.
            for pragma in (
                f"page_size = {PAGE_BYTES}",
                "cache_size = -1024",
                "auto_vacuum = INCREMENTAL",
                "secure_delete = OFF",
                f"synchronous = {synchronous}",
            ):
                self.db.execute(f"PRAGMA {pragma}")
            if path is not None:
                self.db.execute("PRAGMA journal_mode = WAL")
                # A safety net: the pacer moves the log into the file long before.
                self.db.execute(f"PRAGMA wal_autocheckpoint = {2 * log_pages_max}")
                self.db.execute(f"PRAGMA journal_size_limit = {log_pages_max * PAGE_BYTES}")
            self.version_found = schema.lift(self.db)
            self._cursor = self.db.cursor()
            self.lanes: dict[Track, Lane] = {}
            self.bytes = 0
            self._load()
        except BaseException:
            self.db.close()
            raise

    def _load(self) -> None:
        rows = self._all("SELECT number, stream, epoch, next_seq, low, items, bytes, crc, priority FROM track")
        for *fields, crc, priority in rows:
            if crc != track_checksum(*fields):
                raise AlteredError("what is known of a stream is not what was written")
            number, stream, epoch, next_seq, _, items, size = fields
            lane = Lane(number, Track(stream, epoch), priority)
            count, more = self._one(_SUM, (lane.base + next_seq, lane.base | SEQ_MASK))
            lane.items, lane.bytes = items + count, size + more + count * ITEM_BYTES
            last = self._last(lane)
            if last is not None and not self._is_whole(lane, last.seq):
                raise AlteredError("the last item of a stream is not what was written")
            lane.next = max(next_seq, last.seq + 1 if last else 0)
            self._look_at_head(lane)
            self.lanes[lane.track] = lane
        self.bytes = sum(lane.bytes for lane in self.lanes.values())

    def _last(self, lane: Lane) -> Head | None:
        row = self._one(_LAST, (lane.base, lane.base | SEQ_MASK))
        return Head(row[0] & SEQ_MASK, row[1], 0) if row else None

    def _is_whole(self, lane: Lane, seq: int) -> bool:
        place = lane.base | seq
        return is_whole(*self._one(_ITEMS, (place, place, 1)))

    def newest(self) -> int | None:
        """Return the stamp of the newest among the last items of all tracks."""
        return max((last.time for lane in self.lanes.values() if (last := self._last(lane))), default=None)

    # A cursor that is not closed, be it in the traceback of an error, keeps the database open; and whoever closes it
    # last deletes the log by its name, which may be that of a new spool's by then.

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> contextlib.closing[sqlite3.Cursor]:
        return contextlib.closing(self.db.execute(query, values))

    def _all(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._rows(query, values) as rows:
            return rows.fetchall()

    def _one(self, query: str, values: tuple[Any, ...] = ()) -> Any:
        with self._rows(query, values) as rows:
            return rows.fetchone()

    def close(self) -> None:
        """Close the file; SQLite moves its log into it."""
        self._cursor.close()
        self.db.close()

    @property
    def changes(self) -> int:
        """How many rows were changed so far."""
        return self.db.total_changes

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all or nothing of a block durable; after a failure the lanes are what they were."""
        before = {track: (lane, lane.state()) for track, lane in self.lanes.items()}
        size = self.bytes
        try:
            self.db.execute("BEGIN IMMEDIATE")
            yield
            self.db.execute("COMMIT")
        except BaseException:
            for lane, state in before.values():
                lane.restore(state)
            self.lanes = {track: lane for track, (lane, _) in before.items()}
            self.bytes = size
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise

    # ------------------------------------------------------------------ what is known of the whole

    def get(self, name: str) -> str:
        """Return a remembered value, or the empty string."""
        row = self._one("SELECT value FROM meta WHERE name = ?", (name,))
        return row[0] if row else ""

    def put(self, name: str, value: str) -> None:
        """Remember a value."""
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def add_lane(self, track: Track, priority: int) -> Lane:
        """Add a track; its number is higher than that of every other, so that numbers tell the order of epochs."""
        number = self._one("SELECT coalesce(max(number), 0) + 1 FROM track")[0]
        self.db.execute(
            "INSERT INTO track (number, stream, epoch, priority, next_seq) VALUES (?, ?, ?, ?, 0)",
            (number, *track, priority),
        )
        lane = self.lanes[track] = Lane(number, track, priority)
        self._note(lane)
        return lane

    def set_priority(self, stream: str, priority: int) -> None:
        """Set the priority of a stream, in all its epochs."""
        self.db.execute("UPDATE track SET priority = ? WHERE stream = ?", (priority, stream))
        for lane in self.lanes.values():
            if lane.track.stream == stream:
                lane.priority = priority

    def forget_finished(self, epoch: str) -> None:
        """Strike out tracks of other epochs that hold nothing and have nothing to tell."""
        with_gaps = {number for (number,) in self._all("SELECT DISTINCT track FROM gap")}
        for lane in list(self.lanes.values()):
            if lane.track.epoch != epoch and not lane.items and lane.number not in with_gaps:
                self.db.execute("DELETE FROM track WHERE number = ?", (lane.number,))
                del self.lanes[lane.track]

    def note_totals(self) -> None:
        """Write down what the lanes hold."""
        for lane in self.lanes.values():
            self._note(lane)

    def _note(self, lane: Lane) -> None:
        head = self._one(_PLACES, (lane.base, lane.base | SEQ_MASK, 1))
        low = head[0] & SEQ_MASK if head else lane.next
        totals = (lane.next, low, lane.items, lane.bytes)
        self.db.execute(_TOTALS, (*totals, track_checksum(lane.number, *lane.track, *totals), lane.number))

    # ------------------------------------------------------------------ items

    def insert(self, lane: Lane, time: int, payload: bytes) -> int:
        """Append one item, in a transaction of its own unless there is one."""
        seq = lane.next
        place = lane.base | seq
        self._cursor.execute(_INSERT, (place, time, item_checksum(place, time, payload), payload))
        self._inserted(lane, seq, time, 1, len(payload))
        return seq

    def insert_all(self, lane: Lane, numbered: Iterable[tuple[int, int, bytes]]) -> None:
        """Append items (seq, time, payload) in order; numbers may be left out."""
        rows = []
        size, first, last = 0, 0, -1
        for seq, time, payload in numbered:
            place = lane.base | seq
            rows.append((place, time, item_checksum(place, time, payload), payload))
            size += len(payload)
            first, last = first if len(rows) > 1 else time, seq
        if rows:
            self._cursor.executemany(_INSERT, rows)
            self._inserted(lane, last, first, len(rows), size)

    def _inserted(self, lane: Lane, last: int, oldest: int, count: int, size: int) -> None:
        if not lane.items:
            lane.oldest = oldest
        lane.next = last + 1
        lane.items += count
        lane.bytes += size + count * ITEM_BYTES
        self.bytes += size + count * ITEM_BYTES

    def read(self, lane: Lane, after: int, items_max: int, bytes_max: int) -> list[Item]:
        """Return the items after a number, at least one if there is one. Raises AlteredError."""
        found: list[Item] = []
        size, epoch = 0, lane.track.epoch
        with self._rows(_ITEMS, (lane.base + after + 1, lane.base | SEQ_MASK, items_max)) as rows:
            for place, time, crc, payload in rows:
                if not is_whole(place, time, crc, payload):
                    raise AlteredError("an item is not what was written")
                size += len(payload)
                if found and size > bytes_max:
                    break
                found.append(Item(place & SEQ_MASK, time, payload, epoch))
        return found

    def heads(self, lane: Lane, after: int = -1) -> Generator[Head, None, None]:
        """Iterate over the items after a number, without their payloads."""
        with self._rows(_HEADS, (lane.base + after + 1, lane.base | SEQ_MASK)) as rows:
            for place, time, size in rows:
                yield Head(place & SEQ_MASK, time, size + ITEM_BYTES)

    def runs(self, lane: Lane, first: int, last: int, count: int = -1) -> list[tuple[int, int]]:
        """Return which numbers of a range are here, as runs (first, last); of the first `count` items only."""
        low, high = lane.base + max(first, 0), lane.base + min(last, SEQ_MASK)
        with self._rows(_PLACES, (low, high, count)) as rows:
            return runs_of(place & SEQ_MASK for (place,) in rows)

    def delete(self, lane: Lane, runs: Iterable[tuple[int, int]]) -> int:
        """Delete the items in runs (first, last), inside a transaction; returns how many there were."""
        deleted = 0
        for first, last in runs:
            ends = (lane.base + max(first, 0), lane.base + min(last, SEQ_MASK))
            count, size = self._one(_SUM, ends)
            if count:
                self.db.execute("DELETE FROM item WHERE place BETWEEN ? AND ?", ends)
                lane.items -= count
                lane.bytes -= size + count * ITEM_BYTES
                self.bytes -= size + count * ITEM_BYTES
                deleted += count
        if deleted:
            self._look_at_head(lane)
            self._note(lane)
        return deleted

    def _look_at_head(self, lane: Lane) -> None:
        head = next(self.heads(lane), None)
        lane.oldest = head.time if head else None
        if head is None:
            self.bytes -= lane.bytes
            lane.items = lane.bytes = 0

    # ------------------------------------------------------------------ gaps

    def add_gap(self, lane: Lane, first: int, last: int, reason: str) -> None:
        """Record a gap, inside a transaction, joined with what it touches."""
        touching = (lane.number, reason, last + 1, first - 1)
        where = "FROM gap WHERE track = ? AND reason = ? AND first <= ? AND last >= ?"
        low, high = self._one(f"SELECT min(first), max(last) {where}", touching)
        if low is not None:
            self.db.execute(f"DELETE {where}", touching)
            first, last = min(first, low), max(last, high)
        self.db.execute("INSERT INTO gap VALUES (?, ?, ?, ?)", (lane.number, first, last, reason))
        if self._one("SELECT count(*) FROM gap")[0] > GAPS_MAX:
            self._join_gaps()

    def _join_gaps(self) -> None:
        track = self._one("SELECT track FROM gap GROUP BY track ORDER BY count(*) DESC LIMIT 1")[0]
        rows = self._all("SELECT first, last, reason FROM gap WHERE track = ? ORDER BY first LIMIT 2", (track,))
        if len(rows) == 2:
            for first, _, reason in rows:
                self.db.execute("DELETE FROM gap WHERE track = ? AND first = ? AND reason = ?", (track, first, reason))
            last = max(row[1] for row in rows)
            self.db.execute("INSERT INTO gap VALUES (?, ?, ?, ?)", (track, rows[0][0], last, rows[1][2]))

    def gaps(self) -> list[Gap]:
        """Return the gap records, by track and number."""
        return [
            Gap(*row)
            for row in self._all(
                "SELECT stream, epoch, first, last, reason FROM gap JOIN track ON track.number = gap.track"
                " ORDER BY gap.track, first"
            )
        ]

    def drop_gap(self, lane: Lane, gap: Gap) -> None:
        """Strike out the numbers of a gap, inside a transaction; what was joined to it since stays."""
        touching = (lane.number, gap.reason, gap.last, gap.first)
        where = "FROM gap WHERE track = ? AND reason = ? AND first <= ? AND last >= ?"
        rows = self._all(f"SELECT first, last {where}", touching)
        self.db.execute(f"DELETE {where}", touching)
        for first, last in rows:
            for low, high in ((first, gap.first - 1), (gap.last + 1, last)):
                if low <= high:
                    self.db.execute("INSERT INTO gap VALUES (?, ?, ?, ?)", (lane.number, low, high, gap.reason))

    # ------------------------------------------------------------------ room

    def empty_log(self) -> None:
        """Move the log into the database, and make it small."""
        self._all("PRAGMA wal_checkpoint(TRUNCATE)")

    def let_grow(self, is_allowed: bool) -> None:  # noqa: FBT001 - what `Reserve.take` found
        """Let the file grow, or keep it to the pages that it has; beyond, SQLite says that the disk is full."""
        pages = _PAGES_MAX if is_allowed else self._one("PRAGMA page_count")[0]
        self._one(f"PRAGMA max_page_count = {pages}")

    def give_back(self, pages: int) -> bool:
        """Return free pages to the file system when more than half of the file is free; whether there are more."""
        free: int = self._one("PRAGMA freelist_count")[0]
        if free <= pages or 2 * free <= self._one("PRAGMA page_count")[0]:
            return False
        # Not `execute`: as long as it has no columns to return, that takes one step, and frees one page.
        self.db.executescript(f"PRAGMA incremental_vacuum({pages})")
        return True
