"""The server's side of a session: what outlives a connection (MQTT 5, 4.1).

Packet ids under way in both directions, messages that wait for the client, its subscriptions. No socket and no clock:
`godwit.mqtt.server_connection` speaks for it while the client is there.

Inbound, an identifier is *pending* from PUBLISH until the message is durable. A client that comes back sends again what
was not acknowledged (4.4): such a packet is recognised and not handed on twice, whether the first copy is durable by
then or not.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import msgspec

from godwit.mqtt.packets import Publish, Subscription
from godwit.mqtt.server_message import Delivery, Message

NEVER_EXPIRES: Final = 0xFFFF_FFFF
_PACKET_ID_MAX: Final = 65_535
INSIDE_ROOM: Final = 6
"""How many times as much the server's own sessions may queue: bridges wait for what is away for long. Packet ids are
given to what is queued, so that it must stay below 65,535 messages."""

SHARE_BYTES: Final = 262_144
"""What a session may queue also when all together hold too much."""


class QueueRoom:
    """What the queues of all sessions together hold, and may hold."""

    __slots__ = ("bytes", "bytes_max")

    def __init__(self, bytes_max: int) -> None:
        self.bytes = 0
        self.bytes_max = bytes_max


class Held(msgspec.Struct, frozen=True):
    """A subscription of a session: the options, and the identifier that MQTT 5 may give it (0: none)."""

    options: Subscription
    subscription_id: int = 0


class Link(Protocol):
    """What a session needs of the connection that speaks for it."""

    def deliver_once(self, message: Message, *, retain: bool, subscription_ids: tuple[int, ...], now: int) -> None:
        """Send at QoS 0, now or never."""
        ...

    def deliver(self, delivery: Delivery, now: int) -> None:
        """Send at QoS 1 or 2, at once or when the client can take it."""
        ...

    def acknowledge(self, publish: Publish, reason_code: int = 0, reason: str | None = None) -> None:
        """Answer an inbound PUBLISH."""
        ...


class Tally(Protocol):
    """Who counts what all sessions together drop."""

    def dropped(self, session: "Session") -> None:
        """Count one message that `session` dropped."""
        ...


class Session:
    """The state of one client."""

    __slots__ = (
        "_packet_id",
        "client_id",
        "connection",
        "dropped",
        "ends_at",
        "expiry_s",
        "feeds",
        "finished",
        "inflight",
        "is_device",
        "is_stored",
        "may_have",
        "orphaned",
        "owner",
        "pending",
        "queue",
        "queued_bytes",
        "received",
        "rights",
        "room",
        "stale",
        "subscriptions",
        "tally",
        "terms",
    )

    def __init__(self, client_id: str, expiry_s: int = 0, room: QueueRoom | None = None) -> None:
        self.client_id = client_id
        self.room = room
        self.owner = ""
        """Whose it is: nobody else takes it over or resumes it."""
        self.rights: Any = None
        """What its owner may be told: for the rooms above."""
        self.terms = ""
        """What is kept of the rights."""
        self.may_have: Callable[[Session, str], bool] | None = None
        """Asked before what has waited is sent: rights may have shrunk meanwhile. None: it may have everything."""
        self.expiry_s = expiry_s
        self.ends_at = 0
        """When it ends, ns UTC, while the client is away; 0: not counting."""
        self.connection: Link | None = None
        self.subscriptions: dict[str, Held] = {}
        self.pending: dict[int, Publish] = {}
        """QoS 1 in, not durable yet, by packet id."""
        self.orphaned: dict[int, Publish | None] = {}
        """QoS 1 in from an earlier connection, never acknowledged; None: durable by now."""
        self.received: dict[int, Publish | None] = {}
        """QoS 2 in, until PUBREL; None: durable, PUBREC was sent."""
        self.stale: set[int] = set()
        """Ids in `received` from an earlier connection: a PUBLISH without DUP uses them anew."""
        self.inflight: dict[int, Delivery] = {}
        """QoS 1 and 2 out, in order, until the client has taken them."""
        self.queue: deque[Delivery] | None = None
        """QoS 1 and 2 out, not sent yet. Made when first needed: an idle client costs nothing."""
        self.queued_bytes = 0
        self.feeds: dict[str, Iterator[Delivery]] | None = None
        """Retained documents to come, by the filter that asked for them; made as the client takes them."""
        self.dropped = 0
        """Messages that its client did not get: no room in the queue, not read at QoS 0, or too large for it."""
        self.tally: Tally | None = None
        self.finished: list[Delivery] | None = None
        """Deliveries with a place in the journal that are done with, for the broker to strike out."""
        self.is_device = False
        self.is_stored = False
        self._packet_id = 0

    @property
    def is_persistent(self) -> bool:
        """Whether it outlives the connection."""
        return self.expiry_s > 0

    def allot(self, delivery: Delivery) -> None:
        """Give `delivery` a packet id that nothing else under way has (2.2.1)."""
        number = self._packet_id
        inflight = self.inflight
        while True:
            number = number + 1 if number < _PACKET_ID_MAX else 1
            if number not in inflight:
                break
        self._packet_id = number
        delivery.packet_id = number

    def enqueue(self, delivery: Delivery, messages_max: int, bytes_max: int) -> None:
        """Keep `delivery` until the client can take it. Beyond the bounds it is dropped and counted.

        What has a place in the journal was measured against them before it got it.
        """
        if self.queue is None:
            self.queue = deque()
        if not delivery.position and self.is_full(messages_max, bytes_max):
            self.drop()
            return
        self.queue.append(delivery)
        self._note(len(delivery.message.payload))

    def _note(self, size: int) -> None:
        self.queued_bytes += size
        if self.room is not None:
            self.room.bytes += size

    def join(self, room: QueueRoom) -> None:
        """Count the queue to those of all sessions."""
        self.room = room
        room.bytes += self.queued_bytes

    def discard(self) -> None:
        """Drop what waits: the session is over."""
        self._note(-self.queued_bytes)
        self.queue = self.feeds = self.room = None

    def feed(self, topic_filter: str, deliveries: Iterator[Delivery]) -> None:
        """Have `deliveries` sent before what is queued, however many they are: none is made before its turn.

        Asking again for the same filter begins anew.
        """
        if self.feeds is None:
            self.feeds = {}
        self.feeds.pop(topic_filter, None)
        self.feeds[topic_filter] = deliveries

    def stop_feed(self, topic_filter: str) -> None:
        """Send no more of what a filter asked for: it was taken away."""
        if self.feeds is not None:
            self.feeds.pop(topic_filter, None)

    @property
    def has_waiting(self) -> bool:
        """Whether something has not been sent yet."""
        return bool(self.queue or self.feeds)

    def drop(self) -> None:
        """Count a message that its client does not get."""
        self.dropped += 1
        if self.tally is not None:
            self.tally.dropped(self)

    def is_for(self, delivery: Delivery) -> bool:
        """Whether what was queued, or sent in vain, may still be sent: it is asked of the topic."""
        return self.may_have is None or self.may_have(self, delivery.message.topic)

    def dequeue(self) -> Delivery | None:
        """Take the next waiting delivery."""
        while self.feeds:
            topic_filter = next(iter(self.feeds))
            fed = next(self.feeds[topic_filter], None)
            if fed is not None:
                return fed
            del self.feeds[topic_filter]
        queue = self.queue
        if not queue:
            return None
        delivery = queue.popleft()
        self._note(-len(delivery.message.payload))
        return delivery

    def restore(self, delivery: Delivery) -> None:
        """Take back, at start, a delivery that the journal kept, in order; its packet id stays the same."""
        self._packet_id = delivery.packet_id
        self.requeue([delivery], is_first=False)

    def requeue(self, deliveries: list[Delivery], *, is_first: bool = True) -> None:
        """Put deliveries (back) into the queue without regard to its bounds: they were admitted before."""
        if self.queue is None:
            self.queue = deque()
        if is_first:
            self.queue.extendleft(reversed(deliveries))
        else:
            self.queue.extend(deliveries)
        self._note(sum(len(each.message.payload) for each in deliveries))

    def is_full(self, messages_max: int, bytes_max: int) -> bool:
        """Whether the queue takes no more: it is at its bounds, or all are and it has its share."""
        if self.queue is None:
            return False
        if self.client_id.startswith("$"):
            return len(self.queue) >= messages_max * INSIDE_ROOM or self.queued_bytes >= bytes_max * INSIDE_ROOM
        if len(self.queue) >= messages_max or self.queued_bytes >= bytes_max:
            return True
        room = self.room
        return room is not None and room.bytes >= room.bytes_max and self.queued_bytes >= SHARE_BYTES

    def deliveries(self) -> list[Delivery]:
        """Return all that is under way or waiting."""
        return [*self.inflight.values(), *(self.queue or ())]

    def finish(self, delivery: Delivery) -> None:
        """Note that `delivery` is done with, if the journal has it."""
        if delivery.position:
            if self.finished is None:
                self.finished = []
            self.finished.append(delivery)

    def withhold(self, delivery: Delivery) -> None:
        """Be done with what the client does not get: it is too large for it, or its right to it is gone."""
        self.inflight.pop(delivery.packet_id, None)
        self.finish(delivery)
        self.drop()

    def detach(self) -> None:
        """Part from the connection: what it had not acknowledged may come again."""
        self.connection = None
        if self.pending:
            self.orphaned.update(self.pending)
            self.pending = {}
        self.stale = set(self.received)
        for delivery in self.inflight.values():
            delivery.is_resent = True

    def become_durable(self, publish: Publish) -> bool:
        """Note that an inbound message is durable whose connection is gone.

        True where the present connection owes the client the acknowledgement, because it sent the packet again.
        """
        packet_id = publish.packet_id
        if publish.qos == 2:
            if self.received.get(packet_id) is not publish:
                return False
            self.received[packet_id] = None
            return packet_id not in self.stale and self.connection is not None
        if self.orphaned.get(packet_id) is publish:
            self.orphaned[packet_id] = None
            return False
        return self.pending.get(packet_id) is publish

    def forget(self, publish: Publish) -> None:
        """Drop the id of an inbound message of an earlier connection that was refused: it may come anew."""
        if publish.qos == 2:
            self.received.pop(publish.packet_id, None)
            self.stale.discard(publish.packet_id)
        else:
            self.orphaned.pop(publish.packet_id, None)
