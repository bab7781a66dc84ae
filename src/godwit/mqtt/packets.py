"""Our own packet types, for both versions. The codecs read and write them; nothing else knows the library behind.

Reason codes are plain ints (MQTT 5, 2.4); `mqtt/reasons.py` names them. Properties that a packet does not carry are
None (or an empty tuple). In 3.1.1 packets all properties are at their defaults.
"""

from typing import TypeAlias

import msgspec

UserProperties: TypeAlias = tuple[tuple[str, str], ...]


class PublishProperties(msgspec.Struct, frozen=True, gc=False):
    """Properties of PUBLISH and of a will (MQTT 5, 3.3.2.3), but for the topic alias, which the session resolves."""

    payload_format_indicator: int | None = None
    """0: bytes, 1: UTF-8 text; passed on as it came (3.3.2-4), said or unsaid."""
    message_expiry_interval: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_ids: tuple[int, ...] = ()
    user_properties: UserProperties = ()


NO_PROPERTIES = PublishProperties()


class Will(msgspec.Struct, frozen=True):
    """The message a server publishes when a client vanishes (3.1.2.5)."""

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    delay_interval: int = 0
    properties: PublishProperties = NO_PROPERTIES


class Connect(msgspec.Struct):
    """CONNECT. `version` is 4 (MQTT 3.1.1) or 5; `clean_start` is 3.1.1's clean session."""

    client_id: str
    version: int = 5
    clean_start: bool = True
    keep_alive: int = 60
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    session_expiry_interval: int = 0
    receive_maximum: int = 65535
    maximum_packet_size: int | None = None
    topic_alias_maximum: int = 0
    request_response_information: bool = False
    request_problem_information: bool = True
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    user_properties: UserProperties = ()


class ConnAck(msgspec.Struct):
    """CONNACK. For 3.1.1, `reason_code` is already the version's own return code (0 to 5)."""

    session_present: bool = False
    reason_code: int = 0
    session_expiry_interval: int | None = None
    receive_maximum: int | None = None
    maximum_qos: int | None = None
    retain_available: bool = True
    maximum_packet_size: int | None = None
    assigned_client_id: str | None = None
    topic_alias_maximum: int = 0
    reason_string: str | None = None
    wildcard_subscription_available: bool = True
    subscription_ids_available: bool = True
    shared_subscription_available: bool = True
    server_keep_alive: int | None = None
    response_information: str | None = None
    server_reference: str | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    user_properties: UserProperties = ()


class Publish(msgspec.Struct, gc=False):
    """PUBLISH. `packet_id` is 0 at QoS 0. `topic` may be empty only where `topic_alias` says it (MQTT 5)."""

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: PublishProperties = NO_PROPERTIES
    topic_alias: int | None = None
    document: object | None = None
    """What somebody made of the payload already: never on the wire, and not for sessions to look at."""


class PubAck(msgspec.Struct):
    """PUBACK, the answer at QoS 1."""

    packet_id: int
    reason_code: int = 0
    reason_string: str | None = None
    user_properties: UserProperties = ()


class PubRec(msgspec.Struct):
    """PUBREC, first answer at QoS 2."""

    packet_id: int
    reason_code: int = 0
    reason_string: str | None = None
    user_properties: UserProperties = ()


class PubRel(msgspec.Struct):
    """PUBREL, second step at QoS 2."""

    packet_id: int
    reason_code: int = 0
    reason_string: str | None = None
    user_properties: UserProperties = ()


class PubComp(msgspec.Struct):
    """PUBCOMP, last step at QoS 2."""

    packet_id: int
    reason_code: int = 0
    reason_string: str | None = None
    user_properties: UserProperties = ()


class Subscription(msgspec.Struct, frozen=True):
    """One topic filter of a SUBSCRIBE with its options (MQTT 5, 3.8.3.1)."""

    topic_filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


class Subscribe(msgspec.Struct):
    """SUBSCRIBE."""

    packet_id: int
    subscriptions: tuple[Subscription, ...]
    subscription_id: int | None = None
    user_properties: UserProperties = ()


class SubAck(msgspec.Struct):
    """SUBACK: one reason code a filter."""

    packet_id: int
    reason_codes: tuple[int, ...]
    reason_string: str | None = None
    user_properties: UserProperties = ()


class Unsubscribe(msgspec.Struct):
    """UNSUBSCRIBE."""

    packet_id: int
    topic_filters: tuple[str, ...]
    user_properties: UserProperties = ()


class UnsubAck(msgspec.Struct):
    """UNSUBACK. 3.1.1 carries no reason codes."""

    packet_id: int
    reason_codes: tuple[int, ...] = ()
    reason_string: str | None = None
    user_properties: UserProperties = ()


class PingReq(msgspec.Struct):
    """PINGREQ."""


class PingResp(msgspec.Struct):
    """PINGRESP."""


class Disconnect(msgspec.Struct):
    """DISCONNECT. 3.1.1 knows it from the client only, without a reason."""

    reason_code: int = 0
    session_expiry_interval: int | None = None
    reason_string: str | None = None
    server_reference: str | None = None
    user_properties: UserProperties = ()


class Auth(msgspec.Struct):
    """AUTH (MQTT 5, 3.15)."""

    reason_code: int = 0
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    reason_string: str | None = None
    user_properties: UserProperties = ()


Packet: TypeAlias = (
    Connect
    | ConnAck
    | Publish
    | PubAck
    | PubRec
    | PubRel
    | PubComp
    | Subscribe
    | SubAck
    | Unsubscribe
    | UnsubAck
    | PingReq
    | PingResp
    | Disconnect
    | Auth
)
