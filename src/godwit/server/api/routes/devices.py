"""Devices: create, list, look, change, retire, erase; their ledger, last messages and events."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DEVICE_ID_PATTERN
from godwit.contract.payloads import legible
from godwit.server.api import vouched
from godwit.server.api.access import Id, Operator, Rooms, Who
from godwit.server.api.answers import answer, device_document, time_or_none
from godwit.server.api.problems import documented
from godwit.server.api.strict import Body, StrictRoute
from godwit.server.api.vouched import VouchedDevice
from godwit.server.registry.access import home
from godwit.server.registry.model import Device

router = APIRouter(prefix="/api/v1/devices", tags=["devices"], route_class=StrictRoute)

NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._:-]{0,63}$"


class Place(Body):
    """Where a device stands: a name, WGS 84 degrees, metres."""

    name: str = Field("", max_length=128)
    latitude: float | None = Field(None, ge=-90, le=90)
    longitude: float | None = Field(None, ge=-180, le=180)
    altitude: float | None = Field(None, ge=-20_000, le=1_000_000)


Tags = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=256)]],
    Field(max_length=64),
]


class DeviceChange(Body):
    """Fields of a device that can be changed; those left out stay."""

    deviceType: str | None = Field(None, pattern=NAME)  # noqa: N815 - camelCase on the wire
    name: str | None = Field(None, max_length=256)
    lifecycle: Literal["unclaimed", "active", "suspended", "retired"] | None = None
    location: Place | None = None
    tags: Tags | None = None
    metadata: dict[str, Any] | None = None


class NewDevice(DeviceChange):
    """A device to be created."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"deviceId": "pump-7", "name": "Pump 7", "tags": {"hall": "2"}}]},
    )
    deviceId: str = Field(pattern=f"^{DEVICE_ID_PATTERN}$")  # noqa: N815
    tenant: str | None = Field(None, pattern=NAME)


@router.post("", status_code=201, responses=documented(404, 409, 413), summary="Create a device")
def create(body: NewDevice | VouchedDevice, who: Operator, rooms: Rooms) -> Response:
    """Create a device, with `certificate` one that has it from an authority of its own.

    Its id is unique in the installation.
    """
    if isinstance(body, VouchedDevice):
        return answer(vouched.register(rooms.identity.vouched, body, who), 201)
    document = {"tenant": home(who)} | {key: value for key, value in body.model_dump().items() if value is not None}
    device = rooms.registry.create_device(who, msgspec.convert(document, Device))
    return answer(device_document(device, None), 201)


def _pairs(tags: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for each in tags:
        key, colon, value = each.partition(":")
        if not key or not colon:
            raise RejectedError(f"tag={each[:64]!r}: key:value, such as hall:2", code="invalid-tag")
        if pairs.setdefault(key, value) != value:
            raise RejectedError(f"tag: a device has one value of {key[:64]!r}, two are asked for", code="invalid-tag")
    return pairs


@router.get("", responses=documented(), summary="List devices")
def list_devices(
    who: Who,
    rooms: Rooms,
    search: Annotated[str, Query(max_length=128, description="part of id or name")] = "",
    tenant: Annotated[str | None, Query(max_length=64)] = None,
    type: Annotated[str | None, Query(max_length=64)] = None,  # noqa: A002 - the query's own word
    lifecycle: Literal["unclaimed", "active", "suspended", "retired"] | None = None,
    group: Annotated[str | None, Query(max_length=64)] = None,
    online: bool | None = None,
    tag: Annotated[list[str] | None, Query(description="key:value, several must all match", max_length=16)] = None,
    sort: Literal["deviceId", "name", "created", "lastSeen", "type", "online"] = "deviceId",
    order: Literal["asc", "desc"] = "asc",
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Return one page of devices with their presence; `cursor` of the answer opens the next one."""
    pairs = _pairs(tag or [])
    page = rooms.registry.devices(
        who,
        search=search,
        tenant=tenant,  # type: ignore[arg-type]
        device_type=type,  # type: ignore[arg-type]
        lifecycle=lifecycle,
        group=group,
        online=online,
        tags=pairs or None,
        sort=sort,
        descending=order == "desc",
        cursor=cursor,
        limit=limit,
    )
    items = [device_document(device, presence) for device, presence in page.items]
    return answer({"items": items, "cursor": page.cursor, "total": page.total})


@router.get("/{device_id}", responses=documented(404), summary="Look at a device")
def get(device_id: Id, who: Who, rooms: Rooms) -> Response:
    """Return a device with its presence and last status."""
    registry = rooms.registry
    return answer(device_document(registry.device(who, device_id), registry.presence(who, device_id)))


@router.patch("/{device_id}", responses=documented(404, 413), summary="Change a device")
def change(device_id: Id, body: DeviceChange, who: Operator, rooms: Rooms) -> Response:
    """Change the fields that the body names."""
    changes = body.model_dump(exclude_unset=True)
    empty = sorted(name for name, value in changes.items() if value is None)
    if empty:
        raise RejectedError(f"{empty[0]} cannot be null", code="invalid-field")
    device = rooms.registry.change_device(who, device_id, changes)
    return answer(device_document(device, rooms.registry.presence(who, device_id)))


@router.post("/{device_id}/retire", responses=documented(404), summary="Retire a device")
def retire(device_id: Id, who: Operator, rooms: Rooms) -> Response:
    """Retire a device: its data stays, its messages are refused."""
    return answer(device_document(rooms.registry.retire_device(who, device_id), None))


@router.delete("/{device_id}", responses=documented(404), summary="Erase a device and all its data")
async def erase(device_id: Id, who: Operator, rooms: Rooms) -> Response:
    """Erase a device from the registry, and all its telemetry, state and quarantine."""
    from asyncio import to_thread  # noqa: PLC0415

    await to_thread(rooms.registry.device, who, device_id)
    points = await rooms.ingest.erase(device_id)
    await to_thread(rooms.registry.erase_device, who, device_id)
    return answer({"deviceId": device_id, "pointsErased": points})


@router.get("/{device_id}/ledger", responses=documented(404), summary="The account of a device")
def ledger(device_id: Id, who: Who, rooms: Rooms) -> Response:
    """Return what was accepted, doubled, late, missing, lost by reason, cloned, refused and quarantined by reason."""
    rooms.registry.device(who, device_id)
    return answer(rooms.ingest.ledger(device_id))


@router.get("/{device_id}/gaps", responses=documented(404), summary="What is missing of a device, and what is lost")
def gaps(device_id: Id, who: Who, rooms: Rooms) -> Response:
    """Return ranges of sample numbers: `missing`, which are asked for, and `lost`, with the reason the device gave."""
    rooms.registry.device(who, device_id)
    return answer({"items": rooms.ingest.gaps(device_id)})


@router.get("/{device_id}/messages", responses=documented(404), summary="The last raw messages")
def messages(device_id: Id, who: Who, rooms: Rooms) -> Response:
    """Return the last messages as they came, newest first; payloads are cut at 4 KiB."""
    rooms.registry.device(who, device_id)
    items = [
        {
            "received": time_or_none(each.received),
            "topic": each.topic,
            "payload": legible(each.payload) or each.payload.decode("utf-8", "replace"),
            "code": each.code or None,
        }
        for each in rooms.ingest.raw(device_id)
    ]
    return answer({"items": items})


@router.get("/{device_id}/events", responses=documented(404), summary="What a device said besides telemetry")
def events(
    device_id: Id,
    who: Who,
    rooms: Rooms,
    channel: Literal["events", "status", "command-results", "twin/reported", "firmware/progress"] = "events",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Return documents of a channel, newest first."""
    rooms.registry.device(who, device_id)
    number = rooms.ingest.device_no(device_id)
    found = rooms.store.documents(number, [channel], limit) if number is not None else []
    items = [
        {
            "received": time_or_none(each.received),
            "channel": each.channel,
            "payload": legible(each.payload) or each.payload.decode("utf-8", "replace"),
        }
        for each in found
    ]
    return answer({"items": items})
