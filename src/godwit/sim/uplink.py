"""The way of one simulated device to the broker: in order, with a window in flight, until everything is stored.

A message leaves the uplink when it is acknowledged, which means stored. After a lost connection it connects again, with
exponential backoff and full jitter, and sends what was not acknowledged once more, in its order; its numbers tell the
server what it has already.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Final

import msgspec

from godwit.contract.errors import GodwitError
from godwit.contract.ids import DeviceId
from godwit.contract.topics import Channel, DeviceTopic, topics_for
from godwit.mqtt.client import MqttClient
from godwit.mqtt.packets import Connect, Will
from godwit.runtime.backoff import Backoff

BACKOFF_S_FIRST: Final = 0.1
BACKOFF_S_MAX: Final = 3.0
LEAVE_S_MAX: Final = 1.0
FAILURE: Final = 0x80
"""Reason codes from here on are refusals (MQTT 5, 2.4)."""


class Outgoing(msgspec.Struct, eq=False):
    """A message on its way, how many samples it holds, and how often it was sent."""

    payload: bytes
    samples: int
    attempts: int = 0


class Tally:
    """What became of the messages of one or many uplinks."""

    def __init__(self) -> None:
        self.messages = self.samples = self.sent_again = self.refused = self.connects = 0


class Uplink:
    """One device's connection. `on_stored` is called with each message once it is acknowledged."""

    def __init__(
        self,
        host: str,
        port: int,
        device_id: DeviceId,
        *,
        online: Callable[[], bytes],
        offline: bytes,
        random: Random,
        tally: Tally,
        in_flight_max: int = 20,
        on_stored: Callable[[Outgoing], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        topics = topics_for("native")
        self._status_topic = topics.build(DeviceTopic(device_id, Channel.STATUS))
        self._topic = topics.build(DeviceTopic(device_id, Channel.TELEMETRY))
        self._host, self._port = host, port
        self._online, self._offline = online, offline
        self._random, self._tally = random, tally
        self._on_stored, self._say = on_stored, say
        self._connect = Connect(
            client_id=device_id, keep_alive=60, will=Will(self._status_topic, offline, qos=1, retain=True)
        )
        self._waiting: deque[Outgoing] = deque()
        """Not acknowledged yet, in order; the first `in_flight_max` may be in flight."""
        self._room = asyncio.Semaphore(in_flight_max)
        self._empty = asyncio.Event()
        self._empty.set()
        self._client: MqttClient | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, message: Outgoing) -> None:
        """Queue a message; waits while as many as may be are under way."""
        await self._room.acquire()
        self._waiting.append(message)
        self._empty.clear()
        if self._client is not None:
            self._start(self._client, message)

    async def drain(self) -> None:
        """Wait until everything is acknowledged."""
        await self._empty.wait()

    async def run(self) -> None:
        """Stay connected until cancelled; then say goodbye and leave."""
        backoff = Backoff(BACKOFF_S_FIRST, s_max=BACKOFF_S_MAX)
        try:
            while True:
                try:
                    client = await self._open()
                except (GodwitError, OSError) as error:
                    self._say(f"waiting for the broker at {self._host}:{self._port}: {error}")
                    await asyncio.sleep(backoff.next_s(self._random.random()))
                    continue
                backoff.reset()
                self._say("")
                await client.wait_closed()
                self._client = None
        finally:
            await self._leave()

    async def _open(self) -> MqttClient:
        """Connect, say online, and send everything that waits."""
        client = await MqttClient.connect(self._host, self._port, self._connect)
        self._tally.connects += 1
        await client.publish(self._status_topic, self._online(), qos=1, retain=True)
        self._client = client
        for message in list(self._waiting):
            self._start(client, message)
        return client

    def _start(self, client: MqttClient, message: Outgoing) -> None:
        self._tally.sent_again += message.attempts > 0
        message.attempts += 1
        # tasks begin in the order in which they are made, and a publish writes before it waits: order is kept
        task = asyncio.get_running_loop().create_task(self._publish(client, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _publish(self, client: MqttClient, message: Outgoing) -> None:
        try:
            reason = await client.publish(self._topic, message.payload, qos=1)
        except (GodwitError, OSError):
            return  # it stays in the queue, and the next connection sends it
        self._waiting.remove(message)
        self._room.release()
        self._tally.messages += 1
        self._tally.samples += message.samples
        self._tally.refused += reason >= FAILURE
        self._on_stored(message)
        if not self._waiting:
            self._empty.set()

    async def _leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        client, self._client = self._client, None
        if client is None:
            return
        try:
            async with asyncio.timeout(LEAVE_S_MAX):
                await client.publish(self._status_topic, self._offline, qos=1, retain=True)
                await client.disconnect()
        except (GodwitError, OSError):
            return  # gone already: the will says it
