"""One connection of a client, from the server's side: bytes in, packets for the broker and bytes to send out.

The shell calls `receive(data, now)` and gets the packets that concern more than this connection: `Connect` (answer with
`accept` or `refuse` before taking the next), `Publish` (answer with `settle` once durable), `Subscribe`, `Unsubscribe`.
Everything else is dealt with here. What is to be sent gathers in `outgoing`; `wake` tells the shell when it stops being
empty, or when `closed` is set: the shell then sends what is there, empties it and, if closed, hangs up. No socket, no
clock: `now` is ns UTC.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from godwit.mqtt import packets as p
from godwit.mqtt import reasons
from godwit.mqtt.codec import Decoder, encode, puback_success
from godwit.mqtt.packets import Publish
from godwit.mqtt.reasons import ProtocolViolation
from godwit.mqtt.server_limits import Closed, Limits
from godwit.mqtt.server_message import Delivery, Message
from godwit.mqtt.server_session import Session
from godwit.mqtt.topic_aliases import AliasesIn, AliasesOut
from godwit.mqtt.unread_connect import answer_to

__all__ = ["Closed", "Limits", "ServerConnection"]

BURST_BYTES: Final = 1_048_576
"""Messages at QoS 1 and 2 that are put out at once; more follow when the shell has taken these."""
BURST_BYTES_MAX: Final = 16_777_216
"""The same at QoS 0; what goes beyond it between two turns of the loop is lost, and counted."""


class ServerConnection:
    """The protocol of one connection."""

    __slots__ = (
        "_aliases_in",
        "_aliases_out",
        "_decoder",
        "_inflight_max",
        "_limits",
        "_packet_bytes_max",
        "_unflushed_bytes",
        "closed",
        "is_blocked",
        "keep_alive_s",
        "outgoing",
        "session",
        "taken",
        "version",
        "wake",
        "will",
        "with_problems",
    )

    def __init__(self, limits: Limits, wake: Callable[[], None]) -> None:
        self._limits = limits
        self.wake = wake
        self._decoder = Decoder("server", packet_bytes_max=limits.packet_bytes_max)
        self.version = 0
        """0 until CONNECT, then 4 (3.1.1) or 5."""
        self.session: Session | None = None
        self.outgoing: list[bytes] = []
        self.closed: Closed | None = None
        self.is_blocked = False
        """The client reads slowly: nothing more is sent than answers."""
        self.keep_alive_s = 0
        self.will: p.Will | None = None
        self.taken = 0
        """Packets that came."""
        self.with_problems = True
        self._inflight_max = limits.inflight_max
        self._packet_bytes_max = 0
        self._unflushed_bytes = 0
        self._aliases_in: AliasesIn | None = None
        self._aliases_out: AliasesOut | None = None

    def _end(self, closed: Closed) -> None:
        self.closed = closed
        self.wake()

    def _put(self, data: bytes) -> None:
        outgoing = self.outgoing
        if not outgoing:
            self.wake()
        outgoing.append(data)

    @property
    def is_amid_packet(self) -> bool:
        """Whether the beginning of a packet waits for its end."""
        return self._decoder.waiting_bytes > 0

    # ------------------------------------------------------------------ in

    def receive(self, data: bytes, now: int) -> Iterable[p.Packet]:
        """Take bytes; return the packets that the broker must act on: it acts on each before it takes the next."""
        decoder = self._decoder
        packets = decoder.feed(data)
        self.taken += len(packets)
        if decoder.error is not None:
            return self._take_to_the_end(packets, decoder.error, data, now)
        if len(packets) == 1 and type(packets[0]) is p.PubAck and self.session is not None and self.closed is None:
            self._acknowledged(packets[0], now)  # the usual word of a subscriber
            return ()
        return self.take(packets, now)

    def _take_to_the_end(
        self, packets: list[p.Packet], error: ProtocolViolation, data: bytes, now: int
    ) -> Iterator[p.Packet]:
        yield from self.take(packets, now)
        if self.closed is None:
            self._violated(error, data)

    def take(self, packets: Iterable[p.Packet], now: int) -> Iterator[p.Packet]:
        """Take packets that were read elsewhere; yield as `receive` does."""
        for packet in packets:
            if self.closed is not None:
                return
            if type(packet) is Publish and self.version:
                if self._admit(packet):
                    yield packet
            elif type(packet) is p.PubAck and self.version:
                self._acknowledged(packet, now)
            elif self._route(packet, now):
                yield packet

    def _route(self, packet: p.Packet, now: int) -> bool:
        """Deal with one packet; True if the broker must see it."""
        kind = type(packet)
        if kind is p.Connect:
            return self._connect(packet)  # type: ignore[arg-type]
        if not self.version:
            self._end(Closed(reasons.PROTOCOL_ERROR, "the first packet was not CONNECT"))
            return False
        if kind is p.Subscribe or kind is p.Unsubscribe:
            return True
        if kind is p.PingReq:
            self._put(b"\xd0\x00")
        elif kind is p.PubRel:
            return self._released(packet)  # type: ignore[arg-type]
        elif kind is p.PubRec:
            self._received(packet, now)  # type: ignore[arg-type]
        elif kind is p.PubComp:
            self._completed(packet, now)  # type: ignore[arg-type]
        elif kind is p.Disconnect:
            self._disconnected(packet)  # type: ignore[arg-type]
        else:
            self.close(reasons.PROTOCOL_ERROR, f"a client may not send {kind.__name__} here", with_text=False)
        return False

    def _connect(self, packet: p.Connect) -> bool:
        if self.version:
            self.close(reasons.PROTOCOL_ERROR, "a second CONNECT")  # 3.1.0-2
            return False
        self.version = packet.version
        self.keep_alive_s = packet.keep_alive
        self.will = packet.will
        if packet.version == 5:
            self.with_problems = packet.request_problem_information
            self._inflight_max = min(packet.receive_maximum, self._limits.inflight_max)
            self._packet_bytes_max = packet.maximum_packet_size or 0
            if packet.topic_alias_maximum:
                self._aliases_out = AliasesOut(packet.topic_alias_maximum)
        return True

    def _violated(self, error: ProtocolViolation, data: bytes) -> None:
        """End the connection over what it sent; MQTT 5 is told the reason, with no more words than that."""
        if self.version:
            self.close(error.reason_code, error.text, with_text=False)
            return
        self._end(Closed(error.reason_code, error.text))
        answer = answer_to(data, error.reason_code)
        if answer:
            self._put(answer)

    def _admit(self, packet: Publish) -> bool:
        """Check an inbound PUBLISH against the session; True if it is new."""
        if packet.topic_alias is not None and not self._resolve(packet):
            return False
        qos = packet.qos
        if qos == 0:
            return True
        session = self.session
        assert session is not None
        packet_id = packet.packet_id
        if qos == 1:
            pending = session.pending
            if packet.dup and (packet_id in pending or packet_id in session.orphaned):
                self._recognise(packet_id, session)
                return False
            if session.orphaned:
                session.orphaned.pop(packet_id, None)
            pending[packet_id] = packet
        else:
            if packet_id in session.received and not (packet_id in session.stale and not packet.dup):
                session.stale.discard(packet_id)
                if session.received[packet_id] is None:
                    self._put(encode(p.PubRec(packet_id), self.version))
                return False
            session.stale.discard(packet_id)
            session.received[packet_id] = packet
        under_way = len(session.pending) + len(session.received) - len(session.stale)  # of this connection: 4.9
        if self.version == 5 and under_way > self._limits.receive_maximum:
            self.close(reasons.RECEIVE_MAXIMUM_EXCEEDED, "more messages under way than the receive maximum")
            return False
        return True

    def _recognise(self, packet_id: int, session: Session) -> None:
        """Acknowledge a QoS 1 message that came before, if it is durable; else when it is."""
        if packet_id in session.pending:
            return
        publish = session.orphaned.pop(packet_id)
        if publish is None:
            self._put(encode(p.PubAck(packet_id), self.version))
        else:
            session.pending[packet_id] = publish

    def _resolve(self, packet: Publish) -> bool:
        """Put the topic in place of its alias."""
        if self._aliases_in is None:
            self._aliases_in = AliasesIn(self._limits.topic_alias_maximum)
        try:
            self._aliases_in.resolve(packet)
        except ProtocolViolation as error:
            self.close(error.reason_code, error.text, with_text=False)
            return False
        return True

    def _acknowledged(self, packet: p.PubAck, now: int) -> None:
        session = self.session
        assert session is not None
        delivery = session.inflight.get(packet.packet_id)
        if delivery is None:
            return
        if delivery.qos != 1:
            self.close(reasons.PROTOCOL_ERROR, "PUBACK for a message at QoS 2", with_text=False)
            return
        self._finish(delivery, session, now)

    def _received(self, packet: p.PubRec, now: int) -> None:
        session = self.session
        assert session is not None
        delivery = session.inflight.get(packet.packet_id)
        if delivery is not None and delivery.qos != 2:
            self.close(reasons.PROTOCOL_ERROR, "PUBREC for a message at QoS 1", with_text=False)
            return
        if packet.reason_code >= 0x80:
            if delivery is not None:
                self._finish(delivery, session, now)
            return
        if delivery is not None:
            delivery.is_released = True
        self._put(encode(p.PubRel(packet.packet_id), self.version))

    def _completed(self, packet: p.PubComp, now: int) -> None:
        session = self.session
        assert session is not None
        delivery = session.inflight.get(packet.packet_id)
        if delivery is None:
            return
        if not delivery.is_released:
            self.close(reasons.PROTOCOL_ERROR, "PUBCOMP before PUBREC", with_text=False)
            return
        self._finish(delivery, session, now)

    def _released(self, packet: p.PubRel) -> bool:
        """PUBREL: forget the id. The broker sees it where there was one, to strike it out of the journal."""
        session = self.session
        assert session is not None
        is_known = packet.packet_id in session.received
        if is_known:
            del session.received[packet.packet_id]
            session.stale.discard(packet.packet_id)
        self._put(encode(p.PubComp(packet.packet_id), self.version))
        return is_known and session.is_stored

    def _disconnected(self, packet: p.Disconnect) -> None:
        session = self.session
        assert session is not None
        if packet.session_expiry_interval is not None:
            if session.expiry_s == 0 and packet.session_expiry_interval:
                self.close(reasons.PROTOCOL_ERROR, "session expiry after none was asked for", with_text=False)
                return  # 3.14.2.2.2
            session.expiry_s = min(packet.session_expiry_interval, self._limits.session_expiry_s_max)
        text = packet.reason_string or "the client disconnected"
        self._end(Closed(packet.reason_code, text, is_by_client=True, keeps_will=packet.reason_code != 0))

    # ------------------------------------------------------------------ answers

    def accept(
        self,
        session: Session,
        now: int,
        *,
        session_present: bool,
        assigned_client_id: str | None = None,
        response_information: str | None = None,
    ) -> None:
        """Answer CONNECT and go on with `session`: what was under way is sent again, then what waited (4.4)."""
        limits = self._limits
        self.session = session
        session.connection = self
        answer = p.ConnAck(session_present=session_present)
        if self.version == 5:
            answer.assigned_client_id = assigned_client_id
            answer.response_information = response_information
            answer.receive_maximum = limits.receive_maximum
            answer.maximum_packet_size = limits.packet_bytes_max
            answer.topic_alias_maximum = limits.topic_alias_maximum
            answer.user_properties = limits.user_properties
            if limits.keep_alive_s_max < 65_535 and not 0 < self.keep_alive_s <= limits.keep_alive_s_max:
                self.keep_alive_s = answer.server_keep_alive = limits.keep_alive_s_max
        data = encode(answer, self.version)
        if self._packet_bytes_max and len(data) > self._packet_bytes_max:
            self._end(Closed(reasons.PACKET_TOO_LARGE, "the client's maximum packet size has no room for CONNACK"))
            return
        self._put(data)
        self._resume(session, now)
        self.pump(now)

    def _resume(self, session: Session, now: int) -> None:
        """Send again what was under way, as far as this connection's receive maximum goes."""
        deliveries = list(session.inflight.values())
        again = deliveries[: self._inflight_max]
        later = deliveries[self._inflight_max :]
        for delivery in later:
            del session.inflight[delivery.packet_id]
        if later:
            session.requeue(later)
        for delivery in again:
            if delivery.is_released:
                self._put(encode(p.PubRel(delivery.packet_id), self.version))
            elif session.is_for(delivery):
                self._send(delivery, session, now)
            else:
                session.withhold(delivery)

    def refuse(
        self, reason_code: int, text: str, *, with_text: bool = True, server_reference: str | None = None
    ) -> None:
        """Answer CONNECT with a refusal; 3.1.1 gets the return code that is nearest (3.2.2.3)."""
        if self.version == 5:
            answer = p.ConnAck(reason_code=reason_code, server_reference=server_reference)
            if with_text and self.with_problems:
                answer.reason_string = text
        else:
            answer = p.ConnAck(reason_code=reasons.connack_return_code(reason_code))
        self._put(encode(answer, self.version))
        self._end(Closed(reason_code, text, keeps_will=False))

    def settle(self, publish: Publish, reason_code: int = 0, reason: str | None = None) -> None:
        """Acknowledge an inbound message, durable or refused. Called in the order of the PUBLISH packets."""
        session = self.session
        assert session is not None
        if session.connection is self:
            self.acknowledge(publish, reason_code, reason)
        elif reason_code >= 0x80:
            session.forget(publish)
        elif session.become_durable(publish) and session.connection is not None:
            session.connection.acknowledge(publish, reason_code, reason)

    def acknowledge(self, publish: Publish, reason_code: int = 0, reason: str | None = None) -> None:
        """Send PUBACK or PUBREC."""
        qos = publish.qos
        session = self.session
        assert session is not None
        packet_id = publish.packet_id
        if qos == 1:
            if session.pending.get(packet_id) is publish:
                del session.pending[packet_id]
            if not reason_code:
                self._put(puback_success(packet_id))
                return
            answer: p.Packet = p.PubAck(packet_id, reason_code, reason if self.with_problems else None)
        elif qos == 2:
            if reason_code >= 0x80:
                session.received.pop(packet_id, None)
            elif packet_id in session.received:
                session.received[packet_id] = None
            answer = p.PubRec(packet_id, reason_code, reason if self.with_problems else None)
        else:
            return
        self._put(encode(answer, self.version))

    def send(self, packet: p.Packet) -> None:
        """Send SUBACK or UNSUBACK."""
        self._put(encode(packet, self.version))

    def close(
        self, reason_code: int, text: str, *, with_text: bool = True, server_reference: str | None = None
    ) -> None:
        """Close from our side; MQTT 5 is told why (3.14). The session goes on as its expiry says."""
        if self.closed is not None:
            return
        self._end(Closed(reason_code, text))
        if self.version == 5 and self.session is not None:
            told = text if with_text and self.with_problems else None
            self._put(encode(p.Disconnect(reason_code, None, told, server_reference), 5))

    # ------------------------------------------------------------------ out

    def deliver_once(self, message: Message, *, retain: bool, subscription_ids: tuple[int, ...], now: int) -> None:
        """Send at QoS 0: now or never."""
        session = self.session
        assert session is not None
        if self.is_blocked or self.closed is not None or self._unflushed_bytes > BURST_BYTES_MAX:
            session.drop()
            return
        if subscription_ids or message.expires or self._aliases_out is not None:
            alias, topic = self._alias(message.topic)
            properties = message.properties_now(subscription_ids, now)
            data = encode(
                Publish(topic, message.payload, retain=retain, properties=properties, topic_alias=alias), self.version
            )
        else:
            data = message.wire(self.version, retain=retain)
        if self._packet_bytes_max and len(data) > self._packet_bytes_max:
            session.drop()  # 3.1.2-24: as if it had been sent
            self._forget_alias(message.topic)
            return
        self._unflushed_bytes += len(data)
        self._put(data)

    def deliver(self, delivery: Delivery, now: int) -> None:
        """Send, at once or when the client can take it."""
        session = self.session
        assert session is not None
        if session.queue or session.feeds or not self._may_send(session):
            session.enqueue(delivery, self._limits.queued_messages_max, self._limits.queued_bytes_max)
        else:
            self._send(delivery, session, now)

    def flushed(self, now: int) -> None:
        """Go on with what waits: the shell has taken what was in `outgoing`."""
        self._unflushed_bytes = 0
        if self.session is not None and self.session.has_waiting:
            self.pump(now)

    def _may_send(self, session: Session) -> bool:
        return (
            len(session.inflight) < self._inflight_max
            and not self.is_blocked
            and self._unflushed_bytes < BURST_BYTES
            and self.closed is None
        )

    def pump(self, now: int) -> None:
        """Send what waits, as far as the client's receive maximum goes (4.9)."""
        session = self.session
        assert session is not None
        while self._may_send(session):
            delivery = session.dequeue()
            if delivery is None:
                return
            expires = delivery.message.expires
            if expires and expires <= now and not delivery.is_resent:
                session.finish(delivery)
            elif delivery.is_released:
                session.inflight[delivery.packet_id] = delivery
                self._put(encode(p.PubRel(delivery.packet_id), self.version))
            elif session.is_for(delivery):
                self._send(delivery, session, now)
            else:
                session.withhold(delivery)

    def _send(self, delivery: Delivery, session: Session, now: int) -> None:
        if delivery.qos and not delivery.packet_id:
            session.allot(delivery)
        message = delivery.message
        if delivery.subscription_ids or message.expires or self._aliases_out is not None:
            alias, topic = self._alias(message.topic)
            data = encode(delivery.packet(now, topic, alias), self.version)
        else:
            first = 0x30 | delivery.is_resent << 3 | delivery.qos << 1 | delivery.retain
            data = message.frame(self.version, first, delivery.packet_id)
        if self._packet_bytes_max and len(data) > self._packet_bytes_max:
            session.withhold(delivery)  # 3.1.2-24: as if it had been sent
            self._forget_alias(message.topic)
            return
        if delivery.qos:
            session.inflight[delivery.packet_id] = delivery
        self._unflushed_bytes += len(data)
        self._put(data)

    def _finish(self, delivery: Delivery, session: Session, now: int) -> None:
        del session.inflight[delivery.packet_id]
        session.finish(delivery)
        if session.queue or session.feeds:
            self.pump(now)

    def _alias(self, topic: str) -> tuple[int | None, str]:
        """Return the alias for `topic`, and the topic to send with it: empty where the client knows it."""
        if self._aliases_out is None:
            return None, topic
        alias, has_topic = self._aliases_out.take(topic)
        return alias, topic if has_topic else ""

    def _forget_alias(self, topic: str) -> None:
        if self._aliases_out is not None:
            self._aliases_out.forget(topic)
