"""Opening a spool's file, whatever is found there: nothing, an old version, a newer one, rubbish, no right to write.

Only two things refuse: a path that is no place for a spool, and another process that has it. In every other case there
is a spool afterwards, and a sentence about what is different from what one would expect.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from godwit.contract.errors import RejectedError
from godwit.runtime.files import sync_directory
from godwit.spool import schema
from godwit.spool.faults import Fault, fault_of
from godwit.spool.files import Lock, Reserve, log_of, set_aside, set_aside_damaged
from godwit.spool.model import Durability
from godwit.spool.salvage import Salvaged, salvage
from godwit.spool.store import PAGE_BYTES, Store

MEMORY_BYTES_MAX: Final = 8 * 2**20
"""What a spool that should be on disk holds when it has to be in memory."""
_SEQ_TURN: Final = schema.SEQ_MASK // 2


class Opened(NamedTuple):
    """A spool's parts. In memory: no path, lock and reserve."""

    store: Store
    path: Path | None
    epoch: str
    trouble: str
    lock: Lock | None = None
    reserve: Reserve | None = None


def log_pages_max(bytes_max: int) -> int:
    """Return how long SQLite's log may get, in pages: small beside the bound."""
    return min(1_000, max(32, bytes_max // 32 // PAGE_BYTES))


def open_memory(random: Callable[[], str], trouble: str = "") -> Opened:
    """Make a spool in memory."""
    return Opened(Store(None), None, random(), trouble)


class Way(NamedTuple):
    """How a file is opened."""

    durability: Durability
    bytes_max: int
    random: Callable[[], str]
    """Names epochs."""
    boot: str
    """Tells one run of the operating system from another; empty: nothing does."""


def open_file(path: Path, way: Way) -> Opened:
    """Open or make a spool. Raises RejectedError: the path is no place for one, or it is in use."""
    if path.exists() and not path.is_file():
        kind = "a directory" if path.is_dir() else "no ordinary file"
        raise RejectedError(f"{path} is {kind}: name a file for the spool", code="spool-path")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = Lock(path)
    except OSError as error:
        return in_memory(path, str(error), way.random)
    reserve = Reserve(path, 2 * log_pages_max(way.bytes_max) * PAGE_BYTES)
    try:
        try:
            opened = _open(path, way)
        except sqlite3.Error as error:
            if fault_of(error, path) is not Fault.FULL:
                raise
            reserve.release()
            opened = _open(path, way)
    except (sqlite3.Error, OSError) as error:
        lock.release()
        if isinstance(error, sqlite3.Error) and fault_of(error, path) not in {Fault.FULL, Fault.UNWRITABLE}:
            raise
        return in_memory(path, str(error), way.random)
    except BaseException:
        lock.release()
        raise
    opened.store.let_grow(reserve.take())
    return opened._replace(lock=lock, reserve=reserve)


def in_memory(path: Path, why: str, random: Callable[[], str]) -> Opened:
    """Make a spool in memory in the place of a file that cannot be written, with what can be read of the file."""
    opened = open_memory(random)
    found = salvage(path, opened.store, bytes_max=MEMORY_BYTES_MAX, is_writable=False) if path.exists() else Salvaged()
    trouble = f"{path} cannot be written ({why}): the spool is in memory, and is lost with the process"
    if found.items:
        trouble += f"; {found.items} unsent items of the file are sent all the same"
    return opened._replace(trouble=trouble)


def _open(path: Path, way: Way) -> Opened:
    try:
        _refuse_foreign(path)
        return _begin(path, _store(path, way), way)
    except NewerError as error:
        aside = set_aside(path, f"version-{error.version}")
        return _begin(path, _store(path, way), way)._replace(
            trouble=f"{path} was written by a newer godwit (version {error.version}, this one knows {schema.VERSION}): "
            f"set aside as {aside.name}, which the newer one takes up again"
        )
    except sqlite3.Error as error:
        if fault_of(error, path) not in {Fault.DAMAGED, Fault.BUG}:  # at opening "no such column" is damage, too
            raise
        return open_anew(path, way, set_aside_damaged(path), error)


def open_anew(path: Path, way: Way, aside: Path, error: sqlite3.Error) -> Opened:
    """Make a new spool, and carry over what can be read of the damaged one. Raises `sqlite3.Error`, OSError."""
    store = _store(path, way)
    said = f"{path} was damaged ({error}): set aside as {aside.name}; "
    try:
        found = salvage(aside, store)
    except sqlite3.Error as fault:
        said += f"not all could be carried over: {fault}"
    else:
        if found.is_readable:
            said += f"{found.items} items carried over, {found.lost} known to be lost"
        else:
            said += "nothing in it could be read, and what was in it is not known"
    return _begin(path, store, way)._replace(trouble=said)


def _store(path: Path, way: Way) -> Store:
    synchronous = "FULL" if way.durability is Durability.FULL else "NORMAL"
    return Store(path, synchronous=synchronous, log_pages_max=log_pages_max(way.bytes_max))


class NewerError(Exception):
    """The file's version is newer than this program."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


def _refuse_foreign(path: Path) -> None:
    """Look at a file before anything is changed. Raises RejectedError for somebody else's database, NewerError."""
    if not path.exists():
        return
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if not tables:
            return
        if db.execute("PRAGMA application_id").fetchone()[0] != schema.APPLICATION_ID:
            raise RejectedError(
                f"{path} is a SQLite database, but no spool: name another file for the spool", code="spool-path"
            )
        version = schema.version_of(db)
        if version > schema.VERSION:
            raise NewerError(version)


def _begin(path: Path, store: Store, way: Way) -> Opened:
    """Settle under which epoch to go on, and make everything durable so far."""
    try:
        said = _take_up(path, store)
        if 0 < store.version_found < schema.VERSION:
            said.append(f"{path} was of version {store.version_found} and is now of version {schema.VERSION}")
        now = way.boot or way.random()  # where nothing tells boots apart every unclean end counts as a power cut
        epoch, boot = store.get("epoch"), store.get("boot")
        is_cut = bool(epoch and boot and boot != now)
        if is_cut:
            said.append("the machine ended without closing the spool: what came last before it may be lost")
        if not epoch or is_cut or any(lane.next > _SEQ_TURN for lane in store.lanes.values()):
            epoch = way.random()
        with store.transaction():
            store.put("epoch", epoch)
            store.put("boot", "" if way.durability is Durability.FULL else now)
            store.forget_finished(epoch)
        _sync(path)
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            store.close()
        raise
    return Opened(store, path, epoch, "; ".join(said))


def _take_up(path: Path, store: Store) -> list[str]:
    """Carry over what an older program set aside, because it was of a newer version than that one knew."""
    said = []
    for aside in path.parent.glob(f"{path.name}.version-*"):
        version = aside.name.rpartition("-")[2]
        if version.isdigit() and int(version) <= schema.VERSION:
            found = salvage(aside, store)
            said.append(f"{aside.name} is taken up again: {found.items} items")
            for suffix in ("-shm", "-wal", ""):
                aside.with_name(aside.name + suffix).unlink(missing_ok=True)
    return said


def _sync(path: Path) -> None:
    """Make an opened spool durable: the log is where everything is that the database has not yet. Raises OSError."""
    handle = os.open(log_of(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    sync_directory(path.parent)
