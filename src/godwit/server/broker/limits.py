"""What one client, one tenant and all together may ask of the broker. Pure: the time is an argument.

Rates are token buckets that hold one burst. Who exceeds a rate is told so (MQTT 5: 0x97, with a sentence that names the
limit) or read later (3.1.1 and QoS 0, which cannot be told). 0 means without a limit.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from godwit.server.registry.model import TenantQuota

NS: Final = 1_000_000_000
BURST_S: Final = 5
"""A bucket holds what a rate gives in this time."""
TURN_S_MAX: Final = 300
"""Nobody is told to stay away for longer."""


class Quotas(msgspec.Struct, frozen=True, kw_only=True):
    """The limits in force."""

    connections: int = 100_000
    connections_per_tenant: int = 0
    connects_per_s: int = 0
    """Clients accepted, of all together."""
    messages_per_s: int = 0
    """Of one client, as are the next two."""
    bytes_per_s: int = 0
    subscriptions: int = 1_000
    tenant_messages_per_s: int = 0
    tenant_bytes_per_s: int = 0
    total_messages_per_s: int = 0
    total_bytes_per_s: int = 0
    total_subscriptions: int = 1_000_000
    queued_bytes: int = 536_870_912
    """Of the messages that wait for all subscribers together, each counted for each of them."""
    retained_bytes: int = 268_435_456
    retained_bytes_per_tenant: int = 0
    retained_bytes_per_client: int = 67_108_864
    """What one client may have laid down that was not cleared or replaced, since the server was started."""
    lane_bytes: int = 2_097_152
    """Waiting for their commit, of all together: beyond it those with more than a share take turns (`lane`)."""
    share_bytes: int = 32_768
    """Of one client, waiting for their commit."""


class Bucket:
    """A token bucket."""

    __slots__ = ("_at", "_level", "_most", "_per_ns")

    def __init__(self, per_s: int, now: int) -> None:
        self._per_ns = per_s / NS
        self._most = self._level = float(per_s * BURST_S)
        self._at = now

    def fill(self, now: int) -> None:
        """Add what the time has brought."""
        if now > self._at:
            self._level = min(self._most, self._level + (now - self._at) * self._per_ns)
            self._at = now

    def has(self, amount: float) -> bool:
        """Whether `amount` may be taken. More than a whole burst may be, once the bucket is full."""
        return self._level >= min(amount, self._most)

    def take(self, amount: float) -> None:
        """Take `amount`; the level may go below nothing."""
        self._level -= amount

    def wait_ns(self) -> int:
        """Return how long it takes until there is something again."""
        return 0 if self._level >= 0 else int(-self._level / self._per_ns)


class Turns:
    """When those who are refused for a rate may come again: one after the other, at the pace of the rate.

    Told the same time, they would all be back in the same moment.
    """

    __slots__ = ("_next", "_period_ns")

    def __init__(self, per_s: int) -> None:
        self._period_ns = NS // per_s
        self._next = 0

    def wait_s(self, now: int) -> int:
        """Return how many seconds the next one is to wait; at least one, at most `TURN_S_MAX`."""
        turn = self._next = max(self._next, now) + self._period_ns
        wait_s = min(-((now - turn) // NS), TURN_S_MAX)
        self._next = min(turn, now + TURN_S_MAX * NS)
        return wait_s


class Meter:
    """The rates that one client is under: its own, its tenant's, everybody's."""

    __slots__ = ("_buckets",)

    def __init__(self, buckets: "list[tuple[str, Bucket, bool]]") -> None:
        self._buckets = buckets

    def exceeded(self, size: int, now: int) -> str:
        """Take one message of `size` bytes out of all buckets; empty, or the sentence of the limit in the way."""
        for name, bucket, is_bytes in self._buckets:
            bucket.fill(now)
            if not bucket.has(size if is_bytes else 1):
                return name
        for _, bucket, is_bytes in self._buckets:
            bucket.take(size if is_bytes else 1)
        return ""

    def overdraw(self, size: int) -> int:
        """Take a message that cannot be refused; returns for how long (ns) its sender is not to be read."""
        for _, bucket, is_bytes in self._buckets:
            bucket.take(size if is_bytes else 1)
        return max(bucket.wait_ns() for _, bucket, _ in self._buckets)


NO_QUOTA: Final = TenantQuota()


class Meters:
    """Makes the meters of clients; tenants and everybody share theirs."""

    def __init__(self, quotas: Quotas, now: int) -> None:
        self.quotas = quotas
        self.quota_of: Callable[[str], TenantQuota] = lambda _tenant: NO_QUOTA
        """What a tenant may use by its own quota."""
        self._total = _buckets("all clients together", quotas.total_messages_per_s, quotas.total_bytes_per_s, now)
        self._tenants: dict[str, list[tuple[str, Bucket, bool]]] = {}

    def meter(self, tenant: str, now: int) -> Meter | None:
        """Return the meter of a new client, None where no rate is limited."""
        quotas = self.quotas
        shared = self._tenants.get(tenant)
        if shared is None:
            own = self.quota_of(tenant)
            shared = self._tenants[tenant] = _buckets(
                f"tenant {tenant}",
                own.messages_per_s or quotas.tenant_messages_per_s,
                own.bytes_per_s or quotas.tenant_bytes_per_s,
                now,
            )
        buckets = [*_buckets("this client", quotas.messages_per_s, quotas.bytes_per_s, now), *shared, *self._total]
        return Meter(buckets) if buckets else None

    def forget(self, tenant: str) -> None:
        """Make the tenant's next meter by its quota as it is then: it has changed."""
        self._tenants.pop(tenant, None)


def _buckets(whose: str, messages: int, size: int, now: int) -> list[tuple[str, Bucket, bool]]:
    found = []
    if messages:
        found.append((f"at most {messages} messages/s for {whose}", Bucket(messages, now), False))
    if size:
        found.append((f"at most {size} bytes/s for {whose}", Bucket(size, now), True))
    return found
