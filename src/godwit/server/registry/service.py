"""The registry's use cases, each in one transaction, audited; who changed what is told after the commit."""

import re
from collections.abc import Callable, Iterable, Sequence
from time import time_ns
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from godwit.contract.errors import MalformedError, RejectedError
from godwit.contract.ids import DEFAULT_TENANT, DeviceId, TenantId, TypeName, parse_device_id
from godwit.server.registry import owners, store
from godwit.server.registry.access import may_use, not_found, require_tenant, sees, visible
from godwit.server.registry.cursors import read_cursor, write_cursor
from godwit.server.registry.model import (
    DEFAULT_TYPE,
    Device,
    DevicePage,
    DeviceType,
    Group,
    Lifecycle,
    Presence,
    Principal,
)
from godwit.server.registry.policies import Policies
from godwit.server.registry.tenants import Tenants
from godwit.server.storage import tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

PAGE_MAX: Final = 1_000
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:-]{0,63}")
_CHANGEABLE: Final = frozenset({"deviceType", "name", "lifecycle", "location", "tags", "metadata"})

Change = Device | DeviceType | DeviceId


class Registry:
    """Implements `RegistryDoor`. Thread-safe; every method blocks."""

    def __init__(self, database: Database) -> None:
        self._write, self._read = database.write, database.read
        self._listeners: list[Callable[[Change], None]] = []
        self.policies = Policies(database)
        with self._write() as connection:
            store.insert_or_keep(connection, t.tenants, [{"name": DEFAULT_TENANT, "created": time_ns()}])
        self.tenancy = Tenants(database)

    def _tell(self, changed: Change) -> None:
        for listener in self._listeners:
            listener(changed)

    def on_change(self, listener: Callable[[Change], None]) -> None:
        """Call `listener` after each commit with what changed."""
        self._listeners.append(listener)

    # --- devices ------------------------------------------------------------------------------------------------

    def devices(
        self,
        who: Principal,
        *,
        search: str = "",
        tenant: TenantId | None = None,
        device_type: TypeName | None = None,
        lifecycle: str | None = None,
        group: str | None = None,
        online: bool | None = None,
        tags: dict[str, str] | None = None,
        sort: str = "deviceId",
        descending: bool = False,
        cursor: str | None = None,
        limit: int = 100,
    ) -> DevicePage:
        """Return one page of devices. Raises RejectedError (`invalid-sort`, `invalid-cursor`)."""
        if sort not in store.SORTS:
            raise RejectedError(f"sort is one of {', '.join(store.SORTS)}", code="invalid-sort")
        conditions = [visible(who)]
        equal = {"tenant": tenant, "device_type": device_type, "lifecycle": lifecycle, "online": online}
        conditions += [t.devices.c[name] == value for name, value in equal.items() if value is not None]
        if search:
            pattern = search.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            lowered = sa.func.lower
            conditions.append(
                sa.or_(
                    lowered(t.devices.c.device_id).like(f"%{pattern}%", escape="\\"),
                    lowered(t.devices.c.name).like(f"%{pattern}%", escape="\\"),
                )
            )
        if group is not None:
            members = sa.select(t.group_members.c.device_id).where(t.group_members.c.name == group)
            conditions.append(t.devices.c.device_id.in_(members))
        for key, value in (tags or {}).items():
            tagged = sa.select(t.device_tags.c.device_id).where(
                t.device_tags.c.key == key, t.device_tags.c.value == value
            )
            conditions.append(t.devices.c.device_id.in_(tagged))
        condition = sa.and_(*conditions)
        limit = max(1, min(limit, PAGE_MAX))
        after = read_cursor(cursor, sort) if cursor else None
        statement = store.select_devices(condition, sort, descending=descending, after=after, limit=limit + 1)
        with self._read() as connection:
            rows = connection.execute(statement).all()
            total = connection.execute(sa.select(sa.func.count()).select_from(t.devices).where(condition)).scalar_one()
        next_cursor = None
        if len(rows) > limit:
            rows = rows[:limit]
            next_cursor = write_cursor(sort, getattr(rows[-1], store.SORTS[sort].name), rows[-1].device_id)
        return DevicePage([(store.device_of(row), store.presence_of(row)) for row in rows], next_cursor, total)

    def _row(self, connection: sa.Connection, who: Principal, device_id: str) -> Any:
        row = connection.execute(sa.select(t.devices).where(t.devices.c.device_id == device_id)).one_or_none()
        if row is None or not may_use(who, row.tenant):
            raise not_found("device", device_id)
        return row

    def device(self, who: Principal, device_id: DeviceId) -> Device:
        """Return a device. Raises RejectedError (`not-found`)."""
        with self._read() as connection:
            return store.device_of(self._row(connection, who, device_id))

    def presence(self, who: Principal, device_id: DeviceId) -> Presence:
        """Return a device's presence. Raises RejectedError (`not-found`)."""
        with self._read() as connection:
            return store.presence_of(self._row(connection, who, device_id))

    def create_device(self, who: Principal, device: Device) -> Device:
        """Insert a device. Raises RejectedError (`exists`, `invalid-...`)."""
        try:
            parse_device_id(device.device_id)
        except MalformedError as error:
            raise RejectedError(str(error), code=error.code) from error
        now = time_ns()
        device = msgspec.structs.replace(device, tenant=require_tenant(who, device.tenant), created=now, updated=now)
        with self._write() as connection:
            self._require_tenant_row(connection, device.tenant)
            known = sa.select(t.devices.c.device_id).where(t.devices.c.device_id == device.device_id)
            if connection.execute(known).one_or_none() is not None:
                raise RejectedError(f"the id {device.device_id!r} is taken", code="exists")
            self.tenancy.require_room(connection, device.tenant)
            connection.execute(t.devices.insert(), {**store.row_of(device), **store.ABSENT})
            store.set_tags(connection, device)
            record(
                connection,
                who.name,
                "device.create",
                device.device_id,
                after=device,
                tenant=device.tenant,
                address=who.address,
            )
        self._tell(device)
        return device

    def take_in(self, who: Principal, device: Device, groups: Sequence[str] = ()) -> Device:
        """Insert a device, or make an unclaimed one this tenant's own; in these groups, made where they are missing.

        Raises RejectedError (`not-found`: no such tenant; `exists`: it is somebody's already).
        """
        device = msgspec.structs.replace(device, tenant=require_tenant(who, device.tenant))
        with self._write() as connection:
            self._require_tenant_row(connection, device.tenant)
            row = connection.execute(
                sa.select(t.devices).where(t.devices.c.device_id == device.device_id)
            ).one_or_none()
            before = None if row is None else store.device_of(row)
            if before is not None and (before.lifecycle is not Lifecycle.UNCLAIMED or not sees(who, before.tenant)):
                raise RejectedError(f"the id {device.device_id!r} is taken", code="exists")
            if before is None or before.tenant != device.tenant:
                self.tenancy.require_room(connection, device.tenant)
            device = owners.take_in(connection, who, device, before, groups)
        self._tell(device)
        return device

    def create_devices(
        self, who: Principal, wanted: Sequence[tuple[Device, Sequence[str]]]
    ) -> list[Device | RejectedError]:
        """Insert devices with their groups in one transaction, keeping those that are there; unclaimed ones are taken.

        Returns each as it is now, or why not (`not-found`: no such tenant, `exists`: it is not for these eyes).
        """
        found: list[Device | RejectedError] = []
        fresh: list[Device] = []
        with self._write() as connection:
            ids = [device.device_id for device, _ in wanted]
            rows = connection.execute(sa.select(t.devices).where(t.devices.c.device_id.in_(ids)))
            known = {row.device_id: store.device_of(row) for row in rows}
            tenants = set(connection.execute(sa.select(t.tenants.c.name)).scalars())
            for device, groups in wanted:
                before = known.get(device.device_id)
                if device.tenant not in tenants or not sees(who, device.tenant):
                    found.append(not_found("tenant", device.tenant))
                elif before is not None and not sees(who, before.tenant):
                    found.append(RejectedError(f"the id {device.device_id!r} is taken", code="exists"))
                elif before is not None and before.lifecycle is not Lifecycle.UNCLAIMED:
                    found.append(before)
                elif (full := self._lacks_room(connection, device, before)) is not None:
                    found.append(full)
                else:
                    fresh.append(owners.take_in(connection, who, device, before, groups))
                    found.append(fresh[-1])
        for each in fresh:
            self._tell(each)
        return found

    def hand_over(self, who: Principal, device_id: DeviceId, tenant: TenantId) -> Device:
        """Give a device to a tenant, unclaimed. Raises RejectedError (`not-found`)."""
        with self._write() as connection:
            before = store.device_of(self._row(connection, who, device_id))
            self._require_tenant_row(connection, tenant)
            if tenant != before.tenant:
                self.tenancy.require_room(connection, tenant)
            after = owners.hand_over(connection, who, before, tenant)
        self._tell(after)
        return after

    def _lacks_room(self, connection: sa.Connection, device: Device, before: Device | None) -> RejectedError | None:
        if before is not None and before.tenant == device.tenant:
            return None
        try:
            self.tenancy.require_room(connection, device.tenant)
        except RejectedError as error:
            return error
        return None

    def change_device(self, who: Principal, device_id: DeviceId, changes: dict[str, object]) -> Device:
        """Change some fields (camelCase). Raises RejectedError (`not-found`, `invalid-field`)."""
        unknown = set(changes) - _CHANGEABLE
        if unknown:
            raise RejectedError(f"{min(unknown)!r} cannot be changed", code="invalid-field")
        with self._write() as connection:
            before = store.device_of(self._row(connection, who, device_id))
            document = {**msgspec.to_builtins(before), **changes, "updated": time_ns()}
            try:
                after = msgspec.convert(document, Device)
            except msgspec.ValidationError as error:
                raise RejectedError(str(error), code="invalid-field") from error
            connection.execute(t.devices.update().where(t.devices.c.device_id == device_id), store.row_of(after))
            store.set_tags(connection, after)
            record(
                connection,
                who.name,
                "device.change",
                device_id,
                before=before,
                after=after,
                tenant=after.tenant,
                address=who.address,
            )
        self._tell(after)
        return after

    def retire_device(self, who: Principal, device_id: DeviceId) -> Device:
        """Retire a device: its data stays, its messages are refused."""
        return self.change_device(who, device_id, {"lifecycle": str(Lifecycle.RETIRED)})

    def erase_device(self, who: Principal, device_id: DeviceId) -> None:
        """Remove a device from the registry. Its telemetry is ingest's to erase."""
        with self._write() as connection:
            before = store.device_of(self._row(connection, who, device_id))
            for table in (t.device_tags, t.group_members, t.devices):
                connection.execute(table.delete().where(table.c.device_id == device_id))
            record(
                connection,
                who.name,
                "device.erase",
                device_id,
                before=before,
                tenant=before.tenant,
                address=who.address,
            )
        self._tell(DeviceId(device_id))

    def counts(self, who: Principal) -> dict[str, int]:
        """Return fleet numbers."""
        total, online = sa.func.count(), sa.func.sum(sa.case((t.devices.c.online, 1), else_=0))
        statement = sa.select(t.devices.c.lifecycle, total, online).where(visible(who)).group_by(t.devices.c.lifecycle)
        with self._read() as connection:
            rows = connection.execute(statement).all()
        found = {str(each): 0 for each in Lifecycle} | {str(row[0]): int(row[1]) for row in rows}
        return {"total": sum(int(row[1]) for row in rows), "online": sum(int(row[2] or 0) for row in rows), **found}

    def positions(self, who: Principal, limit: int = 10_000) -> list[tuple[DeviceId, float, float, bool]]:
        """Return devices with a known place."""
        c = t.devices.c
        statement = (
            sa.select(c.device_id, c.latitude, c.longitude, c.online)
            .where(visible(who), c.latitude.is_not(None), c.longitude.is_not(None))
            .limit(limit)
        )
        with self._read() as connection:
            return [(DeviceId(row[0]), row[1], row[2], bool(row[3])) for row in connection.execute(statement)]

    # --- types, groups, tenants -----------------------------------------------------------------------------------

    def types(self, who: Principal) -> list[DeviceType]:
        """Return the device types that `who` may see."""
        with self._read() as connection:
            rows = connection.execute(
                sa.select(t.device_types)
                .where(visible(who, t.device_types.c.tenant))
                .order_by(t.device_types.c.tenant, t.device_types.c.name)
            ).all()
        return [store.type_of(row) for row in rows]

    def put_type(self, who: Principal, device_type: DeviceType) -> DeviceType:
        """Insert or replace a device type. Raises RejectedError (`invalid-name`, `invalid-field`)."""
        _check_name(device_type.name)
        names = [reading.name for reading in device_type.readings]
        if len(names) != len(set(names)):
            raise RejectedError("a reading is declared twice", code="invalid-field")
        device_type = msgspec.structs.replace(device_type, tenant=require_tenant(who, device_type.tenant))
        with self._write() as connection:
            self._require_tenant_row(connection, device_type.tenant)
            where = sa.and_(t.device_types.c.tenant == device_type.tenant, t.device_types.c.name == device_type.name)
            before = connection.execute(sa.select(t.device_types).where(where)).one_or_none()
            document = msgspec.to_builtins(device_type)
            if before is None:
                row = {"tenant": device_type.tenant, "name": device_type.name, "document": document}
                connection.execute(t.device_types.insert(), row)
            else:
                connection.execute(t.device_types.update().where(where), {"document": document})
            record(
                connection, who.name, "type.put", device_type.name, before=before.document if before else None,
                after=document, tenant=device_type.tenant, address=who.address,
            )  # fmt: skip
        self._tell(device_type)
        return device_type

    def delete_type(self, who: Principal, tenant: TenantId, name: TypeName) -> None:
        """Remove a device type. Raises RejectedError (`not-found`, `in-use`)."""
        tenant = require_tenant(who, tenant)
        with self._write() as connection:
            used = sa.select(sa.func.count()).where(t.devices.c.tenant == tenant, t.devices.c.device_type == name)
            if connection.execute(used).scalar_one():
                raise RejectedError(f"devices are of the type {name!r}", code="in-use")
            where = sa.and_(t.device_types.c.tenant == tenant, t.device_types.c.name == name)
            if not connection.execute(t.device_types.delete().where(where)).rowcount:
                raise not_found("device type", name)
            record(connection, who.name, "type.delete", name, tenant=tenant, address=who.address)
        self._tell(DeviceType(name, tenant))

    def groups(self, who: Principal) -> list[Group]:
        """Return the groups that `who` may see, with their sizes."""
        g, m = t.groups.c, t.group_members.c
        size = sa.select(sa.func.count()).where(m.tenant == g.tenant, m.name == g.name).scalar_subquery()
        statement = (
            sa.select(g.tenant, g.name, g.description, size).where(visible(who, g.tenant)).order_by(g.tenant, g.name)
        )
        with self._read() as connection:
            return [Group(row[1], TenantId(row[0]), row[2], row[3]) for row in connection.execute(statement)]

    def put_group(self, who: Principal, group: Group) -> Group:
        """Insert a group or change its description. Raises RejectedError (`invalid-name`)."""
        _check_name(group.name)
        tenant = require_tenant(who, group.tenant)
        with self._write() as connection:
            self._require_tenant_row(connection, tenant)
            row = {"tenant": tenant, "name": group.name, "description": group.description}
            store.insert_or_keep(connection, t.groups, [row])
            where = sa.and_(t.groups.c.tenant == tenant, t.groups.c.name == group.name)
            connection.execute(t.groups.update().where(where), {"description": group.description})
            record(connection, who.name, "group.put", group.name, after=row, tenant=tenant, address=who.address)
        return next(each for each in self.groups(who) if (each.tenant, each.name) == (tenant, group.name))

    def delete_group(self, who: Principal, tenant: TenantId, name: str) -> None:
        """Remove a group; its devices stay. Raises RejectedError (`not-found`)."""
        tenant = require_tenant(who, tenant)
        with self._write() as connection:
            self._require_group(connection, tenant, name)
            for table in (t.group_members, t.groups):
                connection.execute(table.delete().where(table.c.tenant == tenant, table.c.name == name))
            record(connection, who.name, "group.delete", name, tenant=tenant, address=who.address)

    def _require_group(self, connection: sa.Connection, tenant: TenantId, name: str) -> None:
        where = sa.and_(t.groups.c.tenant == tenant, t.groups.c.name == name)
        if connection.execute(sa.select(t.groups.c.name).where(where)).one_or_none() is None:
            raise not_found("group", name)

    def add_to_group(self, who: Principal, tenant: TenantId, name: str, devices: Sequence[DeviceId]) -> int:
        """Add devices; returns how many are in the group now. Raises RejectedError (`not-found`)."""
        tenant = require_tenant(who, tenant)
        with self._write() as connection:
            self._require_group(connection, tenant, name)
            for device_id in devices:
                if self._row(connection, who, device_id).tenant != tenant:
                    raise not_found("device", device_id)
            rows = [{"tenant": tenant, "name": name, "device_id": each} for each in devices]
            if rows:
                store.insert_or_keep(connection, t.group_members, rows)
            record(connection, who.name, "group.add", name, after=list(devices), tenant=tenant, address=who.address)
            return self._group_size(connection, tenant, name)

    def remove_from_group(self, who: Principal, tenant: TenantId, name: str, devices: Sequence[DeviceId]) -> int:
        """Remove devices; returns how many are left. Raises RejectedError (`not-found`)."""
        tenant = require_tenant(who, tenant)
        m = t.group_members.c
        with self._write() as connection:
            self._require_group(connection, tenant, name)
            where = sa.and_(m.tenant == tenant, m.name == name, m.device_id.in_(list(devices)))
            connection.execute(t.group_members.delete().where(where))
            record(connection, who.name, "group.remove", name, before=list(devices), tenant=tenant, address=who.address)
            return self._group_size(connection, tenant, name)

    def _group_size(self, connection: sa.Connection, tenant: TenantId, name: str) -> int:
        m = t.group_members.c
        return connection.execute(sa.select(sa.func.count()).where(m.tenant == tenant, m.name == name)).scalar_one()

    def tenants(self, who: Principal) -> list[TenantId]:
        """Return the tenants that `who` may see."""
        with self._read() as connection:
            statement = sa.select(t.tenants.c.name).where(visible(who, t.tenants.c.name)).order_by(t.tenants.c.name)
            return [TenantId(row[0]) for row in connection.execute(statement)]

    def put_tenant(self, who: Principal, tenant: TenantId) -> None:
        """Add a tenant. Raises RejectedError (`invalid-name`, `forbidden`)."""
        who.require_installation()
        _check_name(tenant)
        self.tenancy.put(who, tenant)

    def require_tenants(self, who: Principal, *names: TenantId) -> None:
        """Raise RejectedError (`not-found`) unless these tenants are there, for these eyes."""
        known = set(self.tenants(who))
        for each in names:
            if each not in known:
                raise not_found("tenant", each)

    def _require_tenant_row(self, connection: sa.Connection, tenant: TenantId) -> None:
        if connection.execute(sa.select(t.tenants.c.name).where(t.tenants.c.name == tenant)).one_or_none() is None:
            raise not_found("tenant", tenant)

    # --- for the machine itself -----------------------------------------------------------------------------------

    def load_all(self) -> tuple[list[Device], list[DeviceType]]:
        """Return all devices and types."""
        with self._read() as connection:
            rows = connection.execute(sa.select(t.devices)).all()
            types = connection.execute(sa.select(t.device_types)).all()
        return [store.device_of(row) for row in rows], [store.type_of(row) for row in types]

    def register_unclaimed(self, devices: Iterable[DeviceId], now: int) -> None:
        """Insert devices as unclaimed, keeping those that exist."""
        rows = [
            store.row_of(
                Device(each, device_type=DEFAULT_TYPE, lifecycle=Lifecycle.UNCLAIMED, created=now, updated=now)
            )
            | store.ABSENT
            for each in devices
        ]
        if rows:
            with self._write() as connection:
                store.insert_or_keep(connection, t.devices, rows)

    def write_presence(self, rows: Sequence[Presence]) -> None:
        """Update presence where `number` is not lower than the stored one."""
        if rows:
            with self._write() as connection:
                store.write_presence(connection, rows)

    def write_places(self, rows: Sequence[tuple[DeviceId, float, float, float | None]]) -> None:
        """Keep the last reported position of devices."""
        if rows:
            with self._write() as connection:
                store.write_places(connection, rows)

    def load_presence(self) -> list[Presence]:
        """Return the presence of all devices."""
        with self._read() as connection:
            return [store.presence_of(row) for row in connection.execute(sa.select(t.devices))]


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise RejectedError(
            f"{name[:80]!r} is no name: 1 to 64 letters, digits, spaces or . _ : -, the first one a letter or digit",
            code="invalid-name",
        )
