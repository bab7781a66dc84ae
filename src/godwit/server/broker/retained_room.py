"""How much is retained, and whose it is: as it will be when everything that has come is durable.

A document is counted when it arrives, so that the messages of one group, which wait for their commit together, cannot
go beyond a limit together. What it replaces is counted out in the same moment. Topic, payload and properties count.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from godwit.mqtt.packets import NO_PROPERTIES, PublishProperties
from godwit.mqtt.server_message import Message

SERVER: Final = ""
"""Owner of what the server itself retains, or retained before it was started."""


class Limit(NamedTuple):
    """So many bytes at most for an owner, a tenant or all; 0: no limit."""

    total: int
    tenant: int
    owner: int


class _Entry(NamedTuple):
    size: int
    owner: str
    tenant: str
    expires: int


class RetainedRoom:
    """The sizes of the documents, by topic."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self.tenant_max_of: Callable[[str], int] = lambda _tenant: 0
        """What a tenant's own limit is; 0: that of every tenant."""
        self._entries: dict[str, _Entry] = {}
        self._owners: Counter[str] = Counter()
        self._tenants: Counter[str] = Counter()
        self.bytes = 0
        """Of all documents."""

    def of_tenants(self) -> dict[str, int]:
        """Return the bytes of the documents, by tenant."""
        return dict(self._tenants)

    def exceeded(self, message: Message, owner: str, tenant: str) -> str:
        """Return an empty string, or the sentence of the limit that `message` would exceed."""
        if not message.payload:
            return ""
        limit, size, before = self._limit, size_of(message), self._entries.get(message.topic)
        # What is replaced leaves room, but only to whom it was counted.
        left = before.size if before is not None else 0
        if limit.total and self.bytes - left + size > limit.total:
            return f"at most {limit.total} bytes are retained"
        left_by_tenant = left if before is not None and before.tenant == tenant else 0
        tenant_max = self.tenant_max_of(tenant) or limit.tenant
        if tenant_max and self._tenants[tenant] - left_by_tenant + size > tenant_max:
            return f"at most {tenant_max} bytes are retained for one tenant"
        left_by_owner = left if before is not None and before.owner == owner else 0
        if limit.owner and self._owners[owner] - left_by_owner + size > limit.owner:
            return f"at most {limit.owner} bytes are retained for one client"
        return ""

    def put(self, message: Message, owner: str, tenant: str) -> None:
        """Count a document in place of what its topic had; an empty payload clears the topic."""
        self._drop(message.topic)
        if message.payload:
            entry = self._entries[message.topic] = _Entry(size_of(message), owner, tenant, message.expires)
            self._count(entry, 1)

    def expire(self, message: Message) -> bool:
        """Count out a document that has expired; False if another one is on its way to its topic."""
        entry = self._entries.get(message.topic)
        if entry is None or entry.expires != message.expires:
            return False
        self._drop(message.topic)
        return True

    def _drop(self, topic: str) -> None:
        entry = self._entries.pop(topic, None)
        if entry is not None:
            self._count(entry, -1)

    def _count(self, entry: _Entry, sign: int) -> None:
        self.bytes += sign * entry.size
        for counter, key in ((self._owners, entry.owner), (self._tenants, entry.tenant)):
            if key == SERVER:
                continue
            counter[key] += sign * entry.size
            if not counter[key]:
                del counter[key]


def size_of(message: Message) -> int:
    """Return what a document takes: topic, payload and properties."""
    topic = message.topic
    size = len(message.payload) + (len(topic) if topic.isascii() else len(topic.encode()))
    return size if message.properties is NO_PROPERTIES else size + _properties_bytes(message.properties)


def _properties_bytes(properties: PublishProperties) -> int:
    texts = [properties.content_type or "", properties.response_topic or ""]
    for pair in properties.user_properties:
        texts.extend(pair)
    return sum(len(each.encode()) for each in texts) + len(properties.correlation_data or b"")
