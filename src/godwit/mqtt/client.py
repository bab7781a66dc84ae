"""An asyncio shell around the client session: one connection. Reconnecting, and when, is its user's business.

To go on with a session after a lost connection, connect again with the same `ClientSession`: what was not acknowledged
is sent again, in its order. Raises UnavailableError where there is no connection (any more), ReasonError where the
server says no.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final, Self, cast

from godwit.contract.errors import UnavailableError
from godwit.mqtt import packets as p
from godwit.mqtt import reasons
from godwit.mqtt.client_session import ClientSession, Closed, Connected, Delivered, Event, Message, raise_for
from godwit.mqtt.reasons import ReasonError, reason_name

CONNECT_S_MAX: Final = 10.0
CLOSE_S_MAX: Final = 5.0
WRITE_BUFFER_BYTES: Final = 1_048_576
UNREAD_MESSAGES_MAX: Final = 1_000
"""Messages that wait for `messages`; with more the socket is not read, unless somebody waits for an answer: that one
stands behind the messages."""
UNREAD_ONCE_MAX: Final = 100_000
"""With so many, a message at QoS 0 is dropped and counted. At QoS 1 and 2 the receive maximum is the bound."""


class MqttClient(asyncio.Protocol):
    """One connection to a broker. Make it with `connect`."""

    def __init__(
        self,
        session: ClientSession,
        on_delivered: Callable[[Delivered], None] | None = None,
        inspect: Callable[[ssl.SSLObject], None] | None = None,
    ) -> None:
        self.session = session
        self._on_delivered = on_delivered
        self._inspect = inspect
        self.why_closed = ""
        self.reason_code: int | None = None
        """With which the server ended the connection; None: it did not say, or has not."""
        self.server_reference: str | None = None
        """Another server that it named then."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._accepted: asyncio.Future[p.ConnAck] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._answers: dict[int, asyncio.Future[Delivered]] = {}
        self._messages: deque[p.Publish] = deque()
        self._has_news = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._can_write = asyncio.Event()
        self._can_write.set()
        self.lost = 0
        """Messages at QoS 0 that came while far too many were waiting."""
        self._is_unread = False
        self._is_flush_due = False

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        connect: p.Connect,
        *,
        tls: ssl.SSLContext | None = None,
        session: ClientSession | None = None,
        wire: socket.socket | None = None,
        on_delivered: Callable[[Delivered], None] | None = None,
        inspect: Callable[[ssl.SSLObject], None] | None = None,
        timeout_s: float = CONNECT_S_MAX,
    ) -> Self:
        """Connect and wait for CONNACK. A `session` from an earlier connection is gone on with.

        `wire` is a socket that is connected already. `on_delivered` hears of answers that nobody waits for: to
        messages that were handed to the session itself, or before an earlier connection was lost. `inspect` looks at
        TLS after the handshake, before anything is said; the OSError or UnavailableError that it raises is raised here.

        Raises OSError when there is no way to the host, UnavailableError when nothing answers, ReasonError when the
        server says no.
        """
        client = cls(session or ClientSession(connect), on_delivered, inspect)
        where = {"host": host, "port": port} if wire is None else {"sock": wire}
        is_accepted = False
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.get_running_loop().create_connection(lambda: client, ssl=tls, **where)
                await asyncio.shield(client._accepted)
            is_accepted = True
        except TimeoutError:
            raise UnavailableError(f"{host}:{port} does not answer within {timeout_s:g} s") from None
        finally:
            if not is_accepted:
                client._end("the connection was not accepted")
        return client

    # ------------------------------------------------------------------ asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        if self._closed.done():
            self._transport.abort()
            return
        if self._inspect is not None:
            try:
                self._inspect(transport.get_extra_info("ssl_object"))
            except (OSError, UnavailableError) as error:
                self._accepted.set_exception(error)
                self._end(str(error))
                return
        self.session.open(self._loop.time())
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the session and act on what happened."""
        if self._closed.done():
            return
        for event in self.session.receive(data, self._loop.time()):
            self._act(event)
        self._flush()
        self._pace()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell everybody who waits."""
        self._end(str(error) if error else "the connection is closed")
        if not self._gone.done():
            self._gone.set_result(None)

    def pause_writing(self) -> None:
        """Note that the socket takes no more for now."""
        self._can_write.clear()

    def resume_writing(self) -> None:
        """Note that it takes more again."""
        self._can_write.set()

    def _act(self, event: Event) -> None:
        if isinstance(event, Delivered):
            waiting = self._answers.pop(event.packet_id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(event)
            elif waiting is None and self._on_delivered is not None:
                self._on_delivered(event)
        elif isinstance(event, Message):
            if len(self._messages) >= UNREAD_ONCE_MAX and not event.publish.qos:
                self.lost += 1
                return
            self._messages.append(event.publish)
            self._has_news.set()
        elif isinstance(event, Connected):
            if not self._accepted.done():
                self._accepted.set_result(event.ack)
        else:
            self._refused(event)

    def _refused(self, event: Closed) -> None:
        """End: the server said so, or broke the protocol."""
        said = reason_name(event.reason_code)
        self.reason_code, self.server_reference = event.reason_code, event.server_reference
        if not self._accepted.done() and event.reason_code >= reasons.UNSPECIFIED_ERROR:
            refusal = ReasonError(event.reason_code, event.reason_string, event.server_reference)
            self._accepted.set_exception(refusal)
        self._flush()
        self._end(f"{said}: {event.reason_string}" if event.reason_string else said)

    def _flush(self) -> None:
        transport = self._transport
        data = self.session.take_output(self._loop.time())
        if data and transport is not None and not transport.is_closing():
            transport.write(data)
        if self._timer is None and not self._closed.done():
            due = self.session.next_timer()
            if due is not None:
                self._timer = self._loop.call_at(due, self._tick)

    def flush_soon(self) -> None:
        """Flush at the end of this loop turn: one write for everything that is said in it."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._is_flush_due = False
        if not self._closed.done():
            self._flush()

    def _tick(self) -> None:
        self._timer = None
        for event in self.session.handle_timer(self._loop.time()):
            self._act(event)
        self._flush()

    def _end(self, why: str) -> None:
        if self._closed.done():
            return
        self.why_closed = why
        self._closed.set_result(None)
        self.session.lose()
        self._can_write.set()
        self._has_news.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        unanswered: list[asyncio.Future[Any]] = [self._accepted, *self._answers.values()]
        for waiting in unanswered:
            if not waiting.done():
                waiting.set_exception(UnavailableError(why))
            if not waiting.cancelled():
                waiting.exception()  # seen, also where nobody asks
        self._answers.clear()
        if self._transport is None:
            self._gone.set_result(None)
        else:
            self._transport.close()

    # ------------------------------------------------------------------ its user's side

    @property
    def ack(self) -> p.ConnAck:
        """What the server said to CONNECT."""
        return self._accepted.result()

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return not self._closed.done()

    @property
    def can_write(self) -> bool:
        """Whether the connection takes more now."""
        return self._can_write.is_set()

    async def wait_writable(self) -> None:
        """Wait until the connection takes more, or has ended."""
        await self._can_write.wait()

    def _require_open(self) -> None:
        if self._closed.done():
            raise UnavailableError(self.why_closed or "the connection is closed")

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        properties: p.PublishProperties = p.NO_PROPERTIES,
    ) -> int:
        """Publish; at QoS 1 and 2 return the reason code once the server has acknowledged (0x80 and above: refused).

        The packet is written before the first wait, so calls keep their order. Raises UnavailableError when the
        connection ends first; the session then still holds the message and sends it at the next connection.
        """
        answer = await self.deliver(p.Publish(topic, payload, qos, retain, properties=properties))
        return 0 if answer is None else answer.reason_codes[0]

    async def deliver(self, publish: p.Publish) -> Delivered | None:
        """Publish as `publish` does; return the whole answer, with the server's words. None at QoS 0."""
        self._require_open()
        packet_id = self.session.publish(publish)
        if not packet_id:
            self._flush()
            await self._can_write.wait()
            return None
        return await self._answer(packet_id)

    def send(self, publish: p.Publish) -> bool:
        """Publish without waiting for an answer; False, and nothing is sent, where the connection takes no more now."""
        if self._closed.done() or not self._can_write.is_set():
            return False
        self.session.publish(publish)
        self.flush_soon()
        return True

    def _answer(self, packet_id: int) -> asyncio.Future[Delivered]:
        """Send, and return what will be the answer."""
        waiting: asyncio.Future[Delivered] = self._loop.create_future()
        self._answers[packet_id] = waiting
        self._flush()
        self._pace()
        return waiting

    async def subscribe(self, *filters: str | p.Subscription, qos: int = 1) -> tuple[int, ...]:
        """Subscribe; returns what was granted, one code a filter. Raises ReasonError when the server refuses any."""
        self._require_open()
        wanted = tuple(each if isinstance(each, p.Subscription) else p.Subscription(each, qos) for each in filters)
        answer = await self._answer(self.session.subscribe(wanted))
        raise_for(answer.reason_codes, answer.reason_string)
        return answer.reason_codes

    async def unsubscribe(self, *filters: str) -> None:
        """Unsubscribe. Raises ReasonError when the server refuses any."""
        self._require_open()
        answer = await self._answer(self.session.unsubscribe(filters))
        raise_for(answer.reason_codes, answer.reason_string)

    async def messages(self, *, acknowledge: bool = True) -> AsyncIterator[p.Publish]:
        """Yield messages until the connection ends; each is acknowledged when the next one is asked for.

        With `acknowledge` false the caller does that itself, when the message is safe.
        """
        while True:
            while not self._messages:
                if self._closed.done():
                    return
                self._has_news.clear()
                await self._has_news.wait()
            publish = self._messages.popleft()
            if self._is_unread:
                self._pace()
            yield publish
            if acknowledge:
                self.acknowledge(publish)

    def _pace(self) -> None:
        """Stop reading, or read on."""
        unread, transport = len(self._messages), self._transport
        if transport is None or transport.is_closing():
            return
        if self._is_unread:
            if self._answers or unread < UNREAD_MESSAGES_MAX // 2:
                self._is_unread = False
                transport.resume_reading()
        elif unread >= UNREAD_MESSAGES_MAX and not self._answers:
            self._is_unread = True
            transport.pause_reading()

    def acknowledge(self, publish: p.Publish, reason_code: int = 0) -> None:
        """Tell the server that a message is safe."""
        self.session.acknowledge(publish, reason_code)
        if not self._closed.done():
            self._flush()

    def acknowledge_all(self, publishes: Iterable[p.Publish]) -> None:
        """Tell the server that these messages are safe, in this order, in one write."""
        for publish in publishes:
            self.session.acknowledge(publish)
        self.flush_soon()

    async def wait_closed(self) -> None:
        """Wait until the connection ends."""
        await asyncio.shield(self._closed)

    async def disconnect(self, session_expiry_interval: int | None = None) -> None:
        """Say goodbye and close; returns when everything written has left."""
        if not self._closed.done():
            self.session.disconnect(session_expiry_interval=session_expiry_interval)
            self._flush()
            self._end("disconnected")
        try:
            await asyncio.wait_for(asyncio.shield(self._gone), CLOSE_S_MAX)
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Hang up without a word, as a lost network would."""
        self._end("aborted")
        if self._transport is not None:
            self._transport.abort()
