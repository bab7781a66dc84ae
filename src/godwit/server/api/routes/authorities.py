"""The authorities: looking at them; care of our keys; rollovers. The last two are for administrators of all tenants."""

from time import time_ns
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from godwit.server.accounts.principal import Principal
from godwit.server.api.access import Admin, Rooms, Who
from godwit.server.api.answers import answer, time_or_none, with_mark
from godwit.server.api.problems import documented
from godwit.server.api.strict import Body, StrictRoute
from godwit.server.identity.campaign import RATE_DEFAULT, RATE_MAX
from godwit.server.identity.key_care import PASSPHRASE_MIN, PEM_BYTES_MAX
from godwit.server.identity.model import Authority, Campaign, CampaignKind, CampaignState, Step
from godwit.server.identity.trusted import mark_of
from godwit.server.platform import Platform
from godwit.server.registry.access import not_found

router = APIRouter(prefix="/api/v1", tags=["authorities"], route_class=StrictRoute)

Fingerprint = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
CampaignId = Annotated[int, Path(ge=1, le=2**62)]
_Passphrase = Annotated[str, Field(min_length=PASSPHRASE_MIN, max_length=1024)]


class Passphrase(Body):
    """A passphrase."""

    passphrase: _Passphrase


class NewIssuing(Body):
    """An issuing authority: its certificate, with those above it up to the root; and its key, in one of two forms."""

    certificate: str = Field(max_length=PEM_BYTES_MAX, description="PEM, its own first")
    sealedKey: str = Field("", max_length=8192, description="as `issuing-request` gave it")  # noqa: N815
    key: str = Field("", max_length=16_384, description="PKCS#8 in PEM")
    passphrase: str = Field("", max_length=1024, description="of `key`, if it is encrypted")


class NewRollover(Body):
    """What is exchanged, and how many devices are told a second."""

    kind: Literal["intermediate", "root"]
    rate: int = Field(RATE_DEFAULT, ge=1, le=RATE_MAX)


class Force(Body):
    """Whether devices that have not renewed are left behind."""

    force: bool = False


def document(authority: Authority, *, whole: bool = False) -> dict[str, Any]:
    """Return an authority as the API shows it."""
    shown: dict[str, Any] = msgspec.to_builtins(authority)
    for name in ("notBefore", "notAfter", "created"):
        shown[name] = time_or_none(shown[name])
    shown["expired"] = authority.not_after <= time_ns()
    if not whole:
        del shown["certificate"]
    return shown


def campaign_document(campaign: Campaign) -> dict[str, Any]:
    """Return a rollover as the API shows it."""
    shown: dict[str, Any] = msgspec.to_builtins(campaign)
    shown["created"], shown["finished"] = time_or_none(campaign.created), time_or_none(campaign.finished)
    return shown


def _visible(rooms: Platform, who: Principal) -> list[Authority]:
    """Return ours, and those of the tenants that `who` may see."""
    return [
        each
        for each in rooms.identity.authorities.all()
        if each.tenant is None or who.tenants is None or each.tenant in who.tenants
    ]


@router.get("/authorities", responses=documented(), summary="List the authorities")
def list_authorities(who: Who, rooms: Rooms) -> Response:
    """Return our own authorities, and those of customers and factories that are trusted."""
    return answer({"items": [document(each) for each in _visible(rooms, who)]})


@router.get("/authorities/{fingerprint}", responses=documented(404), summary="Look at an authority")
def get(fingerprint: Fingerprint, who: Who, rooms: Rooms) -> Response:
    """Return an authority, with its certificate in PEM; its `ETag` goes with a change as `If-Match`."""
    found = next((each for each in _visible(rooms, who) if each.fingerprint == fingerprint), None)
    if found is None:
        raise not_found("authority", fingerprint)
    return with_mark(answer(document(found, whole=True)), mark_of(found))


@router.post("/authorities/root/export", responses=documented(403), summary="Export the root's key")
def export_root(body: Passphrase, who: Admin, rooms: Rooms) -> Response:
    """Return the root's certificate and its key under a passphrase. The key is here until it is removed."""
    root, pem = rooms.identity.key_care.export_root(who, body.passphrase)
    made = answer({"fingerprint": root.fingerprint, "pem": pem})
    made.headers["cache-control"] = "no-store"
    return made


@router.delete("/authorities/{fingerprint}/key", responses=documented(403, 404), summary="Remove the root's key")
def remove_key(fingerprint: Fingerprint, who: Admin, rooms: Rooms) -> Response:
    """Remove the root's key, which was exported, and is safe elsewhere."""
    who.require_installation()
    return answer(document(rooms.identity.key_care.remove_root_key(who, fingerprint)))


@router.post("/authorities/issuing-request", responses=documented(403), summary="Ask for an issuing authority")
def request_issuing(who: Admin, rooms: Rooms) -> Response:
    """Make a key for a new issuing authority; returns the request for the root, and the key, sealed."""
    made = answer(rooms.identity.key_care.request_issuing(who))
    made.headers["cache-control"] = "no-store"
    return made


@router.post(
    "/authorities/issuing", status_code=201, responses=documented(403, 409), summary="Bring in an issuing authority"
)
def add_issuing(body: NewIssuing, who: Admin, rooms: Rooms) -> Response:
    """Take in an issuing authority, ours or a customer's: for a rollover, or at once if it is the first."""
    added = rooms.identity.key_care.add_issuing(
        who, body.certificate, sealed_key=body.sealedKey, key=body.key, passphrase=body.passphrase
    )
    return answer(document(added), 201)


@router.post("/authorities/passphrase", responses=documented(403), summary="Change the passphrase of the keys")
def change_passphrase(body: Passphrase, who: Admin, rooms: Rooms) -> Response:
    """Seal all keys anew. `kept` false: put the new passphrase where the old one came from, before the next start."""
    return answer({"kept": rooms.identity.key_care.change_passphrase(who, body.passphrase)})


# --- rollovers --------------------------------------------------------------------------------------------------------


@router.get("/rollovers", responses=documented(403), summary="List rollovers")
def rollovers(who: Admin, rooms: Rooms) -> Response:
    """Return the rollovers, the newest first, with how many devices are at which step."""
    who.require_installation()
    return answer({"items": [campaign_document(each) for each in rooms.identity.campaigns.all()]})


@router.post("/rollovers", status_code=201, responses=documented(403, 409), summary="Start a rollover")
def start(body: NewRollover, who: Admin, rooms: Rooms) -> Response:
    """Bring another issuing authority, or another root, to every device."""
    return answer(campaign_document(rooms.identity.campaigns.start(who, CampaignKind(body.kind), rate=body.rate)), 201)


@router.get("/rollovers/{campaign_id}", responses=documented(403, 404), summary="Look at a rollover")
def rollover(campaign_id: CampaignId, who: Admin, rooms: Rooms) -> Response:
    """Return a rollover."""
    who.require_installation()
    return answer(campaign_document(rooms.identity.campaigns.get(campaign_id)))


@router.get("/rollovers/{campaign_id}/devices", responses=documented(403, 404), summary="Devices of a rollover")
def rollover_devices(
    campaign_id: CampaignId,
    who: Admin,
    rooms: Rooms,
    step: Step | None = None,
    after: Annotated[str, Query(max_length=64, description="ids after this one")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Return where devices are, by id."""
    who.require_installation()
    rooms.identity.campaigns.get(campaign_id)
    found = rooms.identity.campaigns.devices(campaign_id, step, after=after, limit=limit)
    items = [
        {"deviceId": device, "step": str(at), "detail": detail or None, "since": time_or_none(since)}
        for device, at, detail, since in found
    ]
    return answer({"items": items})


def _change(
    rooms: Platform, who: Principal, campaign_id: int, state: CampaignState, *, force: bool = False
) -> Response:
    return answer(campaign_document(rooms.identity.campaigns.change(who, campaign_id, state, force=force)))


@router.post("/rollovers/{campaign_id}/pause", responses=documented(403, 404, 409), summary="Pause a rollover")
def pause(campaign_id: CampaignId, who: Admin, rooms: Rooms) -> Response:
    """Tell nobody else for now."""
    return _change(rooms, who, campaign_id, CampaignState.PAUSED)


@router.post("/rollovers/{campaign_id}/resume", responses=documented(403, 404, 409), summary="Go on with a rollover")
def resume(campaign_id: CampaignId, who: Admin, rooms: Rooms) -> Response:
    """Go on."""
    return _change(rooms, who, campaign_id, CampaignState.RUNNING)


@router.post("/rollovers/{campaign_id}/cancel", responses=documented(403, 404, 409), summary="Cancel a rollover")
def cancel(campaign_id: CampaignId, who: Admin, rooms: Rooms) -> Response:
    """Have the old authority issue again; what the new one has issued counts until its end."""
    return _change(rooms, who, campaign_id, CampaignState.CANCELLED)


@router.post("/rollovers/{campaign_id}/finish", responses=documented(403, 404, 409), summary="Finish a rollover")
def finish(campaign_id: CampaignId, body: Force, who: Admin, rooms: Rooms) -> Response:
    """Retire the old authority. With `force` also while devices are left, which are shut out."""
    return _change(rooms, who, campaign_id, CampaignState.FINISHED, force=body.force)
