"""What the listener asks of whoever takes the bytes: the broker, or a worker's relay to it."""

from collections.abc import Mapping
from typing import Any, Protocol

from godwit.mqtt.server_limits import Closed


class Core(Protocol):
    """The protocol of one connection."""

    outgoing: list[bytes]
    keep_alive_s: int

    @property
    def closed(self) -> Closed | None:
        """Why it is over, if it is."""
        ...

    @property
    def session(self) -> object | None:
        """None until the client is accepted."""
        ...

    @property
    def is_blocked(self) -> bool:
        """Whether the client reads slowly."""
        ...

    @is_blocked.setter
    def is_blocked(self, value: bool) -> None: ...

    def flushed(self, now: int) -> None:
        """Note that the transport has what was in `outgoing`."""
        ...

    def pump(self, now: int) -> None:
        """Put out more of what waits."""
        ...

    def close(self, reason_code: int, text: str) -> None:
        """Close from our side."""
        ...


class Client(Protocol):
    """One connection."""

    @property
    def core(self) -> Core:
        """Its protocol."""
        ...

    @property
    def may_stay_unread(self) -> bool:
        """Whether only an unread socket slows it down."""
        ...


class Group(Protocol):
    """The group commit, as far as sockets go."""

    @property
    def is_congested(self) -> bool:
        """Whether more is waiting than the bounds allow."""
        ...


class Taker(Protocol):
    """Takes connections and their bytes. Each kind has its own kind of client."""

    @property
    def clients(self) -> Mapping[str, Any]:
        """Who is connected, by client id."""
        ...

    @property
    def group(self) -> Group:
        """The group commit."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether nobody may be read."""
        ...

    @property
    def full_reads(self) -> int:
        """How many sockets that are full may be read again in one turn of the loop; 0: none for now."""
        ...

    def has_room(self) -> bool:
        """Whether one more connection may come in; counted if not."""
        ...

    def admit(self, socket: Any, listener: str, certificate: bytes | None, address: str = ...) -> Any:
        """Take in a connection that was made; None if there is no room for it."""
        ...

    def turn_away(self, code: str, detail: str, address: str) -> None:
        """Note that somebody's certificate was not accepted in the handshake."""
        ...

    def receive(self, client: Any, data: bytes, now: int) -> None:
        """Bytes came from a client."""
        ...

    def sent(self, client: Any, data: bytes, now: int) -> None:
        """Note that bytes leave for a client: what still stands in its `outgoing`."""
        ...

    def disconnect(self, client: Any, now: int, reason: str = ...) -> None:
        """Part from a connection that is gone."""
        ...

    def relieve(self) -> None:
        """Have those read again who were held, as far as there is room; called often while anybody is unread."""
        ...

    def tick(self, now: int) -> None:
        """See to what is due; called a few times a second."""
        ...
