"""One's own account: who am I, my password, my sessions, my tokens. Nobody reaches another's."""

from time import time_ns
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Response
from pydantic import ConfigDict, Field

from godwit.server.accounts.model import SCOPES, ApiToken
from godwit.server.accounts.principal import grants_of
from godwit.server.api.access import Rooms, Who
from godwit.server.api.answers import answer, time_or_none
from godwit.server.api.problems import documented
from godwit.server.api.routes.users import Grants, Password
from godwit.server.api.spans import duration_ns
from godwit.server.api.strict import Body, StrictRoute

router = APIRouter(prefix="/api/v1", tags=["account"], route_class=StrictRoute)

NO_STORE = {"cache-control": "no-store"}
Id = Annotated[str, Path(min_length=1, max_length=32, pattern="^[0-9a-f]+$")]


class PasswordChange(Body):
    """One's own new password."""

    old: Password
    new: Password


class NewToken(Body):
    """A token to be made. Without grants it has all that you have; without scopes all that its role may."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "grafana", "grants": {"*": "viewer"}, "scopes": ["telemetry:read"], "expiresIn": "90d"}
            ]
        },
    )
    name: str = Field(min_length=1, max_length=64)
    grants: Grants | None = None
    scopes: list[Annotated[str, Field(max_length=40)]] = Field([], max_length=64)
    expiresIn: str | None = Field("90d", max_length=16, description="such as 90d; null: never")  # noqa: N815


def token_document(token: ApiToken) -> dict[str, Any]:
    """Return a token as the API shows it: without its secret."""
    document: dict[str, Any] = msgspec.to_builtins(token)
    for name in ("created", "expires", "revoked", "lastUsed"):
        document[name] = time_or_none(document[name])
    return document


@router.get("/account", responses=documented(), summary="Who am I?")
def account(who: Who) -> Response:
    """Return who asks, with roles and scopes."""
    return answer({"name": who.name, "account": who.account, "grants": grants_of(who), "scopes": list(who.scopes)})


@router.post("/account/password", status_code=204, responses=documented(409, 413, 429), summary="Change my password")
def change_password(body: PasswordChange, who: Who, rooms: Rooms) -> Response:
    """Change your own password; your sessions end. Your tokens stay."""
    who.require_own("account:write")
    rooms.accounts.change_own_password(who, body.old, body.new)
    return Response(status_code=204)


@router.get("/sessions", responses=documented(), summary="My sessions")
def sessions(who: Who, rooms: Rooms) -> Response:
    """Return the browsers in which you are signed in."""
    who.require_own("sessions:read")
    items = []
    for each in rooms.accounts.sessions.sessions(who.account):
        document: dict[str, Any] = msgspec.to_builtins(each)
        for name in ("created", "seen", "expires"):
            document[name] = time_or_none(document[name])
        items.append(document)
    return answer({"items": items})


@router.delete("/sessions/{sessionId}", status_code=204, responses=documented(404), summary="End one of my sessions")
def end_session(sessionId: Id, who: Who, rooms: Rooms) -> Response:  # noqa: N803 - camelCase on the wire
    """Sign yourself out in another browser."""
    who.require_own("sessions:write")
    rooms.accounts.end_session(who, who.account, sessionId)
    return Response(status_code=204)


@router.get("/tokens", responses=documented(), summary="List tokens")
def tokens(
    who: Who,
    rooms: Rooms,
    all: Annotated[bool, Query(description="those that I administer, too")] = False,  # noqa: A002, FBT002
) -> Response:
    """Return your own tokens; with `all`, those that you administer too. Secrets are not among it."""
    return answer({"items": [token_document(each) for each in rooms.accounts.tokens.tokens(who, all_owners=all)]})


@router.post("/tokens", status_code=201, responses=documented(409, 413), summary="Make a token")
def create_token(body: NewToken, who: Who, rooms: Rooms) -> Response:
    """Make a token for yourself, with no more than you have. Its `secret` is in this answer, and never again."""
    expires = 0 if body.expiresIn is None else time_ns() + duration_ns(body.expiresIn, "expiresIn")
    grants = None if body.grants is None else dict(body.grants)
    made = rooms.accounts.tokens.create(who, body.name, grants=grants, scopes=body.scopes, expires=expires)
    return answer(token_document(made.token) | {"secret": made.secret}, 201, headers=NO_STORE)


@router.delete("/tokens/{tokenId}", status_code=204, responses=documented(404), summary="Revoke a token")
def revoke_token(tokenId: Id, who: Who, rooms: Rooms) -> Response:  # noqa: N803
    """Revoke a token of yours, or one that you administer: it opens nothing from now on."""
    rooms.accounts.tokens.revoke(who, tokenId)
    return Response(status_code=204)


@router.get("/scopes", responses=documented(), summary="What a token may be limited to")
def scopes(who: Who) -> Response:
    """Return all scopes."""
    del who
    return answer({"items": sorted(SCOPES)})
