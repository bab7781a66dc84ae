"""The broker in numbers."""

import msgspec


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
    listeners: dict[str, str]
    """Name -> address, such as `local` -> `127.0.0.1:1883`."""
    bridges: dict[str, str] = {}
    """Name -> `connected`, or the sentence that says why not."""
