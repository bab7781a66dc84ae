"""Messages on their way out: what subscribers are owed of a message, and serving them once it is durable.

What durable sessions of applications are owed is laid into the journal when the message arrives, and handed over when
it is durable. Everybody else is looked up then. Runs on the broker loop.
"""

import msgspec

from godwit.mqtt.server_limits import Limits
from godwit.mqtt.server_message import Delivery, Message
from godwit.mqtt.server_session import Session
from godwit.server.broker.journal import Journal
from godwit.server.broker.retained import Retained
from godwit.server.broker.routes import Route, Routes, Target, choose, delivery_of, keeps_queue
from godwit.server.broker.stats import Counters
from godwit.server.ingest.arrival import Arrival


class Held(msgspec.Struct):
    """Deliveries that were laid into the journal with their message, until it is durable."""

    targets: tuple[Target, ...]
    deliveries: list[tuple[Session, Delivery]]


class FanOut:
    """See the module."""

    def __init__(
        self, routes: Routes, retained: Retained, journal: Journal, counters: Counters, limits: Limits
    ) -> None:
        self._routes, self._retained, self._journal = routes, retained, journal
        self._counters, self._limits = counters, limits
        self._held: dict[int, Held] = {}

    def owe(self, arrival: Arrival, route: Route, message: Message, publisher: Session | None) -> None:
        """Lay into the journal what sessions of applications are owed of a message."""
        deliveries = []
        for target in route.targets:
            chosen = choose(target, publisher) if target.is_durable else None
            if chosen is None:
                continue
            receiver, terms = chosen
            delivery = delivery_of(message, terms)
            if delivery.qos and keeps_queue(receiver):
                if receiver.is_full(self._limits.queued_messages_max, self._limits.queued_bytes_max):
                    receiver.drop()
                    continue
                self._journal.put_queued(receiver, delivery)
            deliveries.append((receiver, delivery))
        # Kept even when empty: it says that the durable subscribers were seen to.
        self._held[id(arrival)] = Held(route.targets, deliveries)

    def serve(self, arrival: Arrival, publisher: Session | None) -> bool:
        """Hand a durable message to its subscribers; False if there are none."""
        publish = arrival.publish
        held = self._held.pop(id(arrival), None) if self._held else None
        targets = held.targets if held is not None else self._routes.route(publish.topic).targets
        if publish.retain:
            self._retained.put(Message(publish, arrival.received))
        if not targets:
            return False
        message = Message(publish, arrival.received)
        sent_before = self._counters.messages_out
        if held is not None:
            for session, delivery in held.deliveries:
                self._counters.messages_out += 1
                self._hand_over(session, delivery, arrival.received)
        for target in targets:
            if held is None or not target.is_durable:
                self._hand_to(target, message, publisher, arrival.received)
        self._counters.payload_bytes_out += len(publish.payload) * (self._counters.messages_out - sent_before)
        return True

    def _hand_to(self, target: Target, message: Message, publisher: Session | None, now: int) -> None:
        """Hand a message to one subscriber whose queue the journal does not keep."""
        session, terms = target.session, target
        if session is None or (session is publisher and not target.is_own_too):
            chosen = choose(target, publisher)
            if chosen is None:
                return
            session, terms = chosen
        self._counters.messages_out += 1
        if terms.qos and message.qos:
            self._hand_over(session, delivery_of(message, terms), now)
        elif session.connection is not None:  # the common case of fan-out makes no delivery
            retain = message.retain and terms.retain_as_published
            session.connection.deliver_once(message, retain=retain, subscription_ids=terms.subscription_ids, now=now)

    def _hand_over(self, session: Session, delivery: Delivery, now: int) -> None:
        """Give a delivery to a session, connected or not."""
        if session.connection is not None:
            session.connection.deliver(delivery, now)
        elif session.is_persistent and delivery.qos:
            session.enqueue(delivery, self._limits.queued_messages_max, self._limits.queued_bytes_max)
