"""CRL and OCSP at short addresses, beside those under `/pki`: nobody has to say who he is."""

import binascii
from asyncio import to_thread
from base64 import b64decode
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from godwit.contract.errors import MalformedError
from godwit.server.api.bodies import read_body
from godwit.server.api.routes.pki import CRL, OCSP
from godwit.server.device_port.rooms import rooms_of
from godwit.server.identity.ocsp import REQUEST_BYTES_MAX


async def crl(request: Request) -> Response:
    """Return an authority's revocation list, DER. Raises RejectedError (`not-found`)."""
    found = await to_thread(rooms_of(request).identity.lists.of, request.path_params["fingerprint"])
    return Response(found, media_type=CRL)


async def ocsp(request: Request) -> Response:
    """Answer an OCSP request (RFC 6960): the body, or in base64 the rest of the path."""
    if request.method == "POST":
        data = await read_body(request, REQUEST_BYTES_MAX)
    else:
        try:
            data = b64decode(request.path_params["question"].encode("ascii"), validate=True)
        except (UnicodeEncodeError, binascii.Error):
            raise MalformedError("an OCSP request in base64 is expected", code="malformed") from None
    return Response(await to_thread(rooms_of(request).identity.ocsp.answer, data), media_type=OCSP)


ROUTES: Final = [
    Route("/crl/{fingerprint}.crl", crl, methods=["GET"]),
    Route("/ocsp", ocsp, methods=["POST"]),
    Route("/ocsp/{question:path}", ocsp, methods=["GET"]),
]
