"""What the routes of the port ask of the platform."""

from asyncio import to_thread
from typing import Final

import msgspec
from starlette.requests import Request

from godwit.contract.errors import RejectedError
from godwit.server.device_port.credentials import KnowsDevices, Said, identify, said
from godwit.server.device_port.refusals import Refusals
from godwit.server.identity.enroller import Enroller
from godwit.server.identity.model import Credential
from godwit.server.identity.registrars import Registrars
from godwit.server.identity.room import Identity
from godwit.server.ingest.door import IngestDoor

ANONYMOUS: Final = "unauthorized"


class Rooms(msgspec.Struct, frozen=True):
    """See the module."""

    identity: Identity
    ingest: IngestDoor
    knows: KnowsDevices
    enroller: Enroller
    registrars: Registrars
    refusals: Refusals
    payload_bytes_max: int


def rooms_of(request: Request) -> Rooms:
    """Return the rooms."""
    rooms: Rooms = request.app.state.rooms
    return rooms


def address_of(request: Request) -> str:
    """Return where a request comes from."""
    return request.client.host if request.client is not None else ""


async def credential_of(request: Request, what: Said | None = None) -> Credential:
    """Return who asks. Raises RejectedError; it is audited, unless nothing was said."""
    rooms = rooms_of(request)
    spoken = what or said(request)
    try:
        return await to_thread(identify, spoken, rooms.knows)
    except RejectedError as error:
        if spoken.certificate is not None or spoken.token:
            await to_thread(rooms.refusals.refused, error.code, str(error), address_of(request))
        raise
