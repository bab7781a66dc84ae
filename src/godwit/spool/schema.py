"""The file's tables, version by version, and how an older file becomes a newer one.

`PRAGMA user_version` says which version a file has. A new file walks the same way as an old one, from version 0.

A `place` is a track's number and a sequence number in one integer, so that a track's items lie side by side: appending
changes one page, and delivering from the front frees whole pages for reuse.
"""

import sqlite3
from typing import Final
from zlib import crc32

APPLICATION_ID: Final = 0x676F6477
"""Says that a SQLite file is a spool ("godw")."""

SEQ_BITS: Final = 44
SEQ_MASK: Final = (1 << SEQ_BITS) - 1

STEPS: Final[tuple[tuple[str, ...], ...]] = (
    (  # 1
        "CREATE TABLE item (place INTEGER PRIMARY KEY, time INTEGER NOT NULL, payload BLOB NOT NULL)",
        "CREATE TABLE track (number INTEGER PRIMARY KEY, stream TEXT NOT NULL, epoch TEXT NOT NULL,"
        " priority INTEGER NOT NULL, next_seq INTEGER NOT NULL, UNIQUE (stream, epoch))",
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    ),
    (  # 2: checksums, gaps, and totals up to `next_seq`, so that opening need not read everything
        "ALTER TABLE item ADD COLUMN crc INTEGER",
        "UPDATE item SET crc = item_checksum(place, time, payload)",
        "ALTER TABLE track ADD COLUMN crc INTEGER",
        "ALTER TABLE track ADD COLUMN low INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE track ADD COLUMN items INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE track ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0",
        "UPDATE track SET (low, items, bytes) = ("
        " SELECT coalesce(min(place) - (number << 44), next_seq), count(*),"
        " coalesce(sum(length(payload) + 32), 0)"
        " FROM item WHERE place >= number << 44 AND place < (number << 44) + next_seq)",
        "UPDATE track SET crc = track_checksum(number, stream, epoch, next_seq, low, items, bytes)",
        "CREATE TABLE gap (track INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,"
        " reason TEXT NOT NULL, PRIMARY KEY (track, first, reason)) WITHOUT ROWID",
    ),
)
VERSION: Final = len(STEPS)


_INT64: Final = 2**64 - 1


def item_checksum(place: int, time: int, payload: bytes) -> int:
    """Return 32 bits over an item, signed, which SQLite stores in four bytes."""
    return crc32(payload, crc32((place << 64 | time & _INT64).to_bytes(16, "little"))) - 0x8000_0000


def track_checksum(*fields: int | str) -> int:
    """Return 32 bits over what identifies and counts a track."""
    return crc32(repr(fields).encode()) - 0x8000_0000


def version_of(db: sqlite3.Connection) -> int:
    """Return the version of a file; 0 when it is empty."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version


def lift(db: sqlite3.Connection) -> int:
    """Bring a file to `VERSION` in one transaction; returns the version it had."""
    found = version_of(db)
    if found < VERSION:
        db.create_function("item_checksum", 3, item_checksum)
        db.create_function("track_checksum", 7, track_checksum)
        db.execute("BEGIN IMMEDIATE")
        for step in STEPS[found:]:
            for statement in step:
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    return found
