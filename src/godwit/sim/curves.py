"""Curves that look like the world: seasons, days, working hours, slow noise and sudden jolts. Pure and seeded.

A reading is `base + shape(time) + AR(1) noise + jolts`, cut to its range and rounded to its resolution. It may follow
another reading of the same device (humidity falls as temperature rises). Times are seconds since 1970, UTC; the sun
is where the device's longitude says, and the seasons are turned round south of the equator.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final, NamedTuple

DAY_S: Final = 86_400.0
YEAR_S: Final = 365.2425 * DAY_S
MIDSUMMER_S: Final = 200 * DAY_S
"""Mid July: the warmest days come a month after the longest one."""


class Moment(NamedTuple):
    """A time as a curve sees it: seconds since 1970, the local solar hour (0 to 24) and the season (-1 to 1)."""

    time_s: float
    hour: float
    season: float
    is_weekend: bool


Shape = Callable[[Moment], float]
"""What a curve adds to its base at a moment, about -1 to 1."""


def moment(time_s: float, latitude: float, longitude: float) -> Moment:
    """Return `time_s` as it is felt at a place."""
    local = time_s + longitude / 360.0 * DAY_S
    season = math.cos(2 * math.pi * (time_s - MIDSUMMER_S) / YEAR_S)
    # 1970-01-01 was a Thursday: days 2 and 3 after it were the weekend.
    is_weekend = int(local // DAY_S) % 7 in (2, 3)
    return Moment(time_s, local % DAY_S / 3_600.0, season if latitude >= 0 else -season, is_weekend)


def flat(_: Moment) -> float:
    """Return nothing on top of the base."""
    return 0.0


def sunny(at: Moment) -> float:
    """Return a day's warmth: highest at 15 h, lowest at 4 h."""
    return math.sin(2 * math.pi * (at.hour - 9.5) / 24.0)


def seasonal(at: Moment) -> float:
    """Return a year's warmth with the day's on top, three to one."""
    return 0.75 * at.season + 0.25 * sunny(at)


def working(at: Moment) -> float:
    """Return 0 at night and at weekends, 1 in the two shifts from 6 to 22 h, with soft edges."""
    if at.is_weekend:
        return 0.0
    return 1.0 / (1.0 + math.exp(-4 * (at.hour - 6.5))) / (1.0 + math.exp(4 * (at.hour - 21.5)))


def household(at: Moment) -> float:
    """Return a home's use of power: a small peak at breakfast, a high one in the evening."""
    return 0.5 * math.exp(-(((at.hour - 7.5) / 1.3) ** 2)) + math.exp(-(((at.hour - 19.5) / 2.2) ** 2))


def compressor(at: Moment) -> float:
    """Return a fridge's cycle of 40 minutes: 25 of slow warming, 15 of quick cooling; -1 to 1."""
    minute = at.time_s % 2_400.0 / 60.0
    return -1.0 + 2.0 * minute / 25.0 if minute < 25.0 else 1.0 - 2.0 * (minute - 25.0) / 15.0


class Curve(NamedTuple):
    """One reading's way through time.

    `swing` scales the shape; `noise` is the standard deviation of the AR(1) part, which forgets over `memory_s`; jolts
    of height `jolt` come `jolts_a_day` and fade over `jolt_s`.
    """

    name: str
    unit: str
    base: float
    shape: Shape = flat
    swing: float = 0.0
    noise: float = 0.0
    memory_s: float = 1_800.0
    decimals: int = 1
    lowest: float = -math.inf
    highest: float = math.inf
    follows: str = ""
    slope: float = 0.0
    """Change a unit of the followed reading's distance from its base."""
    jolt: float = 0.0
    jolts_a_day: float = 0.0
    jolt_s: float = 600.0


class Course:
    """A device's curves under way: holds the noise between samples. The same seed gives the same values."""

    def __init__(self, curves: Sequence[Curve], random: Random) -> None:
        self._curves = curves
        self._random = random
        self._noise = {curve.name: random.gauss(0, curve.noise) for curve in curves}
        self._jolts = {curve.name: 0.0 for curve in curves}
        self._offset = {curve.name: random.gauss(0, curve.noise) for curve in curves}
        self._last_s: float | None = None

    def sample(self, at: Moment) -> Mapping[str, float]:
        """Return all readings at `at`; moments must not go back."""
        elapsed_s = 0.0 if self._last_s is None else at.time_s - self._last_s
        self._last_s = at.time_s
        values: dict[str, float] = {}
        strayed: dict[str, float] = {}
        for curve in self._curves:
            away = curve.swing * curve.shape(at) + self._offset[curve.name] + self._drift(curve, elapsed_s)
            away += curve.slope * strayed.get(curve.follows, 0.0)
            strayed[curve.name] = away
            # + 0.0 turns a rounded -0.0 into 0.0
            values[curve.name] = round(min(max(curve.base + away, curve.lowest), curve.highest), curve.decimals) + 0.0
        return values

    def _drift(self, curve: Curve, elapsed_s: float) -> float:
        keep = math.exp(-elapsed_s / curve.memory_s)
        fresh = math.sqrt(1.0 - keep * keep) * curve.noise
        self._noise[curve.name] = keep * self._noise[curve.name] + self._random.gauss(0, 1) * fresh
        jolt = self._jolts[curve.name] * math.exp(-elapsed_s / curve.jolt_s)
        if curve.jolts_a_day and self._random.random() < 1.0 - math.exp(-elapsed_s * curve.jolts_a_day / DAY_S):
            jolt += curve.jolt * self._random.uniform(0.5, 1.5)
        self._jolts[curve.name] = jolt
        return self._noise[curve.name] + jolt
