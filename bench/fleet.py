"""Devices of the soak: publish numbered messages at QoS 1 and part from the platform in every way there is.

One process has many devices. A device sends again, in order and with DUP, what was not acknowledged before its
connection ended, as 4.4 has it. A third of the devices number their samples (`stream`, `seq`), a third send a
`messageId`, a third nothing that would tell a repeated message from a new one but DUP. Half speak MQTT 3.1.1; a quarter
come back over TLS.

`python -m bench.fleet --port ... --devices 500 --first 0` prints a JSON object every few seconds; after a line of input
it waits until everything is acknowledged and prints, last, how many messages of each device are.
"""

import argparse
import asyncio
import json
import random
import ssl
import sys
import time
from datetime import UTC, datetime
from typing import Any

import uvloop
from bench.load import PASSWORD, USERNAME, tls_context

from godwit.mqtt import packets as p
from godwit.mqtt.codec import Decoder, encode

REPORT_S = 2.0
WAITING_MAX = 20
DRAIN_S_MAX = 90.0
HOW = ("clean", "reset", "mid-packet", "unacknowledged", "taken over")


class Tally:
    """What all devices of the process did."""

    def __init__(self) -> None:
        self.sent = self.acknowledged = self.repeated = self.connects = self.refused = 0
        self.parted = dict.fromkeys(HOW, 0)
        self.slowest_s = 0.0

    def report(self) -> dict[str, Any]:
        """Return the figures; the slowest acknowledgement is that since the last report."""
        slowest, self.slowest_s = self.slowest_s, 0.0
        return {
            "sent": self.sent, "acknowledged": self.acknowledged, "repeated": self.repeated, "connects": self.connects,
            "refused": self.refused, "parted": self.parted, "slowest_s": slowest,
        }  # fmt: skip


class Link(asyncio.Protocol):
    """One connection of a device."""

    def __init__(self, device: "Device") -> None:
        self.device = device
        self.decoder = Decoder("client", version=device.version)
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Say CONNECT."""
        self.transport = transport
        transport.write(encode(self.device.connect_packet(), self.device.version))

    def data_received(self, data: bytes) -> None:
        """Take answers."""
        for packet in self.decoder.feed(data):
            if isinstance(packet, p.PubAck):
                self.device.acknowledged(packet)
            elif isinstance(packet, p.ConnAck) and not self.accepted.done():
                if packet.reason_code:
                    self.accepted.set_exception(ConnectionError(f"refused: {packet.reason_code}"))
                else:
                    self.accepted.set_result(None)

    def connection_lost(self, _: Exception | None) -> None:
        """Note it."""
        self.is_lost = True
        if not self.accepted.done():
            self.accepted.set_exception(ConnectionError("closed"))


class Device:
    """One device."""

    def __init__(self, number: int, options: argparse.Namespace, tally: Tally, context: ssl.SSLContext) -> None:
        self.name = f"soak-{number}"
        self.version = 5 if number % 2 else 4
        self.kind = number % 3
        self.random = random.Random(number)
        self.next = self.confirmed = 0
        self.waiting: dict[int, tuple[bytes, float]] = {}
        """Packet id -> payload and when it was first sent."""
        self._is_secure = number % 4 == 3
        self._has_been_there = False
        self._options, self._tally, self._context = options, tally, context
        self._link: Link | None = None

    def connect_packet(self) -> p.Connect:
        """Return CONNECT: a session that lasts, or for some a clean start each time."""
        is_clean = self.kind == 0 and self.random.random() < 0.5
        return p.Connect(
            self.name, version=self.version, clean_start=is_clean, keep_alive=60, username=USERNAME,
            password=PASSWORD.encode(), session_expiry_interval=600 if self.version == 5 else 0,
        )  # fmt: skip

    def acknowledged(self, packet: p.PubAck) -> None:
        """Note PUBACK."""
        payload, since = self.waiting.pop(packet.packet_id, (b"", 0.0))
        if payload:
            self.confirmed += 1
            self._tally.acknowledged += 1
            self._tally.refused += packet.reason_code >= 0x80
            self._tally.slowest_s = max(self._tally.slowest_s, time.monotonic() - since)

    async def _connect(self) -> Link | None:
        options = self._options
        is_secure = self._is_secure and self._has_been_there  # TLS registers nobody
        port, context = (options.tls_port, self._context) if is_secure else (options.port, None)
        try:
            _, link = await asyncio.get_running_loop().create_connection(
                lambda: Link(self), options.host, port, ssl=context
            )
        except OSError:
            return None
        try:
            await asyncio.wait_for(link.accepted, 30)
        except (OSError, TimeoutError):
            link.transport.abort()
            return None
        self._tally.connects += 1
        now = time.monotonic()
        for packet_id, (payload, _) in list(self.waiting.items()):
            self.waiting[packet_id] = payload, now
            link.transport.write(self._packet(packet_id, payload, dup=True))
            self._tally.repeated += 1
        return link

    def _packet(self, packet_id: int, payload: bytes, *, dup: bool = False) -> bytes:
        topic = f"devices/{self.name}/telemetry"
        return encode(p.Publish(topic, payload, 1, dup=dup, packet_id=packet_id), self.version)

    def _message(self) -> bytes:
        """Take the next number; return its packet."""
        number, self.next = self.next, self.next + 1
        stamp = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        document: dict[str, Any] = {"timestamp": stamp, "readings": {"number": number}}
        if self.kind == 0:
            document |= {"stream": "soak", "epoch": "1", "seq": number}
        elif self.kind == 1:
            document["messageId"] = f"{self.name}/{number}"
        packet_id = number % 65_535 + 1
        payload = json.dumps(document).encode()
        self.waiting[packet_id] = payload, time.monotonic()
        self._tally.sent += 1
        return self._packet(packet_id, payload)

    async def live(self, stopping: asyncio.Event) -> None:
        """Publish, part, come back, until told; then until everything is acknowledged."""
        await asyncio.sleep(self.random.uniform(0, min(10, self._options.interval)))
        while not stopping.is_set():
            self._link = self._link or await self._connect()
            if self._link is None:
                await asyncio.sleep(self.random.uniform(0.5, 3))
                continue
            end = time.monotonic() + self.random.expovariate(1 / self._options.stay)
            while not stopping.is_set() and not self._link.is_lost and time.monotonic() < end:
                if len(self.waiting) < WAITING_MAX:
                    self._link.transport.write(self._message())
                    self._has_been_there = True
                await asyncio.sleep(self.random.uniform(0.5, 1.5) * self._options.interval)
            if not stopping.is_set():
                await self._part(self.random.choice(HOW))
        await self._drain()

    async def _part(self, how: str) -> None:
        """End the connection in one of the ways."""
        link, self._link = self._link, None
        assert link is not None
        self._tally.parted[how] += 1
        if how == "taken over":
            self._link = await self._connect()
            link.transport.abort()
            return
        if how == "clean":
            link.transport.write(encode(p.Disconnect(), self.version))
            link.transport.close()
        else:
            if how == "mid-packet":
                data = self._message()
                link.transport.write(data[: self.random.randrange(1, len(data))])
            elif how == "unacknowledged":
                for _ in range(self.random.randrange(1, 4)):
                    link.transport.write(self._message())
            if how != "reset":
                await asyncio.sleep(0)
            link.transport.abort()
        await asyncio.sleep(self.random.uniform(0, 2))

    async def _drain(self) -> None:
        end = time.monotonic() + DRAIN_S_MAX
        while self.waiting and time.monotonic() < end:
            if self._link is None or self._link.is_lost:
                self._link = await self._connect()
            await asyncio.sleep(0.2)
        if self._link is not None:
            self._link.transport.close()


async def report(tally: Tally) -> None:
    """Print the figures from time to time."""
    while True:
        await asyncio.sleep(REPORT_S)
        print(json.dumps(tally.report()), flush=True)


async def run(options: argparse.Namespace) -> None:
    """Let all devices live until a line, or the end, of the input."""
    tally, stopping, context = Tally(), asyncio.Event(), tls_context()
    devices = [Device(options.first + n, options, tally, context) for n in range(options.devices)]
    reporting = asyncio.create_task(report(tally))
    lives = [asyncio.create_task(device.live(stopping)) for device in devices]
    await asyncio.wait(
        {asyncio.create_task(asyncio.to_thread(sys.stdin.readline)), *lives}, return_when="FIRST_COMPLETED"
    )
    stopping.set()
    await asyncio.gather(*lives)
    reporting.cancel()
    last = tally.report() | {"devices": {each.name: [each.confirmed, each.next] for each in devices}}
    print(json.dumps(last), flush=True)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls-port", type=int, required=True)
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="number of the first device")
    parser.add_argument("--interval", type=float, default=4.0, help="seconds between the messages of a device")
    parser.add_argument("--stay", type=float, default=60.0, help="seconds of a connection, in the mean")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
