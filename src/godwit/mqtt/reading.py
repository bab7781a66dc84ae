"""Reads the body of each packet, both versions, into our types. Says why when it cannot (see `properties`).

By hand and not through the `mqtt5` library, which does not tell malformed from forbidden, panics over text that is not
UTF-8, and for the plain PUBLISH is no faster than `hot`.
"""

from collections.abc import Callable
from typing import Any, Final, Literal

from godwit.mqtt import reasons
from godwit.mqtt.packets import (
    NO_PROPERTIES,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PublishProperties,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
    Will,
)
from godwit.mqtt.properties import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    WILL,
    Cursor,
    malformed,
    protocol_error,
    read_properties,
)
from godwit.mqtt.reasons import ProtocolViolation
from godwit.mqtt.topics import LEVELS_MAX, is_topic_filter

Role = Literal["server", "client"]

TOPICS_MAX: Final = 65_536
TOPIC_BYTES_MAX: Final = 128
PROPERTIES_MAX: Final = 4_096
PROPERTY_BYTES_MAX: Final = 96
known_topics: Final[dict[bytes, str]] = {b"": ""}
"""Topics that were read and found good lately: the same few come again and again. Bounded, emptied when full."""
known_properties: Final[dict[bytes, tuple[PublishProperties, int | None]]] = {}
"""The same for the properties of PUBLISH, with the topic alias."""

_FLAGS: Final = {PUBREL: 2, SUBSCRIBE: 2, UNSUBSCRIBE: 2}
"""Fixed header flags that are reserved and not zero (2.1.3)."""
_FLAGS_ARE_FORBIDDEN: Final = frozenset({PUBREL, DISCONNECT, AUTH})
"""Where wrong flags are a protocol error instead of malformed."""
_ONLY_SERVERS_SEND: Final = frozenset({CONNACK, SUBACK, UNSUBACK, PINGRESP})
_ONLY_CLIENTS_SEND: Final = frozenset({CONNECT, SUBSCRIBE, UNSUBSCRIBE, PINGREQ})
_ANSWER_TYPES: Final[dict[int, Callable[..., Packet]]] = {
    PUBACK: PubAck,
    PUBREC: PubRec,
    PUBREL: PubRel,
    PUBCOMP: PubComp,
}
_PUBLISH_REASONS: Final = frozenset({0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99})
_RELEASE_REASONS: Final = frozenset({0x00, 0x92})
_ANSWER_REASONS: Final = {
    PUBACK: _PUBLISH_REASONS, PUBREC: _PUBLISH_REASONS, PUBREL: _RELEASE_REASONS, PUBCOMP: _RELEASE_REASONS,
}  # fmt: skip
_CLIENT_DISCONNECT_REASONS: Final = frozenset(
    {0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99}
)


def read_packet(first: int, cursor: Cursor, version: int | None, role: Role) -> Packet:
    """Read the packet whose fixed header began with the byte `first`. Raises ProtocolViolation."""
    kind = first >> 4
    if kind == 0:
        raise protocol_error("packet type 0 is forbidden")
    if version is not None and kind not in (PUBLISH, CONNACK) and first & 0x0F != _FLAGS.get(kind, 0):
        raise (protocol_error if kind in _FLAGS_ARE_FORBIDDEN else malformed)("reserved flags are set")
    wrong_way = _ONLY_SERVERS_SEND if role == "server" else _ONLY_CLIENTS_SEND
    if kind in wrong_way:
        raise protocol_error("this packet goes the other way")
    if version is None and kind != (CONNECT if role == "server" else CONNACK):
        raise protocol_error("the first packet has to be CONNECT")
    if version == 4 and kind == AUTH:
        raise protocol_error("MQTT 3.1.1 has no AUTH")
    if kind == PUBLISH:
        return read_publish(first, cursor, version or 5, role)
    if first & 0x0F != _FLAGS.get(kind, 0):
        raise malformed("reserved flags are set")
    packet = _READERS[kind](cursor, version or 5, kind)
    if cursor.at != cursor.end:
        raise malformed("the packet is longer than its contents")
    return packet


def read_publish(first: int, cursor: Cursor, version: int, role: Role) -> Publish:
    """Read a PUBLISH (3.3), the slow and complete way."""
    qos = first >> 1 & 3
    if qos == 3:
        raise malformed("QoS 3 does not exist")
    if first & 8 and qos == 0:
        raise malformed("DUP at QoS 0")
    topic_at = cursor.at + 2
    topic = cursor.name()
    if "+" in topic or "#" in topic:
        raise malformed("a topic name holds a wildcard")
    if cursor.at - topic_at <= TOPIC_BYTES_MAX:
        if len(known_topics) >= TOPICS_MAX:
            known_topics.clear()
            known_topics[b""] = ""
        known_topics[cursor.data[topic_at : cursor.at]] = topic
    packet_id = 0
    if qos:
        packet_id = cursor.u16()
        if packet_id == 0:
            raise protocol_error("packet id 0")
    properties, alias = NO_PROPERTIES, None
    if version == 5:
        properties, alias = _read_publish_properties(cursor, role)
    if not topic and alias is None:
        raise malformed("no topic")
    payload = cursor.data[cursor.at : cursor.end]
    return Publish(topic, payload, qos, bool(first & 1), bool(first & 8), packet_id, properties, alias)


def _read_publish_properties(cursor: Cursor, role: Role) -> tuple[PublishProperties, int | None]:
    properties_at = cursor.at + 1
    found = read_properties(cursor, PUBLISH)
    alias: int | None = found.pop("topic_alias", None)
    if alias == 0:
        raise ProtocolViolation(reasons.TOPIC_ALIAS_INVALID, "topic alias 0")
    if "subscription_ids" in found:
        if role == "server":
            raise protocol_error("a client sends no subscription identifier")
        return PublishProperties(**found), alias
    properties = PublishProperties(**found) if found else NO_PROPERTIES
    if 0 < cursor.at - properties_at <= PROPERTY_BYTES_MAX:
        if len(known_properties) >= PROPERTIES_MAX:
            known_properties.clear()
        known_properties[cursor.data[properties_at : cursor.at]] = properties, alias
    return properties, alias


def _read_connect(cursor: Cursor, _version: int, _kind: int) -> Connect:
    name, level = _read_protocol(cursor)
    version = level
    if name != b"MQTT" or version not in (4, 5):
        raise ProtocolViolation(reasons.UNSUPPORTED_PROTOCOL_VERSION, "only MQTT 3.1.1 and 5 are spoken here")
    flags = cursor.u8()
    if flags & 1:
        raise malformed("the reserved connect flag is set")
    will_qos, has_will = flags >> 3 & 3, bool(flags & 4)
    if will_qos == 3 or (not has_will and flags & 0x38):
        raise malformed("the will flags contradict each other")
    if version == 4 and flags & 0x40 and not flags & 0x80:
        raise malformed("a password without a user name")
    keep_alive = cursor.u16()
    found = read_properties(cursor, CONNECT) if version == 5 else {}
    if "authentication_data" in found and "authentication_method" not in found:
        raise protocol_error("authentication data without a method")
    client_id = _read_client_id(cursor)
    will = _read_will(cursor, version, will_qos, bool(flags & 0x20)) if has_will else None
    return Connect(
        client_id,
        version,
        bool(flags & 2),
        keep_alive,
        username=cursor.name() if flags & 0x80 else None,
        password=cursor.binary() if flags & 0x40 else None,
        will=will,
        **found,
    )


def _read_protocol(cursor: Cursor) -> tuple[bytes, int]:
    name = cursor.binary()
    if name not in (b"MQTT", b"MQIsdp"):
        raise ProtocolViolation(reasons.UNSUPPORTED_PROTOCOL_VERSION, "this is not MQTT")
    return name, cursor.u8()


def _read_client_id(cursor: Cursor) -> str:
    size_at = cursor.at
    try:
        return cursor.name()
    except ProtocolViolation as violation:
        if cursor.at == size_at + 2:  # it is not there
            raise
        raise ProtocolViolation(reasons.CLIENT_IDENTIFIER_NOT_VALID, violation.text) from None


def _read_will(cursor: Cursor, version: int, qos: int, retain: bool) -> Will:  # noqa: FBT001 - a wire flag
    found = read_properties(cursor, WILL) if version == 5 else {}
    delay = found.pop("delay_interval", 0)
    topic = cursor.name()
    if not topic or "+" in topic or "#" in topic:
        raise malformed("the will's topic is no topic name")
    payload = cursor.binary()
    return Will(topic, payload, qos, retain, delay, PublishProperties(**found) if found else NO_PROPERTIES)


def _read_connack(cursor: Cursor, version: int, _kind: int) -> ConnAck:
    flags, code = cursor.u8(), cursor.u8()
    if flags > 1:
        raise malformed("reserved flags are set")
    found = read_properties(cursor, CONNACK) if version == 5 else {}
    return ConnAck(bool(flags), code, **found)


def _read_packet_id(cursor: Cursor, refuse: Callable[[str], ProtocolViolation] = protocol_error) -> int:
    packet_id = cursor.u16()
    if packet_id == 0:
        raise refuse("packet id 0")
    return packet_id


def _read_answer(cursor: Cursor, version: int, kind: int) -> Packet:
    packet_id = _read_packet_id(cursor)
    reason, found = 0, {}
    if version == 5 and cursor.at < cursor.end:
        reason = cursor.u8()
        if cursor.at < cursor.end:
            found = read_properties(cursor, kind)
        if reason not in _ANSWER_REASONS[kind]:
            raise protocol_error(f"reason 0x{reason:02X} may not stand in this packet")
    return _ANSWER_TYPES[kind](packet_id, reason, **found)


def _read_subscribe(cursor: Cursor, version: int, _kind: int) -> Subscribe:
    packet_id = _read_packet_id(cursor, malformed if version == 5 else protocol_error)
    found = read_properties(cursor, SUBSCRIBE) if version == 5 else {}
    subscriptions = []
    while cursor.at < cursor.end:
        text = cursor.name()
        options = cursor.u8()
        if not is_topic_filter(text):
            raise malformed("this is no topic filter")
        if text.count("/") >= LEVELS_MAX:
            raise ProtocolViolation(reasons.TOPIC_FILTER_INVALID, f"a topic filter of more than {LEVELS_MAX} levels")
        subscriptions.append(_read_options(text, options, version))
    if not subscriptions:
        raise malformed("no topic filter") if version == 5 else protocol_error("no topic filter")
    return Subscribe(packet_id, tuple(subscriptions), **found)


def _read_options(text: str, options: int, version: int) -> Subscription:
    reserved = 0xC0 if version == 5 else 0xFC
    if options & reserved or options & 3 == 3 or options >> 4 & 3 == 3:
        raise malformed("wrong subscription options")
    is_no_local = bool(options & 4)
    if is_no_local and text.startswith("$share/"):
        raise protocol_error("no-local on a shared subscription")
    return Subscription(text, options & 3, is_no_local, bool(options & 8), options >> 4 & 3)


def _read_suback(cursor: Cursor, version: int, kind: int) -> SubAck | UnsubAck:
    packet_id = _read_packet_id(cursor)
    found: dict[str, Any] = read_properties(cursor, kind) if version == 5 else {}
    codes = tuple(cursor.data[cursor.at : cursor.end])
    cursor.at = cursor.end
    return SubAck(packet_id, codes, **found) if kind == SUBACK else UnsubAck(packet_id, codes, **found)


def _read_unsubscribe(cursor: Cursor, version: int, _kind: int) -> Unsubscribe:
    packet_id = _read_packet_id(cursor, malformed if version == 5 else protocol_error)
    found = read_properties(cursor, UNSUBSCRIBE) if version == 5 else {}
    filters = []
    while cursor.at < cursor.end:
        text = cursor.name()
        if not is_topic_filter(text):
            raise malformed("this is no topic filter")
        filters.append(text)
    if not filters:
        raise malformed("no topic filter") if version == 5 else protocol_error("no topic filter")
    return Unsubscribe(packet_id, tuple(filters), **found)


def _read_ping(_cursor: Cursor, _version: int, kind: int) -> PingReq | PingResp:
    return PingReq() if kind == PINGREQ else PingResp()


def _read_disconnect(cursor: Cursor, version: int, _kind: int) -> Disconnect:
    if version == 4 or cursor.at == cursor.end:
        return Disconnect()
    reason = cursor.u8()
    found = read_properties(cursor, DISCONNECT) if cursor.at < cursor.end else {}
    return Disconnect(reason, **found)


def _read_auth(cursor: Cursor, _version: int, _kind: int) -> Auth:
    if cursor.at == cursor.end:
        return Auth()
    reason = cursor.u8()
    if reason not in (0x00, 0x18, 0x19):
        raise protocol_error(f"reason 0x{reason:02X} may not stand in AUTH")
    found = read_properties(cursor, AUTH) if cursor.at < cursor.end else {}
    return Auth(reason, **found)


_READERS: Final[dict[int, Callable[[Cursor, int, int], Packet]]] = {
    CONNECT: _read_connect, CONNACK: _read_connack, PUBACK: _read_answer, PUBREC: _read_answer, PUBREL: _read_answer,
    PUBCOMP: _read_answer, SUBSCRIBE: _read_subscribe, SUBACK: _read_suback, UNSUBSCRIBE: _read_unsubscribe,
    UNSUBACK: _read_suback, PINGREQ: _read_ping, PINGRESP: _read_ping, DISCONNECT: _read_disconnect, AUTH: _read_auth,
}  # fmt: skip
