"""Tenants: list, add, look, limit, remove."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Response
from pydantic import Field

from godwit.contract.ids import TenantId
from godwit.server.api.access import Admin, Rooms, Who
from godwit.server.api.answers import answer, time_or_none
from godwit.server.api.problems import documented
from godwit.server.api.routes.devices import NAME
from godwit.server.api.strict import Body, StrictRoute
from godwit.server.platform import Platform
from godwit.server.registry.model import Tenant, TenantQuota

router = APIRouter(prefix="/api/v1", tags=["tenants"], route_class=StrictRoute)

Name = Annotated[str, Path(pattern=NAME)]
_Amount = Annotated[int | None, Field(ge=0, le=2**53)]


class Quota(Body):
    """Limits of a tenant; 0 is what the settings say for every tenant, and what is left out stays."""

    devices: _Amount = None
    connections: _Amount = None
    messagesPerS: _Amount = None  # noqa: N815 - camelCase on the wire
    bytesPerS: _Amount = None  # noqa: N815
    retainedBytes: _Amount = None  # noqa: N815
    quarantineBytes: _Amount = None  # noqa: N815
    requestsPerS: _Amount = None  # noqa: N815

    def changes(self) -> dict[str, int]:
        """Return the limits that are named, by their fields."""
        told = self.model_dump(exclude_none=True)
        fields = {each.encode_name: each.name for each in msgspec.structs.fields(TenantQuota)}
        return {fields[name]: value for name, value in told.items()}


def _document(rooms: Platform, tenant: Tenant) -> dict[str, object]:
    document: dict[str, object] = msgspec.to_builtins(tenant)
    use = msgspec.to_builtins(rooms.use_of([tenant])[tenant.name])
    return document | {"created": time_or_none(tenant.created), "use": use}


@router.get("/tenants", responses=documented(), summary="List tenants")
def tenants(who: Who, rooms: Rooms) -> Response:
    """Return the tenants that the token may see."""
    return answer({"items": rooms.registry.tenants(who)})


@router.get("/tenants/{name}", responses=documented(404), summary="Look at a tenant")
def get(name: Name, who: Who, rooms: Rooms) -> Response:
    """Return a tenant: how many devices it has, what it may use, and what of it is used now."""
    return answer(_document(rooms, rooms.registry.tenancy.get(who, TenantId(name))))


@router.put("/tenants/{name}", status_code=204, responses=documented(403), summary="Add a tenant")
def put(name: Name, who: Admin, rooms: Rooms) -> Response:
    """Add a tenant; one that is there stays as it is."""
    rooms.registry.put_tenant(who, TenantId(name))
    return Response(status_code=204)


@router.patch("/tenants/{name}/quota", responses=documented(403, 404, 413), summary="Limit a tenant")
def limit(name: Name, body: Quota, who: Admin, rooms: Rooms) -> Response:
    """Change some limits. They count at once: for who is connected, too."""
    return answer(_document(rooms, rooms.registry.tenancy.set_quota(who, TenantId(name), body.changes())))


@router.delete(
    "/tenants/{name}", status_code=204, responses=documented(403, 404, 409), summary="Remove an empty tenant"
)
def remove(name: Name, who: Admin, rooms: Rooms) -> Response:
    """Remove a tenant that has no devices, certificates, authorities, claims, types, groups, users or tokens left."""
    rooms.registry.tenancy.remove(who, TenantId(name))
    return Response(status_code=204)
