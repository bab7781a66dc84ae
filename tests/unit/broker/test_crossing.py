"""Does what crosses between the loops arrive whole and in order, and does the slower side slow the other?"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest
import uvloop

from godwit.server.broker.crossing import PAIR_BYTES, Crossing
from godwit.server.broker_loop import BrokerLoop

WAIT_S = 10
PIECE = 65_536
UNDER_WAY_MAX = 16 * PAIR_BYTES
"""In the client's sockets, the transports' own buffers and the pair: far less than either side would send."""
ALL = b"".join(number.to_bytes(4, "big") for number in range(2_000_000))


class Far(asyncio.Protocol):
    """What stands in the broker's loop; it reads nothing until it is told how much to expect."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.received = bytearray()
        self.expected = 1
        self.lost, self.enough = loop.create_future(), loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def read(self, expected: int) -> None:
        self.expected = expected
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.received += data
        if len(self.received) >= self.expected and not self.enough.done():
            self.enough.set_result(None)

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost.set_result(None)


class Rig:
    """A client, a crossing in the test's own loop, and the far end in the loop of the broker."""

    def __init__(self, loop: BrokerLoop) -> None:
        self._loop = loop
        self._adopted = threading.Event()

    async def open(self) -> None:
        self.client, near = socket.socketpair()
        for end in (self.client, near):
            end.setblocking(False)
        self.crossing = Crossing()
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self.crossing, near)
        self.crossing.open(self._loop.loop, self._adopt)

    async def _adopt(self, end: socket.socket) -> None:
        self.far = Far()
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self.far, end)
        self.far.transport.pause_reading()
        self._adopted.set()

    async def reach(self) -> None:
        assert self.crossing._opening is not None
        await self.crossing._opening
        assert await asyncio.to_thread(self._adopted.wait, WAIT_S)

    async def far_does(self, work: Callable[..., object], *arguments: object) -> None:
        async def do() -> None:
            work(*arguments)

        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(do(), self._loop.loop))

    async def await_far(self, happened: "asyncio.Future[None]") -> None:
        async def wait() -> None:
            await happened

        async with asyncio.timeout(WAIT_S):
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(wait(), self._loop.loop))


@pytest.fixture
def loop() -> Iterator[BrokerLoop]:
    loop = BrokerLoop()
    yield loop
    loop.stop()


def run(loop: BrokerLoop, story: Callable[[Rig], Awaitable[None]]) -> None:
    async def main() -> None:
        rig = Rig(loop)
        await rig.open()
        try:
            await story(rig)
        finally:
            rig.client.close()
            await rig.far_does(rig.far.transport.resume_reading)
            await rig.await_far(rig.far.lost)

    uvloop.run(main())


async def pour(rig: Rig, data: memoryview) -> int:
    """Send until nothing more is taken, however often both loops turn; returns how much was."""
    sent = refused = 0
    while refused < 20 and sent < len(data):
        try:
            sent += rig.client.send(data[sent : sent + PIECE])
            refused = 0
        except BlockingIOError:
            refused += 1
            await rig.far_does(int)
    return sent


async def read(client: socket.socket, size: int) -> bytes:
    """Read so much, or until the end."""
    received = bytearray()
    async with asyncio.timeout(WAIT_S):
        while len(received) < size and (more := await asyncio.get_running_loop().sock_recv(client, PIECE)):
            received += more
    return bytes(received)


def test_a_broker_that_does_not_read_stops_the_client(loop: BrokerLoop) -> None:
    async def story(rig: Rig) -> None:
        await rig.reach()
        data = memoryview(ALL)
        sent = await pour(rig, data)
        assert 0 < sent < UNDER_WAY_MAX
        await rig.far_does(rig.far.read, len(ALL))
        await asyncio.get_running_loop().sock_sendall(rig.client, data[sent:])
        await rig.await_far(rig.far.enough)
        assert rig.far.received == ALL

    run(loop, story)


def test_a_client_that_does_not_read_stops_the_broker_and_is_not_read(loop: BrokerLoop) -> None:
    async def story(rig: Rig) -> None:
        await rig.reach()
        await rig.far_does(rig.far.transport.write, ALL)
        await rig.far_does(rig.far.read, len(ALL))
        sent = await pour(rig, memoryview(ALL))
        assert sent < UNDER_WAY_MAX
        assert rig.far.transport.get_write_buffer_size() > len(ALL) - UNDER_WAY_MAX
        assert await read(rig.client, len(ALL)) == ALL
        await rig.far_does(rig.far.read, sent)
        await asyncio.get_running_loop().sock_sendall(rig.client, b"!")
        await rig.await_far(rig.far.enough)
        assert rig.far.received[:sent] == ALL[:sent]

    run(loop, story)


def test_the_last_word_of_the_broker_arrives_before_the_end(loop: BrokerLoop) -> None:
    async def story(rig: Rig) -> None:
        await rig.reach()
        await rig.far_does(lambda: (rig.far.transport.write(b"goodbye"), rig.far.transport.close()))
        assert await read(rig.client, PIECE) == b"goodbye"

    run(loop, story)


def test_who_goes_before_the_way_is_open_leaves_nothing_behind(loop: BrokerLoop) -> None:
    async def story(rig: Rig) -> None:
        rig.crossing._near.abort()
        await rig.reach()

    run(loop, story)
