"""API and console on a thread of their own: HTTP on loopback, HTTPS anywhere else."""

import logging
import ssl
import threading
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, Final

import uvicorn

from godwit.contract.errors import UnavailableError
from godwit.mqtt.tls import fleet_context
from godwit.runtime.hosts import is_loopback
from godwit.server.identity.server_certificate import ServerCertificate

log = logging.getLogger(__name__)

START_S_MAX: Final = 20.0
STOP_S_MAX: Final = 1
WS_BYTES_MAX: Final = 1_048_576


class Front:
    """The web server's thread."""

    def __init__(
        self,
        app: Any,
        host: str,
        port: int,
        certificate: ServerCertificate,
        websockets: Any = "websockets-sansio",
        *,
        tls_minimum: str = "1.2",
    ) -> None:
        is_plain = is_loopback(host)

        def context(_config: uvicorn.Config, _default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
            return fleet_context(*certificate, "", tls_minimum)  # no authority: browsers are asked for no certificate

        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            loop="uvloop",
            http="httptools",
            ws=websockets,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_S_MAX,
            ws_max_size=WS_BYTES_MAX,
            ws_per_message_deflate=False,  # a small frame could swell to a large one before anybody has signed in
            callback_notify=self._look,
            timeout_notify=1,
            ssl_context_factory=None if is_plain else context,
        )
        self._certificate, self._has_other_certificate = certificate, False
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="front", daemon=True)
        shown = "127.0.0.1" if host == "localhost" else "localhost" if host in ("0.0.0.0", "::") else host  # noqa: S104
        self.url = f"{'http' if is_plain else 'https'}://{f'[{shown}]' if ':' in shown else shown}:{port}"

    def start(self) -> None:
        """Start serving; returns when connections are accepted. Raises UnavailableError when it does not come up."""
        self._thread.start()
        until = monotonic() + START_S_MAX
        while not self._server.started:
            if not self._thread.is_alive() or monotonic() > until:
                raise UnavailableError(
                    f"the console cannot listen on {self.url}: is the port taken? (SERVER_PORT)", code="port-taken"
                )
            sleep(0.005)

    def renew_tls(self) -> None:
        """Have the certificate taken from its files again, for new connections. From any thread."""
        self._has_other_certificate = True

    async def _look(self) -> None:
        """Once a second, on the loop that the handshakes run on: a context is not to change under them."""
        context = self._server.config.ssl
        if self._has_other_certificate and context is not None:
            self._has_other_certificate = False
            context.load_cert_chain(*self._certificate)

    def stop(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(STOP_S_MAX + 4)
