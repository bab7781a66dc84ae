"""Is a recorded file read as it stands: UTC, in its order, with all its rows?"""

import pytest

from godwit.contract.errors import MalformedError
from godwit.sim.recording import Row, parse_time, read_rows, shift_to

NS = 1_000_000_000


def test_times_without_a_zone_are_utc() -> None:
    assert parse_time("2013-12-02 21:15:00") == 1_386_018_900 * NS
    assert parse_time("2013-12-02T22:15:00+01:00") == 1_386_018_900 * NS
    assert parse_time("2013-12-02T21:15:00.000001Z") == 1_386_018_900 * NS + 1_000


def test_rows_keep_their_order_and_their_duplicates() -> None:
    rows = read_rows(
        ["timestamp,value", "2014-01-01 00:05:00,2", "2014-01-01 00:00:00,1.5", "2014-01-01 00:00:00,3", ""]
    )
    assert [row.value for row in rows] == [2.0, 1.5, 3.0]
    assert rows[1].time == rows[2].time < rows[0].time


@pytest.mark.parametrize("line", ["2014-01-01 00:00:00", "yesterday,3", "2014-01-01 00:00:00,warm"])
def test_a_bad_line_is_named(line: str) -> None:
    with pytest.raises(MalformedError, match="line 3"):
        read_rows(["timestamp,value", "2014-01-01 00:00:00,1", line])


def test_shifting_keeps_the_distances() -> None:
    rows = [Row(10, 1.0), Row(40, 2.0), Row(20, 3.0)]
    assert [row.time for row in shift_to(rows, 1_000)] == [970, 1_000, 980]
    assert shift_to([], 1_000) == []
