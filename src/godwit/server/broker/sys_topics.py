"""`$SYS`: what the broker says of itself, under the names that tools know from Mosquitto. Retained, never durable."""

from collections.abc import Iterator
from typing import Final

from godwit import __version__
from godwit.server.broker.broker import NS, Broker

EVERY_S: Final = 10
VERSION: Final = f"godwit {__version__}"


class SysTopics:
    """Publishes the counters every ten seconds."""

    def __init__(self, broker: Broker, now: int) -> None:
        self._broker = broker
        self._started = now
        self._due = now

    def tick(self, now: int) -> None:
        """Publish if it is time."""
        if now < self._due:
            return
        self._due = now + EVERY_S * NS
        for name, value in self._values(now):
            self._broker.announce(f"$SYS/broker/{name}", value.encode(), now)

    def _values(self, now: int) -> Iterator[tuple[str, str]]:
        broker, counters = self._broker, self._broker.counters
        yield "version", VERSION
        yield "uptime", f"{(now - self._started) // NS} seconds"
        yield "clients/connected", str(len(broker.clients))
        yield "clients/total", str(len(broker.sessions))
        yield "clients/disconnected", str(len(broker.sessions) - len(broker.clients))
        yield "subscriptions/count", str(broker.routes.count)
        yield "retained messages/count", str(len(broker.retained))
        yield "messages/received", str(counters.messages_in)
        yield "messages/sent", str(counters.messages_out)
        yield "bytes/received", str(counters.bytes_in)
        yield "bytes/sent", str(counters.bytes_out)
        yield "publish/messages/dropped", str(counters.dropped)
        yield "publish/messages/forbidden", str(counters.forbidden)
