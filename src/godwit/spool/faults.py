"""What an error of SQLite means for a spool."""

import sqlite3
from enum import Enum, auto
from pathlib import Path
from typing import Final

from godwit.contract.errors import UnavailableError
from godwit.spool.files import is_out_of_room


class Fault(Enum):
    """Who can do something about it."""

    DAMAGED = auto()
    """The file is broken: it is set aside, and what can be read is carried over."""
    FULL = auto()
    """No room on the disk."""
    UNWRITABLE = auto()
    """Read-only, no right, an I/O error, locked by somebody."""
    BUG = auto()


_DAMAGED: Final = frozenset({
    sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ,
    sqlite3.SQLITE_CORRUPT_VTAB, sqlite3.SQLITE_CORRUPT_INDEX, sqlite3.SQLITE_CORRUPT_SEQUENCE,
    sqlite3.SQLITE_IOERR_CORRUPTFS,
    sqlite3.SQLITE_TOOBIG,  # a broken record says that it is huge; nothing of ours is
})  # fmt: skip
_UNWRITABLE: Final = frozenset({
    sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_PROTOCOL,
})  # fmt: skip


def fault_of(error: sqlite3.Error, path: Path | None) -> Fault:
    """Judge an error."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code in _DAMAGED:
        return Fault.DAMAGED
    if code & 0xFF == sqlite3.SQLITE_FULL:
        return Fault.FULL
    if code & 0xFF in _UNWRITABLE:
        return Fault.FULL if path is not None and is_out_of_room(path) else Fault.UNWRITABLE
    return Fault.BUG


def unavailable(fault: Fault, error: sqlite3.Error, path: Path | None) -> UnavailableError:
    """Return what the caller is told."""
    if fault is Fault.FULL:
        return UnavailableError(f"the disk under {path} is full: free some room", code="spool-full")
    return UnavailableError(f"{path} cannot be written: {error}", code="spool-unwritable")
