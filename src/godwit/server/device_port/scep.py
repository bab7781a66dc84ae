"""SCEP (RFC 8894) on the port of devices: `/scep?operation=...`, for devices that speak nothing younger.

The claim token is the challenge password of the request. Whoever has a certificate renews without: it signs with it.
"""

import binascii
from asyncio import to_thread
from base64 import b64decode
from time import time_ns
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from godwit.contract.errors import MalformedError, RejectedError
from godwit.server.accounts.throttle import place_of
from godwit.server.api.bodies import read_body
from godwit.server.device_port.est import Handler, in_words
from godwit.server.device_port.rooms import Rooms, address_of, rooms_of
from godwit.server.identity.est import certificates_only, certificates_signed
from godwit.server.identity.model import AuthorityKind, AuthorityState
from godwit.server.identity.registrar import MESSAGE_BYTES_MAX

CAPABILITIES: Final = (
    "AES", "GetNextCACert", "POSTPKIOperation", "Renewal", "SHA-256", "SHA-384", "SHA-512", "SCEPStandard",
)  # fmt: skip
"""RFC 8894, 3.5.2. SHA-384 is not among its words, but true, and without it strongSwan 5.9.8 finds no AES (its issue
1607)."""
MESSAGE: Final = "application/x-pki-message"
AUTHORITIES: Final = "application/x-x509-ca-ra-cert"
NEXT_AUTHORITIES: Final = "application/x-x509-next-ca-cert"


@in_words
async def capabilities(_request: Request) -> Response:
    """Say what we can (RFC 8894, 3.5)."""
    return Response("\n".join(CAPABILITIES) + "\n", media_type="text/plain")


@in_words
async def authorities(request: Request) -> Response:
    """Return the registrar, whom requests are encrypted to, and the authorities above it (4.2)."""
    rooms = rooms_of(request)
    current = await to_thread(rooms.registrars.current)
    roots = [
        each.certificate
        for each in await to_thread(rooms.identity.authorities.all)
        if each.kind is AuthorityKind.ROOT and each.state is not AuthorityState.RETIRED
    ]
    own = current.registrar.certificate.public_bytes(Encoding.PEM).decode()
    return Response(certificates_only([own, *current.chain, *roots]), media_type=AUTHORITIES)


@in_words
async def coming(request: Request) -> Response:
    """Return the authorities that a rollover brings (4.7)."""
    answer = await to_thread(_coming, rooms_of(request))
    return Response(answer, media_type=NEXT_AUTHORITIES, headers={"Cache-Control": "no-store"})


def _coming(rooms: Rooms) -> bytes:
    found = [
        each.certificate
        for each in rooms.identity.authorities.all()
        if each.state is AuthorityState.NEXT and each.kind in (AuthorityKind.ROOT, AuthorityKind.ISSUING)
    ]
    if not found:
        raise RejectedError("no other authority is on its way", code="not-found")
    return certificates_signed(found, rooms.identity.authorities.signer())


@in_words
async def operate(request: Request) -> Response:
    """Answer a message: by POST, or by GET in base64 (4.1)."""
    if request.method == "POST":
        data = await read_body(request, MESSAGE_BYTES_MAX)
    else:
        try:
            data = b64decode(request.query_params.get("message", "").replace(" ", "+"), validate=True)
        except (binascii.Error, ValueError) as error:
            raise MalformedError(f"message is not base64: {error}", code="scep-malformed") from None
    rooms, address = rooms_of(request), address_of(request)
    if not rooms.messages.take(place_of(address), time_ns()):
        raise RejectedError("too many messages from this address: wait a little", code="rate-limited")
    answer = await to_thread(_answer, rooms, data, address)
    return Response(answer, media_type=MESSAGE, headers={"Cache-Control": "no-store"})


def _answer(rooms: Rooms, data: bytes, address: str) -> bytes:
    from godwit.server.device_port.scep_answers import answer  # noqa: PLC0415 - see there; we are in a thread

    return answer(rooms, data, address)


_OPERATIONS: Final[dict[str, Handler]] = {
    "GetCACaps": capabilities, "GetCACert": authorities, "GetNextCACert": coming, "PKIOperation": operate,
}  # fmt: skip


@in_words
async def scep_operation(request: Request) -> Response:
    """Do what `operation` says."""
    handler = _OPERATIONS.get(request.query_params.get("operation", ""))
    if handler is None or (request.method == "POST" and handler is not operate):
        raise MalformedError(f"operation is one of {', '.join(_OPERATIONS)}", code="scep-operation")
    return await handler(request)


ROUTES: Final = [Route(path, scep_operation, methods=["GET", "POST"]) for path in ("/scep", "/scep/pkiclient.exe")]
