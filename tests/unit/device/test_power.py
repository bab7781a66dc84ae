"""Is the radio on when it has to be, and off otherwise?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godwit.device.power import ALWAYS_ON, DAY_S, PowerPolicy, Waiting, Window

NOON = 12 * 3_600.0
OFF = Waiting(samples=0, oldest_s=0, has_urgent=False, quiet_s=1_000, off_s=1_000)


def test_always_on() -> None:
    assert ALWAYS_ON.decide(OFF, NOON).is_on


def test_a_number_of_samples_or_their_age() -> None:
    policy = PowerPolicy(samples=100, every_s=600)
    assert not policy.decide(OFF, NOON).is_on
    waiting = OFF._replace(samples=99, oldest_s=500)
    assert policy.decide(waiting, NOON) == (False, 100)
    assert policy.decide(waiting._replace(samples=100), NOON).is_on
    assert policy.decide(waiting._replace(oldest_s=600), NOON).is_on


def test_only_in_the_window_but_for_what_is_urgent() -> None:
    policy = PowerPolicy(windows=(Window.of("22:00-06:00"),))
    waiting = OFF._replace(samples=5)
    assert policy.decide(waiting, NOON) == (False, 10 * 3_600)
    assert not policy.decide(waiting, 23 * 3_600.0).is_on, "it was on in this window"
    waiting = waiting._replace(off_s=9 * 3_600)
    assert policy.decide(waiting, 23 * 3_600.0).is_on
    assert policy.decide(waiting, 3 * 3_600.0).is_on
    assert not policy.decide(OFF, 3 * 3_600.0).is_on
    assert policy.decide(waiting._replace(has_urgent=True), NOON).is_on


def test_it_stays_a_moment_for_commands_and_comes_to_hear_them() -> None:
    policy = PowerPolicy(every_s=3_600, listen_s=600, linger_s=5)
    on = OFF._replace(off_s=0.0, quiet_s=2)
    assert policy.decide(on, NOON) == (True, 3)
    assert not policy.decide(on._replace(quiet_s=5), NOON).is_on
    assert policy.decide(OFF._replace(off_s=500), NOON) == (False, 100)
    assert policy.decide(OFF._replace(off_s=600), NOON).is_on


def test_a_window_that_ends_as_it_begins_is_the_whole_day() -> None:
    assert Window.of("00:00-00:00").holds(NOON)
    assert PowerPolicy(windows=(Window(0, 0),)).decide(OFF._replace(samples=1, off_s=DAY_S), 0.0).is_on


@pytest.mark.parametrize("text", ["", "22:00", "22-25", "22:00-", "a-b"])
def test_windows_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Window.of(text)


@given(st.floats(0, DAY_S, exclude_max=True), st.floats(0, DAY_S, exclude_max=True), st.floats(0, 10 * DAY_S))
def test_a_window_begins_when_it_says(begin: float, end: float, now: float) -> None:
    window = Window(begin, end)
    wait = window.begins_in(now)
    assert 0 <= wait <= DAY_S
    if wait and (end - begin) % DAY_S > 2:
        assert window.holds(now + wait + 1e-3)


@given(
    st.builds(
        PowerPolicy, st.none() | st.integers(1, 500), st.none() | st.floats(1, 1e5),
        st.lists(st.builds(Window, st.floats(0, DAY_S - 1), st.floats(0, DAY_S - 1)), max_size=2).map(tuple),
        st.none() | st.integers(0, 9), st.none() | st.floats(1, 1e5), st.floats(0.1, 60),
    ),
    st.builds(Waiting, st.integers(0, 1_000), st.floats(0, 1e5), st.booleans(), st.floats(0, 1e5), st.floats(0, 1e5)),
    st.floats(0, 1e9),
)  # fmt: skip
def test_it_is_always_asked_again(policy: PowerPolicy, waiting: Waiting, now: float) -> None:
    assert 0 < policy.decide(waiting, now).again_s <= DAY_S or policy.decide(waiting, now).is_on
