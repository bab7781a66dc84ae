"""Do a device's samples get their right times, whatever its clocks show? The device's core against the server's own."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from godwit.contract.clock import NS
from godwit.contract.stored import StoredUpTo, decode
from godwit.contract.topics import Channel, DeviceTopic, topics_for
from godwit.device.clock import BUILT_NS, SENT_MAX, SYNC_EVERY_NS, DeviceClock
from godwit.mqtt.packets import Publish
from godwit.server.ingest.arrival import Arrival, Peer
from godwit.server.ingest.batch import Batch
from godwit.server.ingest.directory import Directory
from godwit.server.ingest.pipeline import Pipeline
from godwit.server.ingest.stored import EVERY_NS, StoredNotices

BEGIN = BUILT_NS + 200 * 86_400 * NS
MS = NS // 1_000
PEER = Peer("client", "local", may_register=True)
NEVER_SET = 0


class World:
    """A device with two clocks, its spool, the road, and a server that answers."""

    def __init__(self, wall: int | None = None, delay: int = 20 * MS, drift: float = 0.0) -> None:
        self.now = BEGIN
        self.delay, self.drift = delay, drift
        self.booted = BEGIN - 5 * NS
        self.ahead = None if wall is None else wall - BEGIN
        self.clock = DeviceClock("b1", self.uptime)
        self.spool: list[tuple[int, int]] = []
        self.seq = 0
        self.heard: list[StoredUpTo] = []
        self.heads: list[dict] = []
        self.pipeline = Pipeline(Directory())
        self.notices = StoredNotices(self.pipeline.directory, topics_for("native"))
        self.notices.told = self.pipeline.clock_drift.offered
        self.notices.send = lambda _topic, payload: self.heard.append(decode(payload)) or True

    @property
    def uptime(self) -> int:
        passed = self.now - self.booted
        return passed + round(passed * self.drift / 1e6)

    @property
    def wall(self) -> int | None:
        return None if self.ahead is None else self.now + self.ahead

    def boot(self, boot_id: str, off: int = 60 * NS) -> None:
        kept = self.clock.keep()
        self.now += off
        self.booted = self.now
        self.now += NS
        self.clock = DeviceClock(boot_id, self.uptime, kept)

    def measure(self, after: int = NS) -> int:
        self.now += after
        self.spool.append((self.now, self.clock.stamp(self.uptime, self.wall)))
        return self.now

    def send(self) -> list[tuple[int, int, int]]:
        """Send what is in the spool; returns (true time, stored time, quality) of each sample."""
        found = []
        while self.spool:
            run = self.clock.run([stamp for _, stamp in self.spool])
            sent, self.spool = self.spool[: len(run.times)], self.spool[len(run.times) :]
            head = msgspec.to_builtins(self.clock.head(run.boot_id, self.uptime, self.wall))
            self.heads.append(head)
            samples = [{"timestamp": time, "readings": {"t": 1.5}} for time in run.times]
            document = {"stream": "m", "epoch": "e", "seq": self.seq, "samples": samples, **head}
            self.seq += len(samples)
            stored = self._walk(msgspec.json.encode(document))
            found += [(true, time, quality) for (true, _), (time, quality) in zip(sent, stored, strict=True)]
        return found

    def _walk(self, payload: bytes) -> list[tuple[int, int]]:
        self.now += self.delay
        topic = DeviceTopic("a", Channel.TELEMETRY)
        arrival = Arrival(None, Publish("devices/a/telemetry", payload), PEER, self.now, topic)
        entry = self.pipeline.walk(arrival)
        assert arrival.code == ""
        points, self.pipeline.batch = self.pipeline.batch.points(), Batch()
        self.notices.note(entry)
        self.notices.seal()
        self.now += EVERY_NS
        self.notices.committed(self.now)
        self.now += self.delay
        for notice in self.heard:
            self.clock.told(notice, self.uptime, self.wall)
        self.heard.clear()
        assert points is not None
        return list(zip(points.time.tolist(), points.quality.tolist(), strict=True))

    def exchange(self, times: int = 3) -> None:
        for _ in range(times):
            self.measure(2 * NS)
            self.send()


@pytest.mark.parametrize("wall", [None, NEVER_SET, BUILT_NS - 86_400 * NS, 4_102_444_800 * NS, 9 * BEGIN])
def test_without_a_wall_clock_to_believe_samples_are_right_once_the_server_has_answered(wall):
    world = World(wall)
    world.measure()
    assert not world.clock.is_believable(world.wall)
    [(true, stored, quality)] = world.send()
    assert quality == 1
    assert 0 <= stored - true <= world.delay
    early = world.measure(NS)
    world.measure(NS)
    for true, stored, quality in world.send():
        assert abs(stored - true) <= world.delay
        assert quality == 0
    assert early
    stamp = world.clock.stamp(world.uptime, world.wall)
    assert world.clock.run([stamp]) == ("b1", [world.uptime // 1_000 * 1_000]), "it says the same each time it is sent"
    placed = world.clock.place(stamp)
    assert placed.boot_id == ""
    assert abs(placed.time - world.now) <= 2 * world.delay


def test_a_wall_clock_that_can_be_true_is_sent_as_it_is_and_corrected_by_the_server():
    world = World(BEGIN - 3_600 * NS)
    assert world.measure() - world.spool[0][1] == 3_600 * NS
    [(true, stored, _)] = world.send()
    assert stored - true == -3_600 * NS, "nothing is corrected before it was compared"
    world.exchange()
    world.measure()
    [(true, stored, quality)] = world.send()
    assert abs(stored - true) <= world.delay
    assert quality == 0
    assert world.clock.offset(world.uptime, world.wall) == pytest.approx(-3_600 * NS, abs=2 * world.delay)
    entry = world.pipeline.directory.entries["a"]
    assert entry.clocks.report("a", world.now).is_corrected


def test_a_good_wall_clock_is_left_alone():
    world = World(BEGIN + 100 * MS)
    world.exchange()
    world.measure()
    [(true, stored, quality)] = world.send()
    assert (stored - true, quality) == (100 * MS, 0)


def test_samples_of_a_boot_that_never_reached_the_server_lie_where_they_can_have_been():
    world = World()
    world.measure(10 * NS)
    world.measure(50 * NS)
    kept = world.spool
    world.boot("b2", off=300 * NS)
    world.spool = kept
    world.measure(NS)
    (first, early, doubt), (second, late, _), (_, new, _) = world.send()
    assert late - early == pytest.approx(second - first, abs=MS)
    assert early <= first + 301 * NS, "the time it was off is what nobody knows"
    assert first <= early
    assert late <= new - NS
    assert doubt == 1


def test_samples_of_a_boot_that_was_compared_are_right_after_the_next_one():
    world = World()
    world.exchange()
    world.measure(10 * NS)
    world.boot("b2", off=300 * NS)
    [(true, stored, quality)] = world.send()
    assert abs(stored - true) <= world.delay + 2 * MS
    assert quality == 0


def test_one_message_names_one_clock():
    world = World()
    world.measure()
    first = world.spool
    world.boot("b2")
    world.measure()
    stamps = [stamp for _, stamp in (*first, *world.spool)]
    run = world.clock.run(stamps)
    assert (run.boot_id, len(run.times)) == ("b1", 1)
    run = world.clock.run([BEGIN, BEGIN + 1, *stamps])
    assert run == ("", [BEGIN, BEGIN + 1])


def test_a_restart_of_the_process_keeps_what_is_known_of_the_boot():
    world = World()
    world.exchange()
    world.clock = DeviceClock("b1", world.uptime, world.clock.keep())
    world.measure()
    assert abs(world.clock.now(world.uptime) - world.now) <= world.delay + 2 * MS
    assert world.clock.place(world.spool[0][1]).boot_id == ""


def test_where_no_boot_has_an_id_an_uptime_that_falls_begins_a_new_one():
    clock = DeviceClock("", 900 * NS)
    old = clock.stamp(901 * NS, None)
    again = DeviceClock("", 2 * NS, clock.keep())
    assert again.boot_id != clock.boot_id
    assert again.run([again.stamp(3 * NS, None)]) == (again.boot_id, [3 * NS])
    assert again.run([old]) == (clock.boot_id, [901 * NS])
    assert again.head(clock.boot_id, 3 * NS, None).sent_at == 904 * NS
    assert again.head(clock.boot_id, 3 * NS, None).sync is None, "no clock of that boot runs any more"
    third = DeviceClock("", 1 * NS, again.keep())
    assert len({clock.boot_id, again.boot_id, third.boot_id}) == 3


def test_a_boot_that_nothing_was_kept_of_still_has_a_name():
    old = DeviceClock("b1", 0).stamp(5 * NS, None)
    clock = DeviceClock("b9", 0, [*DeviceClock("b8", 0, [*DeviceClock("b7", 0).keep()]).keep()][1:])
    assert clock.run([old]) == ("boot-0", [5 * NS])
    assert clock.head("boot-0", 9 * NS, None).sent_at is None


def test_only_an_answer_to_what_this_clock_has_sent_counts():
    world = World()
    world.measure()
    head = world.clock.head("b1", world.uptime, None)
    now = world.now
    assert world.clock.told(StoredUpTo("m", "e", 0, "", head.sent_at + 1, now, now), world.uptime, None) is None
    assert world.clock.told(StoredUpTo("m", "e", 0, "", None, now, now), world.uptime, None) is None
    assert world.clock.told(StoredUpTo("m", "e", 0, "", head.sent_at, now, now - 1), world.uptime, None) is None
    head = world.clock.head("b1", world.uptime + 1, None)
    assert world.clock.told(StoredUpTo("m", "e", 0, "", head.sent_at, now, now), world.uptime + 2, None) is not None
    assert world.clock.told(StoredUpTo("m", "e", 0, "", head.sent_at, now, now), world.uptime + 2, None) is None


def test_a_wall_clock_that_was_set_meanwhile_is_not_what_was_compared():
    world = World(BEGIN)
    head = world.clock.head("", world.uptime, world.wall)
    world.now += NS
    world.ahead += 60 * NS
    notice = StoredUpTo("m", "e", 0, "", head.sent_at, world.now, world.now)
    assert world.clock.told(notice, world.uptime, world.wall) is not None
    assert world.clock.head("", world.uptime, world.wall).sync in (None, [])


def test_a_wall_clock_that_was_set_says_so_until_it_was_compared():
    world = World(BEGIN - 3_600 * NS)

    def say() -> list[str | None]:
        world.heads.clear()
        world.exchange(6)
        return [each.get("clock") for each in world.heads]

    assert say() == ["set", *[None] * 5]
    world.clock = DeviceClock("b1", world.uptime, world.clock.keep())
    assert say() == [None] * 6, "nobody set it: it is where it was when it was compared"
    world.ahead = 0
    assert say() == ["set", *[None] * 5]
    entry = world.pipeline.directory.entries["a"]
    assert abs(entry.clocks.report("a", world.now).offset_ns) < 2 * world.delay
    world.boot("b2")
    assert world.clock.head("", world.uptime, world.wall).clock == "set", "it may have been set while we were off"


def test_exchanges_are_few_and_what_was_sent_is_bounded():
    world = World()
    for _ in range(600):
        world.measure(NS)
        world.send()
    asked = [each for each in world.heads if "sync" in each]
    assert len(asked) <= 600 * NS // SYNC_EVERY_NS + 10
    for each in range(3 * SENT_MAX):
        world.clock.head("b1", world.uptime + each, None)
    assert len(world.clock._sent) == SENT_MAX


def test_an_outage_of_two_hours_costs_accuracy_and_nothing_else():
    world = World(drift=40.0)
    for _ in range(30):
        world.exchange(1)
        world.now += 120 * NS
    true = [world.measure(60 * NS) for _ in range(120)]
    placed = [world.clock.place(stamp) for _, stamp in world.spool]
    assert {each.boot_id for each in placed} == {""}
    assert max(abs(each.time - time) for each, time in zip(placed, true, strict=True)) < 100 * MS
    for _ in range(20 * 60):
        world.measure(60 * NS)
    assert world.clock.place(world.spool[-1][1]).boot_id == "b1", "too far off to be called a time"
    stored = world.send()
    assert max(abs(time - true) for true, time, _ in stored) < NS
    assert [quality for *_, quality in stored[:120]] == [0] * 120
    assert stored[-1][2] == 1


@given(
    st.floats(-200, 200), st.integers(0, 3 * NS),
    st.lists(st.tuples(st.integers(NS, 3_600 * NS), st.integers(0, 3 * NS)), min_size=1, max_size=20),
)  # fmt: skip
def test_the_servers_time_is_known_within_the_stated_uncertainty(drift, delay, told):
    world = World(delay=delay, drift=drift)
    world.exchange()
    for pause, world.delay in told:
        world.measure(pause)
        world.send()
        estimate = world.clock.estimate
        error = abs(world.clock.now(world.uptime) - world.now)
        assert error <= estimate.uncertainty_at(world.now) * 1.001 + 1_000
