"""What a server hands to its subscribers: a message, shared by all of them, and its delivery to one.

Times are ns UTC, because expiry goes on counting while the server is down (MQTT 5, 3.3.2.3.3).
"""

from typing import Final

import msgspec

from godwit.mqtt.codec import publish_frame, publish_properties
from godwit.mqtt.packets import NO_PROPERTIES, Publish, PublishProperties

_NS: Final = 1_000_000_000


class Message:
    """A published message on its way to any number of subscribers. Never changed once made, but for its caches."""

    __slots__ = ("_wire", "expires", "payload", "properties", "qos", "retain", "row", "topic")

    def __init__(self, publish: Publish, received: int) -> None:
        self.topic = publish.topic
        self.payload = publish.payload
        self.qos = publish.qos
        self.retain = publish.retain
        properties = publish.properties
        self.properties: PublishProperties = properties
        self.expires = 0
        """When it is not to be delivered any more; 0: never."""
        if properties is not NO_PROPERTIES and properties.message_expiry_interval is not None:
            self.expires = received + properties.message_expiry_interval * _NS
        self.row = 0
        """Number in the journal; 0: it is not there."""
        self._wire: dict[tuple[int, bool], bytes] | None = None

    def properties_now(self, subscription_ids: tuple[int, ...], now: int) -> PublishProperties:
        """Return the properties to send: with what is left of the expiry and the subscriber's ids."""
        if not subscription_ids and not self.expires:
            return self.properties
        left = self.properties.message_expiry_interval
        if self.expires:
            left = max(0, -((now - self.expires) // _NS))  # rounded up: a second begun is a second left
        return msgspec.structs.replace(self.properties, message_expiry_interval=left, subscription_ids=subscription_ids)

    def frame(self, version: int, first: int, packet_id: int) -> bytes:
        """Return the packet as it is for a subscriber without ids and aliases, if the message does not expire."""
        return publish_frame(first, self.topic, packet_id, publish_properties(self.properties, version), self.payload)

    def wire(self, version: int, *, retain: bool) -> bytes:
        """Return the packet at QoS 0; encoded once for all subscribers that get it in this form."""
        cached = self._wire
        if cached is None:
            cached = self._wire = {}
        key = (version, retain)
        data = cached.get(key)
        if data is None:
            data = cached[key] = self.frame(version, 0x30 | retain, 0)
        return data


class Delivery:
    """A message on its way to one subscriber, until that one has taken it; at QoS 0 until it is sent."""

    __slots__ = ("is_released", "is_resent", "message", "packet_id", "position", "qos", "retain", "subscription_ids")

    def __init__(
        self, message: Message, qos: int, *, retain: bool = False, subscription_ids: tuple[int, ...] = ()
    ) -> None:
        self.message = message
        self.qos = qos
        self.retain = retain
        self.subscription_ids = subscription_ids
        self.packet_id = 0
        """0 until it is first sent or written to the journal."""
        self.position = 0
        """Place in the journal's queues; 0: only in memory."""
        self.is_released = False
        """QoS 2: the subscriber has it (PUBREC came), PUBREL was sent."""
        self.is_resent = False
        """It may have been sent before: DUP is set (3.3.1.1)."""

    def packet(self, now: int, topic: str, topic_alias: int | None = None) -> Publish:
        """Return the PUBLISH to send; `topic` is empty where the client knows it by its alias."""
        message = self.message
        return Publish(
            topic,
            message.payload,
            self.qos,
            self.retain,
            self.is_resent,
            self.packet_id,
            message.properties_now(self.subscription_ids, now),
            topic_alias,
        )
