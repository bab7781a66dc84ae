"""What devices without identity ask: `POST /enroll`, and the OAuth 2.0 device grant (RFC 8628). No token opens these.

The requests themselves prove that they may ask: by a claim token, or by their owner's word.
"""

from asyncio import to_thread
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
from fastapi import APIRouter, Request, Response

from godwit.contract.enrollment import decode_request, encode
from godwit.runtime.hosts import is_loopback
from godwit.server.api.access import Rooms, address_of, token_of
from godwit.server.api.answers import answer
from godwit.server.api.bodies import read_body
from godwit.server.api.problems import documented, problem
from godwit.server.api.routes.claims import no_store
from godwit.server.api.strict import StrictRoute, check_text
from godwit.server.identity.device_grant import GRANT_TYPE, shown
from godwit.server.identity.device_grants import TOKEN_S, GrantRefusal
from godwit.server.identity.model import Source
from godwit.server.settings import Settings

router = APIRouter(tags=["enrollment of devices"], route_class=StrictRoute)

BODY_BYTES_MAX: Final = 65_536
SCOPE: Final = "enroll"
STATUS: Final = {"rate-limited": 429, "registry-unavailable": 503}
"""HTTP statuses of refusals; all others are 403: `code` says why."""

_REQUEST: Final = {
    "type": "object",
    "required": ["deviceId", "request"],
    "properties": {
        "deviceId": {"type": "string"},
        "request": {"type": "string", "description": "PKCS#10, PEM"},
        "claim": {"type": ["string", "null"], "description": "or Authorization: Bearer"},
        "signKey": {"type": ["string", "null"]},
        "agreeKey": {"type": ["string", "null"]},
    },
}
_FORM: Final = "application/x-www-form-urlencoded"


def _body(schema: dict[str, Any], media_type: str) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema}}}}


def _strings(*names: str) -> dict[str, Any]:
    return {
        "type": "object", "required": list(names), "properties": {name: {"type": "string"} for name in names}
    }  # fmt: skip


@router.post(
    "/enroll", responses=documented(403, 413, 429), summary="Enroll a device",
    openapi_extra=_body(_REQUEST, "application/json"),
)  # fmt: skip
async def enroll(request: Request, rooms: Rooms) -> Response:
    """Give a device its certificate for a claim token, in the body or as bearer; a refusal has its `code`."""
    asked = decode_request(await read_body(request, BODY_BYTES_MAX), request.headers.get("content-type"))
    if asked.claim is None and (bearer := token_of(request)):
        asked = msgspec.structs.replace(asked, claim=bearer)
    grant = await to_thread(rooms.identity.enrollment.enroll, asked, None, Source.CLAIM, address=address_of(request))
    if grant.code is None:
        return no_store(Response(encode(grant), media_type="application/json"))
    told = grant.message or "refused"
    more = {"deviceId": grant.device_id, "message": told}  # so it is a grant too, as over MQTT
    return no_store(problem(STATUS.get(grant.code, 403), grant.code, told, more=more))


# --- the device grant -------------------------------------------------------------------------------------------------


async def _form(request: Request) -> dict[str, str]:
    """Return the parameters of a form. Raises GrantRefusal: none may stand twice (RFC 6749, 3.2)."""
    try:
        body = await read_body(request, BODY_BYTES_MAX)
        pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=32)
        for name, value in pairs:
            check_text(name, "a name")
            check_text(value, name[:64])
    except ValueError:
        raise GrantRefusal("invalid_request", "the body is a form in UTF-8") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise GrantRefusal("invalid_request", "a parameter stands twice")
    return form


def _refusal(error: GrantRefusal) -> Response:
    return no_store(answer({"error": error.error, "error_description": str(error)}, 400))


_OAUTH_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {
        "description": "Refused",
        "content": {"application/json": {"schema": _strings("error", "error_description")}},
    }
    for status in (400,)
}  # fmt: skip


@router.post(
    "/oauth/device_authorization", responses=documented(413) | _OAUTH_ERRORS, summary="Begin a device grant",
    openapi_extra=_body(_strings("client_id"), _FORM),
)  # fmt: skip
async def authorize(request: Request, rooms: Rooms) -> Response:
    """Begin: `client_id` is the device's id. Its owner types the `user_code` at `verification_uri` (RFC 8628, 3.2)."""
    try:
        form = await _form(request)
        if form.get("scope", SCOPE) not in ("", SCOPE):
            raise GrantRefusal("invalid_scope", f"there is one scope: {SCOPE}")
        started = await to_thread(rooms.identity.grants.start, form.get("client_id", ""), address_of(request))
    except GrantRefusal as error:
        return _refusal(error)
    base = console_of(rooms.settings, str(request.base_url))
    code = shown(started.user_code)
    return no_store(
        answer(
            {
                "device_code": started.device_code,
                "user_code": code,
                "verification_uri": f"{base}/device",
                "verification_uri_complete": f"{base}/device?user_code={code}",
                "expires_in": started.expires_in,
                "interval": started.interval,
            }
        )
    )


@router.post(
    "/oauth/token", responses=documented(413) | _OAUTH_ERRORS, summary="Ask for the token of a device grant",
    openapi_extra=_body(_strings("grant_type", "device_code", "client_id"), _FORM),
)  # fmt: skip
async def token(request: Request, rooms: Rooms) -> Response:
    """Return the access token once the owner has approved; until then `authorization_pending` (RFC 8628, 3.5)."""
    try:
        form = await _form(request)
        if form.get("grant_type") != GRANT_TYPE:
            raise GrantRefusal("unsupported_grant_type", f"the one that is: {GRANT_TYPE}")
        given = await to_thread(
            rooms.identity.grants.token, form.get("device_code", ""), form.get("client_id", ""), address_of(request)
        )
    except GrantRefusal as error:
        return _refusal(error)
    return no_store(answer({"access_token": given, "token_type": "Bearer", "expires_in": TOKEN_S, "scope": SCOPE}))


@router.get("/.well-known/oauth-authorization-server", responses=documented(), summary="What the device grant offers")
def metadata(request: Request) -> Response:
    """Return the metadata of RFC 8414."""
    base = _base(request)
    return answer(
        {
            "issuer": base,
            "device_authorization_endpoint": f"{base}/oauth/device_authorization",
            "token_endpoint": f"{base}/oauth/token",
            "token_endpoint_auth_methods_supported": ["none"],
            "grant_types_supported": [GRANT_TYPE],
            "response_types_supported": [],
            "scopes_supported": [SCOPE],
        }
    )


def console_of(settings: Settings, asked: str) -> str:
    """Return where an owner finds the console, whatever port his device has `asked` at (an address).

    The devices' port has no pages, and asks browsers for certificates.
    """
    if settings.console_url:
        return settings.console_url.rstrip("/")
    parts = urlsplit(asked)
    if (parts.port or {"https": 443}.get(parts.scheme, 80)) == settings.server_port:
        return asked.rstrip("/")
    if is_loopback(settings.server_host):
        scheme, host = "http", settings.server_host  # nobody reaches it but on that machine
    else:
        scheme, host = "https", settings.public_host.split(",")[0].strip() or parts.hostname or settings.server_host
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.server_port}"


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/")
