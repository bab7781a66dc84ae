"""Is a sample known again by what it says, from the open group and from the store?"""

from godwit.contract.samples import Sample
from godwit.server.ingest.contents import KEPT, Verdict

NS = 1_000_000_000
T0 = 1_700_000_000 * NS
NEW, SAME, OTHER, UNKNOWN = Verdict.NEW, Verdict.SAME, Verdict.OTHER, Verdict.UNKNOWN


def judge(road, number, time, values):
    entry, track = road.directory.entries["d"], road.track()
    contents = road.ingest.pipeline.clones.contents
    contents.enter_open(road.ingest.pipeline.batch)
    (verdict,) = contents.judge(track, number, [Sample(time, values)], entry.series)
    return verdict


def everywhere(road):
    """Yield the road with an open group, after the commit, and after restarts."""
    yield road
    road.commit()
    yield road
    yield from road.restarts()


def test_number_time_and_every_reading_count(road):
    said = {"a": 1.0, "b": 2, "c": "text", "d": True}
    road.send({"stream": "s", "epoch": "e", "seq": 7, "timestamp": T0, "readings": said})
    for each in everywhere(road):
        assert judge(each, 7, T0, said) is SAME
        assert judge(each, 7, T0, dict(reversed(said.items()))) is SAME
        assert judge(each, 7, T0 + 1, said) is OTHER
        assert judge(each, 8, T0, said) is NEW
        assert judge(each, 6, T0, said) is NEW
        for name, value in {"a": 1.5, "b": 3, "c": "other", "d": False, "new": 1.0}.items():
            assert judge(each, 7, T0, said | {name: value}) is OTHER, name
        assert judge(each, 7, T0, {"a": 1.0, "b": 2, "c": "text"}) is OTHER


def test_a_sample_without_a_time_of_its_own_is_known_by_its_readings(road):
    road.send({"stream": "s", "epoch": "e", "seq": 0, "readings": {"v": 1.0}})
    road.send({"stream": "s", "epoch": "e", "seq": 1, "timestamp": road.now, "readings": {"v": 1.0}})
    now = road.now
    for each in everywhere(road):
        each.now += NS
        assert judge(each, 0, None, {"v": 1.0}) is SAME
        assert judge(each, 0, None, {"v": 2.0}) is OTHER
        assert judge(each, 1, now, {"v": 1.0}) is SAME  # the device's clock says the same as ours, to the nanosecond


def test_what_is_long_gone_is_judged_by_time_alone(road, samples):
    road.send(samples(0, 10 * KEPT))
    newest = T0 + (10 * KEPT - 1) * NS
    for each in everywhere(road):
        assert judge(each, 3, newest, {"v": 99.0}) is UNKNOWN
        assert judge(each, 3, newest + 1, {"v": 99.0}) is OTHER


def test_of_a_track_that_nobody_has_spoken_in_nothing_is_known(road, samples):
    road.send(samples(0, 1))
    track = road.track()
    track.take(1, 2**33)
    for number in (1, 63, 2**32 - 1, 2**33 - 1):  # what no word was ever written for
        assert judge(road, number, T0, {"v": 1.0}) is UNKNOWN
