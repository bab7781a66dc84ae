"""What the broker must not forget: sessions, subscriptions, queued messages, retained documents, QoS 2 packet ids.

A participant of the group commit: changes gather in memory on the broker loop and become one transaction of SQLite
before any acknowledgement of the group leaves. The file holds nothing else; `load` reads it once, at start. Sessions
are only those that outlive their connection; messages only those of sessions that no other room keeps the queue of.
"""

import sqlite3
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from godwit.contract.errors import UnavailableError
from godwit.mqtt.packets import Publish, PublishProperties, Subscription, Will
from godwit.mqtt.server_message import Delivery, Message
from godwit.mqtt.server_session import Held, Session
from godwit.server.identity.model import Credential
from godwit.server.ingest.arrival import Peer

UNKNOWN_OWNER: Final = "*"
"""Of a session from before owners were kept."""

Change: TypeAlias = tuple[str, tuple[Any, ...]]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS session (
    client_id TEXT PRIMARY KEY, expiry_s INTEGER NOT NULL, ends_at INTEGER NOT NULL, is_device INTEGER NOT NULL,
    owner TEXT NOT NULL DEFAULT '', terms TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS subscription (
    client_id TEXT NOT NULL, topic_filter TEXT NOT NULL, qos INTEGER NOT NULL, flags INTEGER NOT NULL,
    subscription_id INTEGER NOT NULL, PRIMARY KEY (client_id, topic_filter)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS received (
    client_id TEXT NOT NULL, packet_id INTEGER NOT NULL, PRIMARY KEY (client_id, packet_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS message (number INTEGER PRIMARY KEY, expires INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS queue (
    client_id TEXT NOT NULL, position INTEGER NOT NULL, message INTEGER NOT NULL, packet_id INTEGER NOT NULL,
    qos INTEGER NOT NULL, flags INTEGER NOT NULL, subscription_ids TEXT NOT NULL, PRIMARY KEY (client_id, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS retained (
    topic TEXT PRIMARY KEY, expires INTEGER NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS will (
    client_id TEXT PRIMARY KEY, due INTEGER NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID;
"""

_PUT_SESSION: Final = "INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?, ?, ?)"
_END_SESSION: Final = (
    "DELETE FROM session WHERE client_id = ?",
    "DELETE FROM subscription WHERE client_id = ?",
    "DELETE FROM received WHERE client_id = ?",
    "DELETE FROM queue WHERE client_id = ?",
)
_PUT_SUBSCRIPTION: Final = "INSERT OR REPLACE INTO subscription VALUES (?, ?, ?, ?, ?)"
_DROP_SUBSCRIPTION: Final = "DELETE FROM subscription WHERE client_id = ? AND topic_filter = ?"
_PUT_RECEIVED: Final = "INSERT OR IGNORE INTO received VALUES (?, ?)"
_DROP_RECEIVED: Final = "DELETE FROM received WHERE client_id = ? AND packet_id = ?"
_PUT_MESSAGE: Final = "INSERT OR REPLACE INTO message VALUES (?, ?, ?)"
_DROP_MESSAGE: Final = "DELETE FROM message WHERE number = ?"
_PUT_QUEUED: Final = "INSERT OR REPLACE INTO queue VALUES (?, ?, ?, ?, ?, ?, ?)"
_DROP_QUEUED: Final = "DELETE FROM queue WHERE client_id = ? AND position = ?"
_PUT_RETAINED: Final = "INSERT OR REPLACE INTO retained VALUES (?, ?, ?)"
_DROP_RETAINED: Final = "DELETE FROM retained WHERE topic = ?"
_PUT_WILL: Final = "INSERT OR REPLACE INTO will VALUES (?, ?, ?)"
_DROP_WILL: Final = "DELETE FROM will WHERE client_id = ?"


class Body(msgspec.Struct, array_like=True):
    """A message as the file holds it."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: PublishProperties


class LeftWill(msgspec.Struct, array_like=True, frozen=True):
    """What a client that is gone has left to be said, and by what right; older files have the first two alone."""

    will: Will
    peer: Peer
    credential: Credential | None = None
    terms: str = ""
    """What is kept of its rights."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Body).decode
_decode_will = msgspec.msgpack.Decoder(LeftWill).decode


class Loaded(msgspec.Struct):
    """What was in the file at start."""

    sessions: list[Session]
    retained: list[Message]


class Journal:
    """The broker's file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changes: list[Change] = []
        self._waiting: dict[int, int] = {}
        """Message number -> deliveries that still need it."""
        self._number = 0
        self._position = 0
        self._db: sqlite3.Connection | None = None
        self.written = 0
        """Changes written since start."""

    # ------------------------------------------------------------------ file

    def _connect(self) -> sqlite3.Connection:
        if self._db is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Opened on one thread, used by the commit thread: never by two at once.
            self._db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
            _upgrade(self._db)
        return self._db

    def load(self, now: int) -> Loaded:
        """Read everything. Sessions that were connected count as having lost their connection now."""
        try:
            db = self._connect()
            return self._load(db, now)
        except sqlite3.Error as error:
            raise UnavailableError(f"{self._path} cannot be read: {error}") from error

    def _load(self, db: sqlite3.Connection, now: int) -> Loaded:
        sessions: dict[str, Session] = {}
        for client_id, expiry_s, ends_at, is_device, owner, terms in db.execute("SELECT * FROM session"):
            session = sessions[client_id] = Session(client_id, expiry_s)
            session.ends_at = ends_at
            session.is_device = bool(is_device)
            session.is_stored = True
            session.owner, session.terms = owner, terms
        for client_id, topic_filter, qos, flags, number in db.execute("SELECT * FROM subscription"):
            options = Subscription(topic_filter, qos, bool(flags & 1), bool(flags & 2), flags >> 2)
            sessions[client_id].subscriptions[topic_filter] = Held(options, number)
        for client_id, packet_id in db.execute("SELECT * FROM received"):
            sessions[client_id].received[packet_id] = None
            sessions[client_id].stale.add(packet_id)
        messages = self._load_messages(db)
        for client_id, position, number, packet_id, qos, flags, ids in db.execute(
            "SELECT * FROM queue ORDER BY client_id, position"
        ):
            self._position = max(self._position, position)
            message = messages[number]
            delivery = Delivery(
                message, qos, retain=bool(flags & 1), subscription_ids=tuple(int(each) for each in ids.split())
            )
            delivery.position, delivery.packet_id = position, packet_id
            delivery.is_resent = True  # it may have been sent: nobody knows any more
            self._waiting[number] = self._waiting.get(number, 0) + 1
            sessions[client_id].restore(delivery)
        for number in messages.keys() - self._waiting.keys():
            self._changes.append((_DROP_MESSAGE, (number,)))
        retained = [self._message(body, expires) for _, expires, body in db.execute("SELECT * FROM retained")]
        kept = [message for message in retained if not message.expires or message.expires > now]
        return Loaded(list(sessions.values()), kept)

    def _load_messages(self, db: sqlite3.Connection) -> dict[int, Message]:
        messages = {}
        for number, expires, body in db.execute("SELECT * FROM message"):
            message = messages[number] = self._message(body, expires)
            message.row = number
            self._number = max(self._number, number)
        return messages

    def _message(self, body: bytes, expires: int) -> Message:
        kept = _decode(body)
        message = Message(Publish(kept.topic, kept.payload, kept.qos, kept.retain, properties=kept.properties), 0)
        message.expires = expires
        return message

    def close(self) -> None:
        """Write what is left and close the file."""
        work = self.seal()
        if work is not None:
            self.write(work)
        if self._db is not None:
            self._db.close()
            self._db = None

    def abandon(self) -> None:
        """Leave the file as a killed process does: what was not committed is not there."""
        if self._db is not None:
            self._db.close()
            self._db = None

    # ------------------------------------------------------------------ participant

    @property
    def is_dirty(self) -> bool:
        """Whether something gathered that no group has taken."""
        return bool(self._changes)

    def seal(self) -> object | None:
        """Hand over the changes that gathered."""
        if not self._changes:
            return None
        changes, self._changes = self._changes, []
        return changes

    def write(self, work: object) -> None:
        """Write sealed changes in one transaction. Raises UnavailableError; the same work may be given again.

        Every change can be made twice: a COMMIT that raised may be durable all the same (a full disk does that).
        """
        changes: list[Change] = work  # type: ignore[assignment]
        try:
            db = self._connect()
            db.execute("BEGIN IMMEDIATE")
            try:
                for statement, group in groupby(changes, key=itemgetter(0)):
                    db.executemany(statement, (parameters for _, parameters in group))
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError) as error:
            raise UnavailableError(f"the broker's journal cannot be written: {error}") from error
        self.written += len(changes)

    # ------------------------------------------------------------------ changes

    def put_session(self, session: Session) -> None:
        """Keep a session, or its new expiry."""
        session.is_stored = True
        row = (session.client_id, session.expiry_s, session.ends_at, int(session.is_device), session.owner)
        self._changes.append((_PUT_SESSION, (*row, session.terms)))

    def end_session(self, session: Session) -> None:
        """Strike out a session and all it holds."""
        if not session.is_stored:
            return
        session.is_stored = False
        self._changes.extend((statement, (session.client_id,)) for statement in _END_SESSION)
        for delivery in session.deliveries():
            if delivery.position:
                self._release(delivery.message)
        self.strike(session)

    def put_subscription(self, session: Session, held: Held) -> None:
        """Keep a subscription."""
        options = held.options
        flags = options.no_local | options.retain_as_published << 1 | options.retain_handling << 2
        self._changes.append(
            (
                _PUT_SUBSCRIPTION,
                (session.client_id, options.topic_filter, options.qos, flags, held.subscription_id),
            )
        )

    def drop_subscription(self, session: Session, topic_filter: str) -> None:
        """Strike out a subscription."""
        self._changes.append((_DROP_SUBSCRIPTION, (session.client_id, topic_filter)))

    def put_received(self, session: Session, packet_id: int) -> None:
        """Keep the id of an inbound QoS 2 message, with the message's own group."""
        self._changes.append((_PUT_RECEIVED, (session.client_id, packet_id)))

    def drop_received(self, session: Session, packet_id: int) -> None:
        """Strike out the id of an inbound QoS 2 message: PUBREL came."""
        self._changes.append((_DROP_RECEIVED, (session.client_id, packet_id)))

    def put_queued(self, session: Session, delivery: Delivery) -> None:
        """Keep a delivery until its subscriber has taken it. It gets its packet id here: the same after a crash."""
        message = delivery.message
        if not message.row:
            self._number += 1
            message.row = self._number
            self._changes.append((_PUT_MESSAGE, (message.row, message.expires, _body(message))))
        self._waiting[message.row] = self._waiting.get(message.row, 0) + 1
        self._position += 1
        delivery.position = self._position
        session.allot(delivery)
        ids = " ".join(map(str, delivery.subscription_ids))
        self._changes.append(
            (
                _PUT_QUEUED,
                (
                    session.client_id,
                    delivery.position,
                    message.row,
                    delivery.packet_id,
                    delivery.qos,
                    int(delivery.retain),
                    ids,
                ),
            )
        )

    def strike(self, session: Session) -> None:
        """Strike out the deliveries that the session is done with."""
        finished = session.finished
        if finished is None:
            return
        session.finished = None
        for delivery in finished:
            self._changes.append((_DROP_QUEUED, (session.client_id, delivery.position)))
            delivery.position = 0
            self._release(delivery.message)

    def _release(self, message: Message) -> None:
        left = self._waiting.get(message.row, 0) - 1
        if left > 0:
            self._waiting[message.row] = left
            return
        self._waiting.pop(message.row, None)
        self._changes.append((_DROP_MESSAGE, (message.row,)))
        message.row = 0

    def retain(self, message: Message) -> None:
        """Keep a retained document, or strike it out if the payload is empty."""
        if message.payload:
            self._changes.append((_PUT_RETAINED, (message.topic, message.expires, _body(message))))
        else:
            self._changes.append((_DROP_RETAINED, (message.topic,)))

    def put_will(self, client_id: str, due: int, left: LeftWill) -> None:
        """Keep the will of a client that is gone, until it is due (ns UTC)."""
        self._changes.append((_PUT_WILL, (client_id, due, _encode(left))))

    def drop_will(self, client_id: str) -> None:
        """Strike out a client's will: it is being sent, or the client is back."""
        self._changes.append((_DROP_WILL, (client_id,)))

    def load_wills(self) -> list[tuple[str, int, LeftWill]]:
        """Read the wills that waited when the server ended. Raises UnavailableError."""
        try:
            rows = self._connect().execute("SELECT * FROM will").fetchall()
        except sqlite3.Error as error:
            raise UnavailableError(f"{self._path} cannot be read: {error}") from error
        return [(client_id, due, _decode_will(body)) for client_id, due, body in rows]

    def drop_retained(self, topics: Iterable[str]) -> None:
        """Strike out retained documents that expired."""
        self._changes.extend((_DROP_RETAINED, (topic,)) for topic in topics)


def _upgrade(db: sqlite3.Connection) -> None:
    """Add what files of earlier versions do not have."""
    columns = {row[1] for row in db.execute("PRAGMA table_info(session)")}
    for name in ("owner", "terms"):
        if name not in columns:
            default = UNKNOWN_OWNER if name == "owner" else ""
            db.execute(f"ALTER TABLE session ADD COLUMN {name} TEXT NOT NULL DEFAULT '{default}'")


def _body(message: Message) -> bytes:
    return _encode(Body(message.topic, message.payload, message.qos, message.retain, message.properties))
