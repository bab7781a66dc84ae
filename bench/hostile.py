"""Peers that misbehave, one kind a class: for the tests of a hostile network and for the soak.

`once` does a bit of it and returns; it is called over and over and may raise OSError, for the server defends itself.
What a kind holds open is bounded; `close` lets go of it.

`python -m bench.hostile PORT TLS_PORT` does all of it at once, at a modest pace, until its input ends, and prints how
often it did what.
"""

import contextlib
import json
import socket
import ssl
import struct
import sys
import threading
import time
from typing import NamedTuple

from godwit.mqtt import packets as p
from godwit.mqtt.codec import encode

PAUSE_S = 0.25


class Place(NamedTuple):
    """What is attacked."""

    port: int
    tls_port: int


class Hostile:
    """A kind of misbehaviour."""

    held_max = 400
    """The oldest connection goes when there are more."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.held: list[socket.socket] = []

    def once(self) -> None:
        """Do a bit of it."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what it holds."""
        while self.held:
            self.held.pop().close()

    def wire(self) -> socket.socket:
        """Open a connection, without a word."""
        return socket.create_connection(("127.0.0.1", self._place.port), timeout=5)

    def connected(self, client_id: str, version: int = 5, keep_alive: int = 60) -> socket.socket:
        """Open a connection and come in."""
        wire = self.wire()
        wire.sendall(encode(p.Connect(client_id, version=version, keep_alive=keep_alive), version))
        if not wire.recv(1_024):
            raise ConnectionError("not let in")
        return wire

    def hold(self, wire: socket.socket) -> None:
        """Keep a connection open; the oldest goes when there are too many."""
        self.held.append(wire)
        if len(self.held) > self.held_max:
            self.held.pop(0).close()


class SlowLoris(Hostile):
    """The first byte of CONNECT, and no more."""

    def once(self) -> None:
        """Begin one."""
        wire = self.wire()
        wire.sendall(b"\x10")
        self.hold(wire)
        time.sleep(0.005)


class BrokenHandshakes(Hostile):
    """TLS handshakes that are begun and dropped with a reset."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE

    def once(self) -> None:
        """Begin and drop one."""
        wire = socket.create_connection(("127.0.0.1", self._place.tls_port), timeout=5)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            self._context.wrap_bio(incoming, outgoing).do_handshake()
        wire.sendall(outgoing.read())
        wire.close()


class HugePackets(Hostile):
    """PUBLISH of 256 MB, announced: has to be answered with the reason."""

    def once(self) -> None:
        """Announce one."""
        with self.connected("huge") as wire:
            wire.sendall(b"\x30\xff\xff\xff\x7f" + b"x" * 100_000)
            answer = b""
            while data := wire.recv(1_024):
                answer += data
            assert answer[0] == 0xE0  # DISCONNECT
            assert answer[2] == 0x95  # packet too large


class HugeTopics(Hostile):
    """Retained documents under topics as long and as deep as they come, always others; subscriptions of many levels."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._number = 0

    def once(self) -> None:
        """Lay some down, and leave nothing."""
        self._number = (self._number + 20) % 10_000
        with self.connected("long") as wire:
            for payload in (b"1", b""):
                for number in range(self._number, self._number + 20):
                    deep = "/".join([str(number)] * 10_000)
                    wire.sendall(encode(p.Publish("x" * 65_000 + str(number), payload, 1, retain=True, packet_id=1), 5))
                    wire.sendall(encode(p.Publish(deep, payload, 1, retain=True, packet_id=2), 5))
                    wire.sendall(encode(p.Subscribe(3, (p.Subscription("/".join("+" * 120), 0),)), 5))
                    wire.recv(65_536)


class DeafSubscribers(Hostile):
    """Subscribers of everything that read nothing, and somebody who has much to say."""

    held_max = 20

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._flood: socket.socket | None = None
        self._number = self._calls = 0

    def _deaf(self) -> socket.socket:
        self._number += 1
        wire = self.connected(f"deaf-{self._number % (2 * self.held_max)}")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        wire.sendall(encode(p.Subscribe(1, (p.Subscription("#", self._number % 3),)), 5))
        return wire

    def once(self) -> None:
        """Say something; from time to time some of the deaf are replaced."""
        self._calls += 1
        for _ in range(max(self.held_max - len(self.held), self._calls % 12 == 0)):
            self.hold(self._deaf())
        try:
            if self._flood is None:
                self._flood = self.connected("flood")
            for qos in (0, 1):
                self._flood.sendall(encode(p.Publish("noise", b"x" * 10_000, qos, packet_id=qos), 5) * 10)
            self._flood.recv(4_096)
        except OSError:
            self._flood = None
            raise
        time.sleep(0.01)

    def close(self) -> None:
        """Let go of all, the talker too."""
        super().close()
        if self._flood is not None:
            self._flood.close()


class SlowReaders(Hostile):
    """Subscribers that read some bytes at a time and acknowledge nothing."""

    held_max = 20

    def once(self) -> None:
        """Let each read a little; one more comes."""
        wire = self.connected(f"slow-{len(self.held)}", version=4)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        wire.sendall(encode(p.Subscribe(1, (p.Subscription("#", 1),)), 4))
        self.hold(wire)
        for each in list(self.held):
            each.settimeout(0.001)
            try:
                if not each.recv(10):
                    self.held.remove(each)
                    each.close()
            except TimeoutError:
                pass
            except OSError:
                self.held.remove(each)
                each.close()


class HalfOpen(Hostile):
    """Clients that come in and fall silent, as behind a network that forgot them; some amid a packet."""

    def once(self) -> None:
        """Let one more fall silent."""
        wire = self.connected(f"silent-{len(self.held)}", keep_alive=5)
        if len(self.held) % 2:
            wire.sendall(encode(p.Publish("devices/silent/telemetry", b"x" * 1_000, 1, packet_id=1), 5)[:500])
        self.hold(wire)


class Garbage(Hostile):
    """What is no MQTT, or not in order."""

    kinds = (
        b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100, b"\xff" * 100, b"\x10\xff\xff\xff\xff\xff", b"\x16\x03\x01" * 50,
        encode(p.Connect("c", version=5), 5) + b"\xf0\x00" + b"\x00\x00", encode(p.PingReq(), 5),
    )  # fmt: skip

    def once(self) -> None:
        """Send one of each."""
        for kind in self.kinds:
            with self.wire() as wire:
                wire.sendall(kind)


class Flood(Hostile):
    """Telemetry at QoS 0, as fast as it is taken."""

    data = encode(p.Publish("devices/flood/telemetry", b'{"readings": {"t": 1.5}}'), 5) * 500

    def once(self) -> None:
        """Send 500 messages."""
        if not self.held:
            self.hold(self.connected("flood-0"))
        try:
            self.held[0].sendall(self.data)
        except OSError:
            self.close()
            raise


class Storm(Hostile):
    """Many that come at once, and again."""

    def once(self) -> None:
        """Let 200 come and go."""
        try:
            for number in range(200):
                wire = self.wire()
                wire.sendall(encode(p.Connect(f"storm-{number}", version=5), 5))
                self.hold(wire)
            for wire in self.held:
                assert wire.recv(64)[:1] == b"\x20"
        finally:
            self.close()


class DeafWebSockets(Hostile):
    """Pings whose pongs nobody reads, then an endless message of empty fragments: neither says CONNECT."""

    pings = b"\x89\x80mask" * 1_000
    fragments = b"\x02\x80mask" + b"\x00\x80mask" * 1_000

    def once(self) -> None:
        """Begin one."""
        wire = self.wire()
        wire.settimeout(0.5)
        self.hold(wire)
        wire.sendall(
            b"GET /mqtt HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        )
        assert wire.recv(1_024).startswith(b"HTTP/1.1 101")
        for each in (self.pings, self.fragments):
            for _ in range(200):
                wire.sendall(each)


PACED: tuple[type[Hostile], ...] = (
    SlowLoris,
    BrokenHandshakes,
    HugePackets,
    HugeTopics,
    DeafSubscribers,
    SlowReaders,
    HalfOpen,
    Garbage,
    Storm,
)
ALL = (*PACED, Flood)
"""A flood fills a disk: not for hours."""


def _go_on(kind: type[Hostile], place: Place, stopping: threading.Event, counts: dict[str, list[int]]) -> None:
    hostile = kind(place)
    while not stopping.is_set():
        try:
            hostile.once()
        except OSError:
            counts[kind.__name__][1] += 1
        counts[kind.__name__][0] += 1
        # a storm is rarer than a drop of rain
        stopping.wait(PAUSE_S * (20 if kind in {Storm, HugeTopics} else 1))
    hostile.close()


def main() -> None:
    """Misbehave in all ways until the input ends."""
    place, stopping = Place(int(sys.argv[1]), int(sys.argv[2])), threading.Event()
    counts = {kind.__name__: [0, 0] for kind in PACED}
    threads = [threading.Thread(target=_go_on, args=(kind, place, stopping, counts)) for kind in PACED]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stopping.set()
    for thread in threads:
        thread.join()
    print(json.dumps({name: {"times": times, "errors": errors} for name, (times, errors) in counts.items()}))


if __name__ == "__main__":
    main()
