"""A network in virtual time: streams of bytes like TCP's, which are late, stall, break in the middle of a packet.

What a broken connection had under way may still arrive, long after the next connection was made: the far end of a
connection learns late, or never, that it is gone. Bytes of one connection are never reordered or doubled, since TCP
does not either; across connections everything happens.
"""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, Final, cast

LATENCY_S: Final = (0.001, 0.08)
CONNECT_S_MAX: Final = 130.0
"""How long a SYN into the void is waited for (Linux, tcp_syn_retries)."""
PIECE_BYTES: Final = 1_400
INSTANT_S: Final = 1e-6
HALF_OPEN_S: Final = 90.0


class Wire(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, network: "Network", name: str, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._network = network
        self.name = name
        self.protocol = cast("asyncio.Protocol", protocol)
        self.peer: Wire
        self._inbox: list[bytes] = []
        self._held: list[bytes] = []
        """Written, and not on its way: the machine is off the network."""
        self._is_reading = True
        self._is_closing = False
        self._is_lost = False
        self._arrives_at = 0.0
        self._under_way = 0
        self._high = 65_536
        self._is_paused = False

    # ------------------------------------------------------------------ asyncio's side

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what a socket would say."""
        return (self.name, 0) if name == "peername" else default

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._is_closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:  # noqa: ARG002
        """Set from which size on the writer is paused."""
        self._high = 65_536 if high is None else high

    def get_write_buffer_size(self) -> int:
        """Return how much is under way."""
        return self._under_way

    def can_write_eof(self) -> bool:
        """Whether one direction can be closed: no."""
        return False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        """Send."""
        if self._is_closing or not data:
            return
        self._under_way += len(data)
        self._held.append(bytes(data))
        self.release()
        if self._under_way > self._high and not self._is_paused:
            self._is_paused = True
            self.protocol.pause_writing()

    def release(self) -> None:
        """Let go what was written, unless the machine is off the network."""
        network = self._network
        if network.is_away(self.name):
            return
        delay = network.delay(self)
        for data in self._held:
            for start in range(0, len(data), PIECE_BYTES):
                # never two at one moment: a loop does not say which of them comes first
                self._arrives_at = max(self._arrives_at + INSTANT_S, network.loop.time() + delay)
                network.loop.call_at(self._arrives_at, self.peer.take, data[start : start + PIECE_BYTES])
        self._held.clear()

    def take(self, piece: bytes) -> None:
        """Receive what the other end sent; it waits while the link stalls, and is gone with a broken one."""
        sender = self.peer
        sender._under_way -= len(piece)  # noqa: SLF001 - the other end of the same wire
        if sender._is_paused and sender._under_way < sender._high // 2 and not sender._is_lost:  # noqa: SLF001
            sender._is_paused = False  # noqa: SLF001
            sender.protocol.resume_writing()
        if self._is_lost or self._is_closing:
            return
        self._inbox.append(piece)
        if self._is_reading:
            self._read()

    def _read(self) -> None:
        while self._inbox and self._is_reading and not self._is_lost:
            self.protocol.data_received(self._inbox.pop(0))

    def pause_reading(self) -> None:
        """Stop handing out what arrives."""
        self._is_reading = False

    def resume_reading(self) -> None:
        """Hand out again."""
        self._is_reading = True
        self._network.loop.call_soon(self._read)

    def close(self) -> None:
        """Close once everything has arrived."""
        if not self._is_closing:
            self._is_closing = True
            self._network.loop.call_soon(self.lose, None)
            if self._network.is_away(self.name):
                return  # nobody hears of it
            at = max(self._arrives_at + INSTANT_S, self._network.loop.time() + self._network.delay(self))
            self._network.loop.call_at(at, self.peer.lose, None)

    def abort(self) -> None:
        """Close at once."""
        self.close()

    def lose(self, error: Exception | None) -> None:
        """Learn that the connection is over."""
        if not self._is_lost:
            self._is_lost = self._is_closing = True
            self._network.wires.pop(self, None)
            self.protocol.connection_lost(error)


class Network:
    """All connections of a world, and what is wrong with them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, random: Random) -> None:
        self.loop = loop
        self._random = random
        self.wires: dict[Wire, None] = {}
        """In the order in which they were made."""
        self.server: Callable[[], asyncio.BaseProtocol] | None = None
        """Makes the server's side of a connection; None: nobody listens."""
        self._away: set[str] = set()
        self._stalled_until: dict[str, float] = {}
        self.connects = self.cuts = 0

    async def connect(
        self, protocol: Callable[[], asyncio.BaseProtocol], host: str, _port: int
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connect the machine `host` (in this world the client's own name) to the server. Raises OSError."""
        await asyncio.sleep(self._random.uniform(*LATENCY_S))
        if host in self._away:
            await asyncio.sleep(CONNECT_S_MAX)
            raise TimeoutError("connect: timed out")
        if self.server is None:
            raise ConnectionRefusedError("connect: connection refused")
        near, far = Wire(self, host, protocol()), Wire(self, host, self.server())
        near.peer, far.peer = far, near
        self.wires |= dict.fromkeys((near, far))
        self.connects += 1
        far.protocol.connection_made(far)
        near.protocol.connection_made(near)
        return near, near.protocol

    def delay(self, wire: Wire) -> float:
        """Return how long what is written now is under way."""
        stall = self._stalled_until.get(wire.name, 0.0) - self.loop.time()
        return max(0.0, stall) + self._random.uniform(*LATENCY_S)

    def of(self, name: str) -> list[Wire]:
        """Return the ends of the connections of a machine."""
        return [each for each in self.wires if each.name == name]

    def cut(self, name: str) -> None:
        """Break the connections of a machine. What was under way arrives in part; the far end learns late, or never."""
        for wire in self.of(name):
            self.cuts += 1
            if self._random.random() < 0.5:
                wire.lose(ConnectionResetError("connection reset by peer"))
            else:
                self.loop.call_later(self._random.random() * HALF_OPEN_S, wire.lose, TimeoutError("timed out"))

    def leave(self, name: str) -> None:
        """Take a machine off the network: its connections stall, and new ones go nowhere."""
        self._away.add(name)

    def is_away(self, name: str) -> bool:
        """Whether a machine is off the network."""
        return name in self._away

    def come_back(self, name: str) -> None:
        """Put it back: what was written meanwhile goes on its way."""
        self._away.discard(name)
        for wire in self.of(name):
            wire.release()

    def stall(self, name: str, seconds: float) -> None:
        """Have everything that a machine sends and hears be late by up to so long."""
        self._stalled_until[name] = self.loop.time() + seconds

    def heal(self) -> None:
        """Put everything right."""
        self._stalled_until.clear()
        for name in sorted(self._away):
            self.come_back(name)

    def drop_all(self) -> None:
        """Break every connection: the server's process died."""
        for wire in list(self.wires):
            wire.lose(ConnectionResetError("connection reset by peer"))
