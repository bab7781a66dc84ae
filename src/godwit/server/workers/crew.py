"""The owner's side: starts the workers, takes what they frame to the broker, and hands its answers back.

It stands where the listeners stand when one process does everything. A worker that ends costs its connections a
reconnect; what they had sent and was not acknowledged they send again, and a new worker takes the place.
"""

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from random import random
from time import time_ns
from typing import Final, NamedTuple, cast

from godwit.mqtt import reasons
from godwit.runtime.backoff import Backoff
from godwit.server.broker.broker import Broker
from godwit.server.broker.client import Client
from godwit.server.workers import frames
from godwit.server.workers.frames import Frames, FromOwner, FromWorker, frame, from_worker

log = logging.getLogger(__name__)

BACKLOG: Final = 4_096
TICK_S: Final = 0.25
PRESSURE_S: Final = 0.02
END_S_MAX: Final = 5.0
PIPE_BYTES: Final = 262_144
PIPE_IN_BYTES: Final = 65_536
"""What waits in the pipe delays everybody else of the worker: messages that are flushed stand before all others."""
STEADY_S: Final = 10.0
"""A worker that lived so long did not fail at its start."""


NO_TLS: Final = frames.TlsTerms("", "")


class Open(NamedTuple):
    """A listening socket that workers share."""

    name: str
    socket: socket.socket
    is_tls: bool
    frame_bytes_max: int


class RelayedSocket:
    """The wire of a connection that a worker owns."""

    __slots__ = ("client", "is_accepted", "is_awake", "number", "worker")

    def __init__(self, worker: "Worker", number: int) -> None:
        self.worker = worker
        self.number = number
        self.client: Client | None = None
        self.is_awake = False
        self.is_accepted = False

    def wake(self) -> None:
        """There is something to send, or to close: at the end of this turn."""
        if not self.is_awake:
            self.is_awake = True
            self.worker.flush_soon(self)

    def hold(self, seconds: float) -> None:
        """Have it left unread for so long."""
        self.worker.tell([frames.Hold(self.number, seconds)])

    def choke(self, *, is_choked: bool) -> None:
        """Have it left unread until told otherwise."""
        self.worker.tell([frames.Choke(self.number, is_choked)])


class Worker(asyncio.Protocol):
    """One worker process and its connections."""

    def __init__(self, crew: "Crew", process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._crew = crew
        self._broker = crew.broker
        self._loop = asyncio.get_running_loop()
        self.started = self._loop.time()
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._sockets: dict[int, RelayedSocket] = {}
        self._awake: list[RelayedSocket] = []
        self._steps: dict[type, Callable[..., None]] = {
            frames.Took: self._took,
            frames.Opened: self._opened,
            frames.Parted: self._parted,
            frames.Slowed: self._slowed,
            frames.Expired: self._expired,
        }

    @property
    def connections(self) -> int:
        """How many it has."""
        return len(self._sockets)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what to do: the pipe is there."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=PIPE_BYTES)
        self.tell([self._crew.begin(), self._crew.pressure])

    def tell(self, events: list[FromOwner]) -> None:
        """Send events to the process."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(events))

    def data_received(self, data: bytes) -> None:
        """Take what the worker framed to the broker."""
        now = time_ns()
        opened = 0
        for body in self._frames.feed(data):
            for event in from_worker.decode(body):
                self._take(event, now)
                opened += type(event) is frames.Opened
        if opened:
            self.tell([frames.Seen(opened)])
        self._crew.note_pressure()

    def _take(self, event: FromWorker, now: int) -> None:
        if type(event) is frames.Opened:
            self._opened(event)
            return
        if isinstance(event, frames.TurnedAway):
            self._broker.gate.limited.connections += event.count
            return
        if isinstance(event, frames.Refused):
            self._broker.turn_away(event.code, event.detail, event.address)
            return
        relayed = self._sockets.get(event.number)
        if relayed is not None and relayed.client is not None:
            self._steps[type(event)](relayed, relayed.client, event, now)

    def _opened(self, event: frames.Opened) -> None:
        relayed = RelayedSocket(self, event.number)
        relayed.client = self._broker.admit(relayed, event.listener, event.certificate, event.address)
        if relayed.client is None:
            self.tell([frames.HangUp(event.number)])
        else:
            self._sockets[event.number] = relayed

    def _took(self, _relayed: RelayedSocket, client: Client, event: frames.Took, now: int) -> None:
        broker, size = self._broker, event.size
        publishes = []
        for item in event.items:
            if type(item) is frames.Read:
                publishes.append(frames.publish_of(item))
                continue
            if publishes:
                broker.take(client, publishes, now)
                publishes = []
            assert isinstance(item, bytes)
            size -= len(item)
            broker.receive(client, item, now)
        if publishes:
            broker.take(client, publishes, now)
        broker.counters.bytes_in += size
        client.bytes_in += size

    def _parted(self, relayed: RelayedSocket, client: Client, event: frames.Parted, now: int) -> None:
        del self._sockets[relayed.number]
        self._broker.disconnect(client, now, event.text)
        relayed.client = None

    def _slowed(self, _relayed: RelayedSocket, client: Client, event: frames.Slowed, now: int) -> None:
        client.core.is_blocked = event.is_slow
        if not event.is_slow and client.core.session is not None:
            client.core.pump(now)

    def _expired(self, _relayed: RelayedSocket, client: Client, event: frames.Expired, _now: int) -> None:
        client.core.close(event.reason_code, event.text)

    def flush_soon(self, relayed: RelayedSocket) -> None:
        """Have what waits for a connection sent at the end of this turn."""
        if not self._awake:
            self._loop.call_soon(self._flush)
        self._awake.append(relayed)

    def _flush(self) -> None:
        awake, self._awake = self._awake, []
        now = time_ns()
        events: list[FromOwner] = []
        for relayed in awake:
            relayed.is_awake = False
            if relayed.client is not None:
                self._answer(relayed, relayed.client, events, now)
        if events:
            self.tell(events)

    def _answer(self, relayed: RelayedSocket, client: Client, events: list[FromOwner], now: int) -> None:
        core = client.core
        outgoing = core.outgoing
        if outgoing:
            data = outgoing[0] if len(outgoing) == 1 else b"".join(outgoing)
            self._broker.sent(client, data, now)
            outgoing.clear()
            events.append(frames.Answer(relayed.number, data))
            core.flushed(now)
        if core.session is not None and not relayed.is_accepted:
            relayed.is_accepted = True
            events.append(frames.Accepted(relayed.number, core.keep_alive_s))
        if core.closed is not None:
            self._broker.disconnect(client, now)
            self._sockets.pop(relayed.number, None)
            relayed.client = None
            events.append(frames.HangUp(relayed.number))

    def pause_writing(self) -> None:
        """Send only answers: the process does not keep up."""
        self._block(is_blocked=True)

    def resume_writing(self) -> None:
        """Go on sending."""
        self._block(is_blocked=False)

    def _block(self, *, is_blocked: bool) -> None:
        now = time_ns()
        for relayed in list(self._sockets.values()):
            if relayed.client is not None:
                relayed.client.core.is_blocked = is_blocked
                if not is_blocked and relayed.client.core.session is not None:
                    relayed.client.core.pump(now)

    def connection_lost(self, error: Exception | None) -> None:
        """Part from its connections: the process is gone."""
        del error
        now = time_ns()
        sockets, self._sockets = self._sockets, {}
        for relayed in sockets.values():
            if relayed.client is not None:
                self._broker.disconnect(relayed.client, now, "the worker process ended")
                relayed.client = None
        self._transport = None
        self._crew.lost(self)

    def hang_up(self) -> None:
        """Close the pipe once all is sent; the process ends."""
        if self._transport is not None:
            self._transport.close()


class Crew:
    """All workers. Has the face of the listeners' `Server`."""

    def __init__(
        self,
        broker: Broker,
        count: int,
        topic_layout: str,
        ticks: Iterable[Callable[[int], None]] = (),
        tls: frames.TlsTerms = NO_TLS,
    ) -> None:
        self._tls = tls
        self.broker = broker
        self.addresses: dict[str, str] = {}
        self.workers: list[Worker] = []
        self._count = count
        self._topic_layout = topic_layout
        self._ticks = tuple(ticks)
        self._open: list[Open] = []
        self._loop = asyncio.get_running_loop()
        self._ticking = self._loop.call_later(TICK_S, self._tick)
        self._easing: asyncio.TimerHandle | None = None
        self.pressure = frames.Pressure(is_full=False, is_congested=False)
        """What the workers were told last."""
        self._is_closing = False
        self._backoff = Backoff(0.1, s_max=5.0)
        self._starting: set[asyncio.Task[None]] = set()

    def listen(
        self,
        name: str,
        host: str,
        port: int,
        *,
        is_tls: bool = False,
        frame_bytes_max: int = 0,
    ) -> int:
        """Open a socket for the workers to listen on; returns its port. With `frame_bytes_max`: MQTT over WebSocket.

        Raises OSError if the address is taken.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        opened = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self._open.append(Open(name, opened, is_tls, frame_bytes_max))
        bound: int = opened.getsockname()[1]
        self.addresses[name] = f"{host}:{bound}"
        return bound

    async def start(self) -> None:
        """Start the processes; returns when each has been told to begin."""
        for _ in range(self._count):
            await self._start_worker()

    async def _start_worker(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIPE_BYTES)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIPE_IN_BYTES)
        ours.setblocking(False)  # noqa: FBT003
        inherited = [theirs.fileno(), *(each.socket.fileno() for each in self._open)]
        command = [sys.executable, "-m", "godwit.server.workers.worker", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=inherited)  # noqa: ASYNC220, S603 - fork and exec do not wait
        theirs.close()
        _, worker = await self._loop.create_unix_connection(lambda: Worker(self, process), sock=ours)
        self.workers.append(worker)

    def begin(self) -> frames.Begin:
        """Return what a new worker is told first."""
        listeners = [
            frames.Listener(
                each.name,
                each.socket.fileno(),
                each.is_tls,
                each.frame_bytes_max,
            )
            for each in self._open
        ]
        return frames.Begin(listeners, self.broker.limits.packet_bytes_max, self._topic_layout, self._tls)

    def trust(self, tls: frames.TlsTerms) -> None:
        """Have the workers shake hands on other terms from now on."""
        self._tls = tls
        for worker in self.workers:
            worker.tell([frames.Trust(tls)])

    def lost(self, worker: Worker) -> None:
        """Start another in the place of a worker that ended, at once if it had worked for a while."""
        self.workers.remove(worker)
        if self._is_closing:
            return
        if self._loop.time() - worker.started > STEADY_S:
            self._backoff.reset()
        log.warning("worker %d ended; another one is started", worker.process.pid)
        task = self._loop.create_task(self._replace(worker))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _replace(self, worker: Worker) -> None:
        await asyncio.to_thread(worker.process.wait)
        await asyncio.sleep(self._backoff.next_s(random()))  # noqa: S311 - jitter
        if not self._is_closing:
            await self._start_worker()

    # --- time and pressure --------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._ticking = self._loop.call_later(TICK_S, self._tick)
        now = time_ns()
        self.broker.tick(now)
        for tick in self._ticks:
            tick(now)

    def note_pressure(self) -> None:
        """Tell the workers whom to read when that has changed."""
        broker = self.broker
        now = frames.Pressure(broker.is_full, broker.group.is_congested, broker.gate.is_open(broker.connections))
        if now != self.pressure:
            self.pressure = now
            for worker in self.workers:
                worker.tell([now])
        is_calm = now == frames.Pressure(is_full=False, is_congested=False) and not broker.gate.lane.is_waited_for
        if not is_calm and self._easing is None:
            self._easing = self._loop.call_later(PRESSURE_S, self._ease)

    def _ease(self) -> None:
        self._easing = None
        self.broker.relieve()
        self.note_pressure()

    async def close(self) -> None:
        """Stop listening, tell everybody (0x8B), and end the processes."""
        self._is_closing = True
        self._ticking.cancel()
        if self._easing is not None:
            self._easing.cancel()
        for each in self._open:
            each.socket.close()
        for client in list(self.broker.clients.values()):
            client.core.close(reasons.SERVER_SHUTTING_DOWN, "the server is going down")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        workers = list(self.workers)
        for worker in workers:
            worker.hang_up()
        for worker in workers:
            await asyncio.to_thread(_reap, worker.process)


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(END_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
