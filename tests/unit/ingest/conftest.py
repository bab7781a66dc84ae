"""A road without sockets and clocks: real pipeline and ingest, store in memory; groups are committed when told to.

`road.crash()` ends it as `kill -9` does and returns the one that starts with what was durable.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from godwit.contract.topics import topics_for
from godwit.mqtt.packets import Publish
from godwit.server.ingest.arrival import Arrival, Peer
from godwit.server.ingest.directory import Directory
from godwit.server.ingest.service import Ingest
from godwit.server.registry.presence import PresenceBoard
from godwit.server.telemetry.live import LiveFeed
from godwit.server.telemetry.memory import MemoryStore

NS = 1_000_000_000
T0 = 1_700_000_000 * NS


class Road:
    def __init__(self, store: MemoryStore | None = None, now: int = T0) -> None:
        self.store = store or MemoryStore()
        self.now = now
        self.directory, self.topics = Directory(), topics_for("native")
        board = PresenceBoard([], now)
        self.ingest = Ingest(self.store, self.directory, self.topics, board, LiveFeed(), clock=self)
        self.ingest.recover()
        for entry in self.directory.entries.values():
            entry.is_known = True  # the registry says so
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.ingest.stored.send = self._hear
        self.settled: list[Arrival] = []
        self._open: list[Arrival] = []

    def now_ns(self) -> int:
        return self.now

    def monotonic_s(self) -> float:
        return self.now / NS

    def _hear(self, topic: str, payload: bytes) -> bool:
        self.told.append((topic, json.loads(payload)))
        return True

    def settle(self, arrival: Arrival) -> None:
        self.settled.append(arrival)

    def peer(self, client_id: str = "d", *, is_shared: bool = False) -> Peer:
        """Connect anew."""
        return Peer(client_id, "local", may_register=True, is_shared=is_shared)

    def send(
        self, document: dict[str, Any], *, device: str = "d", channel: str = "telemetry", qos: int = 1, peer: Any = None
    ) -> Arrival:
        topic = f"devices/{device}/{channel}"
        publish = Publish(topic, json.dumps(document).encode(), qos)
        arrival = Arrival(self, publish, peer or self.peer(), self.now, self.topics.parse(topic))
        self.ingest.receive(arrival)
        self._open.append(arrival)
        return arrival

    def commit(self) -> None:
        arrivals, self._open = self._open, []
        work = self.ingest.seal()
        if work is not None:
            self.ingest.write(work)
        for arrival in arrivals:
            arrival.source.settle(arrival)
        self.ingest._after_commit()

    def later(self, seconds: float) -> None:
        """Let time pass, and the clockwork tick."""
        self.now += int(seconds * NS)
        self.ingest.tick()

    def crash(self) -> "Road":
        return Road(self.store.crash(), self.now)

    def restarts(self) -> "Iterator[Road]":
        """Start anew, from the journal alone and from folded state."""
        again = self.crash()
        yield again
        again.fold()
        yield again.crash()

    def fold(self) -> None:
        self.ingest._is_fold_wanted = True
        self.commit()

    def track(self, stream: str = "s", epoch: str = "e", device: str = "d"):
        return self.directory.entries[device].tracks[stream, epoch]

    def ledger(self, device: str = "d"):
        return self.ingest.ledger(device)

    def notices(self, code: str) -> list[dict[str, Any]]:
        return [said["details"] for topic, said in self.told if topic.endswith("/notices") and said["code"] == code]

    def stored(self) -> list[tuple[str, str, int]]:
        """Return (stream, epoch, seq) of what `telemetry/stored` said."""
        return [(s["stream"], s["epoch"], s["seq"]) for topic, s in self.told if topic.endswith("telemetry/stored")]

    def values(self, device: str = "d", reading: str = "v") -> dict[tuple[str, str], list[tuple[int, float]]]:
        """Return what the store holds: (stream, epoch) -> (seq, value) in the order of seq."""
        number = self.ingest.series_of(device).get(reading)
        found: dict[tuple[str, str], list[tuple[int, float]]] = {}
        points = self.store.range([] if number is None else [number], 0, 2**62)
        for track, seq, value in zip(points.track.tolist(), points.seq.tolist(), points.value.tolist(), strict=True):
            known = self.directory.tracks[track]
            key = (known[1].stream, known[1].epoch) if known else ("", "")
            found.setdefault(key, []).append((seq, value))
        return {key: sorted(each) for key, each in found.items()}


def samples(first: int, count: int, *, at: int = T0, value: Callable[[int], float] = float, **more: Any) -> dict:
    """Return a message of the samples first .. first + count - 1; each is measured a second after the one before."""
    return {
        "stream": "s",
        "epoch": "e",
        "seq": first,
        "samples": [{"timestamp": at + n * NS, "readings": {"v": value(n)}} for n in range(first, first + count)],
    } | more


@pytest.fixture
def road() -> Road:
    return Road(now=T0 + 1_000_000 * NS)


@pytest.fixture(name="samples")
def samples_fixture() -> Callable[..., dict]:
    return samples
