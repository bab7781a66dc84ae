"""What each tenant wants of its devices' messages, and who is told when that changes."""

from collections.abc import Callable

import msgspec
import sqlalchemy as sa

from godwit.contract.ids import TenantId
from godwit.server.accounts.principal import Principal
from godwit.server.registry import store
from godwit.server.registry.access import not_found, require_tenant
from godwit.server.registry.model import TenantPolicy
from godwit.server.storage import tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database


class Policies:
    """The room. Blocks: called in threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: list[Callable[[TenantPolicy], None]] = []

    def on_change(self, listener: Callable[[TenantPolicy], None]) -> None:
        """Call `listener` (from the writing thread, after the commit) with what changed."""
        self._listeners.append(listener)

    def get(self, who: Principal, tenant: TenantId) -> TenantPolicy:
        """Return what a tenant wants. Raises RejectedError (`not-found`)."""
        tenant = require_tenant(who, tenant)
        with self._database.read() as connection:
            return _policy(connection, tenant)

    def put(self, who: Principal, policy: TenantPolicy) -> TenantPolicy:
        """Set what a tenant wants. Raises RejectedError (`not-found`, `forbidden`)."""
        who.require("admin")
        policy = msgspec.structs.replace(policy, tenant=require_tenant(who, policy.tenant))
        with self._database.write() as connection:
            before = _policy(connection, policy.tenant)
            where = t.tenants.c.name == policy.tenant
            connection.execute(t.tenants.update().where(where), {"policy": msgspec.to_builtins(policy)})
            record(
                connection, who.name, "tenant.policy", policy.tenant, before=before, after=policy,
                tenant=policy.tenant, address=who.address,
            )  # fmt: skip
        for listener in self._listeners:
            listener(policy)
        return policy

    def load(self) -> list[TenantPolicy]:
        """Return what the tenants want, for the hot path, at start."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(t.tenants)).all()
        return [store.policy_of(row) for row in rows if row.policy]


def _policy(connection: sa.Connection, tenant: TenantId) -> TenantPolicy:
    row = connection.execute(sa.select(t.tenants).where(t.tenants.c.name == tenant)).one_or_none()
    if row is None:
        raise not_found("tenant", tenant)
    return store.policy_of(row)
