"""EST (RFC 7030) on the port of devices. Errors are text: the stable code, then a sentence.

Whoever has a claim says it by HTTP Basic, the device id as user name; whoever has a certificate shows it. Proof of
possession is the request's own signature; it is not linked to the TLS session (RFC 7030, 3.5, which is optional).
"""

from asyncio import to_thread
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from godwit.contract.enrollment import EnrollmentRequest
from godwit.contract.errors import GodwitError, MalformedError, RejectedError, UnavailableError
from godwit.server.api.bodies import read_body
from godwit.server.device_port.credentials import said
from godwit.server.device_port.enrollment import applicant, ask, status_of
from godwit.server.device_port.rooms import Rooms, address_of, rooms_of
from godwit.server.identity.est import (
    ATTRIBUTES,
    BODY_BYTES_MAX,
    CERTIFICATES_ONLY,
    WISHES,
    certificates_only,
    read_est_request,
    transfer,
)
from godwit.server.identity.model import AuthorityKind, AuthorityState, Credential, Door, Source
from godwit.server.identity.requests import common_name

_REQUEST_TYPE: Final = "application/pkcs10"
_STATUS: Final = {
    "unauthorized": 401, "not-found": 404, "not-supported": 501, "payload-too-large": 413, "unknown-content-type": 415,
}  # fmt: skip

Handler = Callable[[Request], Awaitable[Response]]


def in_words(handler: Handler) -> Handler:
    """Answer refusals in text."""

    @wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except GodwitError as error:
            return _error(error)

    return answer


def _error(error: GodwitError) -> Response:
    headers: dict[str, str] = {}
    if isinstance(error, UnavailableError):
        status, headers = 503, {"Retry-After": "5"}
    elif error.code.startswith(("certificate-", "authority-", "claim-", "unknown-authority")):
        status = 401
    else:
        status = _STATUS.get(error.code, 400 if isinstance(error, MalformedError) else status_of(error.code))
    if status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="godwit", charset="UTF-8"'
    return Response(f"{error.code}: {error}\n", status, headers, "text/plain")


def _answer(der: bytes, media_type: str) -> Response:
    headers = {"Content-Type": media_type, "Content-Transfer-Encoding": "base64", "Cache-Control": "no-store"}
    return Response(transfer(der), headers=headers)


@in_words
async def cacerts(request: Request) -> Response:
    """Return our authorities in force: roots, and what stands between them and devices."""
    authorities = await to_thread(rooms_of(request).identity.authorities.all)
    ours = [
        each.certificate
        for each in authorities
        if each.kind in (AuthorityKind.ROOT, AuthorityKind.ISSUING) and each.state is not AuthorityState.RETIRED
    ]
    return _answer(certificates_only(ours), CERTIFICATES_ONLY)


@in_words
async def csrattrs(_request: Request) -> Response:
    """Return what a request should be like."""
    return _answer(WISHES, ATTRIBUTES)


@in_words
async def simpleenroll(request: Request) -> Response:
    """Issue a certificate."""
    return await _enroll(request, is_again=False)


@in_words
async def simplereenroll(request: Request) -> Response:
    """Issue a certificate for the one that is shown, of the same subject."""
    return await _enroll(request, is_again=True)


async def _enroll(request: Request, *, is_again: bool) -> Response:
    rooms, address = rooms_of(request), address_of(request)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _REQUEST_TYPE:
        raise RejectedError(f"the body is a certificate request: {_REQUEST_TYPE}", code="unknown-content-type")
    spoken = said(request)
    if spoken.certificate is None and not spoken.token:
        raise RejectedError(
            "say the device id and its claim token by HTTP Basic, or show a client certificate", code="unauthorized"
        )
    asked = read_est_request(await read_body(request, BODY_BYTES_MAX))
    name = common_name(asked.subject)
    by, claim = await applicant(request, spoken.user or name)
    try:
        if is_again:
            if by is None or by.door not in (Door.CERTIFICATE, Door.ENDED) or spoken.certificate is None:
                raise RejectedError("the certificate to be renewed is shown in the TLS handshake", code="unauthorized")
            if asked.subject != x509.load_der_x509_certificate(spoken.certificate).subject:
                raise RejectedError("the request has not the subject of the certificate", code="csr-wrong-name")
        if spoken.user and spoken.user != name:
            raise RejectedError("the CN of the request is not the user name", code="csr-wrong-name")
        label = request.path_params.get("label")
        if label is not None and await to_thread(_tenant, rooms, by, claim) != label:
            raise RejectedError("there is nothing under this label for this credential", code="not-found")
    except RejectedError as error:
        await to_thread(rooms.refusals.refused, error.code, f"EST: {error}", address, name)
        raise
    wanted = EnrollmentRequest(name, asked.public_bytes(Encoding.PEM).decode(), claim=claim or None)
    grant = await ask(rooms, wanted, by, Source.EST, address)
    if grant.code is not None:
        raise RejectedError(grant.message or "refused", code=grant.code)
    return _answer(certificates_only([grant.certificate]), CERTIFICATES_ONLY)


def _tenant(rooms: Rooms, by: Credential | None, claim: str) -> str:
    """Return whose tenant the applicant is; empty: nobody's."""
    by = by or rooms.enroller.credential_of_claim(claim)
    return "" if by is None else by.tenant


@in_words
async def not_here(_request: Request) -> Response:
    """Say what of EST is not here: keys are made on devices."""
    raise RejectedError("this server neither makes keys for devices nor speaks full CMC", code="not-supported")


_OPERATIONS: Final[dict[str, tuple[str, Handler]]] = {
    "cacerts": ("GET", cacerts),
    "csrattrs": ("GET", csrattrs),
    "simpleenroll": ("POST", simpleenroll),
    "simplereenroll": ("POST", simplereenroll),
    "serverkeygen": ("POST", not_here),
    "fullcmc": ("POST", not_here),
}
ROUTES: Final = [
    Route(f"/.well-known/est{place}/{name}", handler, methods=[method])
    for name, (method, handler) in _OPERATIONS.items()
    for place in ("", "/{label}")
]
