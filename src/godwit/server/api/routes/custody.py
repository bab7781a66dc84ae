"""Whose a device is: claim it, replace its hardware, release it, transfer it; with a certificate of its own authority.

The paths of the seeds, `POST /devices` and `PATCH /devices/{id}/certificate`, are here too.
"""

from asyncio import to_thread
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Header, Path, Response
from pydantic import ConfigDict, Field

from godwit.contract.ids import TenantId
from godwit.server.api.access import Admin, Id, Operator, Rooms
from godwit.server.api.answers import answer, device_document, marks_of, time_or_none, with_mark
from godwit.server.api.problems import documented
from godwit.server.api.routes.authorities import document as authority_document
from godwit.server.api.routes.certificates import Revocation
from godwit.server.api.routes.claims import LandingBody, Pattern, landing_from, no_store, shown_once
from godwit.server.api.routes.devices import NAME
from godwit.server.api.strict import Body, StrictRoute
from godwit.server.api.vouched import PEM_MAX, VouchedDevice, document
from godwit.server.api.vouched import register as register_vouched
from godwit.server.identity.claims import LIFETIME_DEFAULT_S, LIFETIME_MAX_S
from godwit.server.identity.model import AuthorityKind, AuthorityTerms
from godwit.server.identity.trusted import TermsChange, mark_of

router = APIRouter(tags=["enrollment"], route_class=StrictRoute)


class ClaimDevice(Body):
    """Whose an unclaimed device becomes."""

    tenant: str | None = Field(None, pattern=NAME)
    landing: LandingBody | None = None


class Replacement(Body):
    """How hardware is replaced."""

    revokeNow: bool = False  # noqa: N815 - camelCase on the wire
    lifetimeS: int = Field(LIFETIME_DEFAULT_S, ge=60, le=LIFETIME_MAX_S)  # noqa: N815


class Transfer(Body):
    """Where a device goes, and whether its telemetry goes with it."""

    tenant: str = Field(pattern=NAME)
    keepTelemetry: bool = True  # noqa: N815


class NextCertificate(Body):
    """The certificate that follows."""

    certificate: str = Field(max_length=PEM_MAX)


class TrustedAuthority(Body):
    """An authority of a customer or a factory, and what it may do."""

    certificate: str = Field(max_length=PEM_MAX)
    kind: Literal["customer", "factory"] = "factory"
    tenant: str | None = Field(None, pattern=NAME)
    name: str = Field("", max_length=128)
    ids: list[Pattern] = Field([], max_length=64)
    justInTime: bool = False  # noqa: N815
    landing: LandingBody | None = None


class AuthorityChange(Body):
    """What of a trusted authority is to be another; what is not named stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ids": ["fan-*"], "justInTime": False}]})
    name: str | None = Field(None, min_length=1, max_length=128)
    ids: list[Pattern] | None = Field(None, max_length=64)
    justInTime: bool | None = None  # noqa: N815
    landing: LandingBody | None = None


class Proof(Body):
    """The certificate that shows who has the authority's key."""

    certificate: str = Field(max_length=PEM_MAX)


@router.post("/api/v1/devices/{device_id}/claim", responses=documented(404, 409, 413), summary="Claim a device")
def claim(device_id: Id, body: ClaimDevice, who: Operator, rooms: Rooms) -> Response:
    """Make an unclaimed device a tenant's own: it lands by rule, and the loopback listener speaks for it no more."""
    tenant = TenantId(body.tenant) if body.tenant is not None else None
    return answer(
        device_document(rooms.identity.custody.claim(who, device_id, tenant, landing_from(body.landing)), None)
    )


@router.post(
    "/api/v1/devices/{device_id}/replace", status_code=201, responses=documented(404, 409, 413),
    summary="Replace a device's hardware",
)  # fmt: skip
def replace(device_id: Id, body: Replacement, who: Operator, rooms: Rooms) -> Response:
    """Return a claim for other hardware under the same id; its `token` is in this answer only.

    The old certificates are revoked when the new one first connects, or with `revokeNow` at once.
    """
    claimed, token = rooms.identity.custody.replace(
        who, device_id, revoke_now=body.revokeNow, lifetime_s=body.lifetimeS
    )
    return no_store(answer(shown_once(rooms, claimed, token), 201))


@router.post("/api/v1/devices/{device_id}/revoke", responses=documented(404), summary="End a device's credentials")
def shut_out(device_id: Id, body: Revocation, who: Operator, rooms: Rooms) -> Response:
    """Revoke all certificates, tokens and keys of a device, and the claims for its id; open connections end at once."""
    return answer(device_document(rooms.identity.custody.shut_out(who, device_id, body.reason), None))


@router.post("/api/v1/devices/{device_id}/release", responses=documented(404), summary="Release a device")
def release(device_id: Id, who: Operator, rooms: Rooms) -> Response:
    """Give a device up: its certificates, tokens and keys end, its groups are left; it is unclaimed."""
    return answer(device_document(rooms.identity.custody.release(who, device_id), None))


@router.post(
    "/api/v1/devices/{device_id}/transfer", responses=documented(404, 413), summary="Give a device to another tenant"
)
async def transfer(device_id: Id, body: Transfer, who: Admin, rooms: Rooms) -> Response:
    """Give a device to another tenant, where it enrolls anew. Who asks is an administrator of both.

    Its telemetry goes with it, unless `keepTelemetry` is false: then it is erased.
    """
    await to_thread(rooms.registry.device, who, device_id)
    device = await to_thread(rooms.identity.custody.transfer, who, device_id, TenantId(body.tenant))
    if not body.keepTelemetry:
        await rooms.ingest.erase(device_id)
        device = await to_thread(rooms.registry.change_device, who, device_id, {"name": device.name})
    return answer(device_document(device, None))


# --- authorities of others --------------------------------------------------------------------------------------------


@router.post(
    "/api/v1/authorities/trusted", status_code=202, responses=documented(404, 409, 413), summary="Announce an authority"
)
def announce(body: TrustedAuthority, who: Admin, rooms: Rooms) -> Response:
    """Take note of a customer's or factory's authority. It is trusted once it has signed a certificate with this CN."""
    terms = AuthorityTerms(tuple(body.ids), body.justInTime, landing_from(body.landing))
    tenant = TenantId(body.tenant) if body.tenant is not None else None
    awaited = rooms.identity.trusted.begin(
        who, body.certificate, AuthorityKind(body.kind), tenant, name=body.name, terms=terms
    )
    return answer(
        {
            "fingerprint": awaited.authority.fingerprint,
            "tenant": awaited.authority.tenant,
            "commonName": awaited.code,
            "expires": time_or_none(awaited.expires),
        },
        202,
    )


@router.post(
    "/api/v1/authorities/{fingerprint}/proof", status_code=201, responses=documented(404, 409, 413),
    summary="Prove an authority",
)  # fmt: skip
def prove(
    fingerprint: Annotated[str, Path(pattern="^[0-9a-f]{64}$")], body: Proof, who: Admin, rooms: Rooms
) -> Response:
    """Show that one has the authority's key: from now on it vouches for devices of its tenant."""
    authority = rooms.identity.trusted.prove(who, fingerprint, body.certificate)
    document: dict[str, Any] = msgspec.to_builtins(authority)
    times = {name: time_or_none(document[name]) for name in ("notBefore", "notAfter", "created")}
    return answer({**document, **times}, 201)


@router.patch(
    "/api/v1/authorities/{fingerprint}", responses=documented(404, 412, 413), summary="Change an authority's terms"
)
def change_authority(
    fingerprint: Annotated[str, Path(pattern="^[0-9a-f]{64}$")],
    body: AuthorityChange,
    who: Admin,
    rooms: Rooms,
    if_match: Annotated[str | None, Header(max_length=1024, description="the ETag that was seen")] = None,
) -> Response:
    """Change what a trusted authority may do. Narrower terms count for what is enrolled next: nobody is shut out."""
    wanted = TermsChange(
        body.name,
        None if body.ids is None else tuple(body.ids),
        body.justInTime,
        None if body.landing is None else landing_from(body.landing),
    )
    changed = rooms.identity.trusted.change(who, fingerprint, wanted, marks=marks_of(if_match))
    return with_mark(answer(authority_document(changed)), mark_of(changed))


# --- certificates of others -------------------------------------------------------------------------------------------


@router.post("/devices", status_code=201, responses=documented(409, 413), summary="Register a device with certificate")
def register(body: VouchedDevice, who: Operator, rooms: Rooms) -> Response:
    """Register a device with a certificate of an authority that its tenant trusts: chain, dates, CN are checked."""
    return answer(register_vouched(rooms.identity.vouched, body, who), 201)


@router.patch("/devices/{device_id}/certificate", responses=documented(404, 413), summary="Rotate a certificate")
@router.patch("/api/v1/devices/{device_id}/certificate", responses=documented(404, 413), summary="Rotate a certificate")
def rotate(device_id: Id, body: NextCertificate, who: Operator, rooms: Rooms) -> Response:
    """Give a device its next certificate; the old one is superseded when the new one first connects."""
    certificate = rooms.identity.vouched.rotate(who, device_id, body.certificate)
    return answer(document(rooms.registry.device(who, device_id), certificate))
