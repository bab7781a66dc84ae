"""The load generator of broker work: publishers and subscribers in one process, with packets built by hand.

A new message is published when earlier ones have arrived, so that the window bounds what is under way at any QoS. What
arrives is counted for each subscriber; `missing` in the result is what did not come, or came twice. Modes: `pass`
publishes to subscribers; `retained` lays documents down and has new subscribers fetch them all; `connect` opens and
closes connections; `hold` opens connections and holds still. The result is one JSON object on standard output.
"""

import argparse
import asyncio
import json
import resource
import ssl
import time
from collections.abc import Callable
from typing import Any

import uvloop
from bench.load import Clock, connect_packet, text, tls_context, variable_length, wait_for_word

CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK = 0x20, 0x40, 0x50, 0x62, 0x70, 0x90
DISCONNECT = b"\xe0\x00"
STUCK_S = 15.0
"""As long without anything arriving, and what has not come is missing."""
PER_ADDRESS = 5_000
"""Connections from one loopback address: ports do not run out, whatever else the machine does."""
RETAIN_WINDOW = 200


class Wire(asyncio.Protocol):
    """One client, as publisher or subscriber. `on_publish` is told how many messages a read brought."""

    def __init__(self, name: str, prefix: bytes, on_publish: Callable[["Wire", int], None] | None = None) -> None:
        self.name = name
        self.prefix = prefix
        """Of the topics that count."""
        self.on_publish = on_publish
        self.on_done: Callable[[], None] | None = None
        self.arrived = 0
        self.done = 0
        """Own messages that are acknowledged for good."""
        self.refused = 0
        self.ready = asyncio.get_running_loop().create_future()
        self.granted = asyncio.get_running_loop().create_future()
        self.packet_id = 0
        self._rest = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Say CONNECT."""
        self.transport = transport
        transport.write(connect_packet(self.name))

    def connection_lost(self, error: Exception | None) -> None:
        """Fail whoever waits."""
        for each in (self.ready, self.granted):
            if not each.done():
                each.set_exception(error or ConnectionError(f"{self.name}: closed"))
                each.exception()  # nobody may be waiting

    def subscribe(self, topic_filter: str, qos: int) -> None:
        """Say SUBSCRIBE."""
        body = b"\x00\x01\x00" + text(topic_filter) + bytes((qos,))
        self.transport.write(b"\x82" + variable_length(len(body)) + body)

    def publish(self, topic: bytes, payload: bytes, qos: int, *, retain: bool = False) -> None:
        """Send one message."""
        packet_id = b""
        if qos:
            self.packet_id = self.packet_id % 65_535 + 1
            packet_id = self.packet_id.to_bytes(2, "big")
        size = len(topic) + len(packet_id) + 1 + len(payload)
        head = bytes((0x30 | qos << 1 | retain,)) + variable_length(size)
        self.transport.write(b"".join((head, topic, packet_id, b"\x00", payload)))

    def data_received(self, data: bytes) -> None:
        """Take packets apart; answer what has to be answered, in one write."""
        data = self._rest + data if self._rest else data
        at, whole, arrived, prefix = 0, len(data), 0, self.prefix
        answers: list[bytes] = []
        while whole - at >= 2:
            first, size, body = data[at], data[at + 1], at + 2
            if size > 127:
                if whole - at < 5:
                    break
                size, shift = size & 127, 7
                while True:
                    digit = data[body]
                    body += 1
                    size |= (digit & 127) << shift
                    shift += 7
                    if digit < 128:
                        break
            end = body + size
            if end > whole:
                break
            if first & 0xF0 == 0x30:
                name_at = body + 2
                arrived += data.startswith(prefix, name_at)
                if first & 6:
                    id_at = name_at + (data[body] << 8 | data[body + 1])
                    answers.append((b"\x40\x02" if first & 2 else b"\x50\x02") + data[id_at : id_at + 2])
            else:
                self._other(first, data[body:end], answers)
            at = end
        self._rest = data[at:]
        if answers:
            self.transport.write(b"".join(answers))
        if arrived:
            self.arrived += arrived
            if self.on_publish is not None:
                self.on_publish(self, arrived)

    def _other(self, first: int, body: bytes, answers: list[bytes]) -> None:
        if first in {PUBACK, PUBCOMP}:
            self.done += 1
            self.refused += len(body) > 2 and body[2] >= 0x80
            if self.on_done is not None:
                self.on_done()
        elif first == PUBREC:
            answers.append(b"\x62\x02" + body[:2])
        elif first == PUBREL:
            answers.append(b"\x70\x02" + body[:2])
        elif first == CONNACK:
            if body[1]:
                self.ready.set_exception(ConnectionError(f"{self.name} was refused: {body!r}"))
            else:
                self.ready.set_result(None)
        elif first == SUBACK:
            self.granted.set_result(body[-1])


class Opener:
    """Opens connections, some at a time, from one loopback address after the other."""

    def __init__(self, options: argparse.Namespace, at_once: int = 100) -> None:
        self._options = options
        self._context: ssl.SSLContext | None = tls_context() if options.tls else None
        self._gate = asyncio.Semaphore(at_once)
        self._opened = 0

    async def open(self, wire: Wire) -> Wire:
        """Connect; returns when CONNACK is there."""
        options = self._options
        local = (f"127.0.{options.net}.{1 + self._opened // PER_ADDRESS}", 0)
        self._opened += 1
        async with self._gate:
            await asyncio.get_running_loop().create_connection(
                lambda: wire, options.host, options.port, ssl=self._context, local_addr=local
            )
            await wire.ready
        return wire


class Watch:
    """Waits until so many have arrived, or nothing has for long."""

    def __init__(self, count: Callable[[], int], expected: int) -> None:
        self._count, self._expected = count, expected
        self._event = asyncio.Event()

    def look(self) -> None:
        """See whether it is done: something arrived."""
        if self._count() >= self._expected:
            self._event.set()

    async def wait(self) -> None:
        """Return when all is there, or nothing more comes."""
        last = -1
        while not self._event.is_set() and last != self._count():
            last = self._count()
            try:
                await asyncio.wait_for(self._event.wait(), STUCK_S)
            except TimeoutError:
                self.look()


def document(device: str, stamp: bytes, number: int) -> bytes:
    """Return what the seed's example publishes."""
    return (
        b'{"deviceId": "%b", "timestamp": "%b", "sensors": '
        b'{"temperature": %.1f, "humidity": 65.2, "pressure": 1013.25, "battery": 87.3}}'
        % (device.encode(), stamp, 20 + number % 100 / 10)
    )


async def pass_on(options: argparse.Namespace) -> dict[str, Any]:
    """Publish so many messages to so many subscribers, with a window of messages under way."""
    opener, clock = Opener(options), Clock()
    root = f"devices/{options.prefix}" if options.contract else options.prefix
    each_gets, window = options.messages, options.window
    total = each_gets * options.subscribers
    sent = arrived = 0

    def fill() -> None:
        nonlocal sent
        while sent < each_gets and sent * options.subscribers - arrived < window * options.subscribers:
            wire, topic = publishers[sent % len(publishers)]
            wire.publish(topic, document(wire.name, clock.next(), sent), options.qos)
            sent += 1

    def on_publish(_wire: Wire, count: int) -> None:
        nonlocal arrived
        arrived += count
        fill()
        watch.look()

    publishers = []
    for number in range(options.publishers):
        name = f"{options.prefix}{number}"
        topic = f"devices/{name}/telemetry" if options.contract else f"{root}/{name}/value"
        publishers.append((Wire(name, b""), text(topic)))
    subscribers = [Wire(f"{options.prefix}-sub-{n}", root.encode(), on_publish) for n in range(options.subscribers)]
    await asyncio.gather(*(opener.open(each) for each, _ in publishers), *(opener.open(each) for each in subscribers))
    for each in subscribers:
        each.subscribe("devices/+/telemetry" if options.contract else f"{root}/#", options.qos)
    await asyncio.gather(*(each.granted for each in subscribers))

    def count() -> int:
        return arrived + (sum(wire.done for wire, _ in publishers) if options.qos else 0)

    watch = Watch(count, total + (each_gets if options.qos else 0))
    for wire, _ in publishers:
        wire.on_done = watch.look
    await asyncio.to_thread(wait_for_word)
    begin = time.perf_counter()
    fill()
    await watch.wait()
    seconds = time.perf_counter() - begin
    wrong = sum(abs(each_gets - each.arrived) for each in subscribers)
    unacknowledged = each_gets - sum(wire.done for wire, _ in publishers) if options.qos else 0
    refused = sum(wire.refused for wire, _ in publishers)
    return {"count": total, "seconds": seconds, "missing": wrong + unacknowledged + refused}


async def fetch_retained(options: argparse.Namespace) -> dict[str, Any]:
    """Lay documents down; then let new subscribers of everything fetch them, one after the other."""
    opener, clock, documents = Opener(options), Clock(), options.messages
    publisher = await opener.open(Wire(f"{options.prefix}-pub", b""))
    laid, sent = Watch(lambda: publisher.done, documents), 0

    def lay_down() -> None:
        nonlocal sent
        while sent < documents and sent - publisher.done < RETAIN_WINDOW:
            name = f"{options.prefix}{sent}"
            topic = text(f"{options.prefix}/{name}/state")
            publisher.publish(topic, document(name, clock.next(), sent), 1, retain=True)
            sent += 1
        laid.look()

    publisher.on_done = lay_down
    lay_down()
    await laid.wait()
    missing = documents - publisher.done + publisher.refused
    await asyncio.to_thread(wait_for_word)
    begin = time.perf_counter()
    for number in range(options.rounds):
        subscriber = Wire(f"{options.prefix}-{number}", options.prefix.encode())
        watch = Watch(lambda subscriber=subscriber: subscriber.arrived, documents)
        subscriber.on_publish = lambda _wire, _count, watch=watch: watch.look()
        await opener.open(subscriber)
        subscriber.subscribe("#", options.qos)
        await watch.wait()
        missing += abs(documents - subscriber.arrived)
        subscriber.transport.write(DISCONNECT)
        subscriber.transport.close()
    seconds = time.perf_counter() - begin
    return {"count": documents * options.rounds, "seconds": seconds, "missing": missing}


async def connect(options: argparse.Namespace) -> dict[str, Any]:
    """Connect and go, so many times, some at once."""
    opener, left, done = Opener(options, at_once=options.window), options.messages, 0

    async def go_on() -> None:
        nonlocal left, done
        while left > 0:
            left -= 1
            wire = await opener.open(Wire(f"{options.prefix}{left}", b""))
            wire.transport.write(DISCONNECT)
            wire.transport.close()
            done += 1

    await asyncio.to_thread(wait_for_word)
    begin = time.perf_counter()
    await asyncio.gather(*(go_on() for _ in range(options.window)), return_exceptions=True)
    seconds = time.perf_counter() - begin
    return {"count": options.messages, "seconds": seconds, "missing": options.messages - done}


async def hold(options: argparse.Namespace) -> dict[str, Any]:
    """Open connections and hold still until told."""
    opener = Opener(options)
    begin = time.perf_counter()
    wires = [Wire(f"{options.prefix}{number}", b"") for number in range(options.messages)]
    opened = await asyncio.gather(*(opener.open(each) for each in wires), return_exceptions=True)
    seconds = time.perf_counter() - begin
    failed = sum(isinstance(each, BaseException) for each in opened)
    await asyncio.to_thread(wait_for_word)
    closed = sum(each.transport.is_closing() for each in opened if isinstance(each, Wire))
    return {"count": options.messages, "seconds": seconds, "missing": failed + closed}


MODES = {"pass": pass_on, "retained": fetch_retained, "connect": connect, "hold": hold}


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=sorted(MODES), required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--publishers", type=int, default=50)
    parser.add_argument("--subscribers", type=int, default=1)
    parser.add_argument("--qos", type=int, choices=(0, 1, 2), default=0)
    parser.add_argument("--contract", type=int, default=0, help="1: telemetry of the contract, not ordinary topics")
    parser.add_argument("--window", type=int, default=1_000, help="messages, or connections, under way")
    parser.add_argument("--messages", type=int, default=100_000, help="or documents, or connections")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--prefix", default="plant")
    parser.add_argument("--net", type=int, default=0, help="third number of the loopback addresses")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds, for all of it")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(uvloop.run(asyncio.wait_for(MODES[options.mode](options), options.timeout))), flush=True)


if __name__ == "__main__":
    main()
