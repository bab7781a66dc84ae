"""The load generator: many lean MQTT 5 publishers in one process, with packets built by hand.

It runs apart from the server, so that its own CPU is not counted, and does what a real client does: connect, publish at
QoS 1 what the seed's example publishes, wait for the acknowledgement. Modes: `closed` keeps a number of messages in
flight on each connection until the total is acknowledged; `paced` publishes at a rate; `idle` connects and holds still;
`handshakes` opens and closes connections. The result is one JSON object on standard output.
"""

import argparse
import asyncio
import json
import os
import resource
import ssl
import sys
import time
from datetime import UTC, datetime

import uvloop

CONNACK, PUBACK = 0x20, 0x40
LATENCIES_MAX = 200_000
USERNAME, PASSWORD = "bench", "bench"


def variable_length(number: int) -> bytes:
    """Encode a variable byte integer (MQTT 5, 1.5.5)."""
    out = bytearray()
    while True:
        number, digit = divmod(number, 128)
        out.append(digit | 0x80 if number else digit)
        if not number:
            return bytes(out)


def text(value: str) -> bytes:
    """Encode a UTF-8 string (MQTT 5, 1.5.4)."""
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


def connect_packet(client_id: str) -> bytes:
    """Return a CONNECT: clean start, no keep-alive, a name and a password, which the TLS listener asks for."""
    body = text("MQTT") + b"\x05\xc2\x00\x00\x00" + text(client_id) + text(USERNAME) + text(PASSWORD)
    return b"\x10" + variable_length(len(body)) + body


class Clock:
    """Timestamps of the messages: a millisecond further each, rendered cheaply."""

    def __init__(self) -> None:
        self._second = int(time.time()) - 3_600
        self._millisecond = 0
        self._prefix = b""
        self._turn()

    def _turn(self) -> None:
        self._prefix = datetime.fromtimestamp(self._second, UTC).strftime("%Y-%m-%dT%H:%M:%S.").encode()

    def next(self) -> bytes:
        """Return the next timestamp."""
        self._millisecond += 1
        if self._millisecond == 1_000:
            self._millisecond = 0
            self._second += 1
            self._turn()
        return b"%b%03dZ" % (self._prefix, self._millisecond)


class Load:
    """What all publishers share: how much is to do and how it went."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.clock = Clock()
        self.to_send = options.messages
        self.acknowledged = 0
        self.refused = 0
        self.latencies: list[float] = []
        self.connected = 0
        self.all_connected = asyncio.Event()
        self.done = asyncio.Event()
        self.lost = 0

    def note(self, latency: float, reason: int) -> None:
        """Count one acknowledgement."""
        self.acknowledged += 1
        self.refused += reason >= 0x80
        if len(self.latencies) < LATENCIES_MAX:
            self.latencies.append(latency)
        if self.acknowledged >= self.options.messages:
            self.done.set()


class Publisher(asyncio.Protocol):
    """One device's connection."""

    def __init__(self, load: Load, number: int) -> None:
        self.load = load
        device = f"{load.options.prefix}{number}"
        self.device = device
        self.topic = text(f"devices/{device}/telemetry")
        self.head = b'{"deviceId": "%b", "timestamp": "' % device.encode()
        self.tail = b'", "sensors": {"temperature": %.1f, "humidity": 65.2, "pressure": 1013.25, "battery": 87.3}}' % (
            20 + number % 100 / 10
        )
        size = len(self.topic) + 3 + len(self.head) + 24 + len(self.tail)
        self.fixed = b"\x32" + variable_length(size) + self.topic
        self.in_flight: dict[int, float] = {}
        self.packet_id = 0
        self.rest = b""
        self.window = load.options.in_flight
        self.ready = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Say CONNECT."""
        self.transport = transport
        transport.write(connect_packet(self.device))

    def connection_lost(self, _: Exception | None) -> None:
        """Count it."""
        if not self.load.done.is_set():
            self.load.lost += 1

    def publish(self) -> None:
        """Send one message."""
        self.load.to_send -= 1
        self.packet_id = self.packet_id % 65_535 + 1
        self.in_flight[self.packet_id] = time.perf_counter()
        stamp = self.load.clock.next()
        packet_id = self.packet_id.to_bytes(2, "big")
        self.transport.write(b"".join((self.fixed, packet_id, b"\x00", self.head, stamp, self.tail)))

    def fill(self) -> None:
        """Send as many as may be in flight."""
        while self.load.to_send > 0 and len(self.in_flight) < self.window:
            self.publish()

    def data_received(self, data: bytes) -> None:
        """Take packets apart; only CONNACK and PUBACK are expected."""
        data = self.rest + data if self.rest else data
        at = 0
        while len(data) - at >= 2:
            size, head, shift = 0, at + 1, 0
            while head < len(data):
                digit = data[head]
                size |= (digit & 0x7F) << shift
                shift += 7
                head += 1
                if not digit & 0x80:
                    break
            if len(data) < head + size:
                break
            self.packet(data[at], data[head : head + size])
            at = head + size
        self.rest = data[at:]
        if self.ready and self.load.options.mode == "closed":
            self.fill()

    def packet(self, kind: int, body: bytes) -> None:
        """Act on one packet."""
        if kind == PUBACK:
            started = self.in_flight.pop(int.from_bytes(body[:2], "big"))
            self.load.note(time.perf_counter() - started, body[2] if len(body) > 2 else 0)
        elif kind == CONNACK:
            if body[1]:
                print(f"refused: {body!r}", file=sys.stderr, flush=True)
                os._exit(1)  # from a callback, an exception would only be logged
            self.load.connected += 1
            if self.load.connected == self.load.options.connections:
                self.load.all_connected.set()


def tls_context() -> ssl.SSLContext:
    """Return a context that checks nothing: the bench made the certificate itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def open_all(load: Load) -> list[Publisher]:
    """Connect all, 100 at a time; returns when each has its CONNACK."""
    options = load.options
    context = tls_context() if options.tls else None
    gate = asyncio.Semaphore(100)
    publishers = [Publisher(load, number) for number in range(options.connections)]

    async def one(publisher: Publisher) -> None:
        async with gate:
            await asyncio.get_running_loop().create_connection(
                lambda: publisher, options.host, options.port, ssl=context
            )

    await asyncio.gather(*(one(publisher) for publisher in publishers))
    await load.all_connected.wait()
    return publishers


async def pace(load: Load, publishers: list[Publisher]) -> None:
    """Publish at the rate, in turn over the connections."""
    start = time.perf_counter()
    for number in range(load.options.messages):
        due = start + number / load.options.rate
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        publishers[number % len(publishers)].publish()


async def shake_hands(load: Load) -> None:
    """Open and close connections, one after the other, until the number is reached."""
    options = load.options
    context = tls_context()
    for number in range(options.messages):
        reader, writer = await asyncio.open_connection(options.host, options.port, ssl=context)
        writer.write(connect_packet(f"shake{number}"))
        await reader.readexactly(4)
        writer.write(b"\xe0\x00")
        writer.close()
        load.acknowledged += 1


def wait_for_word() -> None:
    """Say that the connections stand, and wait until the other end says go (or closes)."""
    print(json.dumps({"connected": True}), flush=True)
    sys.stdin.readline()


async def run(options: argparse.Namespace) -> dict[str, object]:
    """Run one load."""
    load = Load(options)
    if options.mode == "handshakes":
        start = time.perf_counter()
        await shake_hands(load)
        return {"handshakes": load.acknowledged, "seconds": time.perf_counter() - start}
    publishers = await open_all(load)
    await asyncio.to_thread(wait_for_word)
    start = time.perf_counter()
    if options.mode == "closed":
        for publisher in publishers:
            publisher.ready = True
            publisher.fill()
    elif options.mode == "paced":
        await pace(load, publishers)
    if options.mode != "idle":
        await load.done.wait()
    seconds = time.perf_counter() - start
    ordered = sorted(load.latencies) or [0.0]
    return {
        "messages": load.acknowledged,
        "refused": load.refused,
        "lost_connections": load.lost,
        "seconds": seconds,
        "per_s": load.acknowledged / seconds if seconds else 0.0,
        "p50_ms": ordered[len(ordered) // 2] * 1e3,
        "p99_ms": ordered[int(len(ordered) * 0.99)] * 1e3,
    }


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=("closed", "paced", "idle", "handshakes"), default="closed")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--in-flight", type=int, default=20)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--prefix", default="bench")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds, for all of it")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(uvloop.run(asyncio.wait_for(run(options), options.timeout))), flush=True)


if __name__ == "__main__":
    main()
