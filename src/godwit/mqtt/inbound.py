"""Messages on their way in to a client: which wait for the application, which came before, topic aliases.

A message at QoS 1 or 2 is acknowledged when the application has it safe, not when it arrives. One that the server sends
again meanwhile (after a reconnect) is not handed out a second time: the first copy's acknowledgement answers both.
"""

from godwit.mqtt import packets as p
from godwit.mqtt import reasons
from godwit.mqtt.reasons import ProtocolViolation
from godwit.mqtt.topic_aliases import AliasesIn

_REFUSED = 0x80


class Inbound:
    """The receiving half of a client's session."""

    def __init__(self, receive_maximum: int, topic_alias_maximum: int) -> None:
        self._receive_maximum = receive_maximum
        self._topic_alias_maximum = topic_alias_maximum
        self._held: dict[int, p.Publish] = {}
        """Handed out and not acknowledged, by packet id."""
        self._received: set[int] = set()
        """QoS 2: acknowledged by PUBREC, until PUBREL."""
        self._sent: set[int] = set()
        """Packet ids that this connection's server has under way, against the receive maximum."""
        self._aliases = AliasesIn(topic_alias_maximum)

    def part(self) -> None:
        """Note that the connection is gone, its topic aliases with it; the server counts anew."""
        self._aliases = AliasesIn(self._topic_alias_maximum)
        self._sent = set()

    def forget(self) -> None:
        """Drop everything: the server knows nothing of this session."""
        self._held = {}
        self._received = set()

    def receive(self, publish: p.Publish) -> tuple[bool, p.Packet | None]:
        """Take a PUBLISH: whether the application has to see it, and what to answer at once."""
        if publish.topic_alias is not None:
            self._aliases.resolve(publish)
        if publish.qos == 0:
            return True, None
        packet_id = publish.packet_id
        self._sent.add(packet_id)
        if len(self._sent) > self._receive_maximum:
            raise ProtocolViolation(reasons.RECEIVE_MAXIMUM_EXCEEDED, "more messages than the receive maximum")
        if publish.qos == 2 and packet_id in self._received:
            return False, p.PubRec(packet_id)
        held = self._held.get(packet_id)
        if held is not None and held.qos == publish.qos and (publish.dup or publish.qos == 2):
            return False, None
        self._held[packet_id] = publish
        return True, None

    def acknowledge(self, publish: p.Publish, reason_code: int) -> p.Packet | None:
        """Note that the application has a message safe (or refuses it); return what to tell the server, if anything."""
        packet_id = publish.packet_id
        if not publish.qos or self._held.get(packet_id) is not publish:
            return None
        del self._held[packet_id]
        if publish.qos == 1:
            self._sent.discard(packet_id)
            return p.PubAck(packet_id, reason_code)
        if reason_code >= _REFUSED:
            self._sent.discard(packet_id)
        else:
            self._received.add(packet_id)
        return p.PubRec(packet_id, reason_code)

    def release(self, release: p.PubRel) -> p.PubComp:
        """Take a PUBREL: the last step at QoS 2."""
        packet_id = release.packet_id
        self._sent.discard(packet_id)
        if packet_id in self._received:
            self._received.discard(packet_id)
            return p.PubComp(packet_id)
        return p.PubComp(packet_id, reasons.PACKET_IDENTIFIER_NOT_FOUND)
