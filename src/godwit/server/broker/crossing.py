"""From one loop to another: a WebSocket of the console's port has its socket on the front loop, its broker on its own.

Between them is a pair of sockets: the kernel bounds what is under way, and bytes cross in pieces, however many messages
they hold. At the broker's end stands a connection like any other, with all its deadlines and limits; here, what comes
from one side is written to the other. A side that takes nothing more stops the reading of the one that gives.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final, cast

log = logging.getLogger(__name__)

PAIR_BYTES: Final = 65_536
"""What waits in the pair, in each direction."""
LINGER_S: Final = 5.0
"""How long a client has to read our last word."""

Adopt = Callable[[socket.socket], Awaitable[None]]


class Crossing(asyncio.Protocol):
    """One connection, on the client's side of the pair. `near` is its transport, `far` our end of the pair."""

    def __init__(self) -> None:
        self._near: asyncio.Transport | None = None
        self._far: asyncio.Transport | None = None
        self._is_near_full = self._is_far_full = False
        self._loop = asyncio.get_running_loop()
        self._opening: asyncio.Task[None] | None = None

    def open(self, broker_loop: asyncio.AbstractEventLoop, adopt: Adopt) -> None:
        """Have the broker's loop adopt the other end; nothing is read until it is there. Raises OSError."""
        ours, theirs = socket.socketpair()
        for each in (ours, theirs):
            each.setblocking(False)  # noqa: FBT003 - the standard library's own
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PAIR_BYTES)
        self._steer()
        asyncio.run_coroutine_threadsafe(_adopt(adopt, theirs), broker_loop)
        self._opening = self._loop.create_task(self._reach(ours))

    async def _reach(self, ours: socket.socket) -> None:
        # of uvloop's ways this one alone owns the socket before the transport can be closed
        await self._loop.connect_accepted_socket(lambda: _Far(self), ours)

    # --- the client's side -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._near = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand on what the client said."""
        if self._far is not None:
            self._far.write(data)

    def pause_writing(self) -> None:
        """Neither answer nor read a client that does not read: it could have us answer for ever."""
        self._is_near_full = True
        self._steer()

    def resume_writing(self) -> None:
        """Go on."""
        self._is_near_full = False
        self._steer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the broker: by the end of the stream."""
        del exc
        self._near = None
        if self._far is not None:
            self._far.close()

    # --- the broker's side -----------------------------------------------------------------------------------------

    def reached(self, far: asyncio.Transport) -> None:
        """Begin: the pair is there, unless the client has gone meanwhile."""
        self._far = far
        if self._near is None:
            far.close()
        self._steer()

    def answer(self, data: bytes) -> None:
        """Hand on what the broker said."""
        if self._near is not None:
            self._near.write(data)

    def note_far(self, *, is_full: bool) -> None:
        """Leave the client unread while the broker does not read it."""
        self._is_far_full = is_full
        self._steer()

    def part(self) -> None:
        """Part from the client: the broker has."""
        self._far = None
        if self._near is not None:
            self._near.close()
            self._loop.call_later(LINGER_S, self._near.abort)

    def _steer(self) -> None:
        _read(self._near, is_read=self._far is not None and not self._is_far_full and not self._is_near_full)
        _read(self._far, is_read=not self._is_near_full)


class _Far(asyncio.Protocol):
    """Our end of the pair."""

    def __init__(self, crossing: Crossing) -> None:
        self._crossing = crossing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._crossing.reached(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self._crossing.answer(data)

    def pause_writing(self) -> None:
        self._crossing.note_far(is_full=True)

    def resume_writing(self) -> None:
        self._crossing.note_far(is_full=False)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._crossing.part()


def _read(transport: asyncio.Transport | None, *, is_read: bool) -> None:
    if transport is None or transport.is_closing():
        return
    if is_read:
        transport.resume_reading()
    else:
        transport.pause_reading()


async def _adopt(adopt: Adopt, theirs: socket.socket) -> None:
    await adopt(theirs)
