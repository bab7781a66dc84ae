"""`POST /enroll`: a certificate for a claim token, a factory certificate, or the device's own certificate."""

from asyncio import to_thread
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from godwit.contract.enrollment import EnrollmentGrant, EnrollmentRequest, decode_request, encode
from godwit.server.api.bodies import read_body
from godwit.server.api.problems import problem
from godwit.server.device_port.credentials import Said, said
from godwit.server.device_port.rooms import Rooms, address_of, credential_of, rooms_of
from godwit.server.identity.claims import PREFIX
from godwit.server.identity.model import Credential, Source

REQUEST_BYTES_MAX: Final = 65_536
"""A request has a certificate request (16 KiB at most) and two public keys."""


async def enroll(request: Request) -> Response:
    """Answer a request with a grant, or with a problem that has the refusal's code."""
    rooms = rooms_of(request)
    asked = decode_request(await read_body(request, REQUEST_BYTES_MAX), _content_type(request))
    by, claim = await applicant(request, asked.device_id)
    if claim and asked.claim is None:
        asked = msgspec.structs.replace(asked, claim=claim)
    grant = await ask(rooms, asked, by, Source.CLAIM, address_of(request))
    if grant.code is not None:
        told = grant.message or "refused"
        more = {"deviceId": grant.device_id, "message": told}  # so it is a grant too, as over MQTT
        return problem(status_of(grant.code), grant.code, told, more=more)
    return Response(encode(grant), media_type="application/json", headers={"Cache-Control": "no-store"})


async def applicant(request: Request, about: str) -> tuple[Credential | None, str]:
    """Return who asks, or what may be a claim token: whoever decides knows best what is wrong with it."""
    spoken = said(request)
    if spoken == Said():
        return None, ""
    if spoken.certificate is None and spoken.token.startswith(PREFIX):
        return None, spoken.token
    return await credential_of(request, about), ""


async def ask(
    rooms: Rooms, asked: EnrollmentRequest, by: Credential | None, source: Source, address: str
) -> EnrollmentGrant:
    """Have a request decided, in a thread. `source`: EST's own; else the credential says more."""
    return await to_thread(lambda: rooms.enroller.enroll(asked, by, source, address=address))


def status_of(code: str) -> int:
    """Return the HTTP status of a refusal."""
    if code in ("csr-malformed", "csr-too-large", "malformed"):
        return 400
    if code == "rate-limited":
        return 429
    return 503 if code in ("unavailable", "registry-unavailable", "no-authority") else 403


def _content_type(request: Request) -> str | None:
    said_type = request.headers.get("content-type", "")
    return None if said_type.startswith("application/x-www-form-urlencoded") else said_type or None


ROUTES: Final = [Route("/enroll", enroll, methods=["POST"])]
