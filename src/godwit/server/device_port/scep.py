"""SCEP (RFC 8894) on the port of devices: `/scep?operation=...`, for devices that speak nothing younger.

The claim token is the challenge password of the request. Whoever has a certificate renews without: it signs with it.
"""

import binascii
from asyncio import to_thread
from base64 import b64decode
from os import urandom
from time import time_ns
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from godwit.contract.enrollment import EnrollmentGrant, EnrollmentRequest
from godwit.contract.errors import MalformedError, RejectedError
from godwit.server.accounts.throttle import place_of
from godwit.server.api.bodies import read_body
from godwit.server.device_port.est import Handler, in_words
from godwit.server.device_port.rooms import Rooms, address_of, rooms_of
from godwit.server.identity import scep
from godwit.server.identity.est import certificates_only
from godwit.server.identity.model import AuthorityKind, AuthorityState, Credential, Source
from godwit.server.identity.requests import check_key, common_name, key_fingerprint, read_request

_NONCE_BYTES: Final = 16
_CHALLENGE_BYTES_MAX: Final = 512
_FAILS: Final = {
    "scep-algorithm": scep.FailInfo.BAD_ALG,
    "weak-key": scep.FailInfo.BAD_ALG,
    "weak-signature": scep.FailInfo.BAD_ALG,
    "scep-signature": scep.FailInfo.BAD_MESSAGE_CHECK,
    "scep-envelope": scep.FailInfo.BAD_MESSAGE_CHECK,
    "scep-key-mismatch": scep.FailInfo.BAD_MESSAGE_CHECK,
    "csr-signature": scep.FailInfo.BAD_MESSAGE_CHECK,
    "scep-poll": scep.FailInfo.BAD_CERT_ID,
    "certificate-expired": scep.FailInfo.BAD_TIME,
    "certificate-not-yet-valid": scep.FailInfo.BAD_TIME,
}


@in_words
async def capabilities(_request: Request) -> Response:
    """Say what we can (RFC 8894, 3.5)."""
    return Response("\n".join(scep.CAPABILITIES) + "\n", media_type="text/plain")


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
    return Response(certificates_only([own, *current.chain, *roots]), media_type=scep.AUTHORITIES)


@in_words
async def coming(request: Request) -> Response:
    """Return the authorities that a rollover brings (4.7)."""
    answer = await to_thread(_coming, rooms_of(request))
    return Response(answer, media_type=scep.NEXT_AUTHORITIES, headers={"Cache-Control": "no-store"})


def _coming(rooms: Rooms) -> bytes:
    found = [
        each.certificate
        for each in rooms.identity.authorities.all()
        if each.state is AuthorityState.NEXT and each.kind in (AuthorityKind.ROOT, AuthorityKind.ISSUING)
    ]
    if not found:
        raise RejectedError("no other authority is on its way", code="not-found")
    return scep.next_authorities(found, rooms.identity.authorities.signer())


@in_words
async def operate(request: Request) -> Response:
    """Answer a message: by POST, or by GET in base64 (4.1)."""
    if request.method == "POST":
        data = await read_body(request, scep.MESSAGE_BYTES_MAX)
    else:
        try:
            data = b64decode(request.query_params.get("message", "").replace(" ", "+"), validate=True)
        except (binascii.Error, ValueError) as error:
            raise MalformedError(f"message is not base64: {error}", code="scep-malformed") from None
    rooms, address = rooms_of(request), address_of(request)
    if not rooms.messages.take(place_of(address), time_ns()):
        raise RejectedError("too many messages from this address: wait a little", code="rate-limited")
    answer = await to_thread(_answer, rooms, data, address)
    return Response(answer, media_type=scep.MESSAGE, headers={"Cache-Control": "no-store"})


def _answer(rooms: Rooms, data: bytes, address: str) -> bytes:
    """Return the answer to a message. Raises MalformedError or RejectedError where there is nobody to answer."""
    try:
        message = scep.read_message(data)
    except RejectedError as error:
        rooms.refusals.refused(error.code, f"SCEP: {error}", address)
        raise
    registrar = rooms.registrars.current().registrar
    nonce = urandom(_NONCE_BYTES)
    try:
        registrar = rooms.registrars.of_serial(scep.recipient(message))
        opened = scep.open_envelope(message, registrar)
        grant = _decide(rooms, message, opened.content, address)
    except (MalformedError, RejectedError) as error:
        rooms.refusals.refused(error.code, f"SCEP: {error}", address, common_name(message.signer.subject))
        return _refused(message, error.code, str(error), registrar, nonce)
    if grant.code is not None:
        return _refused(message, grant.code, grant.message or "refused", registrar, nonce)
    return scep.granted(message, opened, (grant.certificate, *grant.chain), registrar, nonce)


def _refused(message: scep.Message, code: str, text: str, registrar: scep.Registrar, nonce: bytes) -> bytes:
    why = _FAILS.get(code, scep.FailInfo.BAD_REQUEST)
    return scep.refused(message, why, f"{code}: {text}", registrar, nonce)


def _decide(rooms: Rooms, message: scep.Message, content: bytes, address: str) -> EnrollmentGrant:
    """Have a request decided. Raises MalformedError or RejectedError."""
    if message.kind == scep.MessageType.CERT_POLL:
        raise RejectedError("nothing is pending here: requests are answered at once", code="scep-poll")
    if message.kind not in (scep.MessageType.PKCS_REQ, scep.MessageType.RENEWAL_REQ):
        raise MalformedError(f"messages of type {message.kind[:8]} are not answered", code="scep-malformed")
    request = read_request(content)
    name, claim = common_name(request.subject), scep.challenge_of(request)
    by: Credential | None = None
    own_key = key_fingerprint(check_key(message.signer.public_key()))
    if message.kind == scep.MessageType.RENEWAL_REQ or own_key != key_fingerprint(check_key(request.public_key())):
        by = _owner(rooms, message, address)
    elif not claim:
        raise RejectedError("the challenge password of the request is the claim token", code="claim-needed")
    if len(claim) > _CHALLENGE_BYTES_MAX:
        raise MalformedError("the challenge password is too long", code="csr-malformed")
    asked = EnrollmentRequest(name, request.public_bytes(Encoding.PEM).decode(), claim=claim if by is None else None)
    return rooms.enroller.enroll(asked, by, Source.SCEP, address=address)


def _owner(rooms: Rooms, message: scep.Message, address: str) -> Credential:
    """Return whose certificate signed. One that nobody knows is another key's than the request's: no possession."""
    try:
        der = message.signer.public_bytes(Encoding.DER)
        return rooms.doorkeeper.of_known(der) or rooms.doorkeeper.take_in(der, address)
    except RejectedError as error:
        if error.code in ("certificate-unknown", "authority-unknown", "unknown-authority"):
            raise RejectedError(
                "the message is signed neither by the key of the request nor by a certificate that counts here",
                code="scep-key-mismatch",
            ) from None
        raise


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
