"""What stands in the broker's place in a worker: it frames what comes and hands it to the owner, and decides nothing.

The listener treats it as it treats the broker. What the owner answers is put where a session would have put it.
"""

from collections.abc import Callable
from typing import Final, Protocol

from godwit.contract import telemetry
from godwit.contract.errors import MalformedError
from godwit.contract.telemetry import Telemetry
from godwit.contract.topics import Channel, NativeTopics
from godwit.mqtt.framing import Framer
from godwit.mqtt.packets import Publish
from godwit.mqtt.server_limits import Closed
from godwit.server.workers import frames
from godwit.server.workers.frames import FromOwner, FromWorker

TOPICS_MAX: Final = 50_000
TELEMETRY_TOPIC_CHARACTERS_MAX: Final = 512
GATHERED_BYTES_MAX: Final = 1_048_576
"""What is framed in one turn; a socket that has more may be read again in the next."""

FULL_READS: Final = 4
"""Sockets that had more than one read's worth and are read again in one turn: what they bring stands in the pipe before
the messages of everybody else."""
UNSEEN_MAX: Final = 200
"""Connections that the owner has not looked at yet. They are small in the pipe, but each keeps it busy for longer than
many messages: with more of them before it, a message waits for long."""


class Shell(Protocol):
    """A connection of the listener."""

    def wake(self) -> None:
        """There is something to send."""
        ...

    def hold(self, seconds: float) -> None:
        """Read nothing more for so long."""
        ...

    def choke(self, *, is_choked: bool) -> None:
        """Read nothing more until told otherwise."""
        ...

    def rewatch(self) -> None:
        """Look at the deadlines anew."""
        ...


class RelayedCore:
    """Where a connection's protocol is in the owner: what the listener asks of it."""

    __slots__ = ("_is_blocked", "_number", "_relay", "closed", "keep_alive_s", "outgoing", "session")

    def __init__(self, relay: "Relay", number: int) -> None:
        self._relay = relay
        self._number = number
        self._is_blocked = False
        self.session: object | None = None
        """Anything, once the owner has accepted the connection."""
        self.outgoing: list[bytes] = []
        self.closed: Closed | None = None
        self.keep_alive_s = 0

    @property
    def is_blocked(self) -> bool:
        """Whether the client reads slowly. The owner is told."""
        return self._is_blocked

    @is_blocked.setter
    def is_blocked(self, value: bool) -> None:
        if value != self._is_blocked:
            self._is_blocked = value
            self._relay.tell(frames.Slowed(self._number, value))

    def flushed(self, now: int) -> None:
        """Do nothing: the owner goes on by itself."""

    def pump(self, now: int) -> None:
        """Send more: the owner does, once it hears that the client is not slow any more."""

    def close(self, reason_code: int, text: str) -> None:
        """Ask the owner to close the connection with a reason."""
        self._relay.tell(frames.Expired(self._number, reason_code, text))


class RelayedClient:
    """A connection, as the listener sees it."""

    __slots__ = ("core", "framer", "is_over", "number", "sends_once", "shell")

    def __init__(self, relay: "Relay", shell: Shell, number: int, packet_bytes_max: int) -> None:
        self.number = number
        self.shell = shell
        self.core = RelayedCore(relay, number)
        self.framer = Framer(packet_bytes_max)
        self.sends_once = False
        self.is_over = False

    @property
    def may_stay_unread(self) -> bool:
        """Whether only an unread socket slows it: 3.1.1 has no receive maximum, QoS 0 no acknowledgement."""
        return self.framer.version != 5 or self.sends_once


class NoGroup:
    """What the listener asks of the group commit, as the owner told it last."""

    is_congested = False
    stalled = ""


class Relay:
    """See the module. `tell_soon` is called when events begin to gather: `take_events` is wanted at the turn's end."""

    def __init__(self, packet_bytes_max: int, topics: NativeTopics, tell_soon: Callable[[], None]) -> None:
        self.clients: dict[str, RelayedClient] = {}
        self.group = NoGroup()
        self.is_pipe_full = False
        """The owner does not read as fast as we: nobody is read until it does."""
        self.is_behind = False
        """Something waits to go into the pipe."""
        self._is_full = False
        self._unseen = 0
        self._has_room = True
        self._turned_away = 0
        self._packet_bytes_max = packet_bytes_max
        self._topics = topics
        self._tell_soon = tell_soon
        self._by_number: dict[int, RelayedClient] = {}
        self._events: list[FromWorker] = []
        self._gathered = 0
        self._last = 0
        self._is_telemetry: dict[str, bool] = {}

    # --- what the listener calls --------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether nobody may be read."""
        return self._is_full or self.is_pipe_full or self._gathered > GATHERED_BYTES_MAX

    @property
    def full_reads(self) -> int:
        """How many sockets that are full may be read again in one turn of the loop."""
        return 0 if self.is_behind else FULL_READS

    @property
    def may_accept(self) -> bool:
        """Whether more connections are wanted: the owner keeps up."""
        return not self.is_pipe_full and self._unseen < UNSEEN_MAX

    def has_room(self) -> bool:
        """Whether one more connection may come in: the owner, who knows all of them, said so last; counted if not."""
        if not self._has_room:
            self._turned_away += 1
        return self._has_room

    def admit(self, shell: Shell, listener: str, certificate: bytes | None, address: str = "") -> RelayedClient:
        """Take in a connection; the owner may hang up."""
        self._last += 1
        client = RelayedClient(self, shell, self._last, self._packet_bytes_max)
        self._by_number[client.number] = client
        self._unseen += 1
        self.tell(frames.Opened(client.number, listener, certificate, address))
        return client

    def turn_away(self, code: str, detail: str, address: str) -> None:
        """Note that somebody's certificate was not accepted in the handshake."""
        self.tell(frames.Refused(code, detail, address))

    def receive(self, client: RelayedClient, data: bytes, now: int) -> None:
        """Frame the bytes that came, and hand them on."""
        del now  # the owner's clock counts
        items: list[frames.Read | bytes] = []
        for item in client.framer.feed(data):
            if isinstance(item, Publish):
                if not item.qos:
                    client.sends_once = True
                items.append(frames.read_of(item, self._read(item)))
            else:
                items.append(item)
        if items:
            self._gathered += len(data)
            self.tell(frames.Took(client.number, items, len(data)))

    def sent(self, client: RelayedClient, data: bytes, now: int) -> None:
        """Nothing: the owner has counted what it gave us to send."""

    def disconnect(self, client: RelayedClient, now: int, reason: str = "connection lost") -> None:
        """Part from a connection that is gone."""
        del now
        if not client.is_over:
            client.is_over = True
            self._by_number.pop(client.number, None)
            self.tell(frames.Parted(client.number, reason))

    def relieve(self) -> None:
        """Do nothing: the owner says who is read again."""

    def tick(self, now: int) -> None:
        """Tell the owner how many found no room. Time passes there."""
        del now
        if self._turned_away:
            self.tell(frames.TurnedAway(self._turned_away))
            self._turned_away = 0

    def _read(self, publish: Publish) -> Telemetry | None:
        """Return the telemetry of a JSON message without flaws, None for anything else: the owner looks itself."""
        if publish.payload[:1] != b"{" or publish.properties.content_type or not self._carries_telemetry(publish.topic):
            return None
        try:
            read = telemetry.decode(publish.payload)
        except MalformedError:
            return None
        return None if any(sample.code for sample in read.samples) else read

    def _carries_telemetry(self, topic: str) -> bool:
        if len(topic) > TELEMETRY_TOPIC_CHARACTERS_MAX:
            return False  # the owner looks itself
        known = self._is_telemetry.get(topic)
        if known is None:
            if len(self._is_telemetry) >= TOPICS_MAX:
                self._is_telemetry.clear()
            try:
                place = self._topics.parse(topic)
            except MalformedError:
                place = None
            known = self._is_telemetry[topic] = place is not None and place.channel is Channel.TELEMETRY
        return known

    # --- to and from the owner ----------------------------------------------------------------------------------

    def tell(self, event: FromWorker) -> None:
        """Have the owner told at the end of this turn."""
        if not self._events:
            self._tell_soon()
        self._events.append(event)

    def take_events(self) -> list[FromWorker]:
        """Return what gathered, and forget it."""
        events, self._events, self._gathered = self._events, [], 0
        return events

    def follow(self, event: FromOwner) -> None:
        """Do what the owner says."""
        if isinstance(event, frames.Pressure):
            self._is_full, self.group.is_congested = event.is_full, event.is_congested
            self._has_room = event.has_room
            return
        if isinstance(event, frames.Seen):
            self._unseen -= event.opened
            return
        if isinstance(event, frames.Begin | frames.Trust):
            return
        client = self._by_number.get(event.number)
        if client is None:
            return  # it parted meanwhile
        core = client.core
        if isinstance(event, frames.Answer):
            core.outgoing.append(event.data)
            client.shell.wake()
        elif isinstance(event, frames.Accepted):
            core.session, core.keep_alive_s = True, event.keep_alive_s
            client.shell.rewatch()
        elif isinstance(event, frames.Hold):
            client.shell.hold(event.seconds)
        elif isinstance(event, frames.Choke):
            client.shell.choke(is_choked=event.is_choked)
        else:
            core.closed = Closed(0, "")
            client.shell.wake()
