"""Does everybody else go on, in bounded memory, while somebody misbehaves?

One platform; a calm client measures round trips all the while. Each story is some seconds of one kind of attack.
"""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from godwit.mqtt import packets as p
from godwit.mqtt.codec import encode

pytestmark = pytest.mark.real
STORY_S = 3.0
ROUND_TRIP_S_MAX = 2.0
GROWTH_BYTES_MAX = 200 * 1_048_576


class Calm:
    """A well-behaved client; each of its messages has to be acknowledged in time."""

    def __init__(self, port: int) -> None:
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, "calm", protocol=paho.MQTTv5)
        self.client.connect("127.0.0.1", port, keepalive=5)
        self.client.loop_start()
        self.slowest = 0.0

    def round_trip(self) -> None:
        began = time.monotonic()
        self.client.publish("devices/calm/telemetry", b'{"readings": {"t": 1.5}}', 1).wait_for_publish(10)
        self.slowest = max(self.slowest, time.monotonic() - began)

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture(scope="module", params=["", "2"], ids=["one process", "two workers"])
def platform(request: Any, platform_class: Any, tmp_path_factory: Any) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("hostile") / "data"
    platform = platform_class(directory, MQTT_USERNAME="fleet", MQTT_PASSWORD="kestrel", WORKERS=request.param).start()
    yield platform
    platform.kill()


def resident(platform: Any) -> int:
    status = Path(f"/proc/{platform.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1_024


def endure(platform: Any, attack: Callable[[], None]) -> None:
    """Let `attack` go on for a while, over and over; the calm client is served, and memory does not run away."""
    calm, stopping = Calm(platform.mqtt), threading.Event()
    calm.round_trip()
    calm.slowest = 0.0
    before = resident(platform)

    def go_on() -> None:
        while not stopping.is_set():
            with contextlib.suppress(OSError):
                attack()

    attacker = threading.Thread(target=go_on)
    attacker.start()
    try:
        end = time.monotonic() + STORY_S
        while time.monotonic() < end:
            calm.round_trip()
            time.sleep(0.02)
        grown = resident(platform) - before
    finally:
        stopping.set()
        attacker.join()
        calm.stop()
    assert calm.slowest < ROUND_TRIP_S_MAX
    assert grown < GROWTH_BYTES_MAX


def connected(platform: Any, version: int = 5, client_id: str = "bad") -> socket.socket:
    wire = socket.create_connection(("127.0.0.1", platform.mqtt), timeout=5)
    wire.sendall(encode(p.Connect(client_id, version=version, keep_alive=60), version))
    assert wire.recv(1_024)
    return wire


def test_connections_that_say_nothing_or_little(platform: Any) -> None:
    wires: list[socket.socket] = []

    def attack() -> None:
        wire = socket.create_connection(("127.0.0.1", platform.mqtt), timeout=5)
        wire.sendall(b"\x10")  # slow-loris: the first byte of CONNECT, and no more
        wires.append(wire)
        time.sleep(0.005)

    endure(platform, attack)
    assert len(wires) > 100
    for wire in wires:
        wire.close()


@pytest.mark.parametrize("door", ["websocket", "http"])
def test_websockets_that_ping_and_do_not_listen(platform: Any, door: str) -> None:
    """Pings whose pongs nobody reads, then an endless message of empty fragments: neither says CONNECT."""
    port = getattr(platform, door)
    pings = b"\x89\x80mask" * 1_000
    fragments = b"\x02\x80mask" + b"\x00\x80mask" * 1_000
    wires: list[socket.socket] = []

    def attack() -> None:
        wire = socket.create_connection(("127.0.0.1", port), timeout=0.5)
        wires.append(wire)
        wire.sendall(
            b"GET /mqtt HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        )
        assert wire.recv(1_024).startswith(b"HTTP/1.1 101")
        for each in (pings, fragments):
            for _ in range(200):
                wire.sendall(each)

    endure(platform, attack)
    assert len(wires) > 3
    for wire in wires:
        wire.close()


def test_tls_handshakes_that_are_begun_and_dropped(platform: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def attack() -> None:
        wire = socket.create_connection(("127.0.0.1", platform.mqtts), timeout=5)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(incoming, outgoing).do_handshake()
        wire.sendall(outgoing.read())
        wire.close()

    endure(platform, attack)


def test_packets_that_announce_256_mb(platform: Any) -> None:
    def attack() -> None:
        with connected(platform) as wire:
            wire.sendall(b"\x30\xff\xff\xff\x7f" + b"x" * 100_000)
            answer = b""
            while data := wire.recv(1_024):
                answer += data
            assert answer[0] == 0xE0  # DISCONNECT
            assert answer[2] == 0x95  # packet too large

    endure(platform, attack)


def test_topics_as_long_and_as_deep_as_they_come(platform: Any) -> None:
    def attack() -> None:
        with connected(platform) as wire:
            for number in range(20):
                deep = "/".join([str(number)] * 10_000)
                wire.sendall(encode(p.Publish("x" * 65_000 + str(number), b"1", 1, retain=True, packet_id=1), 5))
                wire.sendall(encode(p.Publish(deep, b"1", 1, retain=True, packet_id=2), 5))
                wire.sendall(encode(p.Subscribe(3, (p.Subscription("/".join("+" * 120), 0),)), 5))
                wire.recv(65_536)
            for number in range(20):  # leave nothing
                wire.sendall(encode(p.Publish("x" * 65_000 + str(number), b"", 1, retain=True, packet_id=1), 5))
                wire.sendall(encode(p.Publish("/".join([str(number)] * 10_000), b"", 1, retain=True, packet_id=2), 5))
                wire.recv(65_536)

    endure(platform, attack)


def test_a_subscriber_of_everything_that_reads_nothing(platform: Any) -> None:
    wires = []
    for number in range(20):
        wire = connected(platform, client_id=f"deaf-{number}")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        wire.sendall(encode(p.Subscribe(1, (p.Subscription("#", 1),)), 5))
        wires.append(wire)
    flood = connected(platform, client_id="flood")

    def attack() -> None:
        flood.sendall(encode(p.Publish("noise", b"x" * 10_000), 5) * 20)
        time.sleep(0.01)

    endure(platform, attack)
    for wire in [*wires, flood]:
        wire.close()


def test_a_flood_at_qos_0_that_nobody_asked_for(platform: Any) -> None:
    with connected(platform, client_id="flood-0") as wire:
        data = encode(p.Publish("devices/flood/telemetry", b'{"readings": {"t": 1.5}}'), 5) * 500

        def attack() -> None:
            wire.sendall(data)

        endure(platform, attack)


def test_garbage_of_every_kind(platform: Any) -> None:
    kinds = [
        b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100, b"\xff" * 100, b"\x10\xff\xff\xff\xff\xff", b"\x16\x03\x01" * 50,
        encode(p.Connect("c", version=5), 5) + b"\xf0\x00" + b"\x00\x00", encode(p.PingReq(), 5),
    ]  # fmt: skip

    def attack() -> None:
        for kind in kinds:
            with socket.create_connection(("127.0.0.1", platform.mqtt), timeout=5) as wire:
                wire.sendall(kind)

    endure(platform, attack)


def test_a_storm_of_reconnects(platform: Any) -> None:
    def attack() -> None:
        wires = []
        for number in range(200):
            wire = socket.create_connection(("127.0.0.1", platform.mqtt), timeout=5)
            wire.sendall(encode(p.Connect(f"storm-{number}", version=5), 5))
            wires.append(wire)
        for wire in wires:
            assert wire.recv(64)[:1] == b"\x20"
            wire.close()

    endure(platform, attack)
