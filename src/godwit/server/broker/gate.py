"""The gate: applies the limits to clients. Says no with a sentence that names the limit, or has somebody read later."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from godwit.contract.ids import DEFAULT_TENANT
from godwit.mqtt import reasons
from godwit.mqtt.packets import Publish
from godwit.mqtt.server_message import Message
from godwit.server.broker.client import Client
from godwit.server.broker.lane import Lane
from godwit.server.broker.limits import Bucket, Meters, Quotas, Turns
from godwit.server.broker.refusals import Refusal
from godwit.server.broker.retained_room import SERVER, Limit, RetainedRoom
from godwit.server.registry.model import TenantQuota

COME_BACK_S: Final = 30
BUSY_S: Final = 5
ROOM_TO_REFUSE: Final = 1_000
"""Connections beyond the limit that are let in, only to hear why they cannot stay."""


class Limited(msgspec.Struct):
    """How often which limit was hit, since start."""

    connections: int = 0
    connects: int = 0
    """Refused for the rate of connects, or because too much was waiting."""
    messages: int = 0
    """Refused at QoS 1 and 2 of MQTT 5: the client knows."""
    held: int = 0
    """Times that a client was left unread, for its rate or its share."""
    subscriptions: int = 0
    retained: int = 0


class Gate:
    """Keeps count of what the limits are about."""

    def __init__(self, quotas: Quotas, tenant_of: Callable[[str], str] | None, now: int) -> None:
        self.quotas = quotas
        self.limited = Limited()
        self.retained = RetainedRoom(
            Limit(quotas.retained_bytes, quotas.retained_bytes_per_tenant, quotas.retained_bytes_per_client)
        )
        self.lane = Lane(quotas.lane_bytes)
        self._meters = Meters(quotas, now)
        self._tenant_of = tenant_of or (lambda _client_id: DEFAULT_TENANT)
        self._connected: Counter[str] = Counter()
        self._connects = Bucket(quotas.connects_per_s, now) if quotas.connects_per_s else None
        self._turns = Turns(quotas.connects_per_s or 1)

    def limit_tenants(self, quota_of: Callable[[str], TenantQuota]) -> None:
        """Hold each tenant to its own quota, where it has one."""
        self._meters.quota_of = quota_of
        self.retained.tenant_max_of = lambda tenant: quota_of(tenant).retained_bytes

    def quota_changed(self, tenant: str, clients: Iterable[Client], now: int) -> None:
        """Have a tenant's new quota count for who is connected, too. Who is there may stay."""
        self._meters.forget(tenant)
        for client in clients:
            if client.tenant == tenant:
                client.meter = self._meters.meter(tenant, now)

    def has_room(self, connections: int) -> bool:
        """Whether one more connection may be looked at, be it only to refuse it politely."""
        if self.is_open(connections):
            return True
        self.limited.connections += 1
        return False

    def is_open(self, connections: int) -> bool:
        """Answer as `has_room`, and count nothing."""
        return connections < self.quotas.connections + ROOM_TO_REFUSE

    def refusal(self, tenant: str, client_id: str, connections: int, now: int, *, is_return: bool) -> Refusal | None:
        """Return why a client cannot stay, and when it may try again. `tenant`: as for `accepted`.

        Who takes over its own session is not one more, but it is one more connect.
        """
        return (
            None if is_return else self._too_many(tenant or self._tenant_of(client_id), connections)
        ) or self._too_fast(now)

    def _too_many(self, tenant: str, connections: int) -> Refusal | None:
        quotas = self.quotas
        per_tenant = self._meters.quota_of(tenant).connections or quotas.connections_per_tenant
        if connections > quotas.connections:
            sentence = f"at most {quotas.connections} connections"
        elif per_tenant and self._connected[tenant] >= per_tenant:
            sentence = f"at most {per_tenant} connections of a tenant"
        else:
            return None
        self.limited.connections += 1
        return Refusal(reasons.QUOTA_EXCEEDED, f"{sentence}; {_hint(COME_BACK_S)}")

    def _too_fast(self, now: int) -> Refusal | None:
        bucket = self._connects
        if bucket is None:
            return None
        bucket.fill(now)
        if bucket.has(1):
            bucket.take(1)
            return None
        self.limited.connects += 1
        sentence = f"at most {self.quotas.connects_per_s} connects/s of all clients together"
        return Refusal(reasons.CONNECTION_RATE_EXCEEDED, f"{sentence}; {_hint(self._turns.wait_s(now))}")

    def busy(self, stalled: str, pending_bytes: int, pending_bytes_max: int) -> Refusal | None:
        """Return why nobody new can be served now: nothing can be stored, or too much waits for it."""
        if stalled:
            sentence, wait_s = f"nothing can be stored now: {stalled}", COME_BACK_S
        elif pending_bytes > pending_bytes_max:
            sentence, wait_s = f"at most {pending_bytes_max} bytes may wait to be stored", BUSY_S
        else:
            return None
        self.limited.connects += 1
        return Refusal(reasons.SERVER_BUSY, f"{sentence}; {_hint(wait_s)}")

    def accepted(self, client: Client, tenant: str, now: int) -> None:
        """Count a client in. `tenant`: whose it is by its credential; empty: by its client id."""
        client.tenant = tenant or self._tenant_of(client.peer.client_id)
        client.meter = self._meters.meter(client.tenant, now)
        self._connected[client.tenant] += 1

    def parted(self, client: Client) -> None:
        """Count a client out."""
        if client.tenant:
            self._connected[client.tenant] -= 1
            client.tenant = ""

    def passes(self, client: Client, publish: Publish, now: int) -> str:
        """Take a message under the rates; empty, or the sentence of the limit that it exceeds.

        Only who can be told is refused; the others are read later.
        """
        meter = client.meter
        assert meter is not None
        sentence = meter.exceeded(len(publish.payload), now)
        if not sentence:
            return ""
        if client.core.version == 5 and publish.qos:
            self.limited.messages += 1
            return sentence
        self.limited.held += 1
        client.socket.hold(meter.overdraw(len(publish.payload)) / 1e9)
        return ""

    def hold(self, client: Client) -> None:
        """Leave a client unread that has more under way than its share, until its turn comes."""
        if self.lane.hold(client):
            self.limited.held += 1

    def may_retain(self, message: Message, owner: str) -> str:
        """Return an empty string, or the sentence of the limit that a retained document exceeds; else it is counted."""
        tenant = self._tenant_of(owner) if owner != SERVER else SERVER
        sentence = self.retained.exceeded(message, owner, tenant) if owner != SERVER else ""
        if sentence:
            self.limited.retained += 1
        else:
            self.retained.put(message, owner, tenant)
        return sentence

    def may_subscribe(self, held: int, total: int) -> bool:
        """Whether a client that has `held` subscriptions may have one more, beside the `total` there are."""
        if held < self.quotas.subscriptions and total < self.quotas.total_subscriptions:
            return True
        self.limited.subscriptions += 1
        return False


def _hint(wait_s: int) -> str:
    return f"try again in {wait_s} s or more"
