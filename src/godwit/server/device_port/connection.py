"""A connection of the port of devices: HTTP/1.1 by uvicorn's protocol, within limits."""

import asyncio
import ssl
from typing import Any, Final, cast

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX: Final = 32_768
PATIENCE_S: Final = 20.0
"""How long a request may take to arrive whole; a large one longer, at `BYTES_PER_S_MIN`."""
BYTES_PER_S_MIN: Final = 256
LINGER_S: Final = 2.0
LOOK_AGAIN_S: Final = 5.0
UNREAD_S_MAX: Final = 30.0
"""How long a client may leave an answer unread."""
CHUNKED_FACTOR: Final = 6
"""A body in chunks of one byte is so much longer on the wire."""


class Http(HttpToolsProtocol):
    """HTTP/1.1 with the client's certificate in scope (ASGI TLS extension), and no patience for the slow."""

    def __init__(self, body_bytes_max: int, patience_s: float, **given: Any) -> None:
        super().__init__(**given)
        self._patience_s = patience_s
        self._body_bytes_max = body_bytes_max
        self._tls: dict[object, object] = {}
        self._head_bytes = self._bytes = 0
        self._is_in_head = self._is_in_message = False
        self._began = 0.0
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note whose connection it is."""
        given = cast("asyncio.Transport", transport)
        super().connection_made(given)
        tls = given.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True)
        chain = [] if certificate is None else [ssl.DER_cert_to_PEM_cert(certificate)]
        self._tls = {"client_cert_chain": chain, "tls_version": tls.version(), "cipher_suite": tls.cipher()[0]}
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take bytes of requests, as many as one may have."""
        if self.parser is None or self.transport.is_closing():
            return
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._watch()
        self._bytes += len(data)
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self.send_400_response("the head of the request is too long")
        if self._bytes > CHUNKED_FACTOR * self._body_bytes_max + HEAD_BYTES_MAX:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.scope["extensions"] = {"tls": self._tls}
        self._is_in_head = self._is_in_message = True
        self._head_bytes = self._bytes = 0
        self._watch()

    def on_headers_complete(self) -> None:
        """Hand the request over; its body follows."""
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Wait no more: what follows takes as long as we take."""
        self._is_in_message = False
        self._stop_watching()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request; or, where the rest of this one is not wanted, hang up."""
        super().on_response_complete()
        if self._is_in_message:  # what still comes is read and thrown away, or the client would not see the answer
            self._stop_watching()
            self._unset_keepalive_if_required()
            self._deadline = self.loop.call_later(LINGER_S, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request."""
        body = msgspec.json.encode({
            "type": "urn:godwit:problem:malformed", "title": "Bad request", "status": 400, "detail": msg,
            "code": "malformed",
        })  # fmt: skip
        head = (
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    # --- deadlines --------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if self._deadline is None:
            self._began = self.loop.time()
            self._deadline = self.loop.call_later(self._patience_s, self._look)

    def _look(self) -> None:
        """Hang up on a request that does not come on."""
        spent = self.loop.time() - self._began
        if self._is_in_head or not self._is_in_message or self._bytes < (spent - self._patience_s) * BYTES_PER_S_MIN:
            self.transport.abort()
        else:
            self._deadline = self.loop.call_later(LOOK_AGAIN_S, self._look)

    def _stop_watching(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _forget_deadlines(self) -> None:
        self._stop_watching()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def pause_writing(self) -> None:
        """Wait for a client that reads slowly, for a while."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(UNREAD_S_MAX, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._forget_deadlines()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
