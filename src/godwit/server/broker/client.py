"""A connected client, as the broker knows it: its protocol, who it is, which devices it speaks for."""

from collections.abc import Iterable
from typing import Protocol

from godwit.contract.topics import DeviceTopic
from godwit.mqtt.packets import Packet, Publish
from godwit.mqtt.server_connection import Closed, Limits, ServerConnection
from godwit.server.broker.limits import Meter
from godwit.server.broker.rights import Rights
from godwit.server.identity.model import Credential
from godwit.server.ingest.arrival import Arrival, Peer

DEVICES_MAX = 10_000
"""A gateway speaks for many devices; beyond this their presence is not told apart."""


class Socket(Protocol):
    """The wire of a connection. Nothing blocks."""

    def wake(self) -> None:
        """There is something to send, or the connection is to be closed: do it at the end of this loop turn."""
        ...

    def hold(self, seconds: float) -> None:
        """Read nothing more for so long."""
        ...

    def choke(self, *, is_choked: bool) -> None:
        """Read nothing more until told otherwise."""
        ...


class Door(Protocol):
    """What a client needs of the broker."""

    def settle(self, client: "Client", arrival: Arrival) -> None:
        """Serve and acknowledge an arrival, durable or refused for good."""
        ...


class Client:
    """One connection. It is the `source` of its arrivals."""

    __slots__ = (
        "_devices",
        "_door",
        "address",
        "bytes_in",
        "bytes_out",
        "certificate",
        "core",
        "credential",
        "is_counted",
        "is_held",
        "is_over",
        "last_place",
        "listener",
        "messages_in",
        "meter",
        "peer",
        "pending_bytes",
        "rest",
        "rights",
        "sends_once",
        "since",
        "socket",
        "tenant",
        "turn",
        "waiting",
    )

    def __init__(  # noqa: PLR0917 - as they are known
        self, door: Door, socket: Socket, limits: Limits, listener: str, certificate: bytes | None, address: str = ""
    ) -> None:
        self._door = door
        self.socket = socket
        self.core = ServerConnection(limits, socket.wake)
        self.listener = listener
        self.certificate = certificate
        self.address = address
        """From where it came, as far as the socket says."""
        self.waiting: list[bytes | list[Publish]] | None = None
        """What came while somebody is asked who it is; None: nobody is."""
        self.rest: Iterable[Packet] = ()
        """What came with its CONNECT."""
        self.credential: Credential | None = None
        """With what it came in, while it is there."""
        self.peer = Peer("", listener)
        self.rights: Rights | None = None
        self.sends_once = False
        """It publishes at QoS 0: only an unread socket slows it down."""
        self.since = 0
        """When it was accepted, ns UTC."""
        self.messages_in = self.bytes_in = self.bytes_out = 0
        self.is_over = False
        self.tenant = ""
        """Whose it counts as, once it is accepted."""
        self.meter: Meter | None = None
        self.is_held = False
        """It is left unread: more than its share is under way."""
        self.turn = 0
        """Number of its last turn in the backlog lane."""
        self.pending_bytes = 0
        """Of its messages that wait for their commit."""
        self.is_counted = False
        self.last_place: DeviceTopic | None = None
        self._devices: set[str] | None = None

    def settle(self, arrival: Arrival) -> None:
        """Hand a durable arrival back to the broker; called in the order of arrival."""
        self._door.settle(self, arrival)

    @property
    def devices(self) -> set[str]:
        """The devices it has spoken for."""
        return self._devices if self._devices is not None else set()

    def speaks_for(self, device_id: str) -> bool:
        """Note that it speaks for a device; True the first time."""
        devices = self._devices
        if devices is None:
            devices = self._devices = set()
        if device_id in devices or len(devices) >= DEVICES_MAX:
            return False
        devices.add(device_id)
        return True

    @property
    def may_stay_unread(self) -> bool:
        """Whether only an unread socket slows it: 3.1.1 has no receive maximum, QoS 0 no acknowledgement."""
        return self.core.version != 5 or self.sends_once

    @property
    def closed(self) -> Closed | None:
        """Why it is over, if it is."""
        return self.core.closed
