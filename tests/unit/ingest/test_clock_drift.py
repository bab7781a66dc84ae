"""Are readings of a wrong clock put right, those of a right one left alone, and is nobody believed who made it up?"""

import datetime as dt
import json

import pytest

from godwit.contract import codes
from godwit.contract.clock import NS, ClockFilter
from godwit.contract.errors import RejectedError
from godwit.contract.topics import Channel, DeviceTopic, topics_for
from godwit.mqtt.packets import Publish
from godwit.server.ingest import delta
from godwit.server.ingest.arrival import Arrival, Peer
from godwit.server.ingest.clock_drift import CLOCKS_MAX, QUANTUM_NS, THRESHOLD_NS
from godwit.server.ingest.directory import Directory
from godwit.server.ingest.pipeline import Pipeline
from godwit.server.ingest.stored import EVERY_NS, StoredNotices
from godwit.server.telemetry.ledger import Ledger
from godwit.server.telemetry.model import BAD, UNCERTAIN, DeviceRow, Recovered

BEGIN = 1_760_000_000 * NS
MS = NS // 1_000
DELAY = 30 * MS
PEER = Peer("client", "local", may_register=True)


class Rig:
    """A device, the road, and the answers, with a delay between them; the device's clock is `offset` ahead."""

    def __init__(self, offset: int) -> None:
        self.now = BEGIN
        self.offset = offset
        self.boot: str | None = None
        self.directory = Directory()
        self.pipeline = Pipeline(self.directory)
        self.notices = StoredNotices(self.directory, topics_for("native"))
        self.notices.told = self.pipeline.clock_drift.offered
        self.notices.send = self._hear
        self.heard: list[dict] = []
        self.seq = 0

    def _hear(self, _topic: str, payload: bytes) -> bool:
        self.heard.append(json.loads(payload))
        return True

    def device(self, time: int) -> int:
        return time + self.offset

    def send(self, time: int | None = None, **more) -> Arrival:
        """Send one sample, measured at `time` of the device's clock, and let the server answer."""
        said = self.device(self.now) if time is None else time
        document = {
            "stream": "m", "epoch": "e", "seq": self.seq, "sentAt": _text(self.device(self.now)),
            "timestamp": _text(said), "readings": {"t": 1.5},
        }  # fmt: skip
        if self.boot is not None:
            document |= {"clock": "uptime", "bootId": self.boot, "sentAt": self.device(self.now), "timestamp": said}
        self.seq += 1
        self.now += DELAY
        publish = Publish("devices/a/telemetry", json.dumps(document | more).encode())
        arrival = Arrival(None, publish, PEER, self.now, DeviceTopic("a", Channel.TELEMETRY))
        entry = self.pipeline.walk(arrival)
        self.notices.note(entry)
        self.notices.seal()
        self.now += EVERY_NS
        self.notices.committed(self.now)
        self.now += DELAY
        return arrival

    def sync(self) -> list[int]:
        told = self.heard[-1]
        return [told["deviceSent"], told["serverReceived"], told["serverSent"], self.device(self.now)]

    def compare(self, times: int = 1) -> None:
        for _ in range(times):
            self.send()
            self.send(sync=self.sync())
            self.now += 60 * NS

    def points(self) -> list[tuple[int, int, int]]:
        """(stored time, offset, quality) of what was laid since the last look."""
        batch, self.pipeline.batch = self.pipeline.batch, type(self.pipeline.batch)()
        points = batch.points()
        if points is None:
            return []
        return list(zip(points.time.tolist(), points.offset.tolist(), points.quality.tolist(), strict=True))

    def entry(self):
        return self.directory.entries["a"]


def _text(time: int) -> str | int:
    """A time as RFC 3339, also where a number would be taken for another unit."""
    seconds, fraction = divmod(time, NS)
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + f".{fraction:09d}Z"


def test_a_clock_that_is_an_hour_slow_is_corrected_once_it_was_compared_and_both_times_are_kept():
    rig = Rig(-3_600 * NS)
    rig.send()
    [(time, offset, _)] = rig.points()
    assert (time, offset) == (BEGIN - 3_600 * NS, 0), "one way says nothing"
    rig.send(sync=rig.sync())
    measured = rig.now
    rig.send()
    *_, (time, offset, quality) = rig.points()
    assert abs(time - measured) <= DELAY
    assert time + offset == rig.device(measured), "the device's own time"
    assert offset % QUANTUM_NS == 0
    assert quality == 0
    report = rig.entry().clocks.report("a", rig.now)
    assert report.is_corrected
    assert abs(report.offset_ns + 3_600 * NS) <= report.uncertainty_ns


@pytest.mark.parametrize("offset", [0, THRESHOLD_NS // 2, -THRESHOLD_NS * 9 // 10])
def test_a_clock_within_the_threshold_is_left_alone(offset):
    rig = Rig(offset)
    rig.compare(3)
    assert {each for _, each, _ in rig.points()} == {0}
    assert not rig.entry().clocks.report("a", rig.now).is_corrected


def test_a_clock_is_left_alone_while_its_offset_may_be_nothing_but_delay():
    """The answer was on its way for twenty seconds, which may hide an offset of ten."""
    rig = Rig(-4 * NS)
    rig.send()
    rig.now += 20 * NS
    rig.send(sync=rig.sync())
    assert rig.entry().clocks.filters[""].estimate.uncertainty > 4 * NS
    rig.send()
    assert {each for _, each, _ in rig.points()} == {0}
    assert not rig.entry().clocks.report("a", rig.now).is_corrected
    rig.compare()
    rig.send()
    assert rig.points()[-1][1] == pytest.approx(-4 * NS, abs=DELAY)


def test_correcting_does_not_flicker_about_the_threshold():
    rig = Rig(THRESHOLD_NS + 200 * MS)
    rig.compare()
    rig.send()
    assert rig.points()[-1][1] > 0
    rig.offset = THRESHOLD_NS - 300 * MS
    rig.compare(2)
    rig.points()
    rig.send()
    assert rig.points()[-1][1] > 0
    rig.offset = THRESHOLD_NS // 2 - 200 * MS
    rig.compare(2)
    rig.points()
    rig.send()
    assert rig.points()[-1][1] == 0


@pytest.mark.parametrize("offset", [-BEGIN + 5 * NS, 4_000_000_000 * NS])
def test_a_clock_of_1970_or_2100_is_refused_until_it_was_compared_and_stored_from_then_on(offset):
    rig = Rig(offset)
    refused = rig.send()
    assert refused.code == codes.TIME_IMPLAUSIBLE
    assert rig.points() == []
    rig.send(sync=rig.sync())
    measured = rig.now
    kept = rig.send()
    assert kept.code == ""
    [*_, (time, _, quality)] = rig.points()
    assert abs(time - measured) <= DELAY
    assert quality == 0
    again = Arrival(None, refused.publish, PEER, refused.received, refused.topic)
    rig.pipeline.revisit(again, 0)
    [(time, _, _)] = rig.points()
    assert abs(time - BEGIN) <= 2 * DELAY, "replayed from quarantine, it is corrected too"


def test_a_clock_that_is_days_ahead_is_no_reading_of_the_future_once_it_was_compared():
    rig = Rig(2 * 86_400 * NS)
    assert rig.send().code == codes.TIME_IN_FUTURE
    assert rig.send(sync=rig.sync()).code == ""


@pytest.mark.parametrize(
    "forge",
    [
        lambda _sync: [0, 0, 0, 0],
        lambda _sync: [],
        lambda sync: [sync[0] + 1, *sync[1:]],
        lambda sync: [sync[0], sync[1] - 9 * NS, *sync[2:]],
        lambda sync: [*sync[:2], sync[2] + 1, sync[3]],
        lambda sync: [*sync[:3], sync[0] - 1],
        lambda _sync: [2**63 - 1] * 4,
        lambda sync: [*sync[:3], 2**63 - 1],
    ],
)
def test_what_a_device_made_up_teaches_nothing(forge):
    rig = Rig(3_600 * NS // 2)
    rig.send()
    rig.send(sync=forge(rig.sync()))
    rig.send()
    assert {each for _, each, _ in rig.points()} == {0}
    assert rig.entry().clocks is None


def test_an_answer_counts_once_and_only_that_of_this_device():
    rig = Rig(3_600 * NS // 2)
    rig.send()
    sync = rig.sync()
    rig.send(sync=sync)
    assert rig.entry().clocks.filters[""].exchanges == 1
    rig.send(sync=sync)
    assert rig.entry().clocks.filters[""].exchanges == 1
    assert rig.pipeline.clock_drift._own_answer("b", tuple(sync)) is None


def test_a_device_that_counts_from_boot_gets_times_bounded_by_arrival_and_marked_as_uncertain():
    rig = Rig(-BEGIN + 1_000 * NS)
    rig.boot = "b1"
    rig.send(time=400 * NS, readings={"t": {"value": 1, "quality": "bad"}, "u": 2})
    (time, offset, first), (_, _, second) = rig.points()
    assert BEGIN - 600 * NS <= time <= BEGIN - 600 * NS + DELAY
    assert time + offset == 400 * NS
    assert (first, second) == (BAD, UNCERTAIN)
    rig.now += 60 * NS
    rig.send(time=401 * NS)
    (after, _, _), *_ = rig.points()
    assert after - time == pytest.approx(NS, abs=QUANTUM_NS), "one boot begins once"


def test_the_times_of_a_boot_are_good_once_it_was_compared():
    rig = Rig(-BEGIN + 1_000 * NS)
    rig.boot = "b1"
    rig.compare(2)
    rig.points()
    rig.send(time=5 * NS)
    [(time, offset, quality)] = rig.points()
    assert abs(time - (BEGIN - 995 * NS)) <= DELAY
    assert (offset, quality) == (5 * NS - time, 0)
    report = rig.entry().clocks.report("a", rig.now)
    assert (report.clock, report.boot_id, report.offset_ns) == ("uptime", "b1", None)


def test_readings_of_an_earlier_boot_lie_before_those_of_this_one():
    rig = Rig(-BEGIN + 100 * NS)
    rig.boot = "b2"
    rig.send()
    rig.boot = "b1"  # it ran for 500 s, and 100 s of b2 have passed since
    rig.send(time=450 * NS, sentAt=600 * NS)
    rig.send(time=500 * NS, sentAt=600 * NS)
    now, early, late = (time for time, _, _ in rig.points())
    assert early < late < now
    assert late - early == pytest.approx(50 * NS, abs=QUANTUM_NS)
    assert now - late >= 99 * NS


def test_without_a_boot_id_each_message_stands_for_itself_and_nonsense_is_refused():
    rig = Rig(-BEGIN + 100 * NS)
    rig.boot = ""
    rig.send(time=99 * NS)
    [(time, _, _)] = rig.points()
    assert abs(time - (BEGIN - NS)) <= DELAY
    assert rig.send(time=1, sentAt=2**61).code == codes.TIME_IMPLAUSIBLE
    assert rig.points() == []


def test_boots_and_answers_are_bounded():
    rig = Rig(-BEGIN + 100 * NS)
    for boot in range(3 * CLOCKS_MAX):
        rig.boot = f"b{boot}"
        rig.compare()
    clocks = rig.entry().clocks
    assert len(clocks.filters) <= CLOCKS_MAX + 1
    assert len(clocks.begins) <= CLOCKS_MAX
    assert len(clocks.dump()) < 8_000
    assert len(rig.pipeline.clock_drift._offers["a"]) <= 4


def test_what_is_known_survives_by_deltas_and_by_state_rows():
    rig = Rig(-3_600 * NS)
    rig.compare(20)
    rig.boot = "b1"
    rig.offset = -BEGIN
    rig.send()
    known = rig.entry().clocks
    data, *_ = delta.encode(rig.pipeline.batch)
    dirty = delta.Dirty()
    dirty.mark(rig.pipeline.batch)
    rows = [each for each in dirty.dump(rig.directory) if each.kind == delta.CLOCK]
    for how in ("deltas", "rows"):
        directory = Directory()
        directory.restore(Recovered(1, [DeviceRow(0, "a", "default", "device")], [], [], [], [], 0, 0))
        if how == "rows":
            for row in rows:
                delta.restore(row, directory)
        else:
            directory.tracks.append(None)
            again = delta.Dirty()
            delta.replay(data, directory, Ledger(), again)
            assert delta.CLOCK in {each.kind for each in again.dump(directory)}
        restored = directory.entries["a"].clocks
        assert restored.begins == known.begins
        assert restored.filters[""].dump() == known.filters[""].dump()


def test_an_erased_device_begins_anew():
    rig = Rig(-3_600 * NS)
    rig.compare()
    rig.directory.forget("a")
    rig.pipeline.clock_drift.forget("a")
    with pytest.raises(RejectedError):
        rig.pipeline.speaker(Arrival(None, Publish("x"), Peer("c", "tls"), 0, DeviceTopic("a", Channel.TELEMETRY)))
    rig.send()
    assert rig.entry().clocks is None


def test_a_clock_that_was_set_does_not_spoil_what_was_measured_before():
    rig = Rig(-3_600 * NS)
    rig.compare(5)
    early = rig.now
    said = rig.device(early)
    rig.now += 600 * NS
    rig.offset = 0
    rig.compare(2)
    rig.points()
    rig.send(time=said)
    rig.send()
    (before, _, _), (after, offset, _) = rig.points()
    assert abs(before - early) < 2 * DELAY
    assert offset == 0
    assert after > before


def test_a_clock_that_says_it_was_set_is_only_corrected_where_it_was_compared():
    rig = Rig(-3_600 * NS)
    rig.compare(3)
    early = rig.now - 90 * NS
    said = rig.device(early)
    rig.points()
    rig.offset = 0
    rig.send(time=said, clock="set")
    rig.send(clock="set")
    (before, _, _), (after, offset, _) = rig.points()
    assert abs(before - early) < 2 * DELAY
    assert offset == 0
    assert after == rig.heard[-1]["deviceSent"]


def test_what_would_have_been_sent_after_it_arrived_shows_that_the_clock_was_set():
    rig = Rig(-3_600 * NS)
    rig.compare(3)
    rig.points()
    rig.offset = 0
    rig.send()
    assert rig.points()[0][1] == 0


def test_a_filter_is_only_made_by_an_exchange():
    assert ClockFilter().estimate is None
