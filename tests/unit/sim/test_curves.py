"""Do the simulator's curves look like the world, and does a seed say everything?"""

from random import Random

import pytest

from godwit.sim.curves import DAY_S, Course, compressor, household, moment, sunny, working
from godwit.sim.profiles import PLACES, PROFILES

MIDSUMMER = 1_752_537_600.0  # Tuesday, 2025-07-15T00:00Z
MIDWINTER = MIDSUMMER + 184 * DAY_S


def week(profile: str, seed: str = "a", start: float = MIDSUMMER, latitude: float = 53.5) -> list[dict[str, float]]:
    course = Course(PROFILES[profile].curves, Random(seed))
    return [dict(course.sample(moment(start + step * 300, latitude, 10.0))) for step in range(7 * 288)]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def correlation(left: list[float], right: list[float]) -> float:
    ml, mr = mean(left), mean(right)
    pairs = list(zip(left, right, strict=True))
    top = sum((a - ml) * (b - mr) for a, b in pairs)
    return top / (sum((a - ml) ** 2 for a, _ in pairs) * sum((b - mr) ** 2 for _, b in pairs)) ** 0.5


@pytest.mark.parametrize("profile", PROFILES)
def test_the_same_seed_gives_the_same_week(profile: str) -> None:
    assert week(profile, "x") == week(profile, "x")
    assert week(profile, "x") != week(profile, "y")


@pytest.mark.parametrize("profile", PROFILES)
def test_values_stay_in_range_and_on_their_resolution(profile: str) -> None:
    for curve in PROFILES[profile].curves:
        for row in week(profile):
            value = row[curve.name]
            assert curve.lowest <= value <= curve.highest
            assert value == round(value, curve.decimals)


def test_afternoons_are_warmer_than_nights_and_summers_than_winters() -> None:
    summer = [row["temperature"] for row in week("weather")]
    winter = [row["temperature"] for row in week("weather", start=MIDWINTER)]
    days = range(7)
    assert mean([summer[day * 288 + 14 * 12] for day in days]) > mean([summer[day * 288 + 3 * 12] for day in days]) + 2
    assert mean(summer) > mean(winter) + 10
    south = [row["temperature"] for row in week("weather", latitude=-42.0)]
    assert mean(summer) > mean(south) + 10


def test_curves_are_smooth_and_not_white_noise() -> None:
    temperature = [row["temperature"] for row in week("weather")]
    assert correlation(temperature[:-1], temperature[1:]) > 0.95


def test_readings_that_follow_each_other_are_correlated() -> None:
    weather = week("weather")
    assert correlation([r["temperature"] for r in weather], [r["humidity"] for r in weather]) < -0.2
    machine = week("machine")
    assert correlation([r["load"] for r in machine], [r["temperature"] for r in machine]) > 0.8


def test_machines_rest_at_weekends_and_at_night() -> None:
    tuesday, saturday = MIDSUMMER, MIDSUMMER + 4 * DAY_S
    assert working(moment(tuesday + DAY_S / 2, 50, 0)) > 0.99
    assert working(moment(tuesday + 2 * 3_600, 50, 0)) < 0.01
    assert working(moment(saturday + DAY_S / 2, 50, 0)) == 0


def test_shapes_stay_within_their_bounds() -> None:
    for minute in range(0, 7 * 1_440, 7):
        at = moment(MIDSUMMER + minute * 60, 40, 25)
        for shape in (sunny, working, household, compressor):
            assert -1.0001 <= shape(at) <= 1.0001


def test_local_noon_follows_the_longitude() -> None:
    assert moment(MIDSUMMER, 0, 180).hour == pytest.approx(12)
    assert moment(MIDSUMMER + DAY_S / 2, 0, 0).hour == pytest.approx(12)


def test_the_places_are_on_the_globe_and_differ() -> None:
    assert len({(place.latitude, place.longitude) for place in PLACES}) == len(PLACES)
    assert all(-90 <= place.latitude <= 90 and -180 <= place.longitude <= 180 for place in PLACES)
