"""The spool: ordered by stream and epoch, bounded in bytes and age, durable as `Durability` says (ADR 6).

    append -> next_streams -> read -> (send, be answered) -> settle

Wherever a method takes a stream, its name means the current epoch; a `Track`, as `next_streams` returns it, names an
epoch. Answers of the server belong to tracks. After damage or a power cut the spool goes on under a new epoch, and what
is left of an earlier one is served first, under the numbers it had.
"""

import contextlib
import logging
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from godwit.contract.errors import RejectedError, UnavailableError
from godwit.runtime.clock import Clock, SystemClock
from godwit.spool import opening
from godwit.spool.eviction import evict_old, evict_over, give_up
from godwit.spool.faults import Fault, fault_of, unavailable
from godwit.spool.files import Reserve, boot_id, set_aside_damaged
from godwit.spool.model import ITEM_BYTES, REFUSED, Depth, Durability, Gap, Item, Track
from godwit.spool.opening import MEMORY_BYTES_MAX, Opened, Way
from godwit.spool.pacer import Pacer
from godwit.spool.policy import NS, BelievedTime, Bounds, Waiting, order
from godwit.spool.store import PAGE_BYTES, Lane, Store, depth_of_lanes, runs_of

log = logging.getLogger(__name__)

Which: TypeAlias = str | Track
T = TypeVar("T")

AGE_CHECK_S: Final = 1.0
STEP_ITEMS: Final = 50
VACUUM_PAGES: Final = 256
VACUUM_PAGES_FULL: Final = 8


class Spool:
    """One spool, open. Every method may be called from any thread."""

    def __init__(self, opened: Opened, way: Way, bounds: Bounds, sync_every_ms: int, clock: Clock) -> None:
        """Use `Spool.open`."""
        self.epoch = opened.epoch
        self._opening_trouble = opened.trouble
        self._store: Store = opened.store
        self._path, self._file_lock, self._reserve = opened.path, opened.lock, opened.reserve
        self._way, self._bounds, self._sync_every_ms, self._clock = way, bounds, sync_every_ms, clock
        self._lock = threading.Lock()
        self._current: dict[str, Lane] = {}
        self._pacer = self._make_pacer()
        self._is_closed = False
        self._time: BelievedTime | None = None
        self._age_checked_s = float("-inf")
        if bounds.age_s_max is not None:
            newest = self._store.newest()
            wall = clock.now_ns() if newest is None else min(clock.now_ns(), newest)
            self._time = BelievedTime(wall, clock.monotonic_s(), bounds.age_s_max)

    @classmethod
    def open(
        cls, path: Path | None, *, durability: Durability = Durability.NORMAL, bounds: Bounds | None = None,
        sync_every_ms: int = 1_000, random: Callable[[], str] = lambda: secrets.token_hex(8),
        clock: Clock | None = None, boot: str | None = None,
    ) -> "Spool":  # fmt: skip
        """Open the spool at `path`, or make it; without a path, or with `memory`, it is in memory.

        Whatever is wrong with the file, there is a spool afterwards, and `trouble` says what was found. Raises
        RejectedError only: another process has it (`spool-in-use`), or the path is no place for one (`spool-path`).
        `random` makes the names of epochs, `boot` names this run of the operating system.
        """
        bounds = bounds or Bounds()
        durability = Durability(durability)
        way = Way(durability, bounds.bytes_max, random, boot_id() if boot is None else boot)
        if path is None or durability is Durability.MEMORY:
            opened = opening.open_memory(random)
        else:
            opened = opening.open_file(path, way)
            if opened.path is None:
                bounds = bounds._replace(bytes_max=min(bounds.bytes_max, MEMORY_BYTES_MAX))
        if opened.trouble:
            log.warning("%s", opened.trouble)
        spool = cls(opened, way, bounds, sync_every_ms, clock or SystemClock())
        with contextlib.suppress(UnavailableError):
            spool._change(spool._evict)  # the bounds may be narrower than they were
        return spool

    def _make_pacer(self) -> Pacer | None:
        if self._path is None:
            return None
        return Pacer(
            self._path,
            syncs=self._way.durability is Durability.NORMAL,
            every_s=self._sync_every_ms / 1_000,
            pages_max=opening.log_pages_max(self._bounds.bytes_max),
            note=self._note_totals,
            tidy=self._tidy,
            lock=self._lock,
        )

    def _note_totals(self) -> None:
        with self._store.transaction():
            self._store.note_totals()

    def _tidy(self) -> bool:
        try:
            return self._store.give_back(VACUUM_PAGES)
        except sqlite3.Error as error:  # to move pages takes some room itself: less at a time
            if self._reserve is None or fault_of(error, self._path) is not Fault.FULL:
                raise
            self._use_reserve(self._reserve)
            is_more = False
            with contextlib.suppress(sqlite3.OperationalError):  # not even that
                is_more = self._store.give_back(VACUUM_PAGES_FULL)
            self._take_reserve(self._reserve)
            return is_more

    @property
    def trouble(self) -> str:
        """What was found at opening, and what is wrong now; empty when all is well."""
        now = self._pacer.trouble if self._pacer is not None else ""
        return "; ".join(filter(None, (self._opening_trouble, now)))

    @property
    def durability(self) -> Durability:
        """What is kept in fact: `memory` where the file cannot be written."""
        return self._way.durability if self._path is not None else Durability.MEMORY

    # ------------------------------------------------------------------ in

    def declare(self, stream: str, priority: int) -> None:
        """Make a stream known, or give it another priority; 0 is served first and evicted last."""

        def work() -> Lane:
            track = Track(stream, self.epoch)
            lane = self._store.lanes.get(track) or self._store.add_lane(track, priority)
            if any(each.track.stream == stream and each.priority != priority for each in self._store.lanes.values()):
                self._store.set_priority(stream, priority)
            return lane

        self._current[stream] = self._change(work)

    def append(self, stream: str, time: int, payload: bytes) -> int:
        """Keep an item stamped `time` (ns); returns its number in (stream, current epoch).

        Raises UnavailableError when it cannot be kept: `spool-full` (the disk is), `spool-unwritable`. The number is
        then given to the next one.
        """
        with self._lock:
            lane = self._current.get(stream)
            if lane is not None and self._has_room(len(payload)) and not self._is_age_due():
                try:
                    seq = self._store.insert(lane, time, payload)
                except sqlite3.Error as error:
                    seq = self._again(error, lambda: self._store.insert(self._current[stream], time, payload))
                if self._pacer is not None:
                    self._pacer.wrote(1 + len(payload) // PAGE_BYTES)
                return seq
        return self.append_many(stream, [(time, payload)])[0]

    def _has_room(self, size: int) -> bool:
        return self._store.bytes + size + ITEM_BYTES <= self._bounds.bytes_max

    def append_many(self, stream: str, items: Iterable[tuple[int, bytes]]) -> range:
        """Keep items (time, payload), all or none; returns their numbers. Raises as `append` does."""
        batch = list(items)
        size = sum(len(payload) + ITEM_BYTES for _, payload in batch)
        if size > self._bounds.bytes_max:
            raise RejectedError(
                f"{size} bytes do not fit into a spool of {self._bounds.bytes_max}", code="spool-item-too-large"
            )

        def work() -> range:
            if stream not in self._current:
                raise LookupError(f"the stream {stream!r} was not declared")
            lane = self._current[stream]
            first = lane.next
            self._store.insert_all(lane, ((first + at, *item) for at, item in enumerate(batch)))
            self._evict()
            return range(first, lane.next)

        return self._change(work, frees=False, pages=1 + size // PAGE_BYTES)

    def _is_age_due(self) -> bool:
        return self._time is not None and self._clock.monotonic_s() >= self._age_checked_s + AGE_CHECK_S

    def _evict(self) -> None:
        if self._time is not None and self._is_age_due():
            self._age_checked_s = self._clock.monotonic_s()
            now = self._time.at(self._clock.now_ns(), self._age_checked_s)
            evict_old(self._store, now - round((self._bounds.age_s_max or 0) * NS))
        evict_over(self._store, self._bounds.bytes_max)

    # ------------------------------------------------------------------ out

    def next_streams(self) -> list[Track]:
        """Return the tracks that have something after what was read, the one to serve first in front."""

        def work() -> list[Track]:
            waiting = []
            for lane in self._store.lanes.values():
                if lane.items and lane.next - 1 > lane.read:
                    with contextlib.closing(self._store.heads(lane, lane.read)) as heads:
                        head = next(heads, None)
                    if head is not None:
                        waiting.append(Waiting(lane.track, lane.priority, lane.number, head.time))
            return order(waiting)

        if self._is_age_due():
            with contextlib.suppress(UnavailableError):  # they leave later
                self._change(self._evict)
        return self._look(work)

    def read(self, stream: Which, after: int, *, items_max: int, bytes_max: int) -> list[Item]:
        """Return items with numbers above `after`, in order: at least one if there is one, else within the limits.

        What was read is remembered until `rewind`, for `next_streams`. `bytes_max` is about payloads. An item that
        the disk has altered is never returned: the file is replaced, and what is lost becomes a gap ("damaged").
        """

        def work() -> list[Item]:
            lane = self._lane(stream)
            if lane is None:
                return []
            found = self._store.read(lane, max(after, -1), max(items_max, 1), bytes_max)
            lane.read = found[-1].seq if found else max(after, lane.next - 1)
            return found

        return self._look(work)

    def rewind(self) -> None:
        """Forget what was read: the connection is lost, and all that is not settled has to be sent again."""
        with self._lock:
            for lane in self._store.lanes.values():
                lane.read = -1

    def settle(self, stream: Which, up_to: int) -> int:
        """Delete what the server has: all up to and including this number. Returns how many items there were."""
        return self._settle(stream, [(0, up_to)] if up_to >= 0 else [])

    def settle_some(self, stream: Which, seqs: Iterable[int]) -> int:
        """Delete what the server has: these numbers. Returns how many items there were."""
        return self._settle(stream, runs_of(sorted(set(seqs))))

    def _settle(self, stream: Which, runs: list[tuple[int, int]]) -> int:
        def work() -> int:
            lane = self._lane(stream)
            return 0 if lane is None or not lane.items else self._store.delete(lane, runs)

        try:
            return self._change(work)
        except UnavailableError as error:
            if error.code != "spool-full":
                raise
        return sum(self._settle_slowly(stream, first, last) for first, last in runs)

    def _settle_slowly(self, stream: Which, first: int, last: int) -> int:
        """Delete in small transactions, for which a full disk's reserve is enough."""

        def work() -> int:
            lane = self._lane(stream)
            return 0 if lane is None else self._store.delete(lane, self._store.runs(lane, first, last, STEP_ITEMS))

        deleted = 0
        while step := self._change(work):
            deleted += step
        return deleted

    def refuse(self, stream: Which, first: int, last: int) -> None:
        """Give up what is here of a range of numbers; a gap ("refused") says so."""

        def work() -> None:
            lane = self._lane(stream)
            if lane is not None:
                give_up(self._store, lane, self._store.runs(lane, max(first, 0), last), REFUSED)

        self._change(work)

    # ------------------------------------------------------------------ what is missing

    def gaps(self) -> list[Gap]:
        """Return what will never be sent, until `gap_told`."""

        def work() -> list[Gap]:
            return self._store.gaps()

        return self._look(work)

    def gap_told(self, gap: Gap) -> None:
        """Strike out a gap that the server knows of. What was joined to it since stays."""

        def work() -> None:
            lane = self._store.lanes.get(Track(gap.stream, gap.epoch))
            if lane is not None:
                self._store.drop_gap(lane, gap)

        self._change(work)

    def missing(self, stream: Which, first: int, last: int) -> list[tuple[int, int]]:
        """Return which numbers of a range, ends included, are not here, as runs: gone, or never given."""

        def work() -> list[tuple[int, int]]:
            lane = self._lane(stream)
            here = self._store.runs(lane, max(first, 0), last) if lane is not None else []
            gone, at = [], first
            for low, high in [*here, (last + 1, last + 1)]:
                if low > at:
                    gone.append((at, low - 1))
                at = high + 1
            return gone

        return self._look(work)

    # ------------------------------------------------------------------ how much

    @property
    def depth(self) -> Depth:
        """How much waits, of all streams."""
        with self._lock:
            return depth_of_lanes(self._store.lanes.values())

    def depth_of(self, stream: str) -> Depth:
        """Return how much of a stream waits, in all epochs."""
        with self._lock:
            return depth_of_lanes(lane for lane in self._store.lanes.values() if lane.track.stream == stream)

    def highest(self, stream: Which) -> int:
        """Return the highest number given; -1: none yet."""
        with self._lock:
            lane = self._lane(stream)
            return lane.next - 1 if lane is not None else -1

    def begin_epoch(self) -> None:
        """Begin to number from 0 under a new epoch: somebody else uses the numbers of this one, too."""
        epoch = self._way.random()

        def work() -> dict[str, Lane]:
            self._store.put("epoch", epoch)
            return self._new_lanes(epoch)

        self._current, self.epoch = self._change(work), epoch

    def _new_lanes(self, epoch: str) -> dict[str, Lane]:
        return {name: self._store.add_lane(Track(name, epoch), old.priority) for name, old in self._current.items()}

    def noted(self, name: str) -> str:
        """Return what was noted under a name, or the empty string."""
        with self._lock:
            return self._store.get(f"note-{name}")

    def note(self, name: str, text: str) -> None:
        """Keep a text beside the items; raises as `append` does."""
        self._change(lambda: self._store.put(f"note-{name}", text))

    def sync(self) -> None:
        """Make everything durable now. Raises UnavailableError."""
        if self._pacer is not None:
            try:
                self._pacer.sync()
            except OSError as error:
                raise UnavailableError(f"{self._path} cannot be synced: {error}", code="spool-unwritable") from error

    def close(self) -> None:
        """Close in order: everything is durable afterwards, and numbers go on where they were."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._pacer is not None:
            self._pacer.stop()
        with self._lock:
            try:
                if self._path is not None:
                    with self._store.transaction():
                        self._store.note_totals()
                        self._store.put("boot", "")
                    self._store.empty_log()
            except sqlite3.Error as error:
                log.warning("the spool %s was not closed in order: %s", self._path, error)
            finally:
                self._let_go()

    def abandon(self) -> None:
        """Leave the files as the end of a process does that nobody announced: for trials of just that."""
        if not self._is_closed:
            self._is_closed = True
            if self._pacer is not None:
                self._pacer.stop()
            self._let_go()

    def _let_go(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._store.close()
        if self._file_lock is not None:
            self._file_lock.release()

    # ------------------------------------------------------------------ inside

    def _lane(self, stream: Which) -> Lane | None:
        return self._current.get(stream) if isinstance(stream, str) else self._store.lanes.get(stream)

    def _look(self, work: Callable[[], T]) -> T:
        """Read, the lock held; a damaged file is replaced on the way."""
        with self._lock:
            self._check_open()
            self._heed()
            try:
                return work()
            except sqlite3.Error as error:
                return self._again(error, work)

    def _change(self, work: Callable[[], T], *, frees: bool = True, pages: int = 4) -> T:
        """Change something in one transaction, the lock held. With `frees` a full disk's reserve is used."""

        def attempt() -> T:
            with self._store.transaction():
                return work()

        with self._lock:
            self._check_open()
            self._heed()
            changes = self._store.changes
            try:
                result = attempt()
            except sqlite3.Error as error:
                result = self._again(error, attempt, frees=frees)
            if self._pacer is not None and self._store.changes != changes:
                self._pacer.wrote(pages)
            if self._reserve is not None and not self._reserve.is_held and frees:
                self._take_reserve(self._reserve)
            return result

    def _check_open(self) -> None:
        if self._is_closed:
            raise UnavailableError("the spool is closed", code="spool-closed")

    def _heed(self) -> None:
        """Replace the file if the pacer found it damaged."""
        if self._pacer is not None and self._pacer.damage is not None:
            self._heal(self._pacer.damage)

    def _again(self, error: sqlite3.Error, work: Callable[[], T], *, frees: bool = False) -> T:
        """Do something about an error, and try once more. With `frees` work may use a full disk's reserve itself."""
        if fault_of(error, self._path) is Fault.FULL and self._reserve is not None:
            self._use_reserve(self._reserve)
            if not frees:
                self._take_reserve(self._reserve)
        else:
            self._heal(error)
        try:
            return work()
        except sqlite3.Error as second:
            fault = fault_of(second, self._path)
            if fault in {Fault.FULL, Fault.UNWRITABLE}:
                raise unavailable(fault, second, self._path) from second
            raise

    def _use_reserve(self, reserve: Reserve) -> None:
        reserve.release()
        with contextlib.suppress(sqlite3.Error):  # it is full still
            self._store.empty_log()  # what is in the log many times needs its room once

    def _take_reserve(self, reserve: Reserve) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._store.empty_log()
        self._store.let_grow(reserve.take())

    def _heal(self, error: sqlite3.Error) -> None:
        """Replace a damaged file; any other fault is raised as what it means to the caller."""
        self._check_open()
        fault = fault_of(error, self._path)
        if fault in {Fault.FULL, Fault.UNWRITABLE}:
            raise unavailable(fault, error, self._path) from error
        if fault is Fault.BUG or self._path is None or self._pacer is None:
            raise error
        try:
            aside = set_aside_damaged(self._path)
        except OSError:  # the disk is gone, or read-only: perhaps it comes back
            raise unavailable(Fault.UNWRITABLE, error, self._path) from error
        # All that has the old files open lets go before the new ones are made: SQLite deletes its log by name.
        self._pacer.stop()
        read = {track: lane.read for track, lane in self._store.lanes.items()}
        with contextlib.suppress(sqlite3.Error):
            self._store.close()
        try:
            opened = opening.open_anew(self._path, self._way, aside, error)
        except (sqlite3.Error, OSError) as fault_of_new:
            opened = opening.in_memory(aside, str(fault_of_new), self._way.random)
            self._path = self._reserve = None
            self._bounds = self._bounds._replace(bytes_max=min(self._bounds.bytes_max, MEMORY_BYTES_MAX))
        self._store, self.epoch, self._opening_trouble = opened.store, opened.epoch, opened.trouble
        log.error("%s", opened.trouble)
        for track, lane in self._store.lanes.items():
            lane.read = read.get(track, -1)
        with self._store.transaction():
            self._current = self._new_lanes(self.epoch)
        self._pacer = self._make_pacer()
