"""MQTT 5 properties (2.2.2): which there are, how they are written, in which packets they may stand.

Reading tells the two kinds of fault apart that the standard does: what cannot be read is malformed (0x81), what can be
read and must not be there is a protocol error (0x82). Where the standard leaves the choice, it is Mosquitto's.
"""

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from godwit.mqtt import reasons
from godwit.mqtt.reasons import ProtocolViolation

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = range(1, 12)
PINGREQ, PINGRESP, DISCONNECT, AUTH = range(12, 16)
WILL: Final = 16
"""Not a packet: the will inside CONNECT has properties of its own."""

_CONTROL: Final = re.compile("[\x01-\x1f\x7f-\x9f]")
ANSWERS: Final = (PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK)


def malformed(text: str) -> ProtocolViolation:
    """Return the violation for what cannot be read."""
    return ProtocolViolation(reasons.MALFORMED_PACKET, text)


def protocol_error(text: str) -> ProtocolViolation:
    """Return the violation for what must not be there."""
    return ProtocolViolation(reasons.PROTOCOL_ERROR, text)


class Cursor:
    """Reads one packet's body, never past `end`."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end

    def u8(self) -> int:
        """Read a byte."""
        at = self.at
        if at >= self.end:
            raise malformed("the packet ends too early")
        self.at = at + 1
        return self.data[at]

    def u16(self) -> int:
        """Read a two byte integer."""
        at = self.at
        if at + 2 > self.end:
            raise malformed("the packet ends too early")
        self.at = at + 2
        return self.data[at] << 8 | self.data[at + 1]

    def u32(self) -> int:
        """Read a four byte integer."""
        return self.u16() << 16 | self.u16()

    def varint(self) -> int:
        """Read a variable byte integer in its shortest form (1.5.5)."""
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                if byte == 0 and shift:
                    raise malformed("a variable byte integer is longer than needed")
                return value
            shift += 7
            if shift > 21:
                raise malformed("a variable byte integer is longer than four bytes")

    def binary(self) -> bytes:
        """Read binary data with its length."""
        size = self.u16()
        at = self.at
        if at + size > self.end:
            raise malformed("the packet ends too early")
        self.at = at + size
        return self.data[at : at + size]

    def text(self) -> str:
        """Read a UTF-8 string (1.5.4): no surrogates, no U+0000."""
        try:
            text = self.binary().decode()
        except UnicodeDecodeError:
            raise malformed("a string is not UTF-8") from None
        if "\0" in text:
            raise malformed("a string holds U+0000")
        return text

    def name(self) -> str:
        """Read a string that names something: a topic, a client, a user. No control characters (1.5.4 allows that)."""
        text = self.text()
        if not text.isprintable() and _CONTROL.search(text):
            raise malformed("a name holds a control character")
        return text

    def pair(self) -> tuple[str, str]:
        """Read a string pair."""
        return self.text(), self.text()


class Property(NamedTuple):
    """One property: its field name, how it is read, where it may stand, which values are wrong."""

    name: str
    read: Callable[[Cursor], Any]
    packets: tuple[int, ...]
    is_wrong: Callable[[Any], bool] = lambda _value: False


def _is_no_flag(value: int) -> bool:
    return value > 1


def _is_no_topic(value: str) -> bool:
    return not value or "+" in value or "#" in value


def _is_zero(value: int) -> bool:
    return value == 0


PROPERTIES: Final[dict[int, Property]] = {
    0x01: Property("payload_format_indicator", Cursor.u8, (PUBLISH, WILL), _is_no_flag),
    0x02: Property("message_expiry_interval", Cursor.u32, (PUBLISH, WILL)),
    0x03: Property("content_type", Cursor.text, (PUBLISH, WILL)),
    0x08: Property("response_topic", Cursor.name, (PUBLISH, WILL), _is_no_topic),
    0x09: Property("correlation_data", Cursor.binary, (PUBLISH, WILL)),
    0x0B: Property("subscription_id", Cursor.varint, (PUBLISH, SUBSCRIBE), _is_zero),
    0x11: Property("session_expiry_interval", Cursor.u32, (CONNECT, CONNACK, DISCONNECT)),
    0x12: Property("assigned_client_id", Cursor.text, (CONNACK,)),
    0x13: Property("server_keep_alive", Cursor.u16, (CONNACK,)),
    0x15: Property("authentication_method", Cursor.text, (CONNECT, CONNACK, AUTH)),
    0x16: Property("authentication_data", Cursor.binary, (CONNECT, CONNACK, AUTH)),
    0x17: Property("request_problem_information", Cursor.u8, (CONNECT,), _is_no_flag),
    0x18: Property("delay_interval", Cursor.u32, (WILL,)),
    0x19: Property("request_response_information", Cursor.u8, (CONNECT,), _is_no_flag),
    0x1A: Property("response_information", Cursor.text, (CONNACK,)),
    0x1C: Property("server_reference", Cursor.text, (CONNACK, DISCONNECT)),
    0x1F: Property("reason_string", Cursor.text, (CONNACK, *ANSWERS, DISCONNECT, AUTH)),
    0x21: Property("receive_maximum", Cursor.u16, (CONNECT, CONNACK), _is_zero),
    0x22: Property("topic_alias_maximum", Cursor.u16, (CONNECT, CONNACK)),
    0x23: Property("topic_alias", Cursor.u16, (PUBLISH,)),
    0x24: Property("maximum_qos", Cursor.u8, (CONNACK,), _is_no_flag),
    0x25: Property("retain_available", Cursor.u8, (CONNACK,), _is_no_flag),
    0x26: Property(
        "user_properties", Cursor.pair,
        (CONNECT, CONNACK, PUBLISH, *ANSWERS, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT, AUTH, WILL),
    ),
    0x27: Property("maximum_packet_size", Cursor.u32, (CONNECT, CONNACK), _is_zero),
    0x28: Property("wildcard_subscription_available", Cursor.u8, (CONNACK,), _is_no_flag),
    0x29: Property("subscription_ids_available", Cursor.u8, (CONNACK,), _is_no_flag),
    0x2A: Property("shared_subscription_available", Cursor.u8, (CONNACK,), _is_no_flag),
}  # fmt: skip

FLAGS: Final = frozenset(
    {
        "request_problem_information", "request_response_information", "retain_available",
        "wildcard_subscription_available", "subscription_ids_available", "shared_subscription_available",
    }
)  # fmt: skip
"""Bytes that mean yes or no."""


def read_properties(cursor: Cursor, packet: int) -> dict[str, Any]:
    """Read the properties of a packet into its field names; repeated ones (user, subscription id) as tuples."""
    size = cursor.varint()
    stop = cursor.at + size
    if stop > cursor.end:
        raise malformed("the properties are longer than the packet")
    inner = Cursor(cursor.data, cursor.at, stop)
    found: dict[str, Any] = {}
    while inner.at < stop:
        known = PROPERTIES.get(inner.varint())
        if known is None:
            raise malformed("unknown property")
        value = known.read(inner)
        if packet not in known.packets:
            refuse = malformed if packet in (SUBSCRIBE, UNSUBSCRIBE) else protocol_error
            raise refuse(f"{known.name} may not stand in this packet")
        if known.is_wrong(value):
            raise protocol_error(f"{known.name} may not be {value!r}")
        _keep(found, known.name, value, packet)
    cursor.at = stop
    return found


def _keep(found: dict[str, Any], name: str, value: Any, packet: int) -> None:
    if name == "user_properties":
        found[name] = (*found.get(name, ()), value)
    elif name == "subscription_id" and packet == PUBLISH:
        found["subscription_ids"] = (*found.get("subscription_ids", ()), value)
    elif name in found:
        raise protocol_error(f"{name} stands twice")
    else:
        found[name] = bool(value) if name in FLAGS else value
