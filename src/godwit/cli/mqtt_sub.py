"""`godwit mqtt sub`: subscribe, print, connect again."""

import argparse
import asyncio
import random
import sys
from time import time_ns
from typing import Final

from godwit.cli.mqtt_connection import Broker, said
from godwit.cli.mqtt_format import Formatter, as_json, formatter
from godwit.contract.errors import RejectedError, UnavailableError
from godwit.mqtt.client import MqttClient
from godwit.mqtt.packets import Publish, Subscription
from godwit.mqtt.reasons import ReasonError
from godwit.mqtt.topics import is_topic_filter
from godwit.runtime.backoff import Backoff

TIMED_OUT: Final = 27
"""Exit code when -W ends it, as mosquitto_sub has it."""
BACKOFF_S_FIRST: Final = 0.5
BACKOFF_S_MAX: Final = 10.0


async def subscribe(options: argparse.Namespace) -> int:
    """Print messages until enough came, the time is over, or Ctrl-C; returns the exit code."""
    subscriber = Subscriber(options)
    try:
        async with asyncio.timeout(options.timeout):
            await subscriber.run()
    except TimeoutError:
        return TIMED_OUT
    return 0


class Subscriber:
    """One run of the command."""

    def __init__(self, options: argparse.Namespace) -> None:
        filters = [*options.filters, *options.topic]
        if not filters:
            raise RejectedError("say what to subscribe to: godwit mqtt sub '#'")
        for each in filters:
            if not is_topic_filter(each):
                raise RejectedError(f"{each!r} is no topic filter: + and # fill whole levels, # is the last one")
        self._subscriptions = tuple(Subscription(each, options.qos) for each in filters)
        self._options = options
        self._shown = _formatter(options)
        self._left = options.count
        self._broker = Broker(options)

    async def run(self) -> None:
        """Connect, and again whenever the connection is lost, until enough came."""
        backoff = Backoff(BACKOFF_S_FIRST, s_max=BACKOFF_S_MAX)
        client = await self._broker.open()  # the first time, what is wrong is wrong: it is said, and that is the end
        while True:
            try:
                await self._subscribe(client)
                is_enough = await self._print(client)
            finally:
                await client.disconnect()
            if is_enough:
                return
            _say(f"the connection is lost ({client.why_closed}); connecting again")
            while not client.is_open:
                await asyncio.sleep(backoff.next_s(random.random()))  # noqa: S311 - jitter
                try:
                    client = await self._broker.open()
                except UnavailableError as error:
                    _say(str(error))
            backoff.reset()

    async def _subscribe(self, client: MqttClient) -> None:
        try:
            await client.subscribe(*self._subscriptions)
        except ReasonError as refusal:
            filters = ", ".join(each.topic_filter for each in self._subscriptions)
            raise RejectedError(f"subscribing to {filters} is refused: {said(refusal)}") from refusal

    async def _print(self, client: MqttClient) -> bool:
        """Print what comes; True once it was enough, False when the connection ended before."""
        options = self._options
        async for publish in client.messages(acknowledge=False):
            if options.retained_only and not publish.retain:
                return True
            if not (options.without_stale and publish.retain):
                sys.stdout.buffer.write(self._shown(publish, time_ns()))
                sys.stdout.buffer.flush()
                if self._left is not None:
                    self._left -= 1
            client.acknowledge(publish)  # after it is printed: what is not printed comes again
            if self._left is not None and self._left <= 0:
                return True
        return False


def _formatter(options: argparse.Namespace) -> Formatter:
    end = b"" if options.without_eol else b"\n"
    if options.json:
        return lambda publish, now: as_json(publish, now) + b"\n"
    if options.format is not None:
        shown = formatter(options.format)
        return lambda publish, now: shown(publish, now) + end
    if options.verbose or options.filters:
        return lambda publish, _now: b"%b %b%b" % (publish.topic.encode(), _or_null(publish), end)
    return lambda publish, _now: publish.payload + end


def _or_null(publish: Publish) -> bytes:
    return publish.payload or b"(null)"


def _say(text: str) -> None:
    print(f"godwit: {text}", file=sys.stderr, flush=True)
