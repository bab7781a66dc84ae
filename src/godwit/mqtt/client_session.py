"""The client's side of a session, without I/O: packet ids, redelivery, quotas, keep-alive.

Outbound messages stay until the server has acknowledged them and are sent again after a reconnect (MQTT 5, 4.4), in
their order. Inbound ones are acknowledged when the application says so (`acknowledge`), so that a crash in between
loses none. `now` is in seconds of any clock that never goes back.
"""

from collections import deque
from typing import Any, Final, TypeAlias

import msgspec

from godwit.contract.errors import UnavailableError
from godwit.mqtt import packets as p
from godwit.mqtt import reasons
from godwit.mqtt.codec import Decoder, encode
from godwit.mqtt.inbound import Inbound
from godwit.mqtt.reasons import ProtocolViolation, ReasonError
from godwit.mqtt.topic_aliases import AliasesOut

_PACKET_ID_MAX: Final = 65_535
_REFUSED: Final = 0x80


class Connected(msgspec.Struct, frozen=True):
    """The server accepted the connection."""

    ack: p.ConnAck


class Message(msgspec.Struct, frozen=True):
    """An inbound message. At QoS 1 and 2 it waits for `acknowledge`."""

    publish: p.Publish


class Delivered(msgspec.Struct, frozen=True):
    """An outbound message, or a (un)subscription, was answered. `reason_codes` has one a filter, else one."""

    packet_id: int
    reason_codes: tuple[int, ...]
    reason_string: str | None = None


class Closed(msgspec.Struct, frozen=True):
    """The server ends the connection, or broke the protocol. `reason_code` is MQTT 5's, whatever the version."""

    reason_code: int
    reason_string: str | None = None
    server_reference: str | None = None


Event: TypeAlias = Connected | Message | Delivered | Closed


class ClientSession:
    """One session; `open` begins a connection of it, `receive` takes its bytes, `take_output` has what is to leave.

    `aliases_max`: how many topics may be sent by number (MQTT 5 topic aliases), if the server takes them.
    """

    def __init__(self, connect: p.Connect, *, aliases_max: int = 0) -> None:
        self.connect = connect
        self.version = connect.version
        self.is_connected = False
        self.server = p.ConnAck()
        """What the server said of itself at the last CONNACK."""
        self._decoder = Decoder("client", version=self.version)
        self._out: list[bytes] = []
        self._packet_id = 0
        self._inflight: dict[int, p.Publish | p.PubRel] = {}
        self._waiting: deque[p.Publish] = deque()
        self._requests: set[int] = set()
        self._inbound = Inbound(
            connect.receive_maximum if connect.version == 5 else _PACKET_ID_MAX, connect.topic_alias_maximum
        )
        self._aliases_max = aliases_max
        self._aliases: AliasesOut | None = None
        self._quota = self._quota_max = _PACKET_ID_MAX
        self._keep_alive = connect.keep_alive
        self._sent_at = self._heard_at = self._pinged_at = 0.0
        self._is_pinging = False
        self._is_kept = False

    # ------------------------------------------------------------------ the connection

    def open(self, now: float) -> None:
        """Begin a connection: CONNECT is the first to leave. A session that the server keeps is gone on with."""
        self._decoder = Decoder("client", version=self.version)
        connect = self.connect
        if self._is_kept and connect.clean_start:
            connect = msgspec.structs.replace(connect, clean_start=False)
        self._out = [encode(connect, self.version)]
        self._inbound.part()
        self._requests = set()
        self.is_connected = self._is_pinging = False
        self._sent_at = self._heard_at = now

    def lose(self) -> None:
        """Note that the connection is gone: from now on messages wait for the next one."""
        self.is_connected = self._is_pinging = False
        self._out = []

    def take_output(self, now: float) -> bytes:
        """Return the bytes that are to be sent now."""
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._sent_at = now
        return data

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes from the server; return what happened."""
        self._heard_at = now
        self._is_pinging = False
        events: list[Event] = []
        try:
            for packet in self._decoder.feed(data):
                self._take(packet, events)
            if self._decoder.error is not None:
                raise self._decoder.error
        except ProtocolViolation as violation:
            events.append(self._violated(violation))
        return events

    def _violated(self, violation: ProtocolViolation) -> Closed:
        if self.is_connected and self.version == 5:
            self._put(p.Disconnect(violation.reason_code))
        self.is_connected = False
        return Closed(violation.reason_code, violation.text)

    def next_timer(self) -> float | None:
        """Return when `handle_timer` wants to be called; None: never."""
        keep_alive = self._keep_alive
        if not keep_alive or not self.is_connected:
            return None
        if self._is_pinging:
            return self._pinged_at + keep_alive / 2
        return min(self._sent_at, self._heard_at) + keep_alive

    def handle_timer(self, now: float) -> list[Event]:
        """Send a PINGREQ after a keep-alive of silence on either side; give up when half of one brings no answer."""
        due = self.next_timer()
        if due is None or now < due:
            return []
        if self._is_pinging:
            self.is_connected = False
            return [Closed(reasons.KEEP_ALIVE_TIMEOUT, "the server does not answer")]
        self._is_pinging = True
        self._pinged_at = now
        self._put(p.PingReq())
        return []

    def disconnect(self, reason_code: int = 0, session_expiry_interval: int | None = None) -> None:
        """Say goodbye."""
        self._put(p.Disconnect(reason_code, session_expiry_interval))
        self.is_connected = False

    def _put(self, packet: p.Packet) -> None:
        self._out.append(encode(packet, self.version))

    # ------------------------------------------------------------------ out

    @property
    def inflight(self) -> int:
        """How many messages wait for their acknowledgement."""
        return len(self._inflight)

    def _next_id(self) -> int:
        for _try in range(_PACKET_ID_MAX):
            self._packet_id = self._packet_id % _PACKET_ID_MAX + 1
            if self._packet_id not in self._inflight and self._packet_id not in self._requests:
                return self._packet_id
        raise UnavailableError("all packet ids are in use", code="inflight-full")

    def publish(self, publish: p.Publish) -> int:
        """Send a message; returns the packet id of its `Delivered` (0 at QoS 0). Waits in order beyond the quota.

        At QoS 0 it is gone where there is no connection.

        Raises ReasonError where the server said that it takes no such message.
        """
        self._check(publish)
        if publish.qos == 0:
            if self.is_connected:
                self._send(publish)
            return 0
        publish.packet_id = self._next_id()
        self._inflight[publish.packet_id] = publish
        if self.is_connected and self._quota > 0 and not self._waiting:
            self._quota -= 1
            self._send(publish)
        else:
            self._waiting.append(publish)
        return publish.packet_id

    def _check(self, publish: p.Publish) -> None:
        """Refuse here what the server would disconnect us for (MQTT 5, 3.2.2.3)."""
        server = self.server
        if server.maximum_qos is not None and publish.qos > server.maximum_qos:
            raise ReasonError(reasons.QOS_NOT_SUPPORTED, f"the server takes QoS {server.maximum_qos} at most")
        if publish.retain and not server.retain_available:
            raise ReasonError(reasons.RETAIN_NOT_SUPPORTED)
        size_max = server.maximum_packet_size
        # The length of a packet needs no more than 12 bytes around topic, payload and properties.
        if size_max is not None and len(publish.topic) + len(publish.payload) + 12 > size_max:
            size = len(encode(publish, self.version))
            if size > size_max:
                raise ReasonError(reasons.PACKET_TOO_LARGE, f"{size} bytes, the server takes {size_max}")

    def _send(self, publish: p.Publish) -> None:
        """Write a message, with its topic as a number where that was agreed on (3.3.2.3.4)."""
        if self._aliases is not None:
            alias, has_topic = self._aliases.take(publish.topic)
            if alias is not None:
                publish = msgspec.structs.replace(publish, topic=publish.topic if has_topic else "", topic_alias=alias)
        self._out.append(encode(publish, self.version))

    def subscribe(self, subscriptions: tuple[p.Subscription, ...]) -> int:
        """Subscribe; returns the packet id of its `Delivered`."""
        packet_id = self._next_id()
        self._requests.add(packet_id)
        self._put(p.Subscribe(packet_id, subscriptions))
        return packet_id

    def unsubscribe(self, topic_filters: tuple[str, ...]) -> int:
        """Unsubscribe; returns the packet id of its `Delivered`."""
        packet_id = self._next_id()
        self._requests.add(packet_id)
        self._put(p.Unsubscribe(packet_id, topic_filters))
        return packet_id

    def acknowledge(self, publish: p.Publish, reason_code: int = 0) -> None:
        """Tell the server that an inbound message is safe; without effect where it has forgotten the message."""
        answer = self._inbound.acknowledge(publish, reason_code)
        if answer is not None and self.is_connected:
            self._put(answer)

    # ------------------------------------------------------------------ in

    def _take(self, packet: p.Packet, events: list[Event]) -> None:
        kind = type(packet)
        if not self.is_connected and kind is not p.ConnAck:
            raise ProtocolViolation(reasons.PROTOCOL_ERROR, "the server did not answer CONNECT first")
        handler = _HANDLERS.get(kind)
        if handler is None or (self.is_connected and kind is p.ConnAck):
            raise ProtocolViolation(reasons.PROTOCOL_ERROR, f"the server sent {kind.__name__}")
        handler(self, packet, events)

    def _take_connack(self, ack: p.ConnAck, events: list[Event]) -> None:
        if ack.reason_code:
            code = ack.reason_code if self.version == 5 else reasons.connack_reason(ack.reason_code)
            events.append(Closed(code, ack.reason_string, ack.server_reference))
            return
        self.is_connected = True
        self.server = ack
        self._quota = self._quota_max = ack.receive_maximum or _PACKET_ID_MAX
        self._keep_alive = self.connect.keep_alive if ack.server_keep_alive is None else ack.server_keep_alive
        aliases_max = min(self._aliases_max, ack.topic_alias_maximum)
        self._aliases = AliasesOut(aliases_max) if aliases_max else None
        self._keep(ack)
        events.append(Connected(ack))
        unsent = {publish.packet_id for publish in self._waiting}
        self._waiting.clear()
        if not ack.session_present:
            self._inbound.forget()
        for packet_id, held in list(self._inflight.items()):
            if isinstance(held, p.Publish):
                held.dup = ack.session_present and (held.dup or packet_id not in unsent)
                self._waiting.append(held)
            elif ack.session_present:
                self._put(held)
                self._quota -= 1  # 4.9 does not ask for it, but a server may count what it still remembers
            else:
                # The server has forgotten the exchange, but it had stored the message: it is done.
                del self._inflight[packet_id]
                events.append(Delivered(packet_id, (0,)))
        self._release(events)

    def _keep(self, ack: p.ConnAck) -> None:
        """Note whether the server keeps the session when the connection ends, and under which name."""
        expiry_s = self.connect.session_expiry_interval
        if ack.session_expiry_interval is not None:
            expiry_s = ack.session_expiry_interval
        self._is_kept = self.version == 5 and expiry_s > 0
        if ack.assigned_client_id:
            self.connect = msgspec.structs.replace(self.connect, client_id=ack.assigned_client_id)

    def _release(self, events: list[Event]) -> None:
        """Send what waits, as far as the server's receive maximum goes (4.9)."""
        while self._waiting and self._quota > 0:
            publish = self._waiting.popleft()
            try:
                self._check(publish)
            except ReasonError as refusal:  # it was taken in before this server said what it bears
                del self._inflight[publish.packet_id]
                events.append(Delivered(publish.packet_id, (refusal.reason_code,), refusal.reason_string))
            else:
                self._quota -= 1
                self._send(publish)

    def _take_publish(self, publish: p.Publish, events: list[Event]) -> None:
        is_new, answer = self._inbound.receive(publish)
        if is_new:
            events.append(Message(publish))
        if answer is not None:
            self._put(answer)

    def _done(self, packet_id: int, code: int, text: str | None, events: list[Event]) -> None:
        del self._inflight[packet_id]
        self._quota = min(self._quota + 1, self._quota_max)
        events.append(Delivered(packet_id, (code,), text))
        self._release(events)

    def _take_puback(self, ack: p.PubAck, events: list[Event]) -> None:
        held = self._inflight.get(ack.packet_id)
        if isinstance(held, p.Publish) and held.qos == 1:
            self._done(ack.packet_id, ack.reason_code, ack.reason_string, events)
        elif held is not None:
            raise ProtocolViolation(reasons.PROTOCOL_ERROR, "PUBACK for a message at QoS 2")

    def _take_pubcomp(self, ack: p.PubComp, events: list[Event]) -> None:
        held = self._inflight.get(ack.packet_id)
        if isinstance(held, p.PubRel):
            # 0x92: the server has no such message any more, which it had acknowledged by PUBREC.
            self._done(ack.packet_id, 0, ack.reason_string, events)
        elif held is not None:
            raise ProtocolViolation(reasons.PROTOCOL_ERROR, "PUBCOMP before PUBREC")

    def _take_pubrec(self, ack: p.PubRec, events: list[Event]) -> None:
        held = self._inflight.get(ack.packet_id)
        if isinstance(held, p.Publish) and held.qos == 1:
            raise ProtocolViolation(reasons.PROTOCOL_ERROR, "PUBREC for a message at QoS 1")
        if ack.reason_code >= _REFUSED:
            if held is not None:
                self._done(ack.packet_id, ack.reason_code, ack.reason_string, events)
            return
        release = p.PubRel(ack.packet_id, 0 if held is not None else reasons.PACKET_IDENTIFIER_NOT_FOUND)
        if held is not None:
            self._inflight[ack.packet_id] = release
        self._put(release)

    def _take_pubrel(self, release: p.PubRel, _events: list[Event]) -> None:
        self._put(self._inbound.release(release))

    def _take_suback(self, ack: p.SubAck | p.UnsubAck, events: list[Event]) -> None:
        self._requests.discard(ack.packet_id)
        events.append(Delivered(ack.packet_id, ack.reason_codes or (0,), ack.reason_string))

    def _take_pong(self, _pong: p.PingResp, _events: list[Event]) -> None:
        """Nothing: whatever is heard ends the waiting for it."""

    def _take_disconnect(self, said: p.Disconnect, events: list[Event]) -> None:
        self.is_connected = False
        events.append(Closed(said.reason_code, said.reason_string, said.server_reference))


_HANDLERS: Final[dict[type, Any]] = {
    p.ConnAck: ClientSession._take_connack,  # noqa: SLF001 - the table of this very class
    p.Publish: ClientSession._take_publish,  # noqa: SLF001
    p.PubAck: ClientSession._take_puback,  # noqa: SLF001
    p.PubRec: ClientSession._take_pubrec,  # noqa: SLF001
    p.PubRel: ClientSession._take_pubrel,  # noqa: SLF001
    p.PubComp: ClientSession._take_pubcomp,  # noqa: SLF001
    p.SubAck: ClientSession._take_suback,  # noqa: SLF001
    p.UnsubAck: ClientSession._take_suback,  # noqa: SLF001
    p.PingResp: ClientSession._take_pong,  # noqa: SLF001
    p.Disconnect: ClientSession._take_disconnect,  # noqa: SLF001
}


def raise_for(reason_codes: tuple[int, ...], reason_string: str | None = None) -> None:
    """Raise ReasonError when any code is a refusal."""
    for code in reason_codes:
        if code >= _REFUSED:
            raise ReasonError(code, reason_string)
