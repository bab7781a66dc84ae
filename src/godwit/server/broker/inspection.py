"""Who is connected, which sessions are kept, who subscribes to what: rows for people and programs, from any thread.

A look copies the broker's tables in one step of the interpreter each and reads the rest afterwards: numbers of one row
may be some microseconds apart, and the broker loop waits for nobody. Ten thousand connections take some 30 ms, at most
once a second however many look.
"""

import threading
from collections.abc import Callable, Sequence
from time import time_ns
from typing import Any, Final, Generic, TypeVar

import msgspec

from godwit.mqtt.server_session import Session
from godwit.server.broker.broker import Broker
from godwit.server.broker.client import Client

NS: Final = 1_000_000_000
KEEP_NS: Final = NS
"""How long a look is good enough for the next who asks."""


class ConnectionRow(msgspec.Struct, frozen=True, rename="camel"):
    """One connection. Times are ns UTC."""

    client_id: str
    device_id: str
    """The device it speaks for, where it is one; of several, none."""
    devices: int
    listener: str
    identity: str | None
    version: str
    """`5` or `3.1.1`."""
    since: int
    keep_alive_s: int
    subscriptions: int
    inflight: int
    """Messages under way in both directions, not acknowledged yet."""
    queued: int
    queued_bytes: int
    dropped: int
    messages_in: int
    messages_per_s: float
    """From this client, since the look before; at the first look, since it connected."""
    bytes_in: int
    bytes_out: int
    address: str = ""
    """From where it came."""
    door: str = ""
    """By which credential it came in; empty: by none that is somebody's own."""
    credential: str = ""
    """Fingerprint, token id or claim id."""
    tenant: str = ""
    """Whose it counts as."""


class TenantLoad(msgspec.Struct):
    """What a tenant's clients and documents use."""

    connections: int = 0
    messages_per_s: float = 0.0
    retained_bytes: int = 0


class SessionRow(msgspec.Struct, frozen=True, rename="camel"):
    """One session, connected or kept."""

    client_id: str
    connected: bool
    is_device: bool
    expiry_s: int
    ends_at: int
    """When it ends, ns UTC, while the client is away; 0: not counting."""
    subscriptions: int
    inflight: int
    queued: int
    queued_bytes: int
    dropped: int


class SubscriptionRow(msgspec.Struct, frozen=True, rename="camel"):
    """One subscription of one session."""

    topic_filter: str
    client_id: str
    connected: bool
    qos: int
    no_local: bool
    retain_as_published: bool
    subscription_id: int


Row = TypeVar("Row", ConnectionRow, SessionRow, SubscriptionRow)


class Page(msgspec.Struct, Generic[Row], frozen=True):
    """Some rows of those that match, and how many match."""

    items: list[Row]
    total: int


SORTS: Final[dict[str, tuple[str, ...]]] = {
    "connections": ("clientId", "since", "inflight", "queued", "dropped", "messagesPerS", "bytesIn", "bytesOut"),
    "sessions": ("clientId", "subscriptions", "inflight", "queued", "dropped"),
    "subscriptions": ("topicFilter", "clientId"),
}
"""What each table may be ordered by; the first is the default."""
_FIELDS: Final = {
    "clientId": "client_id",
    "topicFilter": "topic_filter",
    "messagesPerS": "messages_per_s",
    "bytesIn": "bytes_in",
    "bytesOut": "bytes_out",
}


class Inspection:
    """Looks at a broker for any thread."""

    def __init__(self, broker: Broker, now: Callable[[], int] = time_ns) -> None:
        self._broker = broker
        self._now = now
        self._lock = threading.Lock()
        self._looks: dict[str, tuple[int, Sequence[Any]]] = {}
        self._before: dict[str, tuple[int, int, float]] = {}
        """Client id -> (when it connected, its messages, its rate) at the last look."""

    def connections(self, search: str, sort: str, offset: int, limit: int, *, descending: bool) -> Page[ConnectionRow]:
        """Return connections whose client id, device, listener or identity holds `search`. Blocks for a look."""
        rows: Sequence[ConnectionRow] = self._look("connections", self._look_at_connections)
        found = [
            each
            for each in rows
            if _holds(search, each.client_id, each.device_id, each.listener, each.identity or "", each.version)
        ]
        return _page(found, sort, offset, limit, descending=descending)

    def sessions(self, search: str, sort: str, offset: int, limit: int, *, descending: bool) -> Page[SessionRow]:
        """Return sessions whose client id holds `search`. Blocks for a look."""
        rows: Sequence[SessionRow] = self._look("sessions", self._look_at_sessions)
        return _page(
            [each for each in rows if _holds(search, each.client_id)], sort, offset, limit, descending=descending
        )

    def subscriptions(
        self, search: str, sort: str, offset: int, limit: int, *, descending: bool
    ) -> Page[SubscriptionRow]:
        """Return subscriptions whose filter or client id holds `search`. Blocks for a look."""
        rows: Sequence[SubscriptionRow] = self._look("subscriptions", self._look_at_subscriptions)
        found = [each for each in rows if _holds(search, each.topic_filter, each.client_id)]
        return _page(found, sort, offset, limit, descending=descending)

    def use(self) -> dict[str, TenantLoad]:
        """Return what the clients and documents of each tenant use. Blocks for a look."""
        rows: Sequence[ConnectionRow] = self._look("connections", self._look_at_connections)
        retained = self._broker.gate.retained.of_tenants()
        found = {tenant: TenantLoad(retained_bytes=size) for tenant, size in retained.items() if size}
        for each in rows:
            load = found.setdefault(each.tenant, TenantLoad())
            load.connections += 1
            load.messages_per_s += each.messages_per_s
        return found

    def conflicts(self) -> dict[str, int]:
        """Return client ids that were taken from one connection by another from elsewhere in the last hour."""
        return self._broker.reception.conflicts.recent(self._now())

    def _look(self, name: str, look: Callable[[int], Sequence[Any]]) -> Sequence[Any]:
        with self._lock:
            now = self._now()
            seen = self._looks.get(name)
            if seen is None or not 0 <= now - seen[0] < KEEP_NS:
                seen = self._looks[name] = now, look(now)
            return seen[1]

    def forget(self) -> None:
        """Have the next one look anew: something was done."""
        with self._lock:
            self._looks.clear()

    def _look_at_connections(self, now: int) -> list[ConnectionRow]:
        seen = self._looks.get("connections")
        span_s = (now - seen[0]) / NS if seen is not None else 0.0
        rows, after = [], {}
        for client in list(self._broker.clients.values()):
            session = client.core.session
            if session is None:
                continue
            rate = self._rate(client, session, now, span_s)
            after[session.client_id] = (client.since, client.messages_in, rate)
            rows.append(_connection_row(client, session, rate))
        self._before = after
        return rows

    def _rate(self, client: Client, session: Session, now: int, span_s: float) -> float:
        before = self._before.get(session.client_id)
        if before is None or before[0] != client.since or span_s <= 0:
            return client.messages_in / max((now - client.since) / NS, 1.0)
        return max(0.0, (client.messages_in - before[1]) / span_s)

    def _look_at_sessions(self, _now: int) -> list[SessionRow]:
        return [
            SessionRow(
                client_id=each.client_id,
                connected=each.connection is not None,
                is_device=each.is_device,
                expiry_s=each.expiry_s,
                ends_at=each.ends_at,
                subscriptions=len(each.subscriptions),
                inflight=_inflight(each),
                queued=len(each.queue or ()),
                queued_bytes=each.queued_bytes,
                dropped=each.dropped,
            )
            for each in list(self._broker.sessions.values())
        ]

    def _look_at_subscriptions(self, _now: int) -> list[SubscriptionRow]:
        return [
            SubscriptionRow(
                topic_filter=topic_filter,
                client_id=session.client_id,
                connected=session.connection is not None,
                qos=held.options.qos,
                no_local=held.options.no_local,
                retain_as_published=held.options.retain_as_published,
                subscription_id=held.subscription_id,
            )
            for session in list(self._broker.sessions.values())
            for topic_filter, held in list(session.subscriptions.items())
        ]


def _connection_row(client: Client, session: Session, rate: float) -> ConnectionRow:
    devices, credential = client.devices, client.credential
    return ConnectionRow(
        client_id=session.client_id,
        device_id=next(iter(list(devices))) if len(devices) == 1 else "",
        devices=len(devices),
        listener=client.listener,
        identity=client.peer.identity,
        version="5" if client.core.version == 5 else "3.1.1",
        since=client.since,
        keep_alive_s=client.core.keep_alive_s,
        subscriptions=len(session.subscriptions),
        inflight=_inflight(session),
        queued=len(session.queue or ()),
        queued_bytes=session.queued_bytes,
        dropped=session.dropped,
        messages_in=client.messages_in,
        messages_per_s=round(rate, 3),
        bytes_in=client.bytes_in,
        bytes_out=client.bytes_out,
        address=client.address,
        door=str(credential.door) if credential is not None else "",
        credential=credential.name if credential is not None else "",
        tenant=client.tenant,
    )


def _inflight(session: Session) -> int:
    return len(session.inflight) + len(session.pending) + len(session.received)


def _holds(search: str, *texts: str) -> bool:
    wanted = search.lower()
    return not wanted or any(wanted in each.lower() for each in texts)


def _page(rows: list[Row], sort: str, offset: int, limit: int, *, descending: bool) -> Page[Row]:
    field = _FIELDS.get(sort, sort)
    rows.sort(key=lambda row: getattr(row, field), reverse=descending)
    return Page(rows[offset : offset + limit], len(rows))
