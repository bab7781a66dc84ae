"""Writes our packet types: MQTT 5 through the `mqtt5` library, 3.1.1 by hand, PUBLISH and CONNACK by hand in both."""

from collections.abc import Callable
from struct import Struct
from typing import Any, Final

import mqtt5

from godwit.mqtt import packets as p

_REMAINING_MAX: Final = 268_435_455
_head_short = Struct(">BBH").pack
_head_usual = Struct(">BBBH").pack


def write_varint(value: int) -> bytes:
    """Return a variable byte integer (MQTT 5, 1.5.5)."""
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value >= 128:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def _binary(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _frame(first: int, body: bytes) -> bytes:
    return bytes((first,)) + write_varint(len(body)) + body


def puback_success(packet_id: int) -> bytes:
    """Return PUBACK without a reason, the same in both versions."""
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def write_publish(packet: p.Publish, version: int) -> bytes:
    """Return a PUBLISH. Raises ValueError where it is larger than MQTT can say."""
    first = 0x30 | packet.dup << 3 | packet.qos << 1 | packet.retain
    properties = publish_properties(packet.properties, version, packet.topic_alias)
    return publish_frame(first, packet.topic, packet.packet_id, properties, packet.payload)


def publish_frame(first: int, topic: str, packet_id: int, properties: bytes, payload: bytes) -> bytes:
    """Return a PUBLISH of its parts; the packet id is left out where `first` says QoS 0.

    Raises ValueError where it is larger than MQTT can say.
    """
    name = topic.encode()
    size = 2 + len(name) + len(properties) + len(payload)
    if first & 6:
        size += 2
        properties = packet_id.to_bytes(2, "big") + properties
    if size < 128:
        head = _head_short(first, size, len(name))
    elif size < 16_384:
        head = _head_usual(first, size & 127 | 128, size >> 7, len(name))
    elif size > _REMAINING_MAX:
        raise ValueError("the message is larger than an MQTT packet can be")
    else:
        head = bytes((first,)) + write_varint(size) + len(name).to_bytes(2, "big")
    return b"".join((head, name, properties, payload))


def publish_properties(said: p.PublishProperties, version: int, alias: int | None = None) -> bytes:
    """Return the properties of a PUBLISH as they are sent, with their length; 3.1.1 has none."""
    if version != 5:
        return b""
    if said is p.NO_PROPERTIES and alias is None:
        return b"\0"
    return _publish_properties(said, alias)


def _publish_properties(said: p.PublishProperties, alias: int | None) -> bytes:
    """Write the properties of PUBLISH by hand: the library cannot say a payload format indicator of 0 (3.3.2-4)."""
    out = bytearray()
    if said.payload_format_indicator is not None:
        out += bytes((0x01, said.payload_format_indicator))
    if said.message_expiry_interval is not None:
        out += b"\x02" + said.message_expiry_interval.to_bytes(4, "big")
    if said.content_type is not None:
        out += b"\x03" + _text(said.content_type)
    if said.response_topic is not None:
        out += b"\x08" + _text(said.response_topic)
    if said.correlation_data is not None:
        out += b"\x09" + _binary(said.correlation_data)
    for number in said.subscription_ids:
        out += b"\x0b" + write_varint(number)
    if alias is not None:
        out += b"\x23" + alias.to_bytes(2, "big")
    for key, value in said.user_properties:
        out += b"\x26" + _text(key) + _text(value)
    return write_varint(len(out)) + bytes(out)


def _connect_5(packet: p.Connect) -> bytes:
    return mqtt5.ConnectPacket(
        packet.client_id,
        username=packet.username,
        password=packet.password,
        clean_start=packet.clean_start,
        will=_will_5(packet.will) if packet.will else None,
        keep_alive=packet.keep_alive,
        session_expiry_interval=packet.session_expiry_interval,
        authentication_method=packet.authentication_method,
        authentication_data=packet.authentication_data,
        request_problem_info=packet.request_problem_information,
        request_response_info=packet.request_response_information,
        receive_max=packet.receive_maximum,
        topic_alias_max=packet.topic_alias_maximum,
        max_packet_size=packet.maximum_packet_size,
        user_properties=list(packet.user_properties),
    ).write()


def _will_5(will: p.Will) -> mqtt5.Will:
    said = will.properties
    return mqtt5.Will(
        will.topic,
        payload=will.payload,
        qos=mqtt5.QoS(will.qos),
        retain=will.retain,
        payload_format_indicator=said.payload_format_indicator or 0,
        message_expiry_interval=said.message_expiry_interval,
        content_type=said.content_type,
        response_topic=said.response_topic,
        correlation_data=said.correlation_data,
        will_delay_interval=will.delay_interval,
        user_properties=list(said.user_properties),
    )


def _connack_5(packet: p.ConnAck) -> bytes:
    """Write CONNACK by hand, in Mosquitto's order of properties."""
    out = bytearray()
    for number, value, size in (
        (0x11, packet.session_expiry_interval, 4),
        (0x22, packet.topic_alias_maximum or None, 2),
        (0x27, packet.maximum_packet_size, 4),
        (0x21, packet.receive_maximum, 2),
        (0x24, packet.maximum_qos, 1),
        (0x25, None if packet.retain_available else 0, 1),
        (0x13, packet.server_keep_alive, 2),
        (0x28, None if packet.wildcard_subscription_available else 0, 1),
        (0x29, None if packet.subscription_ids_available else 0, 1),
        (0x2A, None if packet.shared_subscription_available else 0, 1),
    ):
        if value is not None:
            out += bytes((number,)) + value.to_bytes(size, "big")
    for number, text in (
        (0x12, packet.assigned_client_id),
        (0x1F, packet.reason_string),
        (0x1A, packet.response_information),
        (0x1C, packet.server_reference),
        (0x15, packet.authentication_method),
    ):
        if text is not None:
            out += bytes((number,)) + _text(text)
    if packet.authentication_data is not None:
        out += b"\x16" + _binary(packet.authentication_data)
    for key, said in packet.user_properties:
        out += b"\x26" + _text(key) + _text(said)
    head = bytes((packet.session_present, packet.reason_code))
    return _frame(0x20, head + write_varint(len(out)) + bytes(out))


def _answer_5(kind: Callable[..., Any], reasons: Callable[[int], Any]) -> Callable[[Any], bytes]:
    def write(packet: p.PubAck | p.PubRec | p.PubRel | p.PubComp) -> bytes:
        data: bytes = kind(
            packet.packet_id,
            reason_code=reasons(packet.reason_code),
            reason_str=packet.reason_string,
            user_properties=list(packet.user_properties),
        ).write()
        return data

    return write


def _subscribe_5(packet: p.Subscribe) -> bytes:
    filters = [
        mqtt5.TopicFilter(
            each.topic_filter,
            max_qos=mqtt5.QoS(each.qos),
            no_local=each.no_local,
            retain_as_published=each.retain_as_published,
            retain_handling=mqtt5.RetainHandling(each.retain_handling),
        )
        for each in packet.subscriptions
    ]
    return mqtt5.SubscribePacket(
        packet.packet_id, filters, subscription_id=packet.subscription_id, user_properties=list(packet.user_properties)
    ).write()


def _suback_5(packet: p.SubAck) -> bytes:
    return mqtt5.SubAckPacket(
        packet.packet_id,
        [mqtt5.SubAckReasonCode(code) for code in packet.reason_codes],
        reason_str=packet.reason_string,
        user_properties=list(packet.user_properties),
    ).write()


def _unsubscribe_5(packet: p.Unsubscribe) -> bytes:
    return mqtt5.UnsubscribePacket(
        packet.packet_id, list(packet.topic_filters), user_properties=list(packet.user_properties)
    ).write()


def _unsuback_5(packet: p.UnsubAck) -> bytes:
    return mqtt5.UnsubAckPacket(
        packet.packet_id,
        [mqtt5.UnsubAckReasonCode(code) for code in packet.reason_codes],
        reason_str=packet.reason_string,
        user_properties=list(packet.user_properties),
    ).write()


def _disconnect_5(packet: p.Disconnect) -> bytes:
    return mqtt5.DisconnectPacket(
        reason_code=mqtt5.DisconnectReasonCode(packet.reason_code),
        session_expiry_interval=packet.session_expiry_interval,
        server_reference=packet.server_reference,
        reason_str=packet.reason_string,
        user_properties=list(packet.user_properties),
    ).write()


def _auth_5(packet: p.Auth) -> bytes:
    return mqtt5.AuthPacket(
        reason_code=mqtt5.AuthReasonCode(packet.reason_code),
        authentication_method=packet.authentication_method,
        authentication_data=packet.authentication_data,
        reason_str=packet.reason_string,
        user_properties=list(packet.user_properties),
    ).write()


def _connect_4(packet: p.Connect) -> bytes:
    will = packet.will
    flags = (packet.username is not None) << 7 | (packet.password is not None) << 6 | packet.clean_start << 1
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
    body = _text("MQTT") + bytes((4, flags)) + packet.keep_alive.to_bytes(2, "big") + _text(packet.client_id)
    if will is not None:
        body += _text(will.topic) + _binary(will.payload)
    if packet.username is not None:
        body += _text(packet.username)
    if packet.password is not None:
        body += _binary(packet.password)
    return _frame(0x10, body)


def _id_4(first: int) -> Callable[[Any], bytes]:
    return lambda packet: bytes((first, 2)) + packet.packet_id.to_bytes(2, "big")


def _subscribe_4(packet: p.Subscribe) -> bytes:
    filters = b"".join(_text(each.topic_filter) + bytes((each.qos,)) for each in packet.subscriptions)
    return _frame(0x82, packet.packet_id.to_bytes(2, "big") + filters)


def _suback_4(packet: p.SubAck) -> bytes:
    # 3.1.1 knows one failure only (3.9.3).
    codes = bytes(min(128, code) for code in packet.reason_codes)
    return _frame(0x90, packet.packet_id.to_bytes(2, "big") + codes)


def _unsubscribe_4(packet: p.Unsubscribe) -> bytes:
    return _frame(0xA2, packet.packet_id.to_bytes(2, "big") + b"".join(_text(each) for each in packet.topic_filters))


_WRITERS_5: Final[dict[type, Callable[[Any], bytes]]] = {
    p.Connect: _connect_5, p.ConnAck: _connack_5, p.Subscribe: _subscribe_5, p.SubAck: _suback_5,
    p.PubAck: _answer_5(mqtt5.PubAckPacket, mqtt5.PubAckReasonCode),
    p.PubRec: _answer_5(mqtt5.PubRecPacket, mqtt5.PubRecReasonCode),
    p.PubRel: _answer_5(mqtt5.PubRelPacket, mqtt5.PubRelReasonCode),
    p.PubComp: _answer_5(mqtt5.PubCompPacket, mqtt5.PubCompReasonCode),
    p.Unsubscribe: _unsubscribe_5, p.UnsubAck: _unsuback_5, p.Disconnect: _disconnect_5, p.Auth: _auth_5,
    p.PingReq: lambda _packet: b"\xc0\0", p.PingResp: lambda _packet: b"\xd0\0",
}  # fmt: skip
_WRITERS_4: Final[dict[type, Callable[[Any], bytes]]] = {
    p.Connect: _connect_4, p.ConnAck: lambda packet: bytes((0x20, 2, packet.session_present, packet.reason_code)),
    p.Subscribe: _subscribe_4, p.SubAck: _suback_4, p.Unsubscribe: _unsubscribe_4,
    p.PubAck: _id_4(0x40), p.PubRec: _id_4(0x50), p.PubRel: _id_4(0x62), p.PubComp: _id_4(0x70),
    p.UnsubAck: _id_4(0xB0), p.PingReq: lambda _packet: b"\xc0\0", p.PingResp: lambda _packet: b"\xd0\0",
    p.Disconnect: lambda _packet: b"\xe0\0",
}  # fmt: skip


def encode(packet: p.Packet, version: int) -> bytes:
    """Return the bytes of a packet in version 4 (MQTT 3.1.1) or 5."""
    if type(packet) is p.Publish:
        return write_publish(packet, version)
    return (_WRITERS_5 if version == 5 else _WRITERS_4)[type(packet)](packet)
