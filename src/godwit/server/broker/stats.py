"""The broker in numbers."""

import msgspec


class Counters(msgspec.Struct):
    """Since start."""

    sockets: int = 0
    """Connections made, whatever came of them."""
    connects: int = 0
    """Clients accepted."""
    messages_in: int = 0
    messages_out: int = 0
    packets_in: int = 0
    """Of every kind, from connections that are over; those that are open count for themselves (`taken`)."""
    packets_out: int = 0
    """Of every kind."""
    payload_bytes_in: int = 0
    payload_bytes_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    forbidden: int = 0
    """Publishes to topics that the client has no right to."""
    dropped: int = 0
    """Messages that a subscriber did not get: its queue was full, or it did not read."""


class BrokerStats(msgspec.Struct, frozen=True):
    """What the broker says of itself."""

    connections: int
    sessions: int
    subscriptions: int
    retained: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    dropped: int
    """Messages that a subscriber did not get: its queue was full, or it did not read."""
    forbidden: int
    """Publishes to topics that the client had no right to."""
    pending_bytes: int
    """Of messages that wait for their commit."""
    listeners: dict[str, str]
    """Name -> address, such as `local` -> `127.0.0.1:1883`."""
    limited: dict[str, int] = {}
    """How often which limit was hit, since start."""
    redirect: str = ""
    """Where clients are sent instead, if they are."""
    bridges: dict[str, str] = {}
    """Name -> `connected`, or the sentence that says why not."""
