"""The packets that make up nearly all traffic, read without ceremony: plain PUBLISH and PUBACK.

What is not as usual (an unknown topic or property, a flaw, a long packet, any other type) is left where it stands, for
`reading`, which says what is wrong with it or makes it known. One function and one loop over offsets of one bytes
object: a call per packet and station would cost more than the reading.
"""

from godwit.mqtt.packets import NO_PROPERTIES, Packet, PubAck, Publish
from godwit.mqtt.reading import known_properties, known_topics


def read_hot(  # noqa: C901, PLR0911, PLR0912 - one loop, see above
    data: bytes, at: int, found: list[Packet], version: int, packet_bytes_max: int
) -> int:
    """Append the usual packets from `at` on to `found`; return where the first other one begins."""
    size = len(data)
    topics = known_topics
    while at + 4 <= size:
        first = data[at]
        remaining = data[at + 1]
        body = at + 2
        if remaining > 127:
            high = data[body]
            if not 0 < high < 128:
                return at
            remaining = remaining & 127 | high << 7
            body += 1
        end = body + remaining
        if end > size or end - at > packet_bytes_max:
            return at
        if first & 0xF0 == 0x30:
            name_at = body + 2
            payload_at = name_at + (data[body] << 8 | data[body + 1]) if remaining >= 2 else end
            if payload_at + 3 > end:
                return at
            topic = topics.get(data[name_at:payload_at])
            qos = first >> 1 & 3
            if topic is None:
                return at
            if qos == 0:
                packet_id = 0
                if first & 8:
                    return at
            else:
                packet_id = data[payload_at] << 8 | data[payload_at + 1]
                payload_at += 2
                if qos == 3 or not packet_id:
                    return at
            properties, alias = NO_PROPERTIES, None
            if version == 5:
                length = data[payload_at]
                payload_at += 1
                if length:
                    known = known_properties.get(data[payload_at : payload_at + length])
                    payload_at += length
                    if known is None or length > 127 or payload_at > end:
                        return at
                    properties, alias = known
            if not topic and alias is None:
                return at
            found.append(
                Publish(topic, data[payload_at:end], qos, first & 1 == 1, first & 8 == 8, packet_id, properties, alias)
            )
        elif first == 0x40 and remaining == 2:
            packet_id = data[body] << 8 | data[body + 1]
            if not packet_id:
                return at
            found.append(PubAck(packet_id))
        else:
            return at
        at = end
    return at
