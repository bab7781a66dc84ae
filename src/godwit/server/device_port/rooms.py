"""What the routes of the port ask of the platform."""

from asyncio import to_thread

import msgspec
from starlette.requests import Request

from godwit.contract.errors import RejectedError
from godwit.server.device_port.credentials import Doorkeeper, Said, said
from godwit.server.device_port.refusals import Refusals
from godwit.server.identity.enroller import Enroller
from godwit.server.identity.model import Credential
from godwit.server.identity.registrars import Registrars
from godwit.server.identity.room import Identity
from godwit.server.identity.throttle import Throttle
from godwit.server.ingest.door import IngestDoor


class Rooms(msgspec.Struct, frozen=True):
    """See the module."""

    identity: Identity
    ingest: IngestDoor
    doorkeeper: Doorkeeper
    enroller: Enroller
    registrars: Registrars
    refusals: Refusals
    payload_bytes_max: int
    messages: Throttle = msgspec.field(default_factory=lambda: Throttle(10, 200))
    """SCEP messages by address: each costs two operations with an RSA key, whoever sends it."""


def rooms_of(request: Request) -> Rooms:
    """Return the rooms."""
    rooms: Rooms = request.app.state.rooms
    return rooms


def address_of(request: Request) -> str:
    """Return where a request comes from."""
    return request.client.host if request.client is not None else ""


async def credential_of(request: Request, about: str) -> Credential:
    """Return who asks about a device; a certificate wins over a token. Raises RejectedError, which is audited."""
    rooms, address = rooms_of(request), address_of(request)
    spoken = said(request)
    try:
        if spoken.certificate is None:
            return await to_thread(rooms.doorkeeper.of_token, spoken, about, address)
        known = rooms.doorkeeper.of_known(spoken.certificate)
    except RejectedError as error:
        if spoken != Said():
            await to_thread(rooms.refusals.refused, error.code, str(error), address, about)
        raise
    if known is not None:
        return known
    return await to_thread(rooms.doorkeeper.take_in, spoken.certificate, address)
