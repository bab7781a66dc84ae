"""SQL of the registry: rows in and out of SQLite or PostgreSQL. No rules."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from godwit.contract.ids import DeviceId, TenantId, TypeName
from godwit.server.registry.model import Device, DeviceType, Lifecycle, Location, Presence, TenantPolicy
from godwit.server.storage import tables as t

SORTS: Final = {
    "deviceId": t.devices.c.device_id,
    "name": t.devices.c.name,
    "created": t.devices.c.created,
    "lastSeen": t.devices.c.last_seen,
    "type": t.devices.c.device_type,
    "online": t.devices.c.online,
}


def device_of(row: Any) -> Device:
    """Return a row of `devices` as a device."""
    return Device(
        DeviceId(row.device_id),
        TenantId(row.tenant),
        TypeName(row.device_type),
        row.name,
        Lifecycle(row.lifecycle),
        Location(row.place, row.latitude, row.longitude, row.altitude),
        row.tags,
        row.metadata,
        row.created,
        row.updated,
    )


def presence_of(row: Any) -> Presence:
    """Return the presence in a row of `devices`."""
    return Presence(
        DeviceId(row.device_id),
        row.online,
        row.since,
        row.last_seen,
        row.presence_number,
        row.presence_reason,
        row.status,
    )


def row_of(device: Device) -> dict[str, Any]:
    """Return the columns of a device, without its presence."""
    where = device.location
    return {
        "device_id": device.device_id,
        "tenant": device.tenant,
        "device_type": device.device_type,
        "name": device.name,
        "lifecycle": str(device.lifecycle),
        "place": where.name,
        "latitude": where.latitude,
        "longitude": where.longitude,
        "altitude": where.altitude,
        "tags": device.tags,
        "metadata": device.metadata,
        "created": device.created,
        "updated": device.updated,
    }


ABSENT: Final = {
    "online": False,
    "since": 0,
    "last_seen": 0,
    "presence_number": 0,
    "presence_reason": "",
    "status": None,
}


def insert_or_keep(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows; those whose key exists stay as they are."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - 5 MB; it is loaded where PostgreSQL is in use

        connection.execute(postgresql.insert(table).on_conflict_do_nothing(), rows)
    else:
        connection.execute(sqlite.insert(table).on_conflict_do_nothing(), rows)


def set_tags(connection: sa.Connection, device: Device) -> None:
    """Keep a device's tags where they can be searched."""
    connection.execute(t.device_tags.delete().where(t.device_tags.c.device_id == device.device_id))
    if device.tags:
        rows = [{"device_id": device.device_id, "key": key, "value": value} for key, value in device.tags.items()]
        connection.execute(t.device_tags.insert(), rows)


def join_groups(connection: sa.Connection, device: Device, groups: Sequence[str]) -> None:
    """Put a device into groups of its tenant, made where they are missing."""
    if groups:
        made = [{"tenant": device.tenant, "name": each, "description": ""} for each in groups]
        insert_or_keep(connection, t.groups, made)
        members = [{"tenant": device.tenant, "name": each, "device_id": device.device_id} for each in groups]
        insert_or_keep(connection, t.group_members, members)


def select_devices(
    condition: "sa.ColumnElement[bool]", sort: str, *, descending: bool, after: tuple[Any, str] | None, limit: int
) -> "sa.Select[Any]":
    """Return the statement for one page after (sort value, device id): a keyset, never an offset."""
    column, identity = SORTS[sort], t.devices.c.device_id
    chosen = sa.select(t.devices).where(condition)
    if after is not None:
        value, device_id = after
        pair = sa.tuple_(column, identity)
        wanted = sa.tuple_(sa.literal(value, column.type), sa.literal(device_id))
        if sort == "deviceId":
            chosen = chosen.where(identity < device_id if descending else identity > device_id)
        else:
            chosen = chosen.where(pair < wanted if descending else pair > wanted)
    keys = [identity] if sort == "deviceId" else [column, identity]
    return chosen.order_by(*(key.desc() if descending else key.asc() for key in keys)).limit(limit)


def type_of(row: Any) -> DeviceType:
    """Return a row of `device_types` as a device type."""
    return msgspec.convert(row.document, DeviceType)


def policy_of(row: Any) -> TenantPolicy:
    """Return what a row of `tenants` says that the tenant wants."""
    return msgspec.convert({**(row.policy or {}), "tenant": row.name}, TenantPolicy)


def write_presence(connection: sa.Connection, rows: Sequence[Presence]) -> None:
    """Update presence where `number` is not lower than the stored one."""
    c = t.devices.c
    statement = (
        t.devices.update()
        .where(c.device_id == sa.bindparam("b_id"), c.presence_number <= sa.bindparam("b_number"))
        .values(
            online=sa.bindparam("b_online"),
            since=sa.bindparam("b_since"),
            last_seen=sa.bindparam("b_seen"),
            presence_number=sa.bindparam("b_number"),
            presence_reason=sa.bindparam("b_reason"),
            status=sa.bindparam("b_status", type_=sa.JSON),
        )
    )
    values = [
        {
            "b_id": row.device_id, "b_number": row.number, "b_online": row.online, "b_since": row.since,
            "b_seen": row.last_seen, "b_reason": row.reason[:128], "b_status": row.status,
        }
        for row in rows
    ]  # fmt: skip
    connection.execute(statement, values)


def write_places(connection: sa.Connection, rows: Sequence[tuple[DeviceId, float, float, float | None]]) -> None:
    """Keep the last reported position of devices: latitude, longitude, altitude."""
    statement = (
        t.devices.update()
        .where(t.devices.c.device_id == sa.bindparam("b_id"))
        .values(
            latitude=sa.bindparam("b_latitude"),
            longitude=sa.bindparam("b_longitude"),
            altitude=sa.bindparam("b_altitude"),
        )
    )
    names = ("b_id", "b_latitude", "b_longitude", "b_altitude")
    connection.execute(statement, [dict(zip(names, row, strict=True)) for row in rows])
