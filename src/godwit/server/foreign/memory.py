"""Which retained messages were taken in already: a foreign broker hands them out again at each new subscription.

A participant of the group commit. A message that is retained is remembered by its topic; the first retained one that
comes on a topic after subscribing anew, and equals what is remembered, is a repetition. Messages that are not retained
are never repeated so, and cost nothing here.
"""

import sqlite3
from hashlib import blake2b
from pathlib import Path
from typing import Final

from godwit.contract.errors import UnavailableError
from godwit.mqtt.packets import Publish

_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS retained (topic TEXT PRIMARY KEY, hash INTEGER NOT NULL) WITHOUT ROWID"
TOPICS_MAX: Final = 1_000_000


def hash_payload(payload: bytes) -> int:
    """Return the 63 bits under which a payload is remembered."""
    return int.from_bytes(blake2b(payload, digest_size=8).digest(), "little") >> 1


class RetainedMemory:
    """Topic -> hash of the last retained message that was taken in."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed: dict[str, int] = {}
        self._known: dict[str, int] = {}
        self._expected: set[str] = set()
        try:
            # Opened on one thread, used by the commit thread: never by two at once.
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(_SCHEMA)
            self._known = dict(self._db.execute("SELECT topic, hash FROM retained"))
        except sqlite3.Error as error:
            raise UnavailableError(f"{path} cannot be read: {error}") from error

    def expect_all(self) -> None:
        """Note that the broker is about to hand out all that it retains."""
        self._expected = set(self._known)

    def is_repeated(self, publish: Publish) -> bool:
        """Whether a message is one that was taken in before. To be asked once for each message that is retained."""
        topic = publish.topic
        if topic not in self._expected:
            return False
        self._expected.discard(topic)
        return self._known[topic] == hash_payload(publish.payload)

    def put(self, publish: Publish) -> None:
        """Remember a retained message; it is durable with the group that it rides in."""
        if len(self._known) < TOPICS_MAX or publish.topic in self._known:
            self._known[publish.topic] = self._changed[publish.topic] = hash_payload(publish.payload)

    def seal(self) -> dict[str, int] | None:
        """Hand over what was put since the last time."""
        changed, self._changed = self._changed, {}
        return changed or None

    def write(self, work: object) -> None:
        """Make it durable. Raises UnavailableError to be tried again."""
        assert isinstance(work, dict)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany("INSERT OR REPLACE INTO retained VALUES (?, ?)", work.items())
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
        except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
            raise UnavailableError(f"{self._path} cannot be written: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()
