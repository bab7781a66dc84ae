"""Telemetry, events and status over HTTPS: what MQTT takes, answered when it is stored."""

from asyncio import to_thread
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from godwit.contract.compression import is_compressed
from godwit.contract.errors import MalformedError, RejectedError
from godwit.contract.ids import parse_device_id
from godwit.contract.topics import Channel
from godwit.server.api.bodies import read_body
from godwit.server.api.problems import problem
from godwit.server.device_port.rooms import address_of, credential_of, rooms_of

CHANNELS: Final = {"telemetry": Channel.TELEMETRY, "events": Channel.EVENTS, "status": Channel.STATUS}
_UNSAID: Final = frozenset({"", "application/x-www-form-urlencoded", "application/octet-stream"})
"""Content types that say nothing of a message: the first is what curl says of its own accord."""
_CODINGS: Final = frozenset({"", "identity", "deflate", "zstd"})


async def submit(request: Request) -> Response:
    """Take one message: 204 once it is stored; 422 with its code once it is kept in quarantine."""
    rooms = rooms_of(request)
    credential = await credential_of(request, request.path_params["device_id"])
    try:
        device_id = parse_device_id(request.path_params["device_id"])
    except MalformedError:
        raise RejectedError("this credential does not speak for such a device", code="forbidden") from None
    try:
        rooms.doorkeeper.check_voice(credential, device_id)
    except RejectedError as error:
        about = f"{credential.device_id or credential.name} for {device_id}"
        await to_thread(
            rooms.refusals.refused, error.code, str(error), address_of(request), about, str(credential.tenant)
        )
        raise
    payload = await read_body(request, rooms.payload_bytes_max)
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() in _UNSAID:
        content_type = ""
    _check_coding(request.headers.get("content-encoding", "").strip().lower(), payload)
    channel = CHANNELS[request.url.path.rpartition("/")[2]]
    outcome = await rooms.ingest.submit(device_id, channel, payload, content_type=content_type or None, peer="https")
    if outcome.code:
        return problem(422, outcome.code, f"kept in quarantine: {outcome.detail}")
    return Response(status_code=204)


def _check_coding(coding: str, payload: bytes) -> None:
    """See that a compressed body is so in a way that messages may be (its first bytes say in which)."""
    if coding not in _CODINGS:
        raise RejectedError("bodies are compressed as deflate (zlib) or zstd", code="unknown-content-encoding")
    if coding in ("deflate", "zstd") and not is_compressed(payload):
        raise RejectedError(f"the body is not {coding}", code="malformed-compression")


ROUTES: Final = [Route(f"/v1/devices/{{device_id}}/{name}", submit, methods=["POST"]) for name in CHANNELS]
