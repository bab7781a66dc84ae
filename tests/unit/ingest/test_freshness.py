"""How fresh are the data of the fleet, and who is catching up?"""

import numpy as np
import pytest

from godwit.server.ingest.directory import Directory
from godwit.server.ingest.freshness import FleetFreshness, measure
from godwit.server.telemetry.latest import LatestValues
from godwit.server.telemetry.model import Points

NS = 1_000_000_000
NOW = 1_790_000_000 * NS
DAY = 86_400


def fleet(*devices):
    """Return the freshness of devices given as (age of the newest sample, seconds since it came)."""
    ages, since = np.array(devices, np.int64).reshape(-1, 2).T
    return measure(NOW - ages * NS, NOW - since * NS, NOW)


def test_ages_are_of_live_devices():
    found = fleet((1, 1), (3, 1), (5, 2), (4_000, 400))
    assert (found.live, found.age_p50_s, found.catching_up, found.behind_max_s) == (3, 3.0, 0, 0.0)
    assert found.age_p95_s == 5.0


def test_a_fleet_that_says_nothing_has_no_age():
    assert fleet((4_000, 400)).live == 0
    assert measure(np.zeros(0, np.int64), np.zeros(0, np.int64), NOW).live == 0


def test_who_delivers_what_it_kept_is_catching_up():
    found = fleet(*[(2, 2)] * 97, (7 * DAY, 0), (3 * DAY, 1), (301, 1))
    assert (found.live, found.catching_up) == (100, 2)  # 300 s at arrival are not much: it may report every 5 minutes
    assert found.age_p50_s == 2.0
    assert found.behind_max_s == 7 * DAY
    assert found.behind_p50_s == pytest.approx(5 * DAY, abs=1)


def test_one_old_sample_is_no_backlog_and_does_not_make_the_others_old():
    found = fleet(*[(1, 1)] * 20, (1_000 * DAY, 100))
    assert (found.live, found.catching_up, found.age_p95_s) == (21, 0, 1.0)


def test_a_clock_that_is_ahead_makes_nothing_fresher_than_now():
    assert fleet((-30, 0)).age_p50_s == 0.0


def points(series, time, received):
    count = len(series)
    whole = np.zeros(count, np.int64)
    return Points(
        series=np.array(series, np.int32), time=np.array(time, np.int64), value=np.zeros(count),
        kind=np.zeros(count, np.uint8), quality=np.zeros(count, np.uint8), seq=whole, track=np.zeros(count, np.int32),
        offset=whole, received=np.array(received, np.int64), integer=None, text=None,
    )  # fmt: skip


def test_it_follows_the_newest_values_device_by_device():
    directory, latest = Directory(), LatestValues()
    fresh = FleetFreshness(directory, latest)
    assert fresh.look(NOW).live == 0
    flusher, calm = directory.register("flusher", 0), directory.register("calm", 0)
    numbers = [
        directory.series_no(flusher, "t", ""),
        directory.series_no(calm, "t", ""),
        directory.series_no(calm, "h", ""),
    ]
    # The calm device's second reading came long ago: its newest sample is what counts.
    old = NOW - 7 * DAY * NS
    latest.advance(points(numbers, [old, NOW - NS, old], [NOW, NOW, old]))
    assert fresh.look(NOW).live == 0, "a look is good for a second"
    found = fresh.look(NOW + 2 * NS)
    assert (found.live, found.catching_up, found.behind_max_s) == (2, 1, 7 * DAY)
    for hour in range(7 * 24):  # it delivers hour after hour, and has caught up
        latest.advance(points([numbers[0]], [old + hour * 3_600 * NS], [NOW + 3 * NS]))
    assert fresh.look(NOW + 4 * NS).behind_max_s == pytest.approx(3_600, abs=10)
    latest.advance(points([numbers[0]], [NOW + 4 * NS], [NOW + 4 * NS]))
    assert fresh.look(NOW + 6 * NS).catching_up == 0
    directory.forget("flusher")
    latest.forget([numbers[0]])
    assert fresh.look(NOW + 8 * NS).live == 1
