"""The client's side of a session, without I/O: packet ids, redelivery, quotas, keep-alive. `now` is in seconds, monotonic.

Outbound messages stay until the server has acknowledged them and are sent again after a reconnect (MQTT 5, 4.4), in their
order. Inbound ones are acknowledged when the application says so (`acknowledge`), so that a crash in between loses none.
"""

from collections import deque
from typing import Any, Final

import msgspec

from godwit.contract.errors import UnavailableError
from godwit.mqtt import packets as p
from godwit.mqtt import reasons
from godwit.mqtt.codec import Decoder, encode
from godwit.mqtt.reasons import ProtocolViolation, ReasonError

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
    """The server ends the connection, or broke the protocol."""

    reason_code: int
    reason_string: str | None = None
    server_reference: str | None = None


Event = Connected | Message | Delivered | Closed


class ClientSession:
    """One session; `open` begins a connection of it, `receive` takes its bytes, `take_output` has what is to be sent."""

    def __init__(self, connect: p.Connect) -> None:
        self.connect = connect
        self.version = connect.version
        self.is_connected = False
        self._decoder = Decoder("client", version=self.version)
        self._out: list[bytes] = []
        self._packet_id = 0
        self._inflight: dict[int, p.Publish | p.PubRel] = {}
        self._waiting: deque[p.Publish] = deque()
        self._requests: set[int] = set()
        self._received: set[int] = set()
        self._aliases: dict[int, str] = {}
        self._quota = _PACKET_ID_MAX
        self._keep_alive = connect.keep_alive
        self._sent_at = self._heard_at = 0.0
        self._is_pinging = False

    # --- connection ----------------------------------------------------------------------------------------------

    def open(self, now: float) -> None:
        """Begin a connection: CONNECT is the first to leave."""
        self._decoder = Decoder("client", version=self.version)
        self._out = [encode(self.connect, self.version)]
        self._aliases = {}
        self._requests = set()
        self.is_connected = self._is_pinging = False
        self._sent_at = self._heard_at = now

    def take_output(self, now: float) -> bytes:
        """Return the bytes that are to be sent now."""
        if not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        self._sent_at = now
        return data

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes from the server; return what happened."""
        self._heard_at = now
        events: list[Event] = []
        for packet in self._decoder.feed(data):
            try:
                self._take(packet, events)
            except ProtocolViolation as violation:
                events.append(self._violated(violation))
                return events
        if self._decoder.error is not None:
            events.append(self._violated(self._decoder.error))
        return events

    def _violated(self, violation: ProtocolViolation) -> Closed:
        if self.is_connected and self.version == 5:
            self._put(p.Disconnect(violation.reason_code))
        return Closed(violation.reason_code, violation.text)

    def next_timer(self) -> float | None:
        """Return when `handle_timer` wants to be called; None: never."""
        if not self._keep_alive or not self.is_connected:
            return None
        return self._heard_at + 1.5 * self._keep_alive if self._is_pinging else self._sent_at + self._keep_alive

    def handle_timer(self, now: float) -> list[Event]:
        """Send a PINGREQ when nothing was sent for the keep-alive time; give up when nothing comes back."""
        due = self.next_timer()
        if due is None or now < due:
            return []
        if self._is_pinging:
            return [Closed(reasons.KEEP_ALIVE_TIMEOUT, "the server does not answer")]
        self._is_pinging = True
        self._put(p.PingReq())
        return []

    def disconnect(self, reason_code: int = 0) -> None:
        """Say goodbye."""
        self._put(p.Disconnect(reason_code))
        self.is_connected = False

    def _put(self, packet: p.Packet) -> None:
        self._out.append(encode(packet, self.version))

    # --- outbound ------------------------------------------------------------------------------------------------

    def _next_id(self) -> int:
        for _try in range(_PACKET_ID_MAX):
            self._packet_id = self._packet_id % _PACKET_ID_MAX + 1
            if self._packet_id not in self._inflight and self._packet_id not in self._requests:
                return self._packet_id
        raise UnavailableError("all packet ids are in use", code="inflight-full")

    def publish(self, publish: p.Publish) -> int:
        """Send a message; returns the packet id of its `Delivered` (0 at QoS 0). Waits in order beyond the quota."""
        if publish.qos == 0:
            self._put(publish)
            return 0
        publish.packet_id = self._next_id()
        self._inflight[publish.packet_id] = publish
        if self.is_connected and self._quota > 0 and not self._waiting:
            self._quota -= 1
            self._put(publish)
        else:
            self._waiting.append(publish)
        return publish.packet_id

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
        """Tell the server that an inbound message is safe."""
        if publish.qos == 1:
            self._put(p.PubAck(publish.packet_id, reason_code))
        elif publish.qos == 2:
            if reason_code >= _REFUSED:
                self._received.discard(publish.packet_id)
            self._put(p.PubRec(publish.packet_id, reason_code))

    # --- inbound -------------------------------------------------------------------------------------------------

    def _take(self, packet: p.Packet, events: list[Event]) -> None:
        kind = type(packet)
        if not self.is_connected and kind is not p.ConnAck and kind is not p.Auth:
            raise ProtocolViolation(reasons.PROTOCOL_ERROR, "the server did not answer CONNECT first")
        handler = _HANDLERS.get(kind)
        if handler is None:
            raise ProtocolViolation(reasons.PROTOCOL_ERROR, f"the server sent {kind.__name__}")
        handler(self, packet, events)

    def _take_connack(self, ack: p.ConnAck, events: list[Event]) -> None:
        if ack.reason_code:
            events.append(Closed(ack.reason_code, ack.reason_string, ack.server_reference))
            return
        self.is_connected = True
        self._quota = ack.receive_maximum or _PACKET_ID_MAX
        if ack.server_keep_alive is not None:
            self._keep_alive = ack.server_keep_alive
        self._waiting.clear()
        if not ack.session_present:
            self._received.clear()
        for packet_id, held in list(self._inflight.items()):
            if isinstance(held, p.PubRel) and not ack.session_present:
                # The server has forgotten the exchange, which it had stored: it is done.
                del self._inflight[packet_id]
                events.append(Delivered(packet_id, (0,)))
            elif isinstance(held, p.PubRel):
                self._put(held)
            else:
                held.dup = ack.session_present
                self._waiting.append(held)
        self._release()
        events.insert(0, Connected(ack))

    def _release(self) -> None:
        while self._waiting and self._quota > 0:
            self._quota -= 1
            self._put(self._waiting.popleft())

    def _take_publish(self, publish: p.Publish, events: list[Event]) -> None:
        if publish.topic_alias is not None:
            if publish.topic:
                self._aliases[publish.topic_alias] = publish.topic
            elif publish.topic_alias in self._aliases:
                publish.topic = self._aliases[publish.topic_alias]
            else:
                raise ProtocolViolation(reasons.TOPIC_ALIAS_INVALID, "unknown topic alias")
        if publish.qos == 2:
            if publish.packet_id in self._received:
                self._put(p.PubRec(publish.packet_id))
                return
            self._received.add(publish.packet_id)
        events.append(Message(publish))

    def _done(self, packet_id: int, code: int, text: str | None, events: list[Event]) -> None:
        if self._inflight.pop(packet_id, None) is not None:
            self._quota += 1
            events.append(Delivered(packet_id, (code,), text))
            self._release()

    def _take_puback(self, ack: p.PubAck | p.PubComp, events: list[Event]) -> None:
        self._done(ack.packet_id, ack.reason_code, ack.reason_string, events)

    def _take_pubrec(self, ack: p.PubRec, events: list[Event]) -> None:
        if ack.reason_code >= _REFUSED:
            self._done(ack.packet_id, ack.reason_code, ack.reason_string, events)
            return
        is_known = ack.packet_id in self._inflight
        release = p.PubRel(ack.packet_id, 0 if is_known else reasons.PACKET_IDENTIFIER_NOT_FOUND)
        if is_known:
            self._inflight[ack.packet_id] = release
        self._put(release)

    def _take_pubrel(self, release: p.PubRel, _events: list[Event]) -> None:
        code = 0 if release.packet_id in self._received else reasons.PACKET_IDENTIFIER_NOT_FOUND
        self._received.discard(release.packet_id)
        self._put(p.PubComp(release.packet_id, code))

    def _take_suback(self, ack: p.SubAck | p.UnsubAck, events: list[Event]) -> None:
        self._requests.discard(ack.packet_id)
        events.append(Delivered(ack.packet_id, ack.reason_codes or (0,), ack.reason_string))

    def _take_pong(self, _pong: p.PingResp, _events: list[Event]) -> None:
        self._is_pinging = False

    def _take_disconnect(self, said: p.Disconnect, events: list[Event]) -> None:
        self.is_connected = False
        events.append(Closed(said.reason_code, said.reason_string, said.server_reference))


_HANDLERS: Final[dict[type, Any]] = {
    p.ConnAck: ClientSession._take_connack,  # noqa: SLF001 - the table of this very class
    p.Publish: ClientSession._take_publish,  # noqa: SLF001
    p.PubAck: ClientSession._take_puback,  # noqa: SLF001
    p.PubRec: ClientSession._take_pubrec,  # noqa: SLF001
    p.PubRel: ClientSession._take_pubrel,  # noqa: SLF001
    p.PubComp: ClientSession._take_puback,  # noqa: SLF001
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
