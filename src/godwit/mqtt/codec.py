"""The codec as sessions use it: bytes in, packets out; packets in, bytes out. No I/O, both versions.

A decoder never raises for what a peer sends: the packets before a violation are handed out, then `error` says what was
wrong and further input is ignored.
"""

from typing import Final

from godwit.mqtt import reasons
from godwit.mqtt.hot import read_hot
from godwit.mqtt.packets import Connect, Packet
from godwit.mqtt.properties import CONNACK, CONNECT, Cursor
from godwit.mqtt.reading import Role, read_packet
from godwit.mqtt.reasons import ProtocolViolation
from godwit.mqtt.writing import encode, puback_success, publish_frame, publish_properties

__all__ = ["Decoder", "ProtocolViolation", "encode", "puback_success", "publish_frame", "publish_properties"]

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
        try:
            at = self._read_all(data, found)
        except ProtocolViolation as violation:
            self.error = violation
            return found
        if at < len(data):
            self._rest = data[at:]
        return found

    def _read_all(self, data: bytes, found: list[Packet]) -> int:
        """Read what is whole; return where the unfinished packet begins."""
        at, size = 0, len(data)
        while at < size:
            if self.version is not None:
                at = read_hot(data, at, found, self.version, self.packet_bytes_max)
                if at == size:
                    break
            end = self._read(data, at, size, found)
            if end < 0:
                break
            at = end
        return at

    def _wanted(self) -> int:
        """Return how many bytes the unfinished packet has in all, as far as can be told; 0 where it is refused now."""
        rest = self._rest
        remaining = shift = 0
        for at in range(1, min(len(rest), 5)):
            remaining |= (rest[at] & 0x7F) << shift
            if not rest[at] & 0x80:
                size = at + 1 + remaining
                is_refused = size > self.packet_bytes_max or (shift and not rest[at])
                return 0 if is_refused else size
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
                self._check_first(first)
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
        packet = read_packet(first, Cursor(data, body, end), self.version, self.role)
        if self.version is None and type(packet) is Connect:
            self.version = packet.version
        found.append(packet)
        return end

    def _check_first(self, first: int) -> None:
        """Refuse early what can be nothing: nobody waits for the rest of it."""
        if self.version is not None and not first >> 4:
            raise ProtocolViolation(reasons.PROTOCOL_ERROR, "packet type 0 is forbidden")
        if self.version is None and first >> 4 != (CONNECT if self.role == "server" else CONNACK):
            raise ProtocolViolation(reasons.PROTOCOL_ERROR, "the first packet has to be CONNECT")
