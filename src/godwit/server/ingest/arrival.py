"""A message between its arrival and its acknowledgement, and who takes part in making it durable."""

from typing import Any, Protocol
from zlib import crc32

import msgspec

from godwit.contract.cose import Opened
from godwit.contract.topics import DeviceTopic
from godwit.mqtt.packets import Publish


class Peer(msgspec.Struct, frozen=True):
    """Who handed a message in.

    `identity` is proven (certificate, token) or None; the loopback listener trusts names.
    """

    client_id: str
    listener: str
    """`local` (plaintext, loopback), `tls`, `http`, `websocket`, `websocket-tls` ..."""
    identity: str | None = None
    may_register: bool = False
    """Whether an unknown device that this peer speaks for is registered by itself, as unclaimed."""
    is_unproven: bool = False
    """Whether it has proven nothing: it speaks for devices that nobody has claimed, and no others."""
    is_shared: bool = False
    """Whether the messages of many devices come by it, and nobody can say which connection they came by before."""
    mark: int = 0
    """16 bits of a checksum of the client id: part of a message's fingerprint."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "mark", crc32(self.client_id.encode()) & 0xFFFF)


class Settles(Protocol):
    """Whoever waits for arrivals to be durable: a connection, an HTTP request."""

    def settle(self, arrival: "Arrival") -> None:
        """Go on, on the broker loop, once the arrival is durable, in the order in which they came."""
        ...


class Arrival(msgspec.Struct):
    """A publish on its way through the group commit. `code` stays empty unless the message goes to quarantine."""

    source: Settles
    publish: Publish
    peer: Peer
    received: int
    """Server time, ns UTC."""
    topic: DeviceTopic | None = None
    """None: an ordinary broker topic."""
    code: str = ""
    detail: str = ""
    accepted: int = 0
    """Samples."""
    duplicate: int = 0
    sealed: Opened | None = None
    """What it was signed or encrypted with, if it was."""
    wants_times: bool = False
    """Whether its sender compares clocks: it is to be answered whatever the QoS."""


class Intake(Protocol):
    """The first station of ingest, called on the broker loop for each message of the contract."""

    def receive(self, arrival: Arrival) -> None:
        """Decode, check, deduplicate and lay into the open group; sets code, detail, accepted and duplicate."""
        ...

    def turn_away(self, arrival: Arrival) -> None:
        """Count a message that is refused for a limit: its sender is told, and it is not kept."""
        ...


class Participant(Protocol):
    """A room with rows that must be durable before acknowledgements leave."""

    def seal(self) -> object | None:
        """Hand over what gathered since the last time, or None. Called on the broker loop; must not block."""
        ...

    def write(self, work: object) -> None:
        """Make it durable. Called in the commit thread.

        Raises UnavailableError to be tried again with the same work.
        """
        ...


class Group(Protocol):
    """The open group of the group commit."""

    @property
    def is_congested(self) -> bool:
        """Whether more is waiting than the bounds allow: sockets should go unread."""
        ...

    @property
    def stalled(self) -> str:
        """Empty, or the sentence that says why nothing can be stored now."""
        ...

    def join(self, arrival: Arrival) -> None:
        """Queue `arrival`: `source.settle(arrival)` follows the commit of all that was sealed with it."""
        ...


class SeesDevices(Protocol):
    """Presence, as ingest tells it what it sees."""

    def seen(self, device_id: str, now: int) -> None:
        """Note that a device sent a message."""
        ...

    def status(self, device_id: str, document: dict[str, Any], now: int) -> None:
        """Note a device's status document."""
        ...
