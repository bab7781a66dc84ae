"""The broker as other rooms see it, safe from any thread: counters, and publishing as the platform."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from time import time_ns
from typing import Final, TypeVar

import msgspec

from godwit.contract.errors import UnavailableError
from godwit.mqtt import reasons
from godwit.mqtt.packets import Publish
from godwit.server.broker.broker import Broker
from godwit.server.broker.client import Client
from godwit.server.broker.inspection import Inspection
from godwit.server.broker.redirect import Redirect
from godwit.server.broker.rights import INSIDE
from godwit.server.broker.stats import BrokerStats

T = TypeVar("T")

LEAVE_AT_ONCE: Final = 100
LEAVE_EVERY_S: Final = 0.05
"""The other server is not to have a whole fleet at its door in one moment."""


class ThreadSafeDoor:
    """Implements `BrokerDoor`."""

    def __init__(
        self,
        broker: Broker,
        addresses: dict[str, str],
        loop: asyncio.AbstractEventLoop,
        bridges: Callable[[], dict[str, str]] = dict,
    ) -> None:
        self._broker = broker
        self._addresses = addresses
        self._loop = loop
        self.inspection = Inspection(broker)
        self._bridges = bridges

    def stats(self) -> BrokerStats:
        """Return counters. Read without a lock: each is one number."""
        broker, counters = self._broker, self._broker.counters
        return BrokerStats(
            connections=broker.connections,
            sessions=len(broker.sessions),
            subscriptions=broker.routes.count,
            retained=len(broker.retained),
            messages_in=counters.messages_in,
            messages_out=counters.messages_out,
            bytes_in=counters.bytes_in,
            bytes_out=counters.bytes_out,
            dropped=counters.dropped,
            forbidden=counters.forbidden,
            pending_bytes=broker.pending_bytes,
            listeners=dict(self._addresses),
            limited=msgspec.structs.asdict(broker.gate.limited),
            redirect=broker.redirect.server_reference if broker.redirect is not None else "",
            bridges=self._bridges(),
        )

    def trouble(self) -> list[str]:
        """Return nothing: what can fail here fails loudly."""
        return []

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish as the platform; returns once durable. Raises UnavailableError when the broker is gone."""
        durable: Future[None] = Future()

        def post() -> None:
            publish = Publish(topic, payload, qos, retain)
            self._broker.post(publish, time_ns(), done=lambda: _resolve(durable))

        try:
            self._loop.call_soon_threadsafe(post)
        except RuntimeError as error:
            raise UnavailableError("the broker is not running") from error
        await asyncio.wrap_future(durable)

    async def kick(self, client_id: str) -> bool:
        """Disconnect a client (MQTT 5: 0x98, administrative action); False if it is not there."""

        def close() -> bool:
            client = self._broker.clients.get(client_id)
            if client is not None:
                client.core.close(reasons.ADMINISTRATIVE_ACTION, "disconnected by an administrator")
            return client is not None

        return await self._do(close)

    @property
    def redirect(self) -> Redirect | None:
        """Where clients are sent instead; None: they are welcome."""
        return self._broker.redirect

    async def set_redirect(self, redirect: Redirect | None) -> int:
        """Send clients elsewhere from now on, who connects and who is connected; None: let them in again.

        Returns how many connections are told to go. They are, some at a time.
        """
        broker = self._broker

        def send_away() -> list[Client]:
            broker.redirect = redirect
            return [] if redirect is None else [each for each in broker.clients.values() if each.listener != INSIDE]

        leaving = await self._do(send_away)
        if redirect is not None:
            self._loop.call_soon_threadsafe(self._send_away, leaving, redirect)
        return len(leaving)

    def _send_away(self, leaving: list[Client], redirect: Redirect) -> None:
        for client in leaving[:LEAVE_AT_ONCE]:
            _redirect(client, redirect)
        if len(leaving) > LEAVE_AT_ONCE:
            self._loop.call_later(LEAVE_EVERY_S, self._send_away, leaving[LEAVE_AT_ONCE:], redirect)

    async def redirect_client(self, client_id: str, redirect: Redirect) -> bool:
        """Send one connected client elsewhere; False if it is not there."""

        def send_away() -> bool:
            client = self._broker.clients.get(client_id)
            if client is not None:
                _redirect(client, redirect)
            return client is not None

        return await self._do(send_away)

    async def _do(self, act: Callable[[], T]) -> T:
        """Have `act` called on the broker's loop; returns what it returns."""
        done: Future[T] = Future()
        try:
            self._loop.call_soon_threadsafe(lambda: done.set_result(act()))
        except RuntimeError as error:
            raise UnavailableError("the broker is not running") from error
        result = await asyncio.wrap_future(done)
        self.inspection.forget()
        return result


def _redirect(client: Client, redirect: Redirect) -> None:
    client.core.close(redirect.reason_code, redirect.text, server_reference=redirect.server_reference)


def _resolve(durable: Future[None]) -> None:
    if not durable.done():
        durable.set_result(None)
