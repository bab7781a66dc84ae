"""What goes next, what leaves, and which clock may throw data away?"""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from godwit.spool.model import Track
from godwit.spool.policy import CLOCK_STEP_S, NS, BelievedTime, Holding, Waiting, leaving, order

WAITING = st.builds(
    Waiting,
    st.builds(Track, st.sampled_from("abc"), st.sampled_from(["e1", "e2", "e3"])),
    st.just(0),
    st.integers(1, 9),
    st.integers(0, 5),
)
STREAMS = st.dictionaries(
    st.sampled_from("abcd"),
    st.tuples(st.integers(0, 2), st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), max_size=8)),
    max_size=4,
)


@given(st.lists(WAITING, unique_by=lambda each: each.track), st.lists(st.integers(0, 2), min_size=3, max_size=3))
def test_order_is_by_priority_then_by_the_oldest_and_never_turns_a_stream_round(
    tracks: list[Waiting], priorities: list[int]
) -> None:
    waiting = [each._replace(priority=priorities["abc".index(each.track.stream)]) for each in tracks]
    ordered = order(waiting)
    assert Counter(ordered) == Counter(each.track for each in waiting)
    by_track = {each.track: each for each in waiting}
    served = [by_track[track] for track in ordered]
    assert [each.priority for each in served] == sorted(each.priority for each in served)
    first: dict[str, Waiting] = {}
    for each in served:
        before = first.setdefault(each.track.stream, each)
        assert before.rank <= each.rank  # an earlier epoch goes first, whatever its stamps say
    heads = list(first.values())
    assert heads == sorted(heads, key=lambda each: (each.priority, each.oldest, each.track))


def test_order_within_an_epoch_is_not_by_stamp_across_epochs() -> None:
    before = Waiting(Track("a", "old"), 1, 1, 2_000)
    after = Waiting(Track("a", "new"), 1, 2, 1_000)  # the clock went back
    other = Waiting(Track("b", "new"), 1, 3, 1_500)
    assert order([after, other, before]) == [other.track, before.track, after.track]


def as_holdings(streams: dict[str, tuple[int, list[tuple[int, int]]]]) -> dict[str, Holding]:
    return {stream: Holding(priority, iter(items)) for stream, (priority, items) in streams.items()}


def by_hand(streams: dict[str, tuple[int, list[tuple[int, int]]]], over: int, spare: int) -> dict[str, int]:
    """Say the same as the policy's docstring, slowly."""
    left = {stream: list(items) for stream, (_, items) in streams.items()}
    gone: Counter[str] = Counter()
    freed, last = 0, None
    while any(left.values()):
        victim = min(
            (stream for stream in left if left[stream]),
            key=lambda stream: (-streams[stream][0], left[stream][0][0], stream),
        )
        priority = streams[victim][0]
        if freed >= over + spare or (freed >= over and priority != last):
            break
        freed += left[victim].pop(0)[1]
        gone[victim] += 1
        last = priority
    return dict(gone)


@given(STREAMS, st.integers(1, 40), st.integers(0, 10))
def test_what_leaves(streams: dict[str, tuple[int, list[tuple[int, int]]]], over: int, spare: int) -> None:
    counts = leaving(as_holdings(streams), over, spare)
    assert counts == by_hand(streams, over, spare)
    gone = [(priority, items[: counts.get(stream, 0)]) for stream, (priority, items) in streams.items()]
    freed = sum(size for _, items in gone for _, size in items)
    assert freed >= min(over, sum(size for _, items in streams.values() for _, size in items))
    # Nobody has to leave while a lower priority has anything left.
    for stream, (priority, items) in streams.items():
        if counts.get(stream, 0) < len(items):
            assert not any(counts.get(other) for other, (above, _) in streams.items() if above < priority)


def test_what_is_lowest_leaves_first_and_then_what_is_oldest() -> None:
    streams = {"event": (0, [(1, 10)]), "slow": (1, [(3, 10), (9, 10)]), "fast": (1, [(n, 10) for n in range(2, 9)])}
    assert leaving(as_holdings(streams), 30, 0) == {"fast": 2, "slow": 1}
    assert leaving(as_holdings(streams), 90, 10**6) == {"fast": 7, "slow": 2}  # the spare is not taken from above
    assert leaving(as_holdings(streams), 91, 0) == {"fast": 7, "slow": 2, "event": 1}


AGE = 3_600.0


@given(st.lists(st.tuples(st.floats(0, 900), st.integers(-(10**9), 5 * 10**9)), max_size=40))
def test_no_clock_makes_anything_old_before_its_time(walks: list[tuple[float, int]]) -> None:
    """Whatever the time of day does, what was stamped while running is not found too old within `age_s_max`."""
    wall_s, running = 1_700_000_000.0, 0.0
    time = BelievedTime(round(wall_s) * NS, running, AGE)
    stamps: list[tuple[int, float]] = []
    for passed, jump in walks:
        running += passed
        wall_s += passed
        if abs(jump) > 10**8:  # seldom enough: it is set, by up to 150 years
            wall_s += jump
        wall = round(wall_s * NS)
        now = time.at(wall, running)
        assert now <= wall
        for stamp, since in stamps:
            if now - stamp > AGE * NS:
                assert running - since >= AGE - 1e-3
        stamps.append((wall, running))


def test_a_clock_that_is_right_is_believed() -> None:
    time = BelievedTime(0, 0.0, AGE)
    assert [time.at(n * 600 * NS, n * 600.0) for n in range(20)] == [n * 600 * NS for n in range(20)]


def test_a_jump_ahead_is_believed_when_it_has_stood_for_the_age() -> None:
    time = BelievedTime(0, 0.0, AGE)
    ahead = 10**9 * NS
    assert time.at(ahead, 1.0) == NS
    assert time.at(ahead + 3_000 * NS, 3_001.0) == 3_001 * NS
    assert time.at(ahead + 3_600 * NS, 3_601.0) == ahead + 3_600 * NS


def test_a_jump_ahead_that_is_taken_back_leaves_no_trace() -> None:
    time = BelievedTime(0, 0.0, AGE)
    time.at(10**9 * NS, 1.0)
    assert time.at(2 * NS, 2.0) == 2 * NS
    assert time.at(10**9 * NS, 3_700.0) == 3_700 * NS  # its patience starts anew


def test_small_steps_are_believed_at_once() -> None:
    time = BelievedTime(0, 0.0, AGE)
    assert time.at((10 + CLOCK_STEP_S) * NS, 10.0) == (10 + CLOCK_STEP_S) * NS
