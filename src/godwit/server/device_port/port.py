"""The thread of the port of devices: uvicorn, but for how connections come in.

Handshakes are made as the broker makes them, one after the other at a pace that leaves the machine to others. Each
takes the context of its moment, and a certificate that is refused is known with its reason and its address.
"""

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep
from typing import Any, Final, cast

import uvicorn

from godwit.contract.errors import UnavailableError
from godwit.server.broker.acceptor import HANDSHAKE_S_MAX, Acceptor, OnRefused
from godwit.server.broker.handshakes import code_of
from godwit.server.device_port.connection import PATIENCE_S, Http
from godwit.server.device_port.refusals import Refusals, refusal_of
from godwit.server.device_port.trust import Trust

log = logging.getLogger(__name__)

START_S_MAX: Final = 20.0
STOP_S_MAX: Final = 1
GOODBYE_S_MAX: Final = 5.0
CONNECTIONS_MAX: Final = 20_000
KEEP_ALIVE_S: Final = 75
"""A device that reports once a minute keeps its connection, and makes no new handshake each time."""
BACKLOG: Final = 4_096


class Entrance(Acceptor):
    """Accepts on one listening socket, with the context of the moment."""

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[], asyncio.BaseProtocol],
        trust: Trust,
        has_room: Callable[[], bool],
        on_refused: OnRefused,
    ) -> None:
        self._trust = trust
        super().__init__(listening, protocol, trust.context, has_room, on_refused)

    async def _connect(self, accepted: socket.socket, address: str) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._protocol,
                accepted,
                ssl=self._trust.context,
                ssl_handshake_timeout=HANDSHAKE_S_MAX,
                ssl_shutdown_timeout=GOODBYE_S_MAX,
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is one of the first
            self.refused += 1
            accepted.close()
            if isinstance(error, ssl.SSLCertVerificationError):
                self._on_refused(code_of(error), f"TLS: {error.verify_message}", address)

    async def wait_closed(self) -> None:
        """See asyncio.Server: uvicorn waits for it."""


class _Server(uvicorn.Server):
    """Uvicorn with our entrances."""

    def __init__(
        self, config: uvicorn.Config, trust: Trust, refuse: OnRefused, body_bytes_max: int, patience_s: float
    ) -> None:
        super().__init__(config)
        self._trust, self._refuse = trust, refuse
        self._body_bytes_max, self._patience_s = body_bytes_max, patience_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on what `sockets` are; they have been bound."""
        await self.lifespan.startup()
        entrances = [
            Entrance(each, self._connection, self._trust, self._has_room, self._refuse) for each in sockets or []
        ]
        self.servers = cast("list[asyncio.base_events.Server]", entrances)  # what uvicorn asks of them, they can
        self.started = True

    def _has_room(self) -> bool:
        return len(self.server_state.connections) < CONNECTIONS_MAX

    def _connection(self) -> Http:
        return Http(
            self._body_bytes_max, self._patience_s, config=self.config, server_state=self.server_state, app_state={}
        )


class DevicePort:
    """An HTTPS server that takes client certificates, on a thread of its own."""

    def __init__(
        self,
        app: Any,
        host: str,
        port: int,
        trust: Trust,
        refusals: Refusals,
        *,
        body_bytes_max: int,
        patience_s: float = PATIENCE_S,
    ) -> None:
        config = uvicorn.Config(
            app,
            loop="uvloop",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_S_MAX,
        )
        self.trust = trust
        self._refusals, self._writing = refusals, ThreadPoolExecutor(1, "device-port-aside")
        self._server = _Server(config, trust, self._refused, body_bytes_max, patience_s)
        self._host, self._port = host, port
        self._thread: threading.Thread | None = None
        self.address = f"{f'[{host}]' if ':' in host else host}:{port}"

    def start(self) -> None:
        """Start serving; returns when connections are accepted. Raises UnavailableError when it does not come up."""
        try:
            sockets = _listen(self._host, self._port)
        except OSError as error:
            raise UnavailableError(
                f"the HTTPS port of devices cannot listen on {self.address}: {error.strerror} (DEVICE_PORT)",
                code="port-taken",
            ) from error
        self._thread = threading.Thread(target=self._server.run, args=(sockets,), name="device-port", daemon=True)
        self._thread.start()
        until = monotonic() + START_S_MAX
        while not self._server.started:
            if not self._thread.is_alive() or monotonic() > until:
                raise UnavailableError("the HTTPS port of devices does not start: see the log", code="port-taken")
            sleep(0.005)

    def renew_tls(self) -> None:
        """Have the certificate taken from its files again, for new connections. Does not block."""
        self._writing.submit(self.trust.reload)

    def _refused(self, code: str, detail: str, address: str) -> None:
        refusal = refusal_of(code, detail, address)
        if self._refusals.is_new(refusal):  # only then: a flood of handshakes is not to wait here for the disk
            self._writing.submit(self._refusals.write, refusal)

    def stop(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(STOP_S_MAX + 4)
        self._writing.shutdown()


def _listen(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets for each address of a host. Raises OSError."""
    made: list[socket.socket] = []
    try:
        for family, _, _, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            made.append(socket.create_server(address[:2], family=family, backlog=BACKLOG))
    except OSError:
        for each in made:
            each.close()
        raise
    return made
