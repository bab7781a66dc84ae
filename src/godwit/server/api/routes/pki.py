"""What everybody may know of our authorities: roots, revocation lists, answers about certificates. No token."""

import base64
import binascii
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from godwit.contract.errors import MalformedError
from godwit.server.api.access import Rooms
from godwit.server.api.problems import documented
from godwit.server.api.strict import StrictRoute
from godwit.server.identity.ocsp import REQUEST_BYTES_MAX

router = APIRouter(prefix="/pki", tags=["pki"], route_class=StrictRoute)

CRL = "application/pkix-crl"
PEM = "application/x-pem-file"
OCSP = "application/ocsp-response"


@router.get("/ca.crt", responses={200: {"content": {PEM: {}}}}, response_class=Response, summary="The roots")
def ca(rooms: Rooms) -> Response:
    """Return the roots in force, PEM: whom to trust, once their fingerprints were compared."""
    return Response("".join(rooms.identity.authorities.anchors()), media_type=PEM)


@router.get(
    "/chain.crt",
    responses={200: {"content": {PEM: {}}}},
    response_class=Response,
    summary="Roots and issuing authorities",
)
def chain(rooms: Rooms) -> Response:
    """Return the roots and the issuing authorities below them, PEM: what devices' certificates are checked against."""
    issuing = [each.certificate for each in rooms.identity.lists.authorities()]
    return Response("".join([*issuing, *rooms.identity.authorities.anchors()]), media_type=PEM)


@router.get(
    "/crl", responses={200: {"content": {CRL: {}}}, **documented(404)}, response_class=Response, summary="A CRL"
)
def crl(rooms: Rooms) -> Response:
    """Return the revocation list of the authority that issues now, DER (RFC 5280)."""
    return Response(rooms.identity.lists.of(), media_type=CRL)


@router.get("/crl.pem", responses={200: {"content": {PEM: {}}}}, response_class=Response, summary="All CRLs")
def crls(rooms: Rooms) -> Response:
    """Return the revocation lists of all our issuing authorities, PEM, as brokers read them from a file."""
    return Response(rooms.identity.lists.pem(), media_type=PEM)


@router.get(
    "/crl/{fingerprint}",
    responses={200: {"content": {CRL: {}}}, **documented(404)},
    response_class=Response,
    summary="The CRL of an authority",
)
def crl_of(fingerprint: Annotated[str, Path(pattern="^[0-9a-f]{64}$")], rooms: Rooms) -> Response:
    """Return an authority's revocation list, DER."""
    return Response(rooms.identity.lists.of(fingerprint), media_type=CRL)


@router.post(
    "/ocsp", responses={200: {"content": {OCSP: {}}}}, response_class=Response, summary="Ask about a certificate"
)
async def ocsp(request: Request, rooms: Rooms) -> Response:
    """Answer an OCSP request (RFC 6960), which is the body."""
    from asyncio import to_thread  # noqa: PLC0415

    data = b""
    async for part in request.stream():
        data += part
        if len(data) > REQUEST_BYTES_MAX:
            break
    return Response(await to_thread(rooms.identity.ocsp.answer, data), media_type=OCSP)


@router.get(
    "/ocsp/{question:path}",
    responses={200: {"content": {OCSP: {}}}, **documented(404)},
    response_class=Response,
    summary="Ask about a certificate",
)
def ocsp_get(question: str, rooms: Rooms) -> Response:
    """Answer an OCSP request in base64 (RFC 6960, appendix A.1)."""
    try:
        data = base64.b64decode(question.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise MalformedError("an OCSP request in base64 is expected", code="malformed") from None
    return Response(rooms.identity.ocsp.answer(data), media_type=OCSP)
