"""The broker as other rooms see it, safe from any thread: counters, and publishing as the platform."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from time import time_ns

import msgspec

from godwit.contract.errors import UnavailableError
from godwit.mqtt import reasons
from godwit.mqtt.packets import Publish
from godwit.server.broker.broker import Broker
from godwit.server.broker.inspection import Inspection
from godwit.server.broker.stats import BrokerStats


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
        kicked: Future[bool] = Future()

        def close() -> None:
            client = self._broker.clients.get(client_id)
            if client is not None:
                client.core.close(reasons.ADMINISTRATIVE_ACTION, "disconnected by an administrator")
            kicked.set_result(client is not None)

        try:
            self._loop.call_soon_threadsafe(close)
        except RuntimeError as error:
            raise UnavailableError("the broker is not running") from error
        was_there = await asyncio.wrap_future(kicked)
        self.inspection.forget()
        return was_there


def _resolve(durable: Future[None]) -> None:
    if not durable.done():
        durable.set_result(None)
