"""MQTT over WebSocket (MQTT 5, section 6): frames around the same connection that a plain socket has.

Binary frames only (6.0.0-1), packets may lie across frames (6.0.0-2), the subprotocol is `mqtt` (6.0.0-3, 6.0.0-4). The
listener is plaintext and trusts whoever reaches it, so a browser's page comes in only from this machine: any other
origin is refused in the handshake.
"""

import asyncio
import re
from typing import Any, Final, Protocol, cast

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

LOCAL_ORIGINS: Final = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
UNSUPPORTED_DATA: Final = 1003
NORMAL_CLOSURE: Final = 1000


class FramedTransport(asyncio.Transport):
    """What the connection takes for its transport: everything it writes leaves in binary frames."""

    def __init__(self, shell: "WebSocket", transport: asyncio.Transport) -> None:
        super().__init__()
        self._shell = shell
        self._transport = transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See asyncio."""
        return self._transport.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send as one frame."""
        self._shell.send(bytes(data))

    def can_write_eof(self) -> bool:
        """Say no: the closing frame ends the stream."""
        return False

    def close(self) -> None:
        """Say goodbye in a closing frame and close."""
        self._shell.end()

    def abort(self) -> None:
        """See asyncio."""
        self._transport.abort()

    def is_closing(self) -> bool:
        """See asyncio."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """See asyncio."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """See asyncio."""
        self._transport.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See asyncio."""
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """See asyncio."""
        return self._transport.get_write_buffer_size()


class Inner(Protocol):
    """The connection that the frames are for."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio, as for the others."""
        ...

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        ...

    def pause_writing(self) -> None:
        """See asyncio."""
        ...

    def resume_writing(self) -> None:
        """See asyncio."""
        ...

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio."""
        ...


class WebSocket(asyncio.Protocol):
    """One accepted connection. `inner` gets what the frames hold; its deadline for CONNECT covers the handshake."""

    def __init__(self, inner: Inner, frame_bytes_max: int) -> None:
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._protocol = ServerProtocol(
            origins=[None, LOCAL_ORIGINS],
            subprotocols=["mqtt"],  # type: ignore[list-item]
            max_size=frame_bytes_max,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._inner.connection_made(FramedTransport(self, self._transport))

    def data_received(self, data: bytes) -> None:
        """Take frames apart."""
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Request):
                protocol.send_response(protocol.accept(event))
            elif isinstance(event, Frame):
                self._take(event)
        self._flush()

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT:
            self._protocol.fail(UNSUPPORTED_DATA, "MQTT is binary")  # 6.0.0-1
        elif frame.opcode in (Opcode.BINARY, Opcode.CONT) and self._protocol.state is State.OPEN:
            self._inner.data_received(bytes(frame.data))

    def send(self, data: bytes) -> None:
        """Send one binary frame, unless the peer is past hearing it."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_binary(data)
            self._flush()

    def end(self) -> None:
        """Close from our side."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(NORMAL_CLOSURE)
            self._flush()
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        """Send what the protocol has to say; an empty piece from it means: no more."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        for piece in self._protocol.data_to_send():
            if not piece:
                transport.close()
                return
            transport.write(piece)

    def pause_writing(self) -> None:
        """See asyncio."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._transport = None
        self._inner.connection_lost(exc)
