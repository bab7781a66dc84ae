"""Who asks, and whether he may: every route says which role it needs, and nothing is served without one but OPEN.

A route needs the role of the dependency by which it asks who it is: `Who` (viewer), `Operator`, `Admin`. `StrictRoute`
checks it before it reads anything else of a request.

What routes depend on is `async` although it awaits nothing: a plain function FastAPI runs in a thread, and the way
there and back costs more than all that is checked here.
"""

from asyncio import to_thread
from collections.abc import Iterator
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from godwit.contract.errors import MalformedError, RejectedError
from godwit.contract.ids import DeviceId, parse_device_id
from godwit.server.accounts.principal import Principal
from godwit.server.accounts.room import Accounts
from godwit.server.platform import Platform

OPEN: Final = frozenset({
    "/health/live", "/health/ready", "/openapi.json", "/asyncapi.json", "/asyncapi",
    # of devices without identity: the request itself says why it may ask
    "/enroll", "/oauth/device_authorization", "/oauth/token", "/.well-known/oauth-authorization-server",
    # what everybody may know of our authorities
    "/pki/ca.crt", "/pki/chain.crt", "/pki/crl", "/pki/crl.pem", "/pki/crl/{fingerprint}", "/pki/ocsp",
    "/pki/ocsp/{question:path}",
})  # fmt: skip
"""Routes that show nothing of the fleet, and need no token."""

WHO: Final = "godwit.who"
"""Where a request's scope has who asks, once it was checked."""

_bearer = HTTPBearer(auto_error=False, description="An API token, or the administrator's in DATA_DIR/admin-token.")


def address_of(connection: HTTPConnection) -> str:
    """Return where a request comes from."""
    return connection.client.host if connection.client is not None else ""


def token_of(connection: HTTPConnection) -> str:
    """Return the bearer token; "" without one."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def who_has(connection: HTTPConnection, token: str) -> Principal:
    """Return whose token it is. Raises RejectedError (`unauthorized`, `session-stolen`)."""
    accounts: Accounts = connection.app.state.tokens
    address, agent = address_of(connection), connection.headers.get("user-agent", "")
    known = accounts.recall(token, address=address, agent=agent) if token else None
    if known is None and token:
        known = await to_thread(accounts.known, token, address=address, agent=agent)
    if known is None or known.must_change:
        raise RejectedError(
            "a bearer token is needed: Authorization: Bearer <token>; the first is in DATA_DIR/admin-token",
            code="unauthorized",
        )
    return known.principal


async def admit(request: Request, role: str) -> None:
    """Check who asks, before anything else of a request is read.

    Raises RejectedError (`unauthorized`, `forbidden`, `scope-missing`).
    """
    who = await who_has(request, token_of(request))
    request.scope[WHO] = who
    request.app.state.request_rates.take(who)
    who.require(role)
    if who.scopes:
        who.require_scope(scope_of(request.scope["route"].path, role))


def scope_of(path: str, role: str) -> str:
    """Return the scope that a route needs: the noun of its address, `read` where a viewer may."""
    verb = "read" if role == "viewer" else "write"
    parts = path.removeprefix("/api/v1").strip("/").split("/")
    nested = [each for each in parts[2:] if each in _NOUNS_WITHIN]
    return f"{nested[0] if nested else parts[0]}:{verb}"


_NOUNS_WITHIN: Final = frozenset({"telemetry", "certificates", "keys"})
"""Nouns that have scopes of their own within a device's address."""


async def require_principal(
    request: Request, _documented: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    """Return who asks, who may look."""
    return _as_admitted(request, "viewer")


async def require_operator(
    request: Request, _documented: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    """Return who asks, who may change devices: where he may not, he sees nothing."""
    return _as_admitted(request, "operator")


async def require_admin(
    request: Request, _documented: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    """Return who asks, who may change who may what: where he may not, he sees nothing."""
    return _as_admitted(request, "admin")


def _as_admitted(request: Request, role: str) -> Principal:
    who: Principal = request.scope[WHO]
    return who.limited_to(role)


_ROLES: Final[dict[Any, str]] = {
    require_principal: "viewer",
    require_operator: "operator",
    require_admin: "admin",
}


def role_of(dependant: Any) -> str | None:
    """Return the role that a route declares: the highest of its dependencies'; None where it declares none."""
    found = set(_roles_within(dependant))
    return next((role for role in ("admin", "operator", "viewer") if role in found), None)


def _roles_within(dependant: Any) -> Iterator[str]:
    for each in dependant.dependencies:
        if each.call in _ROLES:
            yield _ROLES[each.call]
        yield from _roles_within(each)


async def refuse_unknown_queries(request: Request) -> None:
    """Refuse query parameters that the route does not have: a filter with a typo must not find everything.

    Those said twice are refused too, unless they are lists, and NUL, which PostgreSQL cannot keep.
    """
    if not request.scope["query_string"]:
        return
    params = request.scope["route"].dependant.query_params
    known = {each.alias for each in params}
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        told = f"known are {', '.join(sorted(known))}" if known else "there are none here"
        raise RejectedError(f"no query parameter {unknown[0][:64]!r}; {told}", code="unknown-parameter")
    lists = {each.alias for each in params if "list[" in str(each.field_info.annotation)}
    for name, value in request.query_params.multi_items():
        if "\0" in value:
            raise RejectedError(f"{name}: NUL characters are not taken", code="invalid-text")
        if name not in lists and len(request.query_params.getlist(name)) > 1:
            raise RejectedError(f"{name} is said twice", code="duplicate-parameter")


async def the_platform(request: Request) -> Platform:
    """Return the rooms."""
    platform: Platform = request.app.state.platform
    return platform


async def device_id_of(device_id: str) -> DeviceId:
    """Return the path's device id. An impossible one is answered like one that is not there."""
    try:
        return parse_device_id(device_id)
    except MalformedError:
        raise RejectedError(f"no device {device_id[:64]!r}", code="not-found") from None


Who = Annotated[Principal, Depends(require_principal)]
Operator = Annotated[Principal, Depends(require_operator)]
Admin = Annotated[Principal, Depends(require_admin)]
Rooms = Annotated[Platform, Depends(the_platform)]
Id = Annotated[DeviceId, Depends(device_id_of)]
