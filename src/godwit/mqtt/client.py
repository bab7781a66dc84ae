"""An asyncio shell around the client session: one connection. Reconnecting, and when, is its user's business.

Raises UnavailableError when there is no connection (or no more), `refused` with the server's reason when it says no.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Final, Self, cast

from godwit.contract.errors import RejectedError, UnavailableError
from godwit.mqtt import packets as p
from godwit.mqtt.client_session import ClientSession, Closed, Connected, Delivered, Message, raise_for
from godwit.mqtt.reasons import reason_name

CONNECT_S_MAX: Final = 10.0
WRITE_BUFFER_BYTES: Final = 1_048_576


class MqttClient(asyncio.Protocol):
    """One connection to a broker. Make it with `connect`."""

    def __init__(self, session: ClientSession) -> None:
        self.session = session
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._accepted: asyncio.Future[p.ConnAck] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._answers: dict[int, asyncio.Future[Delivered]] = {}
        self._messages: asyncio.Queue[p.Publish | None] = asyncio.Queue()
        self._timer: asyncio.TimerHandle | None = None
        self._can_write = asyncio.Event()
        self._can_write.set()
        self.why_closed = ""

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        connect: p.Connect,
        *,
        tls: ssl.SSLContext | None = None,
        session: ClientSession | None = None,
        timeout_s: float = CONNECT_S_MAX,
    ) -> Self:
        """Connect and wait for CONNACK. A `session` from an earlier connection is gone on with.

        Raises OSError when there is no way to the host, UnavailableError when nothing answers, RejectedError (`refused`)
        when the server says no.
        """
        client = cls(session or ClientSession(connect))
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.get_running_loop().create_connection(lambda: client, host, port, ssl=tls)
                await asyncio.shield(client._accepted)
        except TimeoutError:
            client._end("the broker does not answer")
            raise UnavailableError(f"{host}:{port} does not answer within {timeout_s:g} s") from None
        except (UnavailableError, RejectedError):
            client._end("refused")
            raise
        return client

    # --- asyncio's side -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self.session.open(self._loop.time())
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the session and act on what happened."""
        for event in self.session.receive(data, self._loop.time()):
            self._act(event)
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell everybody who waits."""
        self._end(str(error) if error else "the connection is closed")

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self._can_write.clear()

    def resume_writing(self) -> None:
        """It takes more again."""
        self._can_write.set()

    def _act(self, event: Connected | Message | Delivered | Closed) -> None:
        if isinstance(event, Delivered):
            waiting = self._answers.pop(event.packet_id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(event)
        elif isinstance(event, Message):
            self._messages.put_nowait(event.publish)
        elif isinstance(event, Connected):
            if not self._accepted.done():
                self._accepted.set_result(event.ack)
        else:
            said = reason_name(event.reason_code) if self.session.version == 5 else f"code {event.reason_code}"
            text = f"{said}: {event.reason_string}" if event.reason_string else said
            if not self._accepted.done():
                self._accepted.set_exception(RejectedError(f"the broker refuses: {text}", code="refused"))
            self._flush()
            self._end(text)

    def _flush(self) -> None:
        transport = self._transport
        data = self.session.take_output(self._loop.time())
        if data and transport is not None and not transport.is_closing():
            transport.write(data)
        due = self.session.next_timer()
        if due is not None and self._timer is None:
            self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        for event in self.session.handle_timer(self._loop.time()):
            self._act(event)
        if not self._closed.done():
            self._flush()

    def _end(self, why: str) -> None:
        if self._closed.done():
            return
        self.why_closed = why
        self._closed.set_result(None)
        self.session.is_connected = False
        self._can_write.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._accepted.done():
            self._accepted.set_exception(UnavailableError(why))
        if not self._accepted.cancelled():
            self._accepted.exception()  # seen, also where nobody asked
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(UnavailableError(why))
                waiting.exception()
        self._answers.clear()
        self._messages.put_nowait(None)
        if self._transport is not None:
            self._transport.close()

    # --- its user's side ------------------------------------------------------------------------------------------

    @property
    def ack(self) -> p.ConnAck:
        """What the server said to CONNECT."""
        return self._accepted.result()

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
        """Publish; at QoS 1 and 2 return the reason code once the server has acknowledged.

        The packet is written before the first wait, so calls keep their order. Raises UnavailableError when the
        connection ends first.
        """
        self._require_open()
        packet_id = self.session.publish(p.Publish(topic, payload, qos, retain, properties=properties))
        self._flush()
        if not packet_id:
            await self._can_write.wait()
            return 0
        return (await self._answer(packet_id)).reason_codes[0]

    async def _answer(self, packet_id: int) -> Delivered:
        waiting: asyncio.Future[Delivered] = self._loop.create_future()
        self._answers[packet_id] = waiting
        return await waiting

    async def subscribe(self, *filters: str, qos: int = 1) -> None:
        """Subscribe. Raises ReasonError when the server refuses any filter."""
        self._require_open()
        packet_id = self.session.subscribe(tuple(p.Subscription(each, qos) for each in filters))
        self._flush()
        answer = await self._answer(packet_id)
        raise_for(answer.reason_codes, answer.reason_string)

    async def messages(self, *, acknowledge: bool = True) -> AsyncIterator[p.Publish]:
        """Yield messages until the connection ends; each is acknowledged when the next one is asked for."""
        while True:
            publish = await self._messages.get()
            if publish is None:
                return
            yield publish
            if acknowledge:
                self.acknowledge(publish)

    def acknowledge(self, publish: p.Publish, reason_code: int = 0) -> None:
        """Tell the server that a message is safe."""
        self.session.acknowledge(publish, reason_code)
        self._flush()

    async def wait_closed(self) -> None:
        """Wait until the connection ends."""
        await asyncio.shield(self._closed)

    async def disconnect(self) -> None:
        """Say goodbye and close."""
        if not self._closed.done():
            self.session.disconnect()
            self._flush()
            self._end("disconnected")
