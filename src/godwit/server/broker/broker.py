"""The broker: who is connected, who subscribes to what, and the road of a message from its arrival to its subscribers.

A publish is looked up in the routes, goes to ingest if it is one of the contract, is laid into the journal if something
of it must outlive the process, and joins the group commit. When that is durable it comes back (`settle`): subscribers
are served, then it is acknowledged. All of it runs on the broker loop; nothing blocks or awaits. Times are ns UTC.
"""

from collections.abc import Callable, Iterable
from typing import Final

from godwit.contract import codes
from godwit.contract.topics import Topics
from godwit.mqtt import packets as p
from godwit.mqtt import reasons
from godwit.mqtt.packets import Publish
from godwit.mqtt.server_connection import Limits
from godwit.mqtt.server_message import Message
from godwit.mqtt.server_session import QueueRoom, Session
from godwit.server.broker.client import Client, Socket
from godwit.server.broker.drops import Drops
from godwit.server.broker.enrolling import Enrolling, Requested
from godwit.server.broker.fan_out import FanOut
from godwit.server.broker.gate import Gate
from godwit.server.broker.guard import Guard, Judge
from godwit.server.broker.journal import Journal, LeftWill
from godwit.server.broker.limits import Quotas
from godwit.server.broker.packet_trace import PacketTrace
from godwit.server.broker.postings import Barrier, Posting
from godwit.server.broker.presence import NoPresence, PresenceSink
from godwit.server.broker.reception import PENDING_BYTES_MAX, Reception
from godwit.server.broker.redirect import Redirect
from godwit.server.broker.refusals import NOT_AUTHORISED, REASONS, SENTENCES, reason_string
from godwit.server.broker.retained import Retained
from godwit.server.broker.retained_room import SERVER as NOBODY
from godwit.server.broker.rights import Authenticator
from godwit.server.broker.routes import Route, Routes
from godwit.server.broker.sessions import Sessions
from godwit.server.broker.stats import Counters
from godwit.server.broker.subscriptions import Subscriptions
from godwit.server.broker.wills import Wills
from godwit.server.ingest.arrival import Arrival, Group, Intake, Peer
from godwit.server.ingest.trace import Trace

NS: Final = 1_000_000_000
OVERHEAD_BYTES: Final = 600

SERVER: Final = Peer("$godwit", "internal", identity="$godwit")


class Broker:
    """See the module."""

    def __init__(
        self,
        topics: Topics,
        intake: Intake,
        group: Group,
        journal: Journal,
        authenticator: Authenticator,
        *,
        judge: Judge | None = None,
        limits: Limits | None = None,
        quotas: Quotas | None = None,
        tenant_of: Callable[[str], str] | None = None,
        trace: Trace | None = None,
        redirect: Redirect | None = None,
        now: int,
    ) -> None:
        self.limits = limits or Limits()
        self.gate = Gate(quotas or Quotas(), tenant_of, now)
        self.redirect = redirect
        """Where who connects is sent instead; None: nowhere, he is welcome."""
        self._lane = self.gate.lane
        self._lane_bytes, self._share_bytes = self.gate.quotas.lane_bytes, self.gate.quotas.share_bytes
        self.counters = Counters()
        self.clients: dict[str, Client] = {}
        self.retained = Retained()
        self.routes = Routes(topics)
        self.drops = Drops(self.counters)
        room = QueueRoom(self.gate.quotas.queued_bytes)
        self.kept = Sessions(journal, self.routes, self.drops, self.limits.session_expiry_s_max, room)
        self.sessions = self.kept.by_id
        self.presence: PresenceSink = NoPresence()
        self.pending_bytes = 0
        self.connections = 0
        self._are_rights_changed = False
        self.group = group
        self.journal = journal
        self._intake = intake
        self.enrolling: Enrolling | None = None
        """Who answers requests for an identity."""
        self.on_forbidden: Callable[[Client, str, str], None] = lambda _client, _topic, _code: None
        """Told of a message that a client has no right to: its topic, and the code."""
        self.on_turned_away: Callable[[str, str, str], None] = lambda _code, _detail, _address: None
        """Told of a certificate that the handshake did not accept: code, sentence, address."""
        self.on_withheld: Callable[[LeftWill, str], None] = lambda _left, _code: None
        """Told of a will that is not published, since its client has lost the right to it; and the code."""
        self.trace = trace or Trace()
        self.packet_trace = PacketTrace(self.trace, topics)
        self._authenticator = authenticator
        self.wills = Wills(journal)
        self.guard = Guard(judge)
        self.reception = Reception(self, authenticator, self.guard)
        self._subscriptions = Subscriptions(self)
        fan_out = FanOut(self.routes, self.retained, journal, self.counters, self.limits)
        self._owe, self._serve = fan_out.owe, fan_out.serve
        self._load(now)

    def _load(self, now: int) -> None:
        loaded = self.journal.load(now)
        for message in loaded.retained:
            self.retained.put(message)
            self.gate.may_retain(message, NOBODY)
        for session in loaded.sessions:
            session.rights = self._authenticator.rights_of(session.owner, session.terms, session.client_id)
            self.kept.restore(session, now)
        self.wills.load()

    # ------------------------------------------------------------------ bytes in

    def has_room(self) -> bool:
        """Whether one more connection may come in, be it only to be refused politely; counted if not."""
        return self.gate.has_room(self.connections)

    def admit(self, socket: Socket, listener: str, certificate: bytes | None, address: str = "") -> Client | None:
        """Take in a connection that was made; None if there is no room for it."""
        if not self.gate.has_room(self.connections):
            return None
        self.connections += 1
        self.counters.sockets += 1
        return Client(self, socket, self.limits, listener, certificate, address)

    def turn_away(self, code: str, detail: str, address: str) -> None:
        """Note that somebody's certificate was not accepted in the handshake."""
        self.on_turned_away(code, detail, address)

    def receive(self, client: Client, data: bytes, now: int) -> None:
        """Bytes came from a client."""
        self.counters.bytes_in += len(data)
        client.bytes_in += len(data)
        if client.waiting is not None:
            self.reception.wait(client, data)
            return
        if self.trace.devices:
            self.packet_trace.received(client, data, now)
        self._follow(client, client.core.receive(data, now), now)

    def go_on(self, client: Client, now: int) -> None:
        """Take what came while a client waited to be let in."""
        rest, waiting = client.rest, client.waiting or ()
        client.rest, client.waiting = (), None
        self._follow(client, rest, now)
        for each in waiting:
            if isinstance(each, bytes):
                self.receive(client, each, now)
            else:
                self.take(client, each, now)

    def take(self, client: Client, publishes: list[Publish], now: int) -> None:
        """Take publishes of a client whose bytes were read elsewhere."""
        if client.waiting is not None:
            self.reception.wait(client, publishes)
            return
        self.counters.packets_in += len(publishes)
        if self.trace.devices:
            self.packet_trace.taken(client, publishes, now)
        self._follow(client, client.core.take(publishes, now), now)

    def sent(self, client: Client, data: bytes, now: int) -> None:
        """Note that bytes leave for a client: what still stands in its `outgoing`."""
        self.counters.bytes_out += len(data)
        self.counters.packets_out += len(client.core.outgoing)
        client.bytes_out += len(data)
        if self.trace.devices:
            self.packet_trace.sent(client, data, now)

    def _follow(self, client: Client, packets: Iterable[p.Packet], now: int) -> None:
        for packet in packets:
            if type(packet) is Publish:
                self._take(client, packet, now)
            else:
                self._act(client, packet, now)
                if client.waiting is not None:  # for an answer to its CONNECT
                    client.rest = packets
                    return
        session = client.core.session
        if session is not None and session.finished is not None:
            self.journal.strike(session)

    def _act(self, client: Client, packet: p.Packet, now: int) -> None:
        session = client.core.session
        if isinstance(packet, p.Connect):
            self.reception.connect(client, packet, now)
        elif session is None:
            return
        elif isinstance(packet, p.Subscribe):
            self._subscriptions.subscribe(client, session, packet, now)
        elif isinstance(packet, p.Unsubscribe):
            self._subscriptions.unsubscribe(client, session, packet)
        elif isinstance(packet, p.PubRel):
            self.journal.drop_received(session, packet.packet_id)

    # ------------------------------------------------------------------ connections

    def disconnect(self, client: Client, now: int, reason: str = "connection lost") -> None:
        """Part from a connection that is gone, by whomever. May be called more than once."""
        if client.is_over:
            return
        client.is_over = True
        self.connections -= 1
        credential, still = client.credential, self.guard.asked.get(client)
        self.gate.parted(client)
        self.guard.parted(client)
        core = client.core
        self.counters.packets_in += core.taken
        session = core.session
        if session is None:
            return
        closed = core.closed
        client_id = session.client_id
        session.detach()
        if self.clients.get(client_id) is client:
            del self.clients[client_id]
        text = closed.text if closed is not None else reason
        if self.trace.devices:
            self.packet_trace.parted(client, text, now)
        for device_id in client.devices:
            self.presence.disconnected(device_id, text, now)
        if core.will is not None and (closed is None or closed.keeps_will):
            delay_s = min(core.will.delay_interval, session.expiry_s)
            left = LeftWill(core.will, client.peer, credential, session.terms)
            if delay_s:
                self.wills.put(client_id, now + delay_s * NS, left, still)
            else:
                self.post_will(left, now)
        self.kept.leave(session, now)

    def post_will(self, left: LeftWill, now: int) -> None:
        """Publish a will, in the name of a client that is gone: if it might say it now, too."""
        will, peer = left.will, left.peer
        code = self._withholds(left)
        if code:
            self.counters.forbidden += 1
            self.on_withheld(left, code)
            return
        publish = Publish(will.topic, will.payload, will.qos, will.retain, properties=will.properties)
        self.post(publish, now, peer=peer)

    def _withholds(self, left: LeftWill) -> str:
        """Return the code for which a will is not published, or nothing. That a credential has ended is no reason."""
        topic, peer = left.will.topic, left.peer
        if left.credential is not None:
            denial = self.guard.judge_absent(left.credential, peer.client_id)
            if denial is not None:
                return denial.code
        rights = self._authenticator.rights_of(peer.identity or "", left.terms, peer.client_id)
        route = self.routes.route(topic)
        code = rights.refusal(topic, route.place) if rights is not None else ""
        is_kept = code == codes.DEVICE_CLAIMED and route.is_up  # its owner finds it in quarantine: ingest sees to that
        return "" if is_kept else code

    def note_speaker(self, client: Client, device_id: str, now: int) -> None:
        """Note that a client spoke for a device: the device is there."""
        if not client.speaks_for(device_id):
            return
        session = client.core.session
        if session is not None and session.client_id == device_id and not session.is_device:
            session.is_device = True
            if session.is_stored:
                self.journal.put_session(session)
                self.routes.refresh()
        self.presence.connected(device_id, now)

    def tick(self, now: int) -> None:
        """Once a second or so: delayed wills, sessions that end, changes that no group has taken."""
        for left in self.wills.due(now):
            self.post_will(left, now)
        for client_id in self.kept.end_due(now):
            its = self.wills.take(client_id)
            if its is not None:
                self.post_will(its, now)
        self._drop_expired(now)
        self.guard.tick(now)
        self.reception.tick(now)
        if self._are_rights_changed:
            self._are_rights_changed = False
            self.routes.refresh()
        if self.journal.is_dirty:
            self.after_commit(lambda: None, now)

    def _drop_expired(self, now: int) -> None:
        expired = [each.topic for each in self.retained.expired(now) if self.gate.retained.expire(each)]
        for topic in expired:
            self.retained.drop(topic)
        if expired:
            self.journal.drop_retained(expired)

    def rights_changed(self) -> None:
        """Have routes worked out anew at the next tick: whose a device is has changed."""
        self._are_rights_changed = True

    # ------------------------------------------------------------------ messages in

    def _take(self, client: Client, publish: Publish, now: int) -> None:
        """Take a PUBLISH on its road."""
        counters = self.counters
        counters.messages_in += 1
        client.messages_in += 1
        route = self.routes.route(publish.topic)
        place = route.place
        arrival = Arrival(client, publish, client.peer, now, place)
        if (client.rights is not None or route.is_reserved) and (code := _refusal(client, publish.topic, route)):
            self._forbid(client, arrival, code)
        elif client.meter is not None and (sentence := self.gate.passes(client, publish, now)):
            arrival.code, arrival.detail = codes.RATE_LIMITED, sentence
            self._intake.turn_away(arrival)
        elif route.is_up:
            if place is not client.last_place and place is not None:
                client.last_place = place
                self.note_speaker(client, place.device_id, now)
            self._intake.receive(arrival)
        elif route.is_special:
            self._take_special(client, arrival, route)
        if not arrival.code and (route.has_durable or publish.retain or publish.qos == 2):
            self._lay_by(arrival, route, client.core.session)
        if publish.qos == 0:
            client.sends_once = True
        size = len(publish.payload)
        counters.payload_bytes_in += size
        size += OVERHEAD_BYTES
        self.pending_bytes += size
        client.pending_bytes += size
        if client.pending_bytes > self._share_bytes and (
            self.pending_bytes > self._lane_bytes or self._lane.is_waited_for
        ):
            self.gate.hold(client)
        self.group.join(arrival)

    def _take_special(self, client: Client, arrival: Arrival, route: Route) -> None:
        """Take a request for an identity, or what would be of the contract if its device had a possible id."""
        if route.malformed is not None:
            arrival.code, arrival.detail = route.malformed.code, str(route.malformed)
            self._intake.receive(arrival)
        elif self.enrolling is not None:
            arrival.source = Requested(self.enrolling, client)

    def _forbid(self, client: Client, arrival: Arrival, code: str) -> None:
        """Refuse a message for its topic. Whoever owns the device it was for finds it in quarantine."""
        arrival.code, arrival.detail = code, SENTENCES[code]
        self.counters.forbidden += 1
        self.on_forbidden(client, arrival.publish.topic, code)
        if code == codes.DEVICE_CLAIMED:
            self._intake.receive(arrival)

    def _lay_by(self, arrival: Arrival, route: Route, session: Session | None) -> None:
        """Lay into the journal what must be durable with the message."""
        publish = arrival.publish
        message: Message | None = None
        if publish.retain:
            message = self._retain(arrival, route)
            if arrival.code:
                return
        if publish.qos == 2 and session is not None and session.is_stored:
            self.journal.put_received(session, publish.packet_id)
        if not (route.has_durable and publish.qos):
            return
        self._owe(arrival, route, message or Message(publish, arrival.received), session)

    def _retain(self, arrival: Arrival, route: Route) -> Message | None:
        """Lay a retained document into the journal, if there is room for it.

        Else the message is refused; one of the contract, which is stored all the same, is only not retained.
        """
        message = Message(arrival.publish, arrival.received)
        owner = NOBODY if arrival.peer is SERVER else arrival.peer.client_id
        sentence = self.gate.may_retain(message, owner)
        if not sentence:
            self.journal.retain(message)
            return message
        if route.is_up:
            arrival.publish.retain = False
        else:
            arrival.code, arrival.detail = codes.RETAINED_LIMIT, sentence
        return None

    def post(
        self, publish: Publish, now: int, *, peer: Peer = SERVER, done: Callable[[], None] | None = None
    ) -> Arrival:
        """Publish as the server, or in the name of a client that is gone; `done` is called once it is durable."""
        route = self.routes.route(publish.topic)
        arrival = Arrival(Posting(self, done), publish, peer, now, route.place)
        if route.is_up and peer is not SERVER:
            self._intake.receive(arrival)
        if not arrival.code:
            self._lay_by(arrival, route, None)
        self.pending_bytes += len(publish.payload) + OVERHEAD_BYTES
        self.group.join(arrival)
        return arrival

    def announce(self, topic: str, payload: bytes, now: int, *, qos: int = 0, retain: bool = True) -> None:
        """Publish something of the server's own that need not be durable."""
        arrival = Arrival(Posting(self, None), Publish(topic, payload, qos, retain), SERVER, now)
        self._serve(arrival, None)

    def after_commit(self, done: Callable[[], None], now: int) -> None:
        """Call `done` when everything that happened until now is durable."""
        self.pending_bytes += OVERHEAD_BYTES
        self.group.join(Arrival(Barrier(self._counted(done)), Publish(""), SERVER, now))

    def _counted(self, done: Callable[[], None]) -> Callable[[], None]:
        def call() -> None:
            self.pending_bytes -= OVERHEAD_BYTES
            done()

        return call

    # ------------------------------------------------------------------ settled

    def settle(self, client: Client, arrival: Arrival) -> None:
        """Serve the subscribers of a client's message, durable or refused for good; then acknowledge it."""
        publish = arrival.publish
        core = client.core
        size = len(publish.payload) + OVERHEAD_BYTES
        self.pending_bytes -= size
        client.pending_bytes -= size
        code = arrival.code
        if code:
            if publish.qos:
                if core.version == 5:
                    reason = REASONS.get(code, reasons.PAYLOAD_FORMAT_INVALID)
                    core.settle(publish, reason, reason_string(code, arrival.detail))
                else:
                    core.settle(publish)
            return
        is_heard = self._serve(arrival, core.session)
        if publish.qos:
            if is_heard or publish.qos == 2 or core.version != 5 or arrival.topic is not None:
                core.settle(publish)
            else:
                core.settle(publish, reasons.NO_MATCHING_SUBSCRIBERS)

    def settle_posting(self, arrival: Arrival) -> None:
        """Serve a message that no client waits for."""
        self.pending_bytes -= len(arrival.publish.payload) + OVERHEAD_BYTES
        if not arrival.code:
            self._serve(arrival, None)

    def relieve(self) -> None:
        """Have those read again who were held for having too much under way, as far as there is room."""
        self.gate.lane.relieve(self.pending_bytes)

    @property
    def full_reads(self) -> int:
        """How many sockets that are full may be read again in a turn of the loop: all; the lane holds who must wait."""
        return self.connections

    @property
    def is_full(self) -> bool:
        """Whether nobody may be read: memory is bounded whatever comes in."""
        return self.pending_bytes > PENDING_BYTES_MAX


def _refusal(client: Client, topic: str, route: Route) -> str:
    if route.is_reserved or client.rights is None:
        return NOT_AUTHORISED
    return client.rights.refusal(topic, route.place)
