"""Is what was known before a crash still known after the next one, whatever was folded in between?"""

import msgspec
import pytest

from godwit.contract.ids import parse_device_id
from godwit.contract.topics import topics_for
from godwit.mqtt.packets import Publish
from godwit.runtime.clock import VirtualClock
from godwit.server.ingest.arrival import Arrival, Peer
from godwit.server.ingest.directory import Directory
from godwit.server.ingest.service import FOLD_S, Ingest
from godwit.server.registry.model import Device
from godwit.server.telemetry.live import LiveFeed
from godwit.server.telemetry.memory import MemoryStore

TOPICS = topics_for("native")
NOW = 1_790_000_000_000_000_000


class Unheard:
    def seen(self, device_id, now): ...

    def status(self, device_id, document, now): ...


class Server:
    """An ingest whose groups are committed when told to, over a store that can crash."""

    def __init__(self, store):
        self.store = store
        self.clock = VirtualClock(NOW)
        directory = Directory()
        self.ingest = Ingest(store, directory, TOPICS, Unheard(), LiveFeed(), clock=self.clock)
        self.ingest.recover()
        directory.learn(Device(parse_device_id("d")))

    def say(self, packet_id=1, *, dup=False, **document):
        publish = Publish("devices/d/telemetry", msgspec.json.encode(document), 1, dup=dup, packet_id=packet_id)
        arrival = Arrival(self, publish, Peer("d", "local"), NOW, TOPICS.parse("devices/d/telemetry"))
        self.ingest.receive(arrival)
        self.commit()
        return arrival

    def commit(self):
        work = self.ingest.seal()
        if work is not None:
            self.ingest.write(work)

    def fold(self):
        self.clock.advance(FOLD_S + 1)
        self.say(9, readings={"other": 1})

    def crash(self):
        return Server(self.store.crash())


MESSAGES = {
    "numbered": {"stream": "s", "epoch": "e", "seq": 0, "readings": {"t": 1}},
    "message id": {"messageId": "m-1", "readings": {"t": 1}},
    "plain": {"readings": {"t": 1}},
}


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("story", ["", "c", "fc", "cfc", "ccfc", "cfcfc", "fcc"])
def test_a_duplicate_is_known_after_any_crashes_and_folds(kind: str, story: str) -> None:
    server = Server(MemoryStore())
    assert server.say(**MESSAGES[kind]).accepted == 1
    for step in story:
        if step == "c":
            server = server.crash()
        else:
            server.fold()
    again = server.say(dup=True, **MESSAGES[kind])
    assert (again.accepted, again.duplicate) == (0, 1)
    account = server.ingest.ledger("d")
    assert account.duplicate == 1
    assert account.accepted == 1 + story.count("f")
