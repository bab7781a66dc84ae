"""What is refused a thousand times is in the log with all of it, in a handful of lines."""

from hypothesis import given
from hypothesis import strategies as st

from godwit.server.storage.repeats import Repeated, Repeats


def test_at_once_then_once_a_minute_with_how_many() -> None:
    repeats: Repeats[str] = Repeats(60, 10)
    assert repeats.is_new("a", "a at 0", 0)
    assert not any(repeats.is_new("a", f"a at {second}", second) for second in range(1, 50))
    assert repeats.due(59) == []
    assert repeats.due(60) == [Repeated("a at 49", 49)]
    assert not repeats.is_new("a", "a at 61", 61)
    assert repeats.due(120) == [Repeated("a at 61", 1)]
    assert repeats.due(180) == []  # nothing more came: it is forgotten
    assert repeats.is_new("a", "a at 181", 181)


def test_too_many_kinds_are_one_line() -> None:
    repeats: Repeats[int] = Repeats(60, 10)
    assert sum(repeats.is_new(kind, kind, 0) for kind in range(1_000)) == 10
    assert repeats.due(60) == [Repeated(None, 990)]
    assert repeats.is_new(2_000, 2_000, 61)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40), st.booleans()), max_size=200))
def test_nothing_is_lost_and_lines_are_bounded(steps: list[tuple[int, int, bool]]) -> None:
    """Each that happened is in a line or in the count of one; in a minute there are at most thrice as many lines."""
    repeats: Repeats[int] = Repeats(60, 5)
    now, told = 0, 0
    lines: list[int] = []
    for kind, seconds, is_looked in steps:
        now += seconds
        if repeats.is_new(kind, kind, now):
            told += 1
            lines.append(now)
        for each in repeats.due(now) if is_looked else ():
            told += each.times
            lines.append(now)
    for _ in range(2):
        now += 60
        told += sum(each.times for each in repeats.due(now))
    assert told == len(steps)
    assert all(sum(each - 60 < other <= each for other in lines) <= 3 * 5 + 1 for each in lines)
