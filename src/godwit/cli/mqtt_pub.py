"""`godwit mqtt pub`: publish, wait for the acknowledgement, say what was refused."""

import argparse
import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, Final

from godwit.cli.mqtt_connection import Broker, said
from godwit.contract.errors import GodwitError, RejectedError, UnavailableError
from godwit.mqtt.client import MqttClient
from godwit.mqtt.packets import NO_PROPERTIES, Publish, PublishProperties
from godwit.mqtt.reasons import ReasonError
from godwit.mqtt.topics import is_topic_name

FAILURE: Final = 0x80
"""Reason codes from here on are refusals (MQTT 5, 2.4)."""
IN_FLIGHT_MAX: Final = 100
LINES_AHEAD: Final = 100
READ_BYTES: Final = 65_536


async def publish(options: argparse.Namespace) -> int:
    """Publish everything that the options ask for; returns the exit code: 1 when the broker refused any of it."""
    topic, message = _where_and_what(options)
    properties = _properties(options)
    client = await Broker(options).open()
    sender = Sender(client)
    try:
        async for payload in _payloads(options, message):
            publish = Publish(topic, payload, options.qos, options.retain, properties=properties)
            if not client.is_open:
                raise UnavailableError(f"the connection is lost: {client.why_closed}")
            await sender.send(publish)
        await sender.finish()
    finally:
        await client.disconnect()
    return int(sender.refused > 0)


class Sender:
    """Keeps messages in flight, and tells refusals."""

    def __init__(self, client: MqttClient) -> None:
        self.refused = 0
        self._client = client
        self._room = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, publish: Publish) -> None:
        """Send a message as soon as there is room in flight. Messages keep their order."""
        await self._room.acquire()
        # tasks begin in the order in which they are made, and a publish writes before it waits
        task = asyncio.get_running_loop().create_task(self._deliver(publish))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._room.release()
        if task.cancelled() or task.exception() is None:
            self._tasks.discard(task)  # one that failed is kept, for `finish` to raise

    async def _deliver(self, publish: Publish) -> None:
        try:
            answer = await self._client.deliver(publish)
        except ReasonError as refusal:
            self._tell(said(refusal))
            return
        if answer is not None and answer.reason_codes[0] >= FAILURE:
            self._tell(said(ReasonError(answer.reason_codes[0], answer.reason_string)))

    def _tell(self, why: str) -> None:
        self.refused += 1
        print(f"godwit: the broker refuses the message: {why}", file=sys.stderr)

    async def finish(self) -> None:
        """Wait until everything is answered. Raises UnavailableError when the connection was lost before."""
        if self._tasks:
            await asyncio.gather(*self._tasks)


def _where_and_what(options: argparse.Namespace) -> tuple[str, bytes | None]:
    """Return topic and message; None: it comes from a file or standard input."""
    words = list(options.words)
    topic = options.topic or (words.pop(0) if words else None)
    if topic is None:
        raise RejectedError("say where to publish: godwit mqtt pub TOPIC MESSAGE")
    if not is_topic_name(topic):
        raise RejectedError(f"{topic!r} is no topic to publish to: wildcards are for subscribers")
    others = [options.message is not None, options.file, options.stdin_line, options.stdin_file, options.null_message]
    if len(words) + sum(map(bool, others)) != 1:
        raise RejectedError("say what to publish, once: a message, or one of -m -f -l -s -n")
    if words:
        return topic, words[0].encode("utf-8", "surrogateescape")
    if options.message is not None:
        return topic, options.message.encode("utf-8", "surrogateescape")
    if options.null_message:
        return topic, b""
    if options.file:
        try:
            return topic, Path(options.file).read_bytes()
        except OSError as error:
            raise RejectedError(f"{options.file} cannot be read: {error.strerror}") from error
    return topic, None


def _properties(options: argparse.Namespace) -> PublishProperties:
    pairs = []
    for each in options.user_property:
        name, equals, value = each.partition("=")
        if not equals:
            raise RejectedError(f"--user-property {each}: NAME=VALUE is expected")
        pairs.append((name, value))
    given: dict[str, Any] = {
        "content_type": options.content_type,
        "message_expiry_interval": options.expiry,
        "response_topic": options.response_topic,
        "correlation_data": options.correlation_data.encode() if options.correlation_data is not None else None,
        "user_properties": tuple(pairs),
    }
    if not any(value is not None and value != () for value in given.values()):
        return NO_PROPERTIES
    if options.version not in ("5", "mqttv5"):
        raise RejectedError("MQTT 3.1.1 has no properties: leave -V away")
    return PublishProperties(**given)


async def _payloads(options: argparse.Namespace, message: bytes | None) -> AsyncIterator[bytes]:
    if options.stdin_line:
        async for line in _lines():
            yield line
        return
    whole = await asyncio.to_thread(sys.stdin.buffer.read) if message is None else message
    for at, payload in enumerate(repeat(whole, options.repeat)):
        if at and options.repeat_delay:
            await asyncio.sleep(options.repeat_delay)
        yield payload


async def _lines() -> AsyncIterator[bytes]:
    """Yield the lines of standard input as they come.

    They are read in a thread of their own, which the interpreter does not wait for: Ctrl-C ends the command while it
    waits for a line. The thread reads without a buffer, whose lock it would take with it into the end.
    """
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(LINES_AHEAD)
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            for line in _split(iter(lambda: os.read(sys.stdin.fileno(), READ_BYTES), b"")):
                asyncio.run_coroutine_threadsafe(queue.put(line), loop).result()
            asyncio.run_coroutine_threadsafe(queue.put(None), loop).result()
        except (RuntimeError, GodwitError):
            return  # the loop is gone: nobody waits for lines any more

    threading.Thread(target=read, name="standard input", daemon=True).start()
    while (line := await queue.get()) is not None:
        yield line


def _split(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a text that comes in pieces, without their ends; the last one may have none."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line.removesuffix(b"\r") for line in lines)
    if rest:
        yield rest
