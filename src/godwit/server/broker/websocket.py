"""MQTT over WebSocket (MQTT 5, section 6): frames around the same connection that a plain socket has.

Binary frames only (6.0.0-1), packets may lie across frames (6.0.0-2), the subprotocol is `mqtt` (6.0.0-3, 6.0.0-4).
What is bounded is a frame; a message of many frames is read as they come. There is no compression: it would cost memory
per connection, and make a megabyte of a kilobyte.

The loopback listener is plaintext and trusts whoever reaches it, so a browser's page comes in only from this machine:
any other origin is refused in the handshake.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeAlias, cast

from websockets.exceptions import NegotiationError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

SUBPROTOCOL: Final = "mqtt"
SUBPROTOCOL_OF_3_1: Final = "mqttv3.1"
LOCAL_ORIGINS: Final = (None, re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"))
"""Programs (which send no origin), and pages of this machine."""
TURN_BYTES: Final = 16_384
UNSUPPORTED_DATA: Final = 1003
NORMAL_CLOSURE: Final = 1000
GOING_AWAY: Final = 1001

Origins: TypeAlias = Sequence[str | re.Pattern[str] | None]


def choose_subprotocol(_protocol: ServerProtocol, offered: Sequence[str]) -> str:
    """Return `mqtt` if the client offers it. Raises NegotiationError, whose sentence is the answer."""
    if SUBPROTOCOL in offered:
        return SUBPROTOCOL
    if SUBPROTOCOL_OF_3_1 in offered:
        raise NegotiationError("MQTT 3.1 is not spoken here; 3.1.1 and 5 are, under the subprotocol mqtt")
    raise NegotiationError("the subprotocol mqtt has to be offered")


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
        self._shell.hold(is_held=True)

    def resume_reading(self) -> None:
        """See asyncio."""
        self._shell.hold(is_held=False)

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

    def __init__(self, inner: Inner, frame_bytes_max: int, origins: Origins = LOCAL_ORIGINS) -> None:
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._unread = memoryview(b"")
        self._is_held = False
        """The inner connection wants nothing for now."""
        self._is_paused = False
        self._is_turning = False
        self._protocol = ServerProtocol(
            origins=cast("Any", origins),
            select_subprotocol=cast("Any", choose_subprotocol),
            max_size=(None, frame_bytes_max),
        )

    @property
    def is_open(self) -> bool:
        """Whether the handshake is done, and nobody has said goodbye."""
        return self._protocol.state is State.OPEN

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._inner.connection_made(FramedTransport(self, self._transport))

    def data_received(self, data: bytes) -> None:
        """Take it in pieces, one a turn of the loop: a piece may be thousands of frames, and others wait."""
        self._unread = memoryview(bytes(self._unread) + data if self._unread else data)
        self._turn()

    def hold(self, *, is_held: bool) -> None:
        """Have nothing read, or go on."""
        self._is_held = is_held
        self._steer()

    def _turn(self) -> None:
        self._is_turning = False
        if not self._is_held:
            piece, self._unread = self._unread[:TURN_BYTES], self._unread[TURN_BYTES:]
            self._take(piece)
        self._steer()

    def _steer(self) -> None:
        """Read on, or what was read first, or nothing."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        is_paused = self._is_held or len(self._unread) > 0
        if is_paused != self._is_paused:
            self._is_paused = is_paused
            (transport.pause_reading if is_paused else transport.resume_reading)()
        if self._unread and not self._is_held and not self._is_turning:
            self._is_turning = True
            self._loop.call_soon(self._turn)

    def _take(self, data: memoryview) -> None:
        """Take frames apart, and hand on what they hold in one piece."""
        protocol = self._protocol
        protocol.receive_data(cast("bytes", data))
        held: list[bytes | bytearray | memoryview] = []
        for event in protocol.events_received():
            if isinstance(event, Request):
                protocol.send_response(protocol.accept(event))
            elif isinstance(event, Frame):
                if event.opcode is Opcode.TEXT:
                    protocol.fail(UNSUPPORTED_DATA, "MQTT is binary")  # 6.0.0-1
                    break
                if event.opcode in (Opcode.BINARY, Opcode.CONT) and event.data:
                    held.append(event.data)
        if held:
            self._inner.data_received(b"".join(held))
        self._flush()

    def send(self, data: bytes) -> None:
        """Send one binary frame, unless the peer is past hearing it."""
        if self.is_open:
            self._protocol.send_binary(data)
            self._flush()

    def end(self, code: int = NORMAL_CLOSURE) -> None:
        """Close from our side."""
        if self.is_open:
            self._protocol.send_close(code)
            self._flush()
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        """Send what the protocol has to say; an empty piece from it means: no more."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        pieces = self._protocol.data_to_send()
        data = b"".join(pieces)
        if data:
            transport.write(data)
        if pieces and not pieces[-1]:
            transport.close()

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
