"""A TLS connection to the broker that says what it is told to, packet by packet."""

import contextlib
import socket
import ssl
from pathlib import Path
from typing import Any, ClassVar

from fleet_certificates import Bundle

from godwit.mqtt import packets as p
from godwit.mqtt.codec import Decoder, encode

WAIT_S = 10.0


class Line:
    """MQTT 5 over TLS, to where `house` listens. Raises OSError where it does not come through the handshake."""

    opened: ClassVar[list["Line"]] = []
    """All there were, for a fixture to close those that a failed test leaves open."""

    def __init__(self, house: Any, bundle: Bundle | None = None, **how: Any) -> None:
        context = how.get("context") or context_of(house, bundle)
        plain = socket.create_connection(("127.0.0.1", house.mqtts), WAIT_S)
        try:
            self.wire = context.wrap_socket(plain, server_hostname="localhost", session=how.get("session"))
        except BaseException:
            plain.close()
            raise
        self.opened.append(self)
        self.decoder = Decoder("client", version=5)
        self.packets: list[p.Packet] = []

    def say(self, packet: p.Packet) -> p.Packet | None:
        """Send a packet; return the answer, None where the connection ends instead."""
        self.wire.sendall(encode(packet, 5))
        return self.hear()

    def come(self, client_id: str, **options: Any) -> int:
        """Say CONNECT; return the reason code, -1 where TLS has the last word."""
        try:
            answer = self.say(p.Connect(client_id, **options))
        except OSError:
            return -1
        return answer.reason_code if isinstance(answer, p.ConnAck) else -1

    def tell(self, client_id: str, **options: Any) -> None:
        """Say CONNECT, and wait for nothing."""
        self.wire.sendall(encode(p.Connect(client_id, **options), 5))

    def answer(self) -> int:
        """Return the reason code of the CONNACK that comes, -1 where none does."""
        answer = self.hear()
        return answer.reason_code if isinstance(answer, p.ConnAck) else -1

    def hear(self, within_s: float = WAIT_S) -> p.Packet | None:
        """Return the next packet, None at the end. Raises TimeoutError."""
        self.wire.settimeout(within_s)
        while not self.packets:
            data = self.wire.recv(65_536)
            if not data:
                return None
            self.packets.extend(self.decoder.feed(data))
        return self.packets.pop(0)

    def end(self, within_s: float = WAIT_S) -> int:
        """Return the reason code with which it is parted from; 0: without a word. Raises TimeoutError."""
        while True:
            packet = self.hear(within_s)
            if packet is None or isinstance(packet, p.Disconnect):
                self.close()
                return packet.reason_code if packet is not None else 0

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self.wire.close()


def context_of(house: Any, bundle: Bundle | None = None) -> ssl.SSLContext:
    """Return a context that trusts the platform, and shows a certificate."""
    ca: Path = house.directory / "data" / "tls" / "ca.crt"
    context = ssl.create_default_context(cafile=str(ca))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # so that it is the server that refuses what is weak
    if bundle is not None:
        context.load_cert_chain(bundle.certificate, bundle.key)
    return context


def visit(house: Any, bundle: Bundle | None, client_id: str, **options: Any) -> int:
    """Come and go; return the reason code of CONNACK, -1 where it does not come so far."""
    try:
        line = Line(house, bundle)
    except OSError:
        return -1
    try:
        return line.come(client_id, **options)
    finally:
        line.close()
