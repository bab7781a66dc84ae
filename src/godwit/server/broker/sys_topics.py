"""`$SYS`: what the broker says of itself, under the names that tools know from Mosquitto. Retained, never durable.

Two names are our own: `publish/messages/forbidden`, and `sessions/{clientId}/dropped` for those that lost the most.
"""

from collections.abc import Iterator
from pathlib import Path
from resource import RUSAGE_SELF, getpagesize, getrusage
from typing import Final
from urllib.parse import quote

from godwit import __version__
from godwit.server.broker.broker import NS, Broker
from godwit.server.broker.load import Load

EVERY_S: Final = 10
VERSION: Final = f"godwit {__version__}"
DROPPING_MAX: Final = 100
"""Sessions that have a topic of their own."""
_MEMORY: Final = Path("/proc/self/statm")


class SysTopics:
    """Publishes the counters every ten seconds."""

    def __init__(self, broker: Broker, now: int) -> None:
        self._broker = broker
        self._started = now
        self._due = now
        self._clients_max = 0
        self._load = Load(now / NS)
        self._dropped: dict[str, int] = {}
        """What was last said of single sessions."""

    def tick(self, now: int) -> None:
        """Publish if it is time."""
        if now < self._due:
            return
        self._due = now + EVERY_S * NS
        self._load.note(self._counts(), now / NS)
        for values in (self._people(), self._traffic(now), self._store(), self._dropping()):
            for name, value in values:
                self._broker.announce(f"$SYS/broker/{name}", value.encode(), now)

    def _packets_in(self) -> int:
        broker = self._broker
        return broker.counters.packets_in + sum(each.core.taken for each in broker.clients.values())

    def _counts(self) -> dict[str, int]:
        counters = self._broker.counters
        return {
            "messages/received": self._packets_in(),
            "messages/sent": counters.packets_out,
            "bytes/received": counters.bytes_in,
            "bytes/sent": counters.bytes_out,
            "publish/received": counters.messages_in,
            "publish/sent": counters.messages_out,
            "publish/dropped": counters.dropped,
            "connections": counters.connects,
            "sockets": counters.sockets,
        }

    def _people(self) -> Iterator[tuple[str, str]]:
        connected, total = len(self._broker.clients), len(self._broker.sessions)
        self._clients_max = max(self._clients_max, connected)
        for name, count in (
            ("connected", connected),
            ("active", connected),  # its older name, as inactive is of disconnected
            ("disconnected", total - connected),
            ("inactive", total - connected),
            ("maximum", self._clients_max),
            ("total", total),
            ("expired", self._broker.kept.expired),
        ):
            yield f"clients/{name}", str(count)

    def _traffic(self, now: int) -> Iterator[tuple[str, str]]:
        counters = self._broker.counters
        yield "version", VERSION
        yield "uptime", f"{(now - self._started) // NS} seconds"
        yield "messages/received", str(self._packets_in())
        yield "messages/sent", str(counters.packets_out)
        yield "bytes/received", str(counters.bytes_in)
        yield "bytes/sent", str(counters.bytes_out)
        yield "publish/messages/received", str(counters.messages_in)
        yield "publish/messages/sent", str(counters.messages_out)
        yield "publish/messages/dropped", str(counters.dropped)
        yield "publish/messages/forbidden", str(counters.forbidden)
        yield "publish/bytes/received", str(counters.payload_bytes_in)
        yield "publish/bytes/sent", str(counters.payload_bytes_out)
        for name, span, average in self._load.averages():
            yield f"load/{name}/{span}", f"{average:.2f}"

    def _store(self) -> Iterator[tuple[str, str]]:
        broker = self._broker
        waiting = [each for each in broker.sessions.values() if each.queue]
        messages = len(broker.retained) + sum(len(each.queue or ()) for each in waiting)
        size = broker.gate.retained.bytes + sum(each.queued_bytes for each in waiting)
        yield "retained messages/count", str(len(broker.retained))
        yield "subscriptions/count", str(broker.routes.count)
        yield "shared_subscriptions/count", str(broker.routes.shared_count)
        yield "messages/stored", str(messages)
        yield "store/messages/count", str(messages)
        yield "store/messages/bytes", str(size)
        if _MEMORY.exists():
            yield "heap/current", str(int(_MEMORY.read_text().split()[1]) * getpagesize())
        yield "heap/maximum", str(getrusage(RUSAGE_SELF).ru_maxrss * 1_024)

    def _dropping(self) -> Iterator[tuple[str, str]]:
        """Yield the sessions that lost the most, where that has changed, and clear those that ended."""
        sessions = self._broker.drops.sessions.values()
        most = sorted(sessions, key=lambda each: each.dropped, reverse=True)[:DROPPING_MAX]
        now = {each.client_id: each.dropped for each in most}
        for client_id in self._dropped.keys() - now.keys():
            yield _dropped_topic(client_id), ""
        for client_id, dropped in now.items():
            if self._dropped.get(client_id) != dropped:
                yield _dropped_topic(client_id), str(dropped)
        self._dropped = now


def _dropped_topic(client_id: str) -> str:
    return f"sessions/{quote(client_id, safe='')}/dropped"
