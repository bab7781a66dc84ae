"""Claims and rules of enrollment, and what became of requests."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Response
from pydantic import ConfigDict, Field

from godwit.contract.ids import DEVICE_ID_PATTERN, DeviceId, TenantId
from godwit.server.api.access import Operator, Rooms, Who
from godwit.server.api.answers import answer, time_or_none
from godwit.server.api.problems import documented
from godwit.server.api.routes.devices import NAME, Tags
from godwit.server.api.strict import Body, StrictRoute
from godwit.server.identity.claims import LIFETIME_DEFAULT_S, LIFETIME_MAX_S, NewClaim
from godwit.server.identity.labels import link_of
from godwit.server.identity.model import Claim, ClaimKind, EnrollmentRule, Landing, Source
from godwit.server.identity.outcomes import outcomes
from godwit.server.platform import Platform
from godwit.server.registry.access import home

router = APIRouter(prefix="/api/v1", tags=["enrollment"], route_class=StrictRoute)

Pattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:*?-]{1,64}$")]
ClaimId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
SOURCES = tuple(str(each) for each in Source)


class LandingBody(Body):
    """Where a new device lands."""

    deviceType: str | None = Field(None, pattern=NAME)  # noqa: N815 - camelCase on the wire
    groups: list[Annotated[str, Field(pattern=NAME)]] = Field([], max_length=32)
    tags: Tags = Field(default={})
    configuration: dict[str, Any] = Field(default={})


def landing_from(body: LandingBody | None) -> Landing:
    """Return it as the room has it."""
    return Landing() if body is None else msgspec.convert(body.model_dump(), Landing)


class ClaimBody(Body):
    """A claim to be made."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "line 3", "kind": "fleet", "ids": ["pump-*"], "usesMax": 200, "lifetimeS": 604800}]
        },
    )
    tenant: str | None = Field(None, pattern=NAME)
    name: str = Field("", max_length=128)
    kind: Literal["one-time", "fleet"] = "one-time"
    deviceId: str | None = Field(None, pattern=f"^{DEVICE_ID_PATTERN}$")  # noqa: N815
    ids: list[Pattern] = Field([], max_length=32)
    usesMax: int | None = Field(None, ge=1, le=10_000_000)  # noqa: N815
    lifetimeS: int = Field(LIFETIME_DEFAULT_S, ge=0, le=LIFETIME_MAX_S)  # noqa: N815
    landing: LandingBody | None = None


class RuleBody(Body):
    """A rule."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"ids": "pump-*", "landing": {"groups": ["pumps"], "configuration": {"intervalS": 10}}}]
        },
    )
    position: int = Field(0, ge=0, le=1_000_000)
    ids: Pattern = "*"
    sources: list[Literal[SOURCES]] = Field([], max_length=16)  # type: ignore[valid-type]
    landing: LandingBody | None = None


def claim_document(claim: Claim) -> dict[str, Any]:
    """Return a claim as the API shows it. Its token is not there: it was shown once."""
    document: dict[str, Any] = msgspec.to_builtins(claim)
    return {**document, "expires": time_or_none(claim.expires), "created": time_or_none(claim.created)}


def shown_once(rooms: Platform, claim: Claim, token: str) -> dict[str, Any]:
    """Return a new claim with its token, and the link that a QR code of it holds."""
    link = link_of(rooms.settings, rooms.identity, claim, token)
    return {**claim_document(claim), "token": token, "link": link.text()}


@router.get("/claims", responses=documented(), summary="List claims")
def claims(who: Who, rooms: Rooms) -> Response:
    """Return the claims, the newest first."""
    return answer({"items": [claim_document(each) for each in rooms.identity.enrollment.claims.all(who)]})


@router.post("/claims", status_code=201, responses=documented(404, 409, 413), summary="Make a claim")
def create_claim(body: ClaimBody, who: Operator, rooms: Rooms) -> Response:
    """Make a claim. Its `token`, and the `link` for a QR code, are in this answer only."""
    wanted = NewClaim(
        TenantId(body.tenant) if body.tenant is not None else None, body.name, ClaimKind(body.kind),
        DeviceId(body.deviceId) if body.deviceId is not None else None, tuple(body.ids), body.usesMax, body.lifetimeS,
        landing_from(body.landing),
    )  # fmt: skip
    claim, token = rooms.identity.enrollment.claims.create(who, wanted)
    return no_store(answer(shown_once(rooms, claim, token), 201))


@router.post("/claims/{claim_id}/revoke", responses=documented(404), summary="Revoke a claim")
def revoke_claim(claim_id: ClaimId, who: Operator, rooms: Rooms) -> Response:
    """Revoke a claim: it opens nothing from now on; certificates that it gave stay."""
    return answer(claim_document(rooms.identity.enrollment.claims.revoke(who, claim_id)))


@router.get("/enrollment-rules", responses=documented(), summary="List the rules of enrollment")
def rules(who: Who, rooms: Rooms) -> Response:
    """Return the rules in the order in which they are tried."""
    return answer({"items": rooms.identity.enrollment.rules.all(who)})


Name = Annotated[str, Path(pattern=NAME)]
Tenant = Annotated[str | None, Query(pattern=NAME)]


@router.put("/enrollment-rules/{name}", responses=documented(404, 413), summary="Make or change a rule")
def put_rule(name: Name, body: RuleBody, who: Operator, rooms: Rooms, tenant: Tenant = None) -> Response:
    """Insert or replace a rule."""
    sources = tuple(Source(each) for each in body.sources)
    rule = EnrollmentRule(
        name, TenantId(tenant or home(who)), body.position, body.ids, sources, landing_from(body.landing)
    )
    return answer(rooms.identity.enrollment.rules.put(who, rule))


@router.delete("/enrollment-rules/{name}", status_code=204, responses=documented(404), summary="Remove a rule")
def delete_rule(name: Name, who: Operator, rooms: Rooms, tenant: Tenant = None) -> Response:
    """Remove a rule; devices that landed by it stay where they are."""
    rooms.identity.enrollment.rules.delete(who, TenantId(tenant or home(who)), name)
    return Response(status_code=204)


@router.get("/enrollments", responses=documented(), summary="The last enrollments and refusals")
def enrollments(who: Who, rooms: Rooms, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
    """Return what became of the last requests, the newest first; refusals with their code."""
    items = [
        {**msgspec.to_builtins(each), "at": time_or_none(each.at), "outcome": "refused" if each.code else "granted"}
        for each in outcomes(rooms.database, who, limit)
    ]
    return answer({"items": items})


class Decision(Body):
    """What the owner of a device says to its device grant."""

    userCode: str = Field(min_length=8, max_length=16)  # noqa: N815
    approve: bool
    tenant: str | None = Field(None, pattern=NAME)
    groups: list[Annotated[str, Field(pattern=NAME)]] = Field([], max_length=32)


@router.post("/device-grants/decision", responses=documented(404, 409, 413, 429), summary="Decide over a device grant")
def decide(body: Decision, who: Operator, rooms: Rooms) -> Response:
    """Approve or deny the device that shows this code (RFC 8628): what the console's page `/device` does."""
    tenant = TenantId(body.tenant) if body.tenant is not None else None
    grant = rooms.identity.grants.decide(
        who, body.userCode, approve=body.approve, tenant=tenant, groups=tuple(body.groups)
    )
    return answer({"deviceId": grant.device_id, "state": str(grant.state), "tenant": grant.tenant})


def no_store(response: Response) -> Response:
    """Say that an answer with a secret is kept nowhere on its way."""
    response.headers["cache-control"] = "no-store"
    return response
