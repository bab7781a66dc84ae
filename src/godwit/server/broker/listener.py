"""Sockets: the asyncio shell of the broker. Bytes in, bytes out, deadlines; it decides nothing about MQTT.

One write per connection and loop turn, whatever was answered in it. Reading stops where only that slows a peer: for
3.1.1 and QoS 0 senders when the group commit is congested, for everybody at the hard limit, for a client that does not
read its own answers. While a socket is unread on our account its keep-alive is suspended.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, cast

from godwit.mqtt import reasons
from godwit.server.broker.acceptor import Acceptor
from godwit.server.broker.websocket import WebSocket
from godwit.server.broker.wire import Client, Taker

log = logging.getLogger(__name__)

CONNECT_S_MAX: Final = 10
"""How long a connection may take to say CONNECT."""
READ_BYTES: Final = 16_384
"""What is read of one socket before others have their turn: with asyncio's own 256 KB a client that flushes a backlog
would have a thousand messages dealt with at a time."""
WRITE_BYTES_HIGH: Final = 262_144
"""What may wait in the transport before the client counts as slow."""
WRITE_BYTES_MAX: Final = 8_388_608
"""What may wait at most: a client that takes less than it asks for is disconnected."""
BLOCKED_S_MAX: Final = 60
LINGER_S: Final = 1.0
RESUME_S: Final = 0.02
FULL_S: Final = 0.002
"""When to look again whether sockets that are full may be read, while they may not."""
TICK_S: Final = 0.25
BACKLOG: Final = 4_096


class Connection(asyncio.BufferedProtocol):
    """One accepted connection."""

    __slots__ = (
        "address",
        "blocked_since",
        "client",
        "due",
        "held_until",
        "is_awake",
        "is_choked",
        "is_full",
        "is_unread",
        "listener",
        "seen",
        "server",
        "transport",
    )

    def __init__(self, server: "Server", listener: str, address: str = "") -> None:
        self.server = server
        self.listener = listener
        self.address = address
        """From where it comes, where the socket does not know."""
        self.transport: asyncio.Transport | None = None
        self.client: Client | None = None
        self.is_awake = False
        self.is_unread = False
        self.blocked_since = 0.0
        self.held_until = 0.0
        self.is_choked = False
        self.is_full = False
        """Its last read took all that one read takes: there may be more."""
        self.seen = 0.0
        """When bytes last came, loop time."""
        self.due = 0
        """The second of the wheel in which it is looked at."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection in, if there is room."""
        self.transport = transport = cast("asyncio.Transport", transport)
        certificate = None
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            certificate = tls.getpeercert(binary_form=True)
        self.client = self.server.broker.admit(self, self.listener, certificate, self.address or address_of(transport))
        if self.client is None:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=WRITE_BYTES_HIGH)
        self.server.watch(self, self.server.time() + CONNECT_S_MAX)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio says it, and it is only a hint
        """Return where to read into: one piece of memory for all connections, since it is taken at once."""
        return self.server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        self.is_full = nbytes == READ_BYTES
        self.data_received(self.server.buffer[:nbytes].tobytes())
        if self.is_full and not self.is_unread and self.transport is not None:
            # There is more: after the others. Unless it is stopped, the loop reads a full socket up to 32 times.
            self.transport.pause_reading()
            self.server.read_next_turn(self)

    def read_on(self) -> None:
        """Read again, in the next turn."""
        if not self.is_unread and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Hand the bytes on; see whether to read on."""
        client = self.client
        if client is None:
            return
        server = self.server
        was_new = client.core.session is None
        server.broker.receive(client, data, server.now_ns())
        self.seen = server.time()
        if was_new and client.core.session is not None:
            server.watch(self, self._deadline(client))
        if server.must_pause(client):
            self.pause()

    def wake(self) -> None:
        """There is something to send, or to close: at the end of this turn."""
        if not self.is_awake:
            self.is_awake = True
            self.server.flush_soon(self)

    def flush(self) -> None:
        """Send what gathered; hang up if it is over."""
        self.is_awake = False
        client, transport = self.client, self.transport
        if client is None or transport is None:
            return
        outgoing = client.core.outgoing
        if outgoing:
            data = outgoing[0] if len(outgoing) == 1 else b"".join(outgoing)
            now = self.server.now_ns()
            self.server.broker.sent(client, data, now)
            outgoing.clear()
            transport.write(data)
            client.core.flushed(now)
        if client.core.closed is not None:
            self.server.broker.disconnect(client, self.server.now_ns())
            self._part(transport)
        elif self.blocked_since and transport.get_write_buffer_size() > WRITE_BYTES_MAX:
            transport.abort()

    def _part(self, transport: asyncio.Transport) -> None:
        """Close such that the client can read our last word.

        What it still sends to a closed socket would be answered with a reset, and that discards what it has not read.
        """
        self.client = None
        if not transport.can_write_eof():  # TLS: its own closing alert ends the stream
            transport.close()
            return
        transport.write_eof()
        if self.is_unread:
            transport.resume_reading()
        self.server.watch(self, self.server.time() + LINGER_S)

    def pause(self) -> None:
        """Stop reading until `resume`."""
        if not self.is_unread and self.transport is not None and not self.transport.is_closing():
            self.is_unread = True
            self.transport.pause_reading()
            self.server.note_unread(self)

    def hold(self, seconds: float) -> None:
        """Read nothing more for so long."""
        self.held_until = max(self.held_until, self.server.time() + seconds)
        self.pause()

    def choke(self, *, is_choked: bool) -> None:
        """Read nothing more until told otherwise."""
        self.is_choked = is_choked
        if is_choked:
            self.pause()

    def resume(self) -> None:
        """Read again; the silence was ours."""
        self.is_unread = False
        if self.client is not None and self.transport is not None and not self.transport.is_closing():
            self.seen = self.server.time()
            if self.is_full:
                self.server.read_next_turn(self)
            else:
                self.transport.resume_reading()

    def pause_writing(self) -> None:
        """Send only answers to a client that reads slowly, and do not read it either."""
        self.blocked_since = self.server.time()
        if self.client is not None:
            self.client.core.is_blocked = True
        self.pause()

    def resume_writing(self) -> None:
        """Go on sending: the client has caught up."""
        self.blocked_since = 0.0
        if self.client is not None:
            self.client.core.is_blocked = False
            if self.client.core.session is not None:
                self.client.core.pump(self.server.now_ns())

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the broker that the connection is gone."""
        if self.client is not None:
            why = str(error) if error else "connection closed"
            self.server.broker.disconnect(self.client, self.server.now_ns(), why)
            self.client = None
        self.transport = None

    def rewatch(self) -> None:
        """Look at the deadlines anew: they have changed."""
        if self.client is not None:
            self.server.watch(self, self._deadline(self.client))

    def _deadline(self, client: Client) -> float:
        """Say when to look again: one and a half keep-alives after the last sign of life (3.1.2-22)."""
        if not client.core.keep_alive_s:
            return self.seen + BLOCKED_S_MAX
        return self.seen + 1.5 * client.core.keep_alive_s

    def check(self, now: float) -> float | None:
        """See to the deadlines; returns when to look again."""
        client = self.client
        if self.transport is None:
            return None
        if client is None:
            self.transport.abort()  # it has had its time to read our last word
            return None
        core = client.core
        if core.session is None or (self.blocked_since and now - self.blocked_since > BLOCKED_S_MAX):
            self.transport.abort()  # no CONNECT in time, or nothing read for long
            return None
        if self.is_unread:
            return now + 1
        due = self._deadline(client)
        if due <= now and core.keep_alive_s:
            core.close(reasons.KEEP_ALIVE_TIMEOUT, "keep alive timeout")
            return None
        return max(due, now)


class Server:
    """The listeners and what their connections share: one flush a turn, one wheel of deadlines."""

    def __init__(
        self, broker: Taker, ticks: Iterable[Callable[[int], None]] = (), *, now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self.broker = broker
        self.now_ns = now_ns
        """The time of day, ns UTC."""
        self.addresses: dict[str, str] = {}
        self._ticks = tuple(ticks)
        self._acceptors: list[Acceptor] = []
        self.buffer = memoryview(bytearray(READ_BYTES))
        self._awake: list[Connection] = []
        self._unread: deque[Connection] = deque()
        self._resting: deque[Connection] = deque()
        """Whose sockets had more than one read's worth."""
        self._wheel: dict[int, list[Connection]] = {}
        self._loop = asyncio.get_running_loop()
        self.time = self._loop.time
        self._second = int(self.time())
        self._ticking = self._loop.call_later(TICK_S, self._tick)
        self._resuming: asyncio.TimerHandle | None = None

    async def listen(
        self, name: str, host: str, port: int, tls: ssl.SSLContext | None = None, *, frame_bytes_max: int = 0
    ) -> int:
        """Open a listener; returns its port. With `frame_bytes_max`: of MQTT over WebSocket.

        Raises OSError if the address is taken.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
        return self.serve(name, listening, tls, frame_bytes_max=frame_bytes_max)

    def serve(
        self, name: str, listening: socket.socket, tls: ssl.SSLContext | None = None, *, frame_bytes_max: int = 0
    ) -> int:
        """Serve a socket that listens already; returns its port."""

        def connection() -> asyncio.BaseProtocol:
            made = Connection(self, name)
            return WebSocket(made, frame_bytes_max) if frame_bytes_max else made

        self._acceptors.append(Acceptor(listening, connection, tls, self.broker.has_room, self.broker.turn_away))
        host, port = listening.getsockname()[:2]
        self.addresses[name] = f"{host}:{port}"
        return int(port)

    def hold(self, *, is_held: bool) -> None:
        """Accept nobody until told otherwise."""
        for acceptor in self._acceptors:
            acceptor.hold(is_held=is_held)

    async def adopt(self, name: str, wire: socket.socket, address: str = "") -> None:
        """Take in a connection that was made inside this process, for whoever is at `address`."""
        await self._loop.connect_accepted_socket(lambda: Connection(self, name, address), wire)

    def trust(self, tls: ssl.SSLContext) -> None:
        """Shake hands by another context from now on: whom we trust, or our own certificate, has changed."""
        for acceptor in self._acceptors:
            if acceptor.tls is not None:
                acceptor.tls = tls

    async def close(self) -> None:
        """Stop listening and tell everybody (0x8B); wills are sent as for any connection that we end."""
        for acceptor in self._acceptors:
            acceptor.close()
        for client in list(self.broker.clients.values()):
            client.core.close(reasons.SERVER_SHUTTING_DOWN, "the server is going down")
        self._ticking.cancel()
        if self._resuming is not None:
            self._resuming.cancel()
        await asyncio.sleep(0)
        self._flush()
        await asyncio.sleep(0)

    def halt(self) -> None:
        """Stop without a word, as a process that is killed does."""
        for timer in (self._ticking, self._resuming):
            if timer is not None:
                timer.cancel()
        self._awake.clear()

    def accept(self, listener: str) -> Connection:
        """Return the protocol of a connection that is made in another way than by a socket of ours."""
        return Connection(self, listener)

    # ------------------------------------------------------------------ shared by connections

    def flush_soon(self, connection: Connection) -> None:
        """Have `connection` flushed at the end of this loop turn."""
        if not self._awake:
            self._loop.call_soon(self._flush)
        self._awake.append(connection)

    def _flush(self) -> None:
        awake, self._awake = self._awake, []
        for connection in awake:
            connection.flush()

    def read_next_turn(self, connection: Connection) -> None:
        """Have `connection` read on when everybody else has had a turn."""
        if not self._resting:
            self._loop.call_soon(self._read_on)
        self._resting.append(connection)

    def _read_on(self) -> None:
        resting, count = self._resting, self.broker.full_reads
        for _ in range(min(count, len(resting))):
            resting.popleft().read_on()
        if resting and count:
            self._loop.call_soon(self._read_on)
        elif resting:
            self._loop.call_later(FULL_S, self._read_on)

    def must_pause(self, client: Client) -> bool:
        """Whether to stop reading a client."""
        broker = self.broker
        return broker.is_full or (broker.group.is_congested and client.may_stay_unread)

    def note_unread(self, connection: Connection) -> None:
        """Remember whom to read again."""
        self._unread.append(connection)
        if self._resuming is None:
            self._resuming = self._loop.call_later(RESUME_S, self._resume)

    def _resume(self) -> None:
        """Read again whoever may be read, the longest unread first."""
        self._resuming, now = None, self.time()
        self.broker.relieve()
        for _ in range(len(self._unread)):
            connection = self._unread.popleft()
            client = connection.client
            if client is None:
                continue
            if (
                connection.blocked_since
                or connection.is_choked
                or connection.held_until > now
                or self.must_pause(client)
            ):
                self._unread.append(connection)
            else:
                connection.resume()
        if self._unread:
            self._resuming = self._loop.call_later(RESUME_S, self._resume)

    # ------------------------------------------------------------------ deadlines

    def watch(self, connection: Connection, due: float) -> None:
        """Have `connection.check` called in the second after `due`; replaces what was set before."""
        second = connection.due = max(int(due), self._second) + 1
        bucket = self._wheel.get(second)
        if bucket is None:
            self._wheel[second] = [connection]
        else:
            bucket.append(connection)

    def _tick(self) -> None:
        now = self.time()
        self._ticking = self._loop.call_later(TICK_S, self._tick)
        while self._second < int(now):
            self._second += 1
            for connection in self._wheel.pop(self._second, ()):
                if connection.due != self._second:
                    continue
                due = connection.check(now)
                if due is not None:
                    self.watch(connection, due)
        now_ns = self.now_ns()
        self.broker.tick(now_ns)
        for tick in self._ticks:
            tick(now_ns)


def address_of(transport: asyncio.Transport) -> str:
    """Return where a connection comes from; empty where it has no address."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""
