"""Certificates of devices: list, look, revoke; enrollment by an operator, of one device or of many."""

from time import time_ns
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Response
from pydantic import ConfigDict, Field

from godwit.contract.ids import DEFAULT_TENANT, DEVICE_ID_PATTERN, DeviceId, TenantId, TypeName
from godwit.server.accounts.principal import Principal
from godwit.server.api.access import Id, Operator, Rooms, Who
from godwit.server.api.answers import answer, time_or_none
from godwit.server.api.problems import documented
from godwit.server.api.routes.devices import NAME, Tags
from godwit.server.api.strict import Body, StrictRoute
from godwit.server.identity import bundles
from godwit.server.identity.archive import config_of, packed
from godwit.server.identity.certificates import DAY
from godwit.server.identity.model import Certificate, CertificateState
from godwit.server.identity.operators import GROUP_MAX, Enrolled, Wanted
from godwit.server.identity.requests import REQUEST_BYTES_MAX
from godwit.server.identity.revocation import REASONS
from godwit.server.platform import Platform
from godwit.server.registry.model import DEFAULT_TYPE, Device

router = APIRouter(prefix="/api/v1", tags=["certificates"], route_class=StrictRoute)

Fingerprint = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the DER, lower-case")]
Request = Annotated[str, Field(max_length=REQUEST_BYTES_MAX, description="PKCS#10, PEM; CN is the device id")]
_WHY = Literal[*REASONS]  # type: ignore[valid-type]


class Revocation(Body):
    """Why a certificate is to count no more (RFC 5280, 5.3.1)."""

    reason: _WHY = "unspecified"


class Enrollment(Body):
    """What a device is enrolled with. Without a request its key is made here, returned once, and kept nowhere."""

    request: Request | None = None


class NewEnrollment(Enrollment):
    """A device to enroll, created as it stands here unless it is there."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"deviceId": "pump-7", "tags": {"hall": "2"}}]})
    deviceId: str = Field(pattern=f"^{DEVICE_ID_PATTERN}$")  # noqa: N815
    tenant: str = Field(DEFAULT_TENANT, pattern=NAME)
    deviceType: str = Field(DEFAULT_TYPE, pattern=NAME)  # noqa: N815
    name: str = Field("", max_length=256)
    tags: Tags = Field(default_factory=dict)
    groups: list[Annotated[str, Field(pattern=NAME)]] = Field(default_factory=list, max_length=32)


class Batch(Body):
    """Devices to enroll together."""

    items: list[NewEnrollment] = Field(min_length=1, max_length=GROUP_MAX)


def document(certificate: Certificate, grace: dict[str, int], *, whole: bool = False) -> dict[str, Any]:
    """Return a certificate as the API shows it; `grace`: until when those in grace renew themselves."""
    shown: dict[str, Any] = msgspec.to_builtins(certificate)
    for name in ("notBefore", "notAfter", "created", "firstSeen", "revoked"):
        shown[name] = time_or_none(shown[name])
    shown["reason"] = certificate.reason or None
    shown["expired"] = certificate.not_after <= time_ns()
    shown["renewableUntil"] = time_or_none(grace.get(certificate.fingerprint, 0))
    if not whole:
        del shown["certificate"]
    return shown


@router.get("/certificates", responses=documented(), summary="List certificates of devices")
def list_certificates(
    who: Who,
    rooms: Rooms,
    deviceId: Annotated[str | None, Query(max_length=64)] = None,  # noqa: N803
    state: CertificateState | None = None,
    authority: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")] = None,
    expiringDays: Annotated[  # noqa: N803
        int | None, Query(ge=0, le=3_650, description="those that count now, and end within so many days")
    ] = None,
    inGrace: Annotated[  # noqa: N803, FBT002 - a query
        bool, Query(description="those that have ended, and still open their own renewal (RENEWAL_GRACE_DAYS)")
    ] = False,
    search: Annotated[str, Query(max_length=128, description="how id, fingerprint or serial number begins")] = "",
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Return one page, those first that end first; `cursor` of the answer opens the next one."""
    page = rooms.identity.certificates.page(
        who,
        device_id=None if deviceId is None else DeviceId(deviceId),
        state=state,
        authority=authority,
        ends_before=None if expiringDays is None else time_ns() + expiringDays * DAY,
        is_in_grace=inGrace,
        search=search,
        cursor=cursor,
        limit=limit,
    )
    grace = rooms.identity.certificates.in_grace(page.items)
    return answer({"items": [document(each, grace) for each in page.items], "cursor": page.cursor, "total": page.total})


@router.get("/certificates/{fingerprint}", responses=documented(404), summary="Look at a certificate")
def get(fingerprint: Fingerprint, who: Who, rooms: Rooms) -> Response:
    """Return a certificate, with its PEM."""
    found = rooms.identity.certificates.get(who, fingerprint)
    return answer(document(found, rooms.identity.certificates.in_grace([found]), whole=True))


@router.post("/certificates/{fingerprint}/revoke", responses=documented(403, 404), summary="Revoke a certificate")
def revoke(fingerprint: Fingerprint, body: Revocation, who: Operator, rooms: Rooms) -> Response:
    """Revoke a certificate, for good: it counts no more, and an open connection with it ends."""
    who.require("operator", rooms.identity.certificates.get(who, fingerprint).tenant)
    revoked = rooms.identity.revocation.revoke(fingerprint, body.reason, who.name, address=who.address)
    return answer(document(revoked, {}))


@router.post("/devices/{device_id}/enroll", status_code=201, responses=documented(403, 404), summary="Enroll a device")
def enroll(
    device_id: Id,
    body: Enrollment,
    who: Operator,
    rooms: Rooms,
    format: Literal["json", "zip"] = "json",  # noqa: A002 - the query's own word
) -> Response:
    """Issue a certificate for a device that is there; a request whose key asks again is answered the same."""
    done = rooms.identity.operators.enroll(who, Wanted(Device(device_id), body.request))
    if format == "zip":
        return archive_of(rooms, [done], f"{bundles.directory_of(device_id)}.zip")
    return answer(_bundle_document(rooms, done) | {"authorities": rooms.identity.authorities.anchors()}, 201)


@router.post("/devices/enroll", responses=documented(403), summary="Enroll many devices")
def enroll_many(body: Batch, who: Operator, rooms: Rooms) -> Response:
    """Enroll devices, each for itself: one that is refused (`code`, `detail`) stops nobody else.

    The answer has them in the order of the question. What was asked before with the same key is answered the same.
    """
    done = rooms.identity.operators.enroll_all(who, [_wanted(each, who) for each in body.items])
    items = [
        {"deviceId": each.device.device_id, "code": each.refusal.code, "detail": str(each.refusal)}
        if each.refusal is not None
        else _bundle_document(rooms, each)
        for each in done
    ]
    return answer({"items": items, "authorities": rooms.identity.authorities.anchors()})


def _wanted(item: NewEnrollment, who: Principal) -> Wanted:
    tenant = item.tenant
    if "tenant" not in item.model_fields_set and who.tenants:
        tenant = who.tenants[0]
    device = Device(
        DeviceId(item.deviceId), TenantId(tenant), TypeName(item.deviceType), item.name, tags=dict(item.tags)
    )
    return Wanted(device, item.request, tuple(item.groups))


def _bundle_document(rooms: Platform, done: Enrolled) -> dict[str, Any]:
    assert done.certificate is not None
    return {
        "deviceId": done.certificate.device_id,
        "tenant": done.certificate.tenant,
        "fingerprint": done.certificate.fingerprint,
        "certificate": done.certificate.certificate,
        "chain": list(done.chain),
        "config": config_of(rooms.settings, rooms.identity, done.certificate),
        **({"key": done.key} if done.key is not None else {}),
    }


def archive_of(rooms: Platform, done: list[Enrolled], name: str) -> Response:
    """Return bundles as a zip, which nobody on the way is to keep."""
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return Response(packed(rooms.settings, rooms.identity, done), 201, headers, media_type="application/zip")
