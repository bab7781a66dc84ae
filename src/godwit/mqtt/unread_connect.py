"""The answer to a CONNECT that cannot be read, in words that its sender may know."""

from godwit.mqtt import packets as p
from godwit.mqtt import reasons
from godwit.mqtt.codec import encode


def answer_to(data: bytes, reason_code: int) -> bytes:
    """Return the CONNACK for what came instead of a readable CONNECT; empty: there is nothing to say."""
    name, level = _protocol(data)
    if name not in (b"MQTT", b"MQIsdp"):
        return b""  # 3.1.2-1: not our protocol, nothing to say in it
    if reason_code == reasons.UNSUPPORTED_PROTOCOL_VERSION and level in (3, 4):
        return encode(p.ConnAck(reason_code=1), 4)  # 3.1.1, 3.1.2-2
    return encode(p.ConnAck(reason_code=reason_code), 5) if level != 4 else b""


def _protocol(data: bytes) -> tuple[bytes, int]:
    """Return name and level of the protocol that a CONNECT asks for."""
    at = 1
    while at <= 4 and at < len(data) and data[at] & 0x80:
        at += 1
    name_at = at + 3
    level_at = name_at + int.from_bytes(data[at + 1 : name_at], "big")
    if data[:1] != b"\x10" or at > 4 or level_at >= len(data):
        return b"", 0
    return data[name_at:level_at], data[level_at]
