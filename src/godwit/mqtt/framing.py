"""Cuts a client's bytes into whole packets for somebody else to act on, and reads none of them but PUBLISH.

A worker process frames what the owner of the sessions acts on. PUBLISH packets come out read; all others, and
whatever is wrong, as bytes in their place, so that the owner's own decoder judges them exactly as if it had the socket.
"""

from typing import Final

from godwit.mqtt.hot import read_hot
from godwit.mqtt.packets import Packet, PubAck, Publish
from godwit.mqtt.properties import CONNECT, PUBLISH, Cursor
from godwit.mqtt.reading import read_packet
from godwit.mqtt.reasons import ProtocolViolation

Item = Publish | bytes

_LEVEL_AT: Final = 6
"""Of the protocol level in CONNECT's variable header, after the name "MQTT" (3.1.2.2)."""
_UNREADABLE: Final = -2
_UNFINISHED: Final = -1


class Framer:
    """Takes bytes as they come. After bytes that are no packet everything is handed on as it is."""

    __slots__ = ("_is_raw", "_packet_bytes_max", "_rest", "_version", "_wanted")

    def __init__(self, packet_bytes_max: int) -> None:
        self._packet_bytes_max = packet_bytes_max
        self._rest = bytearray()
        self._wanted = 0
        self._version = 0
        self._is_raw = False

    @property
    def version(self) -> int:
        """0 before CONNECT, then 4 or 5."""
        return self._version

    def feed(self, data: bytes) -> list[Item]:
        """Return what is whole now, in order."""
        if self._is_raw:
            return [data]
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        return self._cut(data)

    def _cut(self, data: bytes) -> list[Item]:
        found: list[Item] = []
        at, size = 0, len(data)
        while at < size:
            if self._version:
                at = self._take_hot(data, at, found)
                if at == size:
                    break
            body, end = self._bounds(data, at)
            if end == _UNREADABLE:
                self._is_raw = True
                found.append(data[at:])
                break
            if end == _UNFINISHED:
                self._rest += data[at:]
                self._wanted = body
                break
            found.append(self._read(data, at, body, end))
            at = end
        return found

    def _take_hot(self, data: bytes, at: int, found: list[Item]) -> int:
        packets: list[Packet] = []
        at = read_hot(data, at, packets, self._version, self._packet_bytes_max)
        for packet in packets:
            if type(packet) is Publish:
                found.append(packet)
            elif type(packet) is PubAck:  # the other packet that is read without ceremony
                found.append(b"\x40\x02" + packet.packet_id.to_bytes(2, "big"))
        return at

    def _bounds(self, data: bytes, at: int) -> tuple[int, int]:
        """Return where body and end of the packet at `at` are.

        The end is `_UNFINISHED`, with how many bytes are wanted in all instead of the body, or `_UNREADABLE`.
        """
        kind = data[at] >> 4
        if not kind or (kind == CONNECT) == bool(self._version):
            return 0, _UNREADABLE
        remaining = shift = 0
        body = at + 1
        while body < len(data):
            byte = data[body]
            body += 1
            remaining |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                end = body + remaining
                if end - at > self._packet_bytes_max or (shift > 7 and not byte):
                    return 0, _UNREADABLE
                return (body, end) if end <= len(data) else (end - at, _UNFINISHED)
            if shift > 21:
                return 0, _UNREADABLE
        return len(data) - at + 1, _UNFINISHED

    def _read(self, data: bytes, at: int, body: int, end: int) -> Item:
        if not self._version:
            self._version = data[body + _LEVEL_AT] if end - body > _LEVEL_AT else 4
        elif data[at] >> 4 == PUBLISH:
            try:
                packet = read_packet(data[at], Cursor(data, body, end), self._version, "server")
            except ProtocolViolation:
                return data[at:end]
            if isinstance(packet, Publish):
                return packet
        return data[at:end]
