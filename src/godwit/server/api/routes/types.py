"""Device types: what their readings are, with unit and range."""

from typing import Annotated, Literal, Self

import msgspec
from fastapi import APIRouter, Path, Query, Response
from pydantic import AfterValidator, ConfigDict, Field, model_validator

from godwit.contract.errors import MalformedError
from godwit.contract.ids import DEVICE_ID_PATTERN, DeviceId, TenantId, TypeName
from godwit.contract.samples import check_name
from godwit.server.api.access import Operator, Rooms, Who
from godwit.server.api.answers import answer
from godwit.server.api.problems import documented
from godwit.server.api.routes.devices import NAME
from godwit.server.api.strict import Body, StrictRoute
from godwit.server.registry.access import home
from godwit.server.registry.model import DeviceType, Group

router = APIRouter(prefix="/api/v1", tags=["types, groups"], route_class=StrictRoute)

Name = Annotated[str, Path(pattern=NAME)]
Tenant = Annotated[str | None, Query(pattern=NAME, description="the first of the token's own without it")]


def _reading_name(name: str) -> str:
    try:
        check_name(name)
    except MalformedError as error:
        raise ValueError(str(error)) from None
    return name


class Declared(Body):
    """One reading of a type."""

    name: Annotated[str, AfterValidator(_reading_name)] = Field(min_length=1, max_length=128)
    unit: str = Field("", max_length=64)
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = Field(None, gt=0)
    outside: Literal["bad", "quarantine"] = "bad"
    description: str = Field("", max_length=1024)

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum is larger than maximum")
        return self


class TypeBody(Body):
    """A device type."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"readings": [{"name": "temperature", "unit": "Cel", "minimum": -40, "maximum": 85}]}]
        },
    )
    description: str = Field("", max_length=1024)
    readings: list[Declared] = Field(default=[], max_length=256)
    codec: Literal["json", "cbor", "protobuf", "senml+json", "senml+cbor"] | None = None
    retentionDays: float | None = Field(None, gt=0, le=36_500)  # noqa: N815
    messages: Literal["none", "signed", "encrypted", "signed-encrypted"] = "none"


class GroupBody(Body):
    """A group."""

    description: str = Field("", max_length=1024)


class Members(Body):
    """Devices of a group."""

    deviceIds: list[Annotated[str, Field(pattern=f"^{DEVICE_ID_PATTERN}$")]] = Field(max_length=10_000)  # noqa: N815


@router.get("/types", responses=documented(), summary="List device types")
def types(who: Who, rooms: Rooms) -> Response:
    """Return all device types."""
    return answer({"items": rooms.registry.types(who)})


@router.put("/types/{name}", responses=documented(404, 413), summary="Declare a device type")
def put_type(name: Name, body: TypeBody, who: Operator, rooms: Rooms, tenant: Tenant = None) -> Response:
    """Insert or replace a device type."""
    document = body.model_dump(exclude_none=True) | {"name": name, "tenant": tenant or home(who)}
    return answer(rooms.registry.put_type(who, msgspec.convert(document, DeviceType)))


@router.delete("/types/{name}", status_code=204, responses=documented(404, 409), summary="Remove a device type")
def delete_type(name: Name, who: Operator, rooms: Rooms, tenant: Tenant = None) -> Response:
    """Remove a device type that no device has."""
    rooms.registry.delete_type(who, TenantId(tenant or home(who)), TypeName(name))
    return Response(status_code=204)


@router.get("/groups", responses=documented(), summary="List groups")
def groups(who: Who, rooms: Rooms) -> Response:
    """Return all groups with their sizes."""
    return answer({"items": rooms.registry.groups(who)})


@router.put("/groups/{name}", responses=documented(404, 413), summary="Make or describe a group")
def put_group(name: Name, body: GroupBody, who: Operator, rooms: Rooms, tenant: Tenant = None) -> Response:
    """Insert a group or change its description."""
    return answer(rooms.registry.put_group(who, Group(name, TenantId(tenant or home(who)), body.description)))


@router.delete("/groups/{name}", status_code=204, responses=documented(404), summary="Remove a group")
def delete_group(name: Name, who: Operator, rooms: Rooms, tenant: Tenant = None) -> Response:
    """Remove a group; its devices stay."""
    rooms.registry.delete_group(who, TenantId(tenant or home(who)), name)
    return Response(status_code=204)


@router.post("/groups/{name}/devices", responses=documented(404, 413), summary="Add devices to a group")
def add(name: Name, body: Members, who: Operator, rooms: Rooms, tenant: Tenant = None) -> Response:
    """Add devices; returns the group's size."""
    devices = [DeviceId(each) for each in body.deviceIds]
    return answer({"size": rooms.registry.add_to_group(who, TenantId(tenant or home(who)), name, devices)})


@router.post("/groups/{name}/devices/remove", responses=documented(404, 413), summary="Take devices out of a group")
def remove(name: Name, body: Members, who: Operator, rooms: Rooms, tenant: Tenant = None) -> Response:
    """Remove devices; returns the group's size."""
    devices = [DeviceId(each) for each in body.deviceIds]
    return answer({"size": rooms.registry.remove_from_group(who, TenantId(tenant or home(who)), name, devices)})
