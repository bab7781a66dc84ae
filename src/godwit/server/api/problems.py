"""The one place that renders an error: RFC 9457 problem documents."""

import logging
from typing import Any, Final

import msgspec
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from godwit.contract.errors import GodwitError, MalformedError, RejectedError, UnavailableError
from godwit.server.accounts.room import Accounts
from godwit.server.accounts.sign_in import TooManyAttemptsError
from godwit.server.api.access import WHO, address_of, token_of

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
_STATUS: Final = {
    "not-found": 404,
    "exists": 409,
    "in-use": 409,
    "too-many-tokens": 409,
    "too-many-keys": 409,
    "campaign-open": 409,
    "campaign-over": 409,
    "devices-left": 409,
    "unauthorized": 401,
    "session-stolen": 401,
    "forbidden": 403,
    "scope-missing": 403,
    "wrong-password": 403,
    "too-many-attempts": 429,
    "too-many-requests": 429,
    "quota-devices": 409,
    "certificate-unknown": 401,
    "certificate-revoked": 401,
    "certificate-expired": 401,
    "certificate-not-yet-valid": 401,
    "certificate-malformed": 401,
    "certificate-wrong-name": 401,
    "certificate-wrong-tenant": 401,
    "authority-unknown": 401,
    "unknown-authority": 401,
    "authority-not-trusted": 401,
    "certificate-purpose": 401,
    "authority-expired": 401,
    "authority-not-its-device": 403,
    "wrong-tenant": 403,
    "credentials-needed": 401,
    "credentials-wrong": 401,
    "wrong-device": 401,
    "too-many-failures": 429,
    "jwt-malformed": 401,
    "jwt-signature": 401,
    "jwt-wrong-device": 401,
    "jwt-audience": 401,
    "jwt-expired": 401,
    "jwt-lifetime": 401,
    "device-suspended": 403,
    "device-retired": 403,
    "precondition-failed": 412,
    "payload-too-large": 413,
    "unknown-content-encoding": 415,
    "not-acceptable": 406,
    "rate-limited": 429,
    "no-password": 409,
    "foreign-broker": 409,
}
_CODES: Final = {
    400: "malformed", 401: "unauthorized", 403: "forbidden", 404: "not-found", 405: "method-not-allowed",
    406: "not-acceptable", 413: "payload-too-large", 415: "unknown-content-type",
}  # fmt: skip
_TITLES: Final = {
    400: "Bad request", 401: "Not signed in", 403: "Not allowed", 404: "Not found", 405: "Method not allowed",
    406: "Not acceptable", 409: "Conflict", 412: "Changed meanwhile", 413: "Too large",
    415: "Unknown content type", 422: "Refused",
    429: "Too many attempts", 500: "A bug in the server", 501: "Not supported", 503: "Not available now",
}  # fmt: skip


class Field(BaseModel):
    """One field that is wrong."""

    field: str
    detail: str


class Problem(BaseModel):
    """RFC 9457. `code` is stable; `fields` names what is wrong in the request."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    fields: list[Field] | None = None


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of problems with these statuses, and those that every route may give."""
    wanted = sorted({400, 401, 403, 422, 503, *statuses})
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _TITLES[status], "content": content} for status in wanted}


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    fields: list[dict[str, str]] | None = None,
    headers: dict[str, str] | None = None,
    more: dict[str, str] | None = None,
) -> Response:
    """Return a problem document; `more` are members of its own (RFC 9457, 3.2)."""
    document: dict[str, Any] = {
        "type": f"urn:godwit:problem:{code}",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "code": code,
        **(more or {}),
    }
    if fields:
        document["fields"] = fields
    return Response(msgspec.json.encode(document), status, headers, MEDIA_TYPE)


def _of_godwit(request: Request, error: Exception) -> Response:
    assert isinstance(error, GodwitError)
    if isinstance(error, UnavailableError):
        return problem(503, error.code, str(error), headers={"Retry-After": "2"})
    status = _STATUS.get(error.code, 422 if isinstance(error, MalformedError | RejectedError) else 500)
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}.get(status)
    if status in {401, 403}:
        _note(request, error)
    if isinstance(error, TooManyAttemptsError):
        headers = {"Retry-After": str(error.left_s)}
    return problem(status, error.code, str(error), headers=headers)


def _note(request: Request, error: GodwitError) -> None:
    """Write a refusal into the audit log. Who shows no token at all was not refused, but asked who he is."""
    who = request.scope.get(WHO)
    if who is None and not token_of(request):
        return
    accounts: Accounts | None = getattr(request.app.state, "tokens", None)
    if accounts is None:  # the port of devices knows no accounts, and writes down its refusals itself
        return
    about = f"{request.method} {request.url.path}"
    name = who.name if who is not None else "?"
    accounts.refusals.note(name, "request.refuse", about, code=error.code, address=address_of(request))


def _of_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "error")
    return problem(error.status_code, code, str(error.detail), headers=dict(error.headers or {}))


def _of_validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fields = [
        {"field": ".".join(str(part) for part in each["loc"][1:]) or str(each["loc"][0]), "detail": str(each["msg"])}
        for each in error.errors()
    ]
    named = "; ".join(f"{each['field']}: {each['detail']}" for each in fields[:3])
    return problem(422, "invalid-request", named, fields=fields)


def _of_bug(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(500, "bug", "the server has a bug; its log says more")


def install(app: Starlette) -> None:
    """Render all errors of `app` as problems."""
    app.add_exception_handler(GodwitError, _of_godwit)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(Exception, _of_bug)
