"""Is an offset ever further off than its stated uncertainty? In virtual time, with delays of every kind."""

from hypothesis import given
from hypothesis import strategies as st

from godwit.contract.clock import (
    DRIFT_PPM_MAX,
    HELD_NS_MAX,
    KEPT_MAX,
    NS,
    PAST_MAX,
    PHI_PPM,
    ClockFilter,
    Exchange,
)
from godwit.contract.times import CLOCK_NS_MAX

BEGIN = 1_760_000_000 * NS
MS = NS // 1_000


class World:
    """A server whose clock is right, and a device whose clock is not; time passes when told to."""

    def __init__(self, offset: int = 0, drift: float = 0.0) -> None:
        self.now = BEGIN
        self.drift = drift
        self._anchor = (BEGIN, BEGIN + offset)

    def device(self, time: int) -> int:
        begin, said = self._anchor
        return said + (time - begin) + round((time - begin) * self.drift / 1e6)

    def offset(self, time: int) -> int:
        return self.device(time) - time

    def step(self, size: int) -> None:
        self._anchor = (self.now, self.device(self.now) + size)

    def wander(self, drift: float) -> None:
        self._anchor = (self.now, self.device(self.now))
        self.drift = drift

    def exchange(self, up: int, down: int, held: int = 0) -> Exchange:
        sent = self.now
        self.now += up + held + down
        return Exchange(self.device(sent), sent + up, sent + up + held, self.device(self.now))


def is_right(world: World, clock: ClockFilter, at: int | None = None) -> bool:
    assert clock.estimate is not None
    time = world.now if at is None else at
    return abs(clock.estimate.offset_at(time) - world.offset(time)) <= clock.estimate.uncertainty_at(time)


offsets = st.integers(-50 * 365 * 86_400 * NS, 50 * 365 * 86_400 * NS)
drifts = st.floats(-400, 400)
delays = st.integers(0, 5 * NS)
pauses = st.integers(NS, 3_600 * NS)
rounds = st.lists(st.tuples(pauses, delays, delays, st.integers(0, 300 * NS)), min_size=1, max_size=40)


def talk(world: World, clock: ClockFilter, told) -> None:
    for pause, up, down, held in told:
        world.now += pause
        assert clock.add(world.exchange(up, down, held))


@given(offsets, drifts, rounds, st.integers(0, 86_400 * NS))
def test_the_error_stays_within_the_stated_uncertainty_whatever_the_delays(offset, drift, told, later):
    world, clock = World(offset, drift), ClockFilter()
    for each in told:
        talk(world, clock, [each])
        assert is_right(world, clock)
        assert abs(clock.estimate.drift - drift) <= clock.estimate.drift_uncertainty + 1e-6
    assert clock.steps == 0
    assert is_right(world, clock, world.now + later)
    assert is_right(world, clock, clock.estimate.at - later)


@given(offsets, st.floats(-300, 300), rounds, st.lists(st.floats(-PHI_PPM / 2, PHI_PPM / 2), min_size=40, max_size=40))
def test_a_crystal_may_wander_with_the_temperature(offset, drift, told, wanderings):
    world, clock = World(offset, drift), ClockFilter()
    for each, wandered in zip(told, wanderings, strict=False):
        world.wander(drift + wandered)
        talk(world, clock, [each])
        assert is_right(world, clock)
    assert clock.steps == 0


@given(st.integers(0, 5 * NS), st.integers(0, 5 * NS))
def test_asymmetry_is_no_offset(up, down):
    """The whole delay on one way moves the estimate by half of it, which is what the uncertainty says."""
    world, clock = World(), ClockFilter()
    talk(world, clock, [(NS, up, down, 0)] * 5)
    assert is_right(world, clock)
    assert clock.estimate.uncertainty <= (up + down) / 2 * 1.002 + 3 * MS


def test_a_drift_of_50_ppm_is_found_through_jitter():
    world, clock = World(3 * NS, 50.0), ClockFilter()
    talk(world, clock, [(60 * NS, (5 + 7 * n % 40) * MS, (5 + 11 * n % 60) * MS, 200 * MS) for n in range(240)])
    assert abs(clock.estimate.drift - 50) < 1
    assert clock.estimate.drift_uncertainty < PHI_PPM + 5
    assert abs(clock.estimate.offset_at(world.now) - world.offset(world.now)) < 10 * MS


def test_an_outage_of_two_hours_widens_the_uncertainty_and_throws_nothing_away():
    world, clock = World(-4 * NS, -30.0), ClockFilter()
    talk(world, clock, [(60 * NS, 20 * MS, 20 * MS, 0)] * 60)
    before = clock.estimate
    world.now += 7_200 * NS
    assert is_right(world, clock)
    assert before.uncertainty_at(world.now) > 10 * before.uncertainty
    assert before.uncertainty_at(world.now) < NS // 2
    talk(world, clock, [(NS, 20 * MS, 20 * MS, 0)])
    assert clock.steps == 0
    assert clock.estimate.uncertainty < 25 * MS
    assert clock.estimate.drift_uncertainty <= before.drift_uncertainty + PHI_PPM


@given(offsets, drifts, rounds, st.sampled_from([-1, 1]), st.integers(30 * 60 * NS, 365 * 86_400 * NS), rounds)
def test_a_step_is_seen_in_either_direction_and_what_was_before_it_is_kept(offset, drift, told, sign, size, after):
    world, clock = World(offset, drift), ClockFilter()
    talk(world, clock, told)
    early = world.now
    said_early, world.now = world.device(early), early + 86_400 * NS
    world.step(sign * size)
    for each in after:
        talk(world, clock, [each])
        assert is_right(world, clock)
    assert clock.steps == 1
    assert (clock.step.size > 0) == (sign > 0)
    found, uncertainty = clock.resolve(world.device(world.now), world.now)
    assert abs(found - world.now) <= uncertainty * 1.001
    if sign > 0 or size > 2 * 86_400 * NS:  # else the clock said some times twice, and nobody can tell which was meant
        found, uncertainty = clock.resolve(said_early, world.now)
        assert abs(found - early) <= uncertainty * 1.001


def test_a_clock_that_begins_at_1970_at_each_boot_is_stepped_back_by_the_time_it_ran():
    world, clock = World(-BEGIN, 20.0), ClockFilter()
    for boot in range(5):
        talk(world, clock, [(600 * NS, 30 * MS, 10 * MS, 0)] * 6)
        assert is_right(world, clock)
        assert clock.steps == boot
        world.step(-world.device(world.now))
    assert clock.step.size < 0
    assert len(clock.past) <= PAST_MAX


@given(
    st.lists(
        st.tuples(*[st.integers(-(2**63), 2**63 - 1) | st.integers(BEGIN, BEGIN + 9 * NS)] * 4), max_size=3 * KEPT_MAX
    )
)
def test_nothing_that_a_device_may_claim_breaks_the_filter(claims):
    clock = ClockFilter()
    for claim in claims:
        exchange = Exchange(*claim)
        taken = clock.add(exchange)
        if taken:
            assert clock.estimate.uncertainty >= 0
            assert abs(clock.estimate.drift) <= DRIFT_PPM_MAX
            found, uncertainty = clock.resolve(exchange.device_sent, exchange.server_received)
            assert isinstance(found, int)
            assert uncertainty >= 0
    assert len(clock.dump()) < 2_000


def test_what_is_impossible_or_old_says_nothing():
    clock = ClockFilter()
    now = BEGIN
    assert not clock.add(Exchange(now, now + NS, now, now + NS))  # the server sent before it received
    assert not clock.add(Exchange(now + 9 * NS, now, now, now))  # received before it was sent
    assert not clock.add(Exchange(now, now, now + 9 * NS, now + NS))  # took less than the server held it
    assert not clock.add(Exchange(now, now, now + HELD_NS_MAX + 1, now + HELD_NS_MAX + 1))
    assert not clock.add(Exchange(CLOCK_NS_MAX, now, now, CLOCK_NS_MAX))
    assert clock.estimate is None
    assert clock.add(Exchange(now, now, now + NS, now + NS))
    assert not clock.add(Exchange(now, now, now + NS, now + NS))
    assert clock.exchanges == 1


@given(offsets, drifts, rounds)
def test_the_way_there_and_back(offset, drift, told):
    world, clock = World(offset, drift), ClockFilter()
    talk(world, clock, told)
    again = ClockFilter.restore(clock.dump())
    assert again.estimate == clock.estimate
    said = clock.estimate.to_device(world.now)
    assert abs(clock.estimate.to_server(said) - world.now) <= 1_000
    talk(world, clock, [(NS, MS, MS, 0)])
    world.now -= NS + 2 * MS
    talk(world, again, [(NS, MS, MS, 0)])
    assert again.dump() == clock.dump()
