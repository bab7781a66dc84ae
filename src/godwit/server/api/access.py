"""Who asks: a bearer token, everywhere but health and the documents about the API."""

from typing import Annotated, Protocol

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from godwit.contract.errors import MalformedError, RejectedError
from godwit.contract.ids import DeviceId, parse_device_id
from godwit.server.platform import Platform
from godwit.server.registry.model import Principal


class TokenDoor(Protocol):
    """What the API asks of the accounts room."""

    def principal(self, token: str) -> Principal | None:
        """Return whose token it is."""
        ...


_bearer = HTTPBearer(auto_error=False, description="The administrator's token is in DATA_DIR/admin-token.")


def require_principal(
    request: Request, _documented: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    """Return who asks. Raises RejectedError (`unauthorized`)."""
    return check_token(request)


def check_token(request: Request) -> Principal:
    """Return whose bearer token the request has. Raises RejectedError (`unauthorized`)."""
    tokens: TokenDoor = request.app.state.tokens
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    who = tokens.principal(token.strip()) if scheme.lower() == "bearer" else None
    if who is None:
        raise RejectedError(
            "a bearer token is needed: Authorization: Bearer <token>; the first is in DATA_DIR/admin-token",
            code="unauthorized",
        )
    return who


def refuse_unknown_queries(request: Request) -> None:
    """Refuse query parameters that the route does not have: a filter with a typo must not find everything.

    Those said twice are refused too, unless they are lists, and NUL, which PostgreSQL cannot keep.
    """
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


def the_platform(request: Request) -> Platform:
    """Return the rooms."""
    platform: Platform = request.app.state.platform
    return platform


def device_id_of(device_id: str) -> DeviceId:
    """Return the path's device id. An impossible one is answered like one that is not there."""
    try:
        return parse_device_id(device_id)
    except MalformedError:
        raise RejectedError(f"no device {device_id[:64]!r}", code="not-found") from None


def require_operator(who: Annotated[Principal, Depends(require_principal)]) -> Principal:
    """Return who asks, who may change devices. Raises RejectedError (`unauthorized`, `forbidden`)."""
    who.require("operator")
    return who


def require_admin(who: Annotated[Principal, Depends(require_principal)]) -> Principal:
    """Return who asks, who may change who may what. Raises RejectedError (`unauthorized`, `forbidden`)."""
    who.require("admin")
    return who


Who = Annotated[Principal, Depends(require_principal)]
Operator = Annotated[Principal, Depends(require_operator)]
Admin = Annotated[Principal, Depends(require_admin)]
Rooms = Annotated[Platform, Depends(the_platform)]
Id = Annotated[DeviceId, Depends(device_id_of)]
