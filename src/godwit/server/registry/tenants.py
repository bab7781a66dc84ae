"""Tenants and what each may use: their quotas, in memory for the doors that ask all the time.

A quota of 0 means: what the settings say for every tenant. Only an administrator of all tenants changes one.
"""

import threading
from collections.abc import Callable
from time import time_ns
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DEFAULT_TENANT, TenantId
from godwit.server.registry.access import not_found, visible
from godwit.server.registry.model import Principal, Tenant, TenantQuota
from godwit.server.registry.store import insert_or_keep
from godwit.server.storage import account_tables, identity_tables
from godwit.server.storage import tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

NONE: Final = TenantQuota()
_OWNED: Final = {
    "devices": t.devices,
    "device types": t.device_types,
    "groups": t.groups,
    "certificates": identity_tables.certificates,
    "authorities": identity_tables.authorities,
    "claims": identity_tables.claims,
    "enrollment rules": identity_tables.enrollment_rules,
}
"""What a tenant has to be rid of before it can be removed."""

Listener = Callable[[TenantId, TenantQuota], None]


class Tenants:
    """Thread-safe. `quota_of` asks memory; the other methods block."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._quotas: dict[str, TenantQuota] = {}
        self._listeners: list[Listener] = []
        with database.read() as connection:
            for name, quota in connection.execute(sa.select(t.tenants.c.name, t.tenants.c.quota)):
                self._quotas[name] = _quota_of(quota)

    def on_quota(self, listener: Listener) -> None:
        """Call `listener` (from the writing thread, after the commit) with a tenant's new quota."""
        self._listeners.append(listener)

    def names(self) -> list[str]:
        """Return all tenants, by name; from memory."""
        with self._lock:
            return sorted(self._quotas)

    def put(self, who: Principal, name: TenantId) -> None:
        """Add a tenant; one that is there stays as it is. Raises RejectedError (`forbidden`)."""
        who.require_installation()
        with self._database.write() as connection:
            insert_or_keep(connection, t.tenants, [{"name": name, "created": time_ns()}])
            record(connection, who.name, "tenant.put", name, tenant=name, address=who.address)
        with self._lock:
            self._quotas.setdefault(name, NONE)

    def quota_of(self, tenant: str) -> TenantQuota:
        """Return what a tenant may use."""
        return self._quotas.get(tenant, NONE)

    def get(self, who: Principal, name: TenantId) -> Tenant:
        """Return a tenant with what it has. Raises RejectedError (`not-found`)."""
        found = self._find(who, t.tenants.c.name == name)
        return found[0] if found else self._refuse(name)

    def all(self, who: Principal) -> list[Tenant]:
        """Return all tenants that `who` may see, with what they have, by name."""
        return self._find(who)

    def _refuse(self, name: str) -> Tenant:
        raise not_found("tenant", name)

    def _find(self, who: Principal, *conditions: "sa.ColumnElement[bool]") -> list[Tenant]:
        count = sa.select(sa.func.count()).where(t.devices.c.tenant == t.tenants.c.name).scalar_subquery()
        statement = sa.select(t.tenants, count.label("devices")).where(*conditions, visible(who, t.tenants.c.name))
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(t.tenants.c.name)).all()
        return [Tenant(row.name, row.created, row.devices, _quota_of(row.quota)) for row in rows]

    def set_quota(self, who: Principal, name: TenantId, changes: dict[str, int]) -> Tenant:
        """Change some limits of a tenant (fields of TenantQuota). Raises RejectedError (`not-found`, `forbidden`)."""
        who.require_installation()
        where = t.tenants.c.name == name
        with self._database.write() as connection:
            row = connection.execute(sa.select(t.tenants.c.quota).where(where)).one_or_none()
            if row is None:
                raise not_found("tenant", name)
            before = _quota_of(row.quota)
            after = msgspec.structs.replace(before, **changes)
            connection.execute(t.tenants.update().where(where), {"quota": msgspec.to_builtins(after)})
            record(
                connection, who.name, "tenant.quota", name, before=before, after=after, tenant=name,
                address=who.address,
            )  # fmt: skip
        with self._lock:
            self._quotas[name] = after
        for listener in self._listeners:
            listener(name, after)
        return self.get(who, name)

    def remove(self, who: Principal, name: TenantId) -> None:
        """Remove a tenant that has nothing left. Raises RejectedError (`not-found`, `in-use`, `forbidden`)."""
        who.require_installation()
        if name == DEFAULT_TENANT:
            raise RejectedError("the default tenant stays: unclaimed devices land there", code="in-use")
        with self._database.write() as connection:
            left = [word for word, table in _OWNED.items() if _has_any(connection, table, name)]
            left += [word for word, table in _GRANTING.items() if _is_granted(connection, table, name)]
            if left:
                raise RejectedError(f"tenant {name!r} still has {', '.join(left)}", code="in-use")
            ours = identity_tables.platform_keys
            connection.execute(ours.delete().where(ours.c.tenant == name))
            if not connection.execute(t.tenants.delete().where(t.tenants.c.name == name)).rowcount:
                raise not_found("tenant", name)
            record(connection, who.name, "tenant.remove", name, tenant=name, address=who.address)
        with self._lock:
            self._quotas.pop(name, None)

    def require_room(self, connection: sa.Connection, tenant: TenantId, more: int = 1) -> None:
        """Raise RejectedError (`quota-devices`) where a tenant may not have so many more devices."""
        devices_max = self.quota_of(tenant).devices
        if not devices_max:
            return
        has = connection.execute(
            sa.select(sa.func.count()).select_from(t.devices).where(t.devices.c.tenant == tenant)
        ).scalar_one()
        if has + more > devices_max:
            raise RejectedError(f"at most {devices_max} devices of tenant {tenant}; it has {has}", code="quota-devices")


_GRANTING: Final = {"users": account_tables.users, "tokens": account_tables.api_tokens}


def _quota_of(document: Any) -> TenantQuota:
    return msgspec.convert(document, TenantQuota) if document else NONE


def _has_any(connection: sa.Connection, table: sa.Table, tenant: str) -> bool:
    found = connection.execute(sa.select(sa.literal(1)).select_from(table).where(table.c.tenant == tenant).limit(1))
    return found.first() is not None


def _is_granted(connection: sa.Connection, table: sa.Table, tenant: str) -> bool:
    """Whether somebody has a role in a tenant. Grants are JSON: there are few, so they are looked at here."""
    statement = sa.select(table.c.grants)
    if "revoked" in table.c:
        statement = statement.where(table.c.revoked == 0)
    return any(tenant in grants for grants in connection.execute(statement).scalars())
