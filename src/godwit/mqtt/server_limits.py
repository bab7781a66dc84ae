"""What a server bears of one client, and why it parted from it."""

import msgspec

from godwit.mqtt import packets as p


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the server bears of one client. The first three are announced in CONNACK (MQTT 5, 3.2.2.3)."""

    packet_bytes_max: int = 1_048_576 + 65_536
    receive_maximum: int = 512
    topic_alias_maximum: int = 32
    inflight_max: int = 256
    """Messages sent to a client and not acknowledged, unless it asks for less."""
    queued_messages_max: int = 10_000
    queued_bytes_max: int = 16_777_216
    session_expiry_s_max: int = 0xFFFF_FFFF
    keep_alive_s_max: int = 65_535
    """A client that asks for more, or for none, is told this one (Server Keep Alive); 65,535: whatever it asks."""
    user_properties: p.UserProperties = ()
    """Told to every MQTT 5 client in CONNACK."""


class Closed(msgspec.Struct, frozen=True):
    """Why the connection is over."""

    reason_code: int
    text: str
    is_by_client: bool = False
    keeps_will: bool = True
    """False only after a DISCONNECT that discards the will (3.1.2.5)."""
