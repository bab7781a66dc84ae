"""SUBSCRIBE and UNSUBSCRIBE: which filters are granted, and the retained documents that follow (3.8, 3.10)."""

from collections.abc import Callable, Iterator
from typing import Protocol

from godwit.mqtt import packets as p
from godwit.mqtt import reasons
from godwit.mqtt.server_connection import Limits
from godwit.mqtt.server_message import Delivery
from godwit.mqtt.server_session import Held, Session
from godwit.server.broker.client import Client
from godwit.server.broker.gate import Gate
from godwit.server.broker.journal import Journal
from godwit.server.broker.refusals import NOT_AUTHORISED
from godwit.server.broker.retained import Retained
from godwit.server.broker.rights import Rights
from godwit.server.broker.routes import SHARE_PREFIX, Routes, bare_filter, heard_filters


class Rooms(Protocol):
    """What is needed of the broker."""

    limits: Limits
    routes: Routes
    retained: Retained
    journal: Journal
    gate: Gate
    on_forbidden: Callable[[Client, str, str], None]

    def after_commit(self, done: Callable[[], None], now: int) -> None:
        """Call `done` when everything that happened until now is durable."""
        ...


class Subscriptions:
    """Grants subscriptions. For a session that outlives its connection, SUBACK leaves when they are durable."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def subscribe(self, client: Client, session: Session, packet: p.Subscribe, now: int) -> None:
        """Answer SUBSCRIBE: add what is granted, acknowledge, send retained documents."""
        codes, retained = [], []
        for options in packet.subscriptions:
            code, is_new = self._grant(client, session, options, packet.subscription_id or 0)
            codes.append(code)
            if code < 0x80 and options.retain_handling < 2 and (is_new or options.retain_handling == 0):
                retained.append(options)
        answer = p.SubAck(packet.packet_id, tuple(codes))

        def finish() -> None:
            if session.connection is not client.core or client.closed is not None:
                return
            client.core.send(answer)
            for options in retained:
                self._send_retained(client, options, packet.subscription_id or 0, now)

        if session.is_stored:
            self._rooms.after_commit(finish, now)
        else:
            finish()

    def _grant(self, client: Client, session: Session, options: p.Subscription, number: int) -> tuple[int, bool]:
        topic_filter = options.topic_filter
        failed = reasons.UNSPECIFIED_ERROR
        rights = client.rights
        if rights is not None and not all(
            rights.may_subscribe(bare_filter(each)) for each in heard_filters(session, topic_filter)
        ):
            self._rooms.on_forbidden(client, topic_filter, NOT_AUTHORISED)
            return (reasons.NOT_AUTHORIZED if client.core.version == 5 else failed), False
        is_known = topic_filter in session.subscriptions
        if not is_known and not self._rooms.gate.may_subscribe(len(session.subscriptions), self._rooms.routes.count):
            return (reasons.QUOTA_EXCEEDED if client.core.version == 5 else failed), False
        held = Held(options, number)
        is_new = self._rooms.routes.subscribe(session, held)
        if session.is_stored:
            self._rooms.journal.put_subscription(session, held)
        return options.qos, is_new

    def _send_retained(self, client: Client, options: p.Subscription, number: int, now: int) -> None:
        """Send what is retained under a new subscription; a shared one gets none (4.8.2)."""
        session = client.core.session
        if session is None or options.topic_filter.startswith(SHARE_PREFIX):
            return
        session.feed(options.topic_filter, self._retained(client.rights, options, number, now))
        client.core.pump(now)

    def _retained(self, rights: Rights | None, options: p.Subscription, number: int, now: int) -> Iterator[Delivery]:
        """Make the deliveries. A document is looked up at its turn: what replaced it meanwhile is sent instead.

        None of it is laid into the journal: after a crash the documents are still there to subscribe to.
        """
        ids = (number,) if number else ()
        retained, routes = self._rooms.retained, self._rooms.routes
        for topic in [each.topic for each in retained.match(options.topic_filter, now)]:
            message = retained.get(topic)
            if message is not None and (rights is None or rights.may_receive(topic, routes.route(topic).place)):
                yield Delivery(message, min(options.qos, message.qos), retain=True, subscription_ids=ids)

    def unsubscribe(self, client: Client, session: Session, packet: p.Unsubscribe) -> None:
        """Answer UNSUBSCRIBE."""
        codes = []
        for topic_filter in packet.topic_filters:
            existed = self._rooms.routes.unsubscribe(session, topic_filter)
            session.stop_feed(topic_filter)
            if existed and session.is_stored:
                self._rooms.journal.drop_subscription(session, topic_filter)
            codes.append(reasons.SUCCESS if existed else reasons.NO_SUBSCRIPTION_EXISTED)
        client.core.send(p.UnsubAck(packet.packet_id, tuple(codes) if client.core.version == 5 else ()))
