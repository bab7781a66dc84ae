"""The rooms of a running server, as one value. `main` builds it; API and console read it."""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from godwit.server.accounts.principal import Principal
from godwit.server.accounts.room import Accounts
from godwit.server.broker.inspection import Inspection, TenantLoad
from godwit.server.broker.redirect import Redirect
from godwit.server.broker.stats import BrokerStats
from godwit.server.identity.room import Identity
from godwit.server.ingest.door import IngestDoor
from godwit.server.ingest.trace import Trace
from godwit.server.registry.access import sees
from godwit.server.registry.door import RegistryDoor
from godwit.server.registry.model import Tenant
from godwit.server.settings import Settings
from godwit.server.storage.database import Database
from godwit.server.telemetry.live import LiveFeed
from godwit.server.telemetry.store import TelemetryStore

__all__ = ["BrokerDoor", "BrokerStats", "Platform"]


class BrokerDoor(Protocol):
    """What other rooms see of the broker. Safe to call from any thread."""

    def stats(self) -> BrokerStats:
        """Return counters."""
        ...

    def trouble(self) -> list[str]:
        """Return sentences that say why messages do not come; empty when they do."""
        ...

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish as the platform; returns once durable."""
        ...

    @property
    def inspection(self) -> Inspection:
        """Who is connected, which sessions are kept, who subscribes to what."""
        ...

    async def kick(self, client_id: str) -> bool:
        """Disconnect a client; False if it is not there."""
        ...

    @property
    def redirect(self) -> Redirect | None:
        """Where clients are sent instead; None: they are welcome."""
        ...

    async def set_redirect(self, redirect: Redirect | None) -> int:
        """Send clients elsewhere from now on, or (None) let them in again; returns how many have to leave."""
        ...

    async def redirect_client(self, client_id: str, redirect: Redirect) -> bool:
        """Send one client elsewhere; False if it is not there."""
        ...


class TenantUse(msgspec.Struct, frozen=True, rename="camel"):
    """What a tenant uses at this moment, of what its quota limits."""

    devices: int
    connections: int
    messages_per_s: float
    retained_bytes: int
    quarantine_bytes: int


class Platform(msgspec.Struct):
    """All that pages and routes may ask. `started` is ns UTC; `trouble()` lists what stops the platform being ready."""

    settings: Settings
    registry: RegistryDoor
    database: Database
    identity: Identity
    accounts: Accounts
    store: TelemetryStore
    ingest: IngestDoor
    live: LiveFeed
    broker: BrokerDoor
    started: int
    admin_token: str
    sign_in_token: str
    """One-time token of the sign-in link; the console forgets it at first use."""
    trace: Trace = msgspec.field(default_factory=Trace)

    def use_of(self, tenants: Iterable[Tenant]) -> dict[str, TenantUse]:
        """Return what tenants use, by name. Blocks."""
        is_ours = self.settings.mqtt_broker == "embedded"  # of a foreign broker's clients nobody here knows
        loads, kept = self.broker.inspection.use() if is_ours else {}, self.ingest.stats().quarantine_bytes
        found = {}
        for each in tenants:
            load = loads.get(each.name, TenantLoad())
            found[str(each.name)] = TenantUse(
                each.devices, load.connections, round(load.messages_per_s, 3), load.retained_bytes,
                kept.get(each.name, 0),
            )  # fmt: skip
        return found

    def warnings(self, who: Principal) -> list[str]:
        """Return sentences about what the tenants of `who` lack, though the platform is ready."""
        return [
            f"Tenant {tenant} has all the devices that it may have ({self.registry.tenancy.quota_of(tenant).devices}). "
            "What others send that would register themselves is kept in quarantine (quota-devices): raise the "
            "limit, or erase devices that are gone."
            for tenant in self.ingest.stats().full
            if sees(who, tenant)
        ]

    def trouble(self) -> list[str]:
        """Return sentences that say why the platform is not ready; empty when it is."""
        stalled = self.ingest.stats().stalled
        return ([stalled] if stalled else []) + self.broker.trouble()
