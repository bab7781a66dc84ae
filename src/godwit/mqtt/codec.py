"""The codec as sessions use it: bytes in, packets out; packets in, bytes out. No I/O, both versions.

A decoder never raises for what a peer sends: the packets before a violation are handed out, then `error` says what was
wrong and further input is ignored.
"""

from typing import Final

from godwit.mqtt import reasons
from godwit.mqtt.packets import NO_PROPERTIES, Connect, Packet, Publish
from godwit.mqtt.properties import CONNACK, CONNECT, Cursor
from godwit.mqtt.reading import Role, read_packet
from godwit.mqtt.reasons import ProtocolViolation
from godwit.mqtt.writing import encode, puback_success

__all__ = ["Decoder", "ProtocolViolation", "encode", "puback_success"]

PACKET_BYTES_MAX: Final = 268_435_460
"""The largest packet that MQTT can announce."""


class Decoder:
    """Takes bytes as they come and returns whole packets.

    `role` is the side that reads. A server's decoder learns `version` from CONNECT.
    """

    __slots__ = ("_rest", "error", "packet_bytes_max", "role", "version")

    def __init__(self, role: Role, *, version: int | None = None, packet_bytes_max: int = PACKET_BYTES_MAX) -> None:
        self.role: Role = role
        self.version = version
        self.packet_bytes_max = packet_bytes_max
        self.error: ProtocolViolation | None = None
        self._rest: bytes | bytearray = b""

    @property
    def waiting_bytes(self) -> int:
        """How much of an unfinished packet is held."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[Packet]:
        """Return the packets that are complete now, in order."""
        if self.error is not None:
            return []
        if self._rest:
            # A large packet arrives in many pieces: grow in place, join once.
            if not isinstance(self._rest, bytearray):
                self._rest = bytearray(self._rest)
            self._rest += data
            if len(self._rest) < self._wanted():
                return []
            data = bytes(self._rest)
            self._rest = b""
        found: list[Packet] = []
        at, size = 0, len(data)
        try:
            while at < size:
                end = self._read(data, at, size, found)
                if end < 0:
                    break
                at = end
        except ProtocolViolation as violation:
            self.error = violation
            return found
        if at < size:
            self._rest = data[at:]
        return found

    def _wanted(self) -> int:
        """Return how many bytes the unfinished packet has in all, as far as can be told."""
        rest = self._rest
        remaining = shift = 0
        for at in range(1, min(len(rest), 5)):
            remaining |= (rest[at] & 0x7F) << shift
            if not rest[at] & 0x80:
                return at + 1 + remaining
            shift += 7
        return min(len(rest), 5)

    def _read(self, data: bytes, at: int, size: int, found: list[Packet]) -> int:
        """Read the packet at `at` into `found`; return where it ends, -1 when it is not whole yet."""
        first = data[at]
        body = at + 1
        remaining = shift = 0
        while True:
            if body >= size:
                self._check_first(first)
                return -1
            byte = data[body]
            body += 1
            remaining |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 21:
                raise ProtocolViolation(reasons.MALFORMED_PACKET, "the remaining length is longer than four bytes")
        if shift and not byte:
            raise ProtocolViolation(reasons.MALFORMED_PACKET, "the remaining length is longer than needed")
        end = body + remaining
        if end - at > self.packet_bytes_max:
            raise ProtocolViolation(
                reasons.PACKET_TOO_LARGE, f"a packet has {end - at} bytes, at most {self.packet_bytes_max} are taken"
            )
        if end > size:
            self._check_first(first)
            return -1
        if first & 0xF0 == 0x30 and self.version is not None:
            packet: Packet | None = _fast_publish(data, first, body, end, self.version)
            if packet is not None:
                found.append(packet)
                return end
        packet = read_packet(first, Cursor(data, body, end), self.version, self.role)
        if self.version is None and type(packet) is Connect:
            self.version = packet.version
        found.append(packet)
        return end

    def _check_first(self, first: int) -> None:
        """Refuse early what can be nothing: nobody waits for the rest of it."""
        if self.version is None and first >> 4 != (CONNECT if self.role == "server" else CONNACK):
            raise ProtocolViolation(reasons.PROTOCOL_ERROR, "the first packet has to be CONNECT")


def _fast_publish(data: bytes, first: int, body: int, end: int, version: int) -> Publish | None:
    """Read a PUBLISH without properties or flaws; None sends it the slow way, which says what is wrong."""
    payload_at = body + 2 + (data[body] << 8 | data[body + 1]) if end - body >= 2 else end + 1
    qos = first >> 1 & 3
    if payload_at + 3 > end or qos == 3:
        return None
    topic_bytes = data[body + 2 : payload_at]
    packet_id = 0
    if qos:
        packet_id = data[payload_at] << 8 | data[payload_at + 1]
        if not packet_id:
            return None
        payload_at += 2
    elif first & 8:
        return None
    if version == 5:
        if data[payload_at]:
            return None
        payload_at += 1
    if not topic_bytes or b"+" in topic_bytes or b"#" in topic_bytes or b"\0" in topic_bytes:
        return None
    try:
        topic = topic_bytes.decode()
    except UnicodeDecodeError:
        return None
    return Publish(topic, data[payload_at:end], qos, first & 1 == 1, first & 8 == 8, packet_id, NO_PROPERTIES)
