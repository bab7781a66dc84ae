"""Rights for a broker that is not ours: what EMQX asks over HTTP, and files for Mosquitto."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field

from godwit.contract.errors import RejectedError
from godwit.contract.topics import topics_for
from godwit.server.accounts.principal import Principal
from godwit.server.api.access import Operator, Rooms, Who
from godwit.server.api.answers import answer
from godwit.server.api.problems import documented
from godwit.server.api.strict import Body, StrictRoute
from godwit.server.broker.authentication import Desk
from godwit.server.broker.refusals import NOT_AUTHORISED
from godwit.server.broker.switches import switches_of
from godwit.server.foreign.rights import CONFIGURATION, Asked, ForeignRights, acl_file
from godwit.server.platform import Platform

router = APIRouter(prefix="/api/v1/broker", tags=["foreign broker"], route_class=StrictRoute)

_ALLOW, _DENY = {"result": "allow"}, {"result": "deny"}


class AuthenticationBody(Body):
    """Who EMQX asks about: its body template says these."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"clientid": "press-7", "username": "press-7", "password": "gwd_..."}]}
    )
    clientid: str  # as long as MQTT lets them be; the body has its limit
    username: str = ""
    password: str = ""
    cert_common_name: str = Field("", max_length=256)
    cert_pem: str = Field("", max_length=32_768)
    peerhost: str = Field("", max_length=64)


class AuthorizationBody(Body):
    """What EMQX asks a client may. `identity`: what authentication answered, `${client_attrs.identity}`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"clientid": "press-7", "identity": "device:press-7", "action": "publish",
                 "topic": "devices/press-7/telemetry"},
            ]
        },
    )  # fmt: skip
    clientid: str
    identity: str = Field("", max_length=4_096)
    action: Literal["publish", "subscribe"]
    topic: str
    peerhost: str = Field("", max_length=64)


def _require_all(who: Principal) -> None:
    if who.tenants is not None:
        raise RejectedError("a broker asks about all tenants' devices: it needs a token for all", code="forbidden")


def _rights(request: Request, rooms: Platform) -> ForeignRights:
    """Return the rights; made once, since it counts wrong passwords."""
    found: ForeignRights | None = getattr(request.app.state, "foreign_rights", None)
    if found is None:
        settings, enrollment = rooms.settings, rooms.identity.enrollment
        found = request.app.state.foreign_rights = ForeignRights(
            rooms.identity,
            topics_for(settings.topic_layout),
            Desk(enrollment.credential_of_claim, enrollment.take_in, rooms.accounts.known),
            switches_of(settings),
        )
    return found


@router.post("/emqx/authentication", responses=documented(403, 413), summary="EMQX: who is it?")
def authenticate(body: AuthenticationBody, who: Operator, rooms: Rooms, request: Request) -> Response:
    """Answer EMQX's HTTP authentication: `allow` or `deny`, until when, and as whom."""
    _require_all(who)
    found = _rights(request, rooms).authenticate(
        Asked(body.clientid, body.username, body.password, body.cert_pem, body.cert_common_name, body.peerhost)
    )
    if found.code:
        rooms.accounts.refusals.note(
            body.username or "unknown",
            "mqtt.refuse",
            body.clientid or "unknown",
            code=found.code,
            address=body.peerhost,
        )
        return answer(_DENY)
    ends = {"expire_at": found.ends} if found.ends else {}
    return answer({**_ALLOW, "is_superuser": False, "client_attrs": {"identity": found.identity}, **ends})


@router.post("/emqx/authorization", responses=documented(403, 413), summary="EMQX: may it?")
def authorize(body: AuthorizationBody, who: Operator, rooms: Rooms, request: Request) -> Response:
    """Answer EMQX's HTTP authorisation: `allow` or `deny`."""
    _require_all(who)
    is_allowed = _rights(request, rooms).may(body.clientid, body.identity, body.action, body.topic)
    if not is_allowed:
        rooms.accounts.refusals.note(
            body.clientid or "unknown",
            "mqtt.forbid",
            body.topic or "unknown",
            code=NOT_AUTHORISED,
            address=body.peerhost,
        )
    return answer(_ALLOW if is_allowed else _DENY)


@router.get("/mosquitto-files", responses=documented(403), summary="Files for Mosquitto")
def mosquitto_files(who: Who, rooms: Rooms) -> Response:
    """Return what `godwit mosquitto-files` writes: authorities, revocation lists, rights, configuration."""
    _require_all(who)
    # Mosquitto cannot keep another's authority to its own tenant's devices, and has no list of what that one revoked.
    authorities = "".join(each.row.certificate for each in rooms.identity.roster.trusted() if each.row.tenant is None)
    return answer(
        {
            "authorities.pem": authorities,
            "revoked.pem": rooms.identity.lists.pem().decode(),
            "rights.acl": acl_file(topics_for(rooms.settings.topic_layout)),
            "godwit.conf": CONFIGURATION,
        }
    )
