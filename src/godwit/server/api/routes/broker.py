"""The broker: who is connected, which sessions are kept, who subscribes to what; disconnect one."""

from asyncio import to_thread
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Response
from pydantic import ConfigDict, Field

from godwit.contract.errors import RejectedError
from godwit.server.accounts.acts import record_act
from godwit.server.api.access import Operator, Rooms, Who
from godwit.server.api.answers import answer, time_or_none
from godwit.server.api.problems import documented
from godwit.server.api.strict import Body, StrictRoute
from godwit.server.broker.redirect import REFERENCE_CHARACTERS_MAX, Redirect, redirect_to
from godwit.server.registry.model import Principal

router = APIRouter(prefix="/api/v1/broker", tags=["broker"], route_class=StrictRoute)

CONNECTION_SORTS = Literal[
    "clientId", "since", "inflight", "queued", "dropped", "messagesPerS", "bytesIn", "bytesOut"
]  # fmt: skip
SESSION_SORTS = Literal["clientId", "subscriptions", "inflight", "queued", "dropped"]
SUBSCRIPTION_SORTS = Literal["topicFilter", "clientId"]

Search = Annotated[str, Query(max_length=200, description="what a name has to hold")]
Order = Literal["asc", "desc"]
Offset = Annotated[int, Query(ge=0, le=10_000_000)]
Limit = Annotated[int, Query(ge=1, le=1_000)]


def _require_all(who: Principal) -> None:
    """Refuse who may see some tenants only: a connection belongs to none."""
    if who.tenants is not None:
        raise RejectedError("connections are for administrators of the whole platform", code="forbidden")


def _page(found: Any) -> Response:
    items = [_document(each) for each in found.items]
    return answer({"items": items, "total": found.total})


def _document(row: Any) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(row)
    for name in ("since", "endsAt"):
        if name in document:
            document[name] = time_or_none(document[name])
    return document


@router.get("/connections", responses=documented(403, 409), summary="List connections")
def connections(
    who: Who,
    rooms: Rooms,
    search: Search = "",
    sort: CONNECTION_SORTS = "clientId",
    order: Order = "asc",
    offset: Offset = 0,
    limit: Limit = 100,
) -> Response:
    """Return connections. Rates and numbers are at most a second old."""
    _require_all(who)
    return _page(rooms.broker.inspection.connections(search, sort, offset, limit, descending=order == "desc"))


@router.delete(
    "/connections/{clientId:path}", status_code=204, responses=documented(403, 404, 409), summary="Disconnect a client"
)
async def disconnect(
    clientId: Annotated[str, Path(max_length=65_535)],  # noqa: N803
    who: Operator,
    rooms: Rooms,
) -> Response:
    """Disconnect a client: MQTT 5 is told 0x98, administrative action. It may connect again; its session goes on."""
    _require_all(who)
    if not await rooms.broker.kick(clientId):
        raise RejectedError(f"no client {clientId[:64]!r} is connected", code="not-found")
    await to_thread(record_act, rooms.database, who, "broker.disconnect", clientId)
    return Response(status_code=204)


class RedirectBody(Body):
    """Where clients are sent."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"serverReference": "mqtt2.example.com:8883"}]})
    serverReference: str = Field(min_length=1, max_length=REFERENCE_CHARACTERS_MAX)  # noqa: N815 - camelCase on the wire
    permanent: bool = False

    def redirect(self) -> Redirect:
        """Return what it says. Raises RejectedError where clients could not read it."""
        return redirect_to(self.serverReference, is_permanent=self.permanent)


@router.post(
    "/connections/{clientId:path}/redirect",
    status_code=204,
    responses=documented(403, 404, 409, 413),
    summary="Send one client to another server",
)
async def redirect_client(
    clientId: Annotated[str, Path(max_length=65_535)],  # noqa: N803
    body: RedirectBody,
    who: Operator,
    rooms: Rooms,
) -> Response:
    """Disconnect a client: MQTT 5 is told 0x9C, or 0x9D when it is for good, and the server reference."""
    _require_all(who)
    if not await rooms.broker.redirect_client(clientId, body.redirect()):
        raise RejectedError(f"no client {clientId[:64]!r} is connected", code="not-found")
    after = {"to": body.serverReference, "permanent": body.permanent}
    await to_thread(record_act, rooms.database, who, "broker.redirect", clientId, after=after)
    return Response(status_code=204)


@router.get("/redirect", responses=documented(403, 409), summary="Where are clients sent?")
def redirect(who: Who, rooms: Rooms) -> Response:
    """Return the redirect in force; its reference is null where there is none."""
    _require_all(who)
    return answer(_redirect_document(rooms.broker.redirect))


@router.post("/redirect", responses=documented(403, 409, 413), summary="Send all clients to another server")
async def set_redirect(body: RedirectBody, who: Operator, rooms: Rooms) -> Response:
    """Tell everybody who is connected, or connects from now on, to use another server.

    In force until it is taken back, or the platform starts anew: then `SERVER_REFERENCE` counts.
    """
    _require_all(who)
    wanted = body.redirect()
    leaving = await rooms.broker.set_redirect(wanted)
    after = _redirect_document(wanted)
    await to_thread(record_act, rooms.database, who, "broker.redirect", "all clients", after=after)
    return answer(_redirect_document(wanted) | {"disconnected": leaving})


@router.delete("/redirect", status_code=204, responses=documented(403, 409), summary="Let clients in again")
async def end_redirect(who: Operator, rooms: Rooms) -> Response:
    """Take the redirect back."""
    _require_all(who)
    await rooms.broker.set_redirect(None)
    await to_thread(record_act, rooms.database, who, "broker.redirect", "all clients")
    return Response(status_code=204)


def _redirect_document(redirect: Redirect | None) -> dict[str, Any]:
    if redirect is None:
        return {"serverReference": None, "permanent": False}
    return {"serverReference": redirect.server_reference, "permanent": redirect.is_permanent}


@router.get("/sessions", responses=documented(403, 409), summary="List sessions")
def sessions(
    who: Who,
    rooms: Rooms,
    search: Search = "",
    sort: SESSION_SORTS = "clientId",
    order: Order = "asc",
    offset: Offset = 0,
    limit: Limit = 100,
) -> Response:
    """Return sessions, connected or kept."""
    _require_all(who)
    return _page(rooms.broker.inspection.sessions(search, sort, offset, limit, descending=order == "desc"))


@router.get("/subscriptions", responses=documented(403, 409), summary="List subscriptions")
def subscriptions(
    who: Who,
    rooms: Rooms,
    search: Search = "",
    sort: SUBSCRIPTION_SORTS = "topicFilter",
    order: Order = "asc",
    offset: Offset = 0,
    limit: Limit = 100,
) -> Response:
    """Return who subscribes to what."""
    _require_all(who)
    return _page(rooms.broker.inspection.subscriptions(search, sort, offset, limit, descending=order == "desc"))
