"""Whose a device is, in the rows: taken in by a tenant, given to another. Within a transaction of the registry."""

from collections.abc import Sequence
from time import time_ns

import msgspec
import sqlalchemy as sa

from godwit.contract.ids import TenantId
from godwit.server.accounts.principal import Principal
from godwit.server.registry import store
from godwit.server.registry.model import Device, Lifecycle
from godwit.server.storage import tables as t
from godwit.server.storage.audit import record


def take_in(
    connection: sa.Connection, who: Principal, device: Device, before: Device | None, groups: Sequence[str]
) -> Device:
    """Insert a device, or (`before`: unclaimed) make it this tenant's, with what was known of it."""
    now = time_ns()
    if before is None:
        device = msgspec.structs.replace(device, created=now, updated=now)
        connection.execute(t.devices.insert(), {**store.row_of(device), **store.ABSENT})
    else:
        device = msgspec.structs.replace(
            device, name=device.name or before.name, location=before.location, created=before.created, updated=now,
            tags={**before.tags, **device.tags}, metadata={**before.metadata, **device.metadata},
        )  # fmt: skip
        where = t.devices.c.device_id == device.device_id
        connection.execute(t.devices.update().where(where), store.row_of(device))
        connection.execute(t.group_members.delete().where(t.group_members.c.device_id == device.device_id))
    if device.tags or before is not None:
        store.set_tags(connection, device)
    store.join_groups(connection, device, groups)
    record(
        connection, who.name, "device.claim", device.device_id, before=before, after=device, tenant=device.tenant,
        address=who.address,
    )  # fmt: skip
    return device


def hand_over(connection: sa.Connection, who: Principal, before: Device, tenant: TenantId) -> Device:
    """Give a device to a tenant, unclaimed, without what its owner said of it. Written in both tenants' logs."""
    after = Device(before.device_id, tenant, lifecycle=Lifecycle.UNCLAIMED, created=before.created, updated=time_ns())
    connection.execute(t.group_members.delete().where(t.group_members.c.device_id == after.device_id))
    connection.execute(t.devices.update().where(t.devices.c.device_id == after.device_id), store.row_of(after))
    store.set_tags(connection, after)
    verb = "device.release" if tenant == before.tenant else "device.transfer"
    record(
        connection, who.name, verb, after.device_id, before=before,
        after={"tenant": tenant, "lifecycle": str(after.lifecycle)}, tenant=before.tenant, address=who.address,
    )  # fmt: skip
    if tenant != before.tenant:  # whoever gets it is not told what the other called it
        record(connection, who.name, verb, after.device_id, after=after, tenant=tenant, address=who.address)
    return after
