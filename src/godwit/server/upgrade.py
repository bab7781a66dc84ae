"""MQTT over WebSocket on the console's port: `/mqtt` is the broker's, every other WebSocket the application's.

The web server makes one `Upgrade` for every request that asks for a WebSocket. MQTT does not go through the
application (ASGI): there a message is read whole before it is handed on, a client that is left unread would be taken
for dead because its pongs are, and compression is for all or nobody.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from socket import socket
from typing import Any, Final, NamedTuple, cast

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from godwit.runtime.hosts import is_loopback
from godwit.server.broker.crossing import Crossing
from godwit.server.broker.listener import address_of
from godwit.server.broker.rights import WEBSOCKET, WEBSOCKET_HTTP, WEBSOCKET_TLS
from godwit.server.broker.websocket import GOING_AWAY, WebSocket
from godwit.server.console.session import is_own_origin

log = logging.getLogger(__name__)

PATH: Final = "/mqtt"
THIS_MACHINE: Final = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.ASCII | re.IGNORECASE)
FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


class Door(NamedTuple):
    """The way to the broker: its loop, and what takes a connection in there: listener's name, socket, address."""

    loop: asyncio.AbstractEventLoop
    adopt: Callable[[str, socket, str], Awaitable[None]]
    frame_bytes_max: int
    is_trusting: bool
    """Whether loopback needs no password (LOCAL_LISTENER)."""


class Upgrade(asyncio.Protocol):
    """One WebSocket of the console's port."""

    def __init__(self, door: Door, *, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        self._door = door
        self._connections: set[Any] = server_state.connections
        self._application: Callable[[], asyncio.Protocol] = lambda: WebSocketsSansIOProtocol(
            config, server_state, app_state
        )
        self._transport: asyncio.Transport | None = None
        self._chosen: asyncio.Protocol | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the request: it comes at once, and whole."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Look at the request once; everything after it is for whom it chose."""
        if self._chosen is not None:
            self._chosen.data_received(data)
            return
        assert self._transport is not None
        path, headers = _request(data)
        if path == PATH:
            self._connections.add(self)
            self._chosen = self._admit(self._transport, headers, data)
        else:
            self._chosen = self._application()
            self._chosen.connection_made(self._transport)
            self._chosen.data_received(data)

    def _admit(self, transport: asyncio.Transport, headers: Mapping[str, str], request: bytes) -> WebSocket:
        """Shake hands, and open the way to the broker if that went well."""
        door, crossing = self._door, Crossing()
        origin = headers.get("origin")
        origins = [None, origin] if is_own_origin(origin, headers.get("host", "")) else [None]
        admitted = WebSocket(crossing, door.frame_bytes_max, origins)
        admitted.connection_made(transport)
        admitted.data_received(request)
        if admitted.is_open:
            name = listener_of(headers, is_tls=bool(transport.get_extra_info("sslcontext")), trusts=door.is_trusting)
            address = client_of(address_of(transport), headers)
            try:
                crossing.open(door.loop, lambda end: door.adopt(name, end, address))
            except OSError as error:
                log.warning("no connection can be taken in now: %s", error)
                transport.abort()
        else:
            transport.close()  # it has been told why
        return admitted

    def shutdown(self) -> None:
        """Say goodbye: the web server ends."""
        if isinstance(self._chosen, WebSocket):
            self._chosen.end(GOING_AWAY)

    def pause_writing(self) -> None:
        """See asyncio."""
        if self._chosen is not None:
            self._chosen.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio."""
        if self._chosen is not None:
            self._chosen.resume_writing()

    def eof_received(self) -> bool | None:
        """See asyncio."""
        return self._chosen.eof_received() if self._chosen is not None else None

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._connections.discard(self)
        if self._chosen is not None:
            self._chosen.connection_lost(exc)


def listener_of(headers: Mapping[str, str], *, is_tls: bool, trusts: bool) -> str:
    """Return as which listener's a connection counts.

    Without TLS the port is on loopback, and whoever reaches it is trusted as on the plaintext listener, unless he comes
    through a proxy, whose machine this is but not whose client: then the request says so, or names another machine.
    """
    if is_tls:
        return WEBSOCKET_TLS
    is_from_here = THIS_MACHINE.fullmatch(headers.get("host", "")) and not any(name in headers for name in FORWARDED)
    return WEBSOCKET if trusts and is_from_here else WEBSOCKET_HTTP


def client_of(peer: str, headers: Mapping[str, str]) -> str:
    """Return whose address a connection counts as: behind a proxy of this machine, the client's that it names.

    Only a proxy on loopback is believed, as the web server does for HTTP: others could say whatever they like, and
    have somebody else's guesses counted, or theirs not at all. Of several addresses the last is the one that the proxy
    has seen itself.
    """
    if not is_loopback(peer):
        return peer
    for each in reversed(headers.get("x-forwarded-for", "").split(",")):
        try:
            address = ip_address(each.strip())
        except ValueError:
            return peer
        if not address.is_loopback:
            return str(address)
    return peer


def _request(data: bytes) -> tuple[str, dict[str, str]]:
    """Return path and headers of a request that the web server has read and written anew."""
    first, *rest = data.decode("latin-1").split("\r\n")
    path = first.split(" ")[1].partition("?")[0]
    headers = (line.partition(":") for line in rest)
    return path, {name.lower(): value.strip() for name, _, value in headers}
