"""Is every way to write a time read as the right nanosecond?"""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godwit.contract import codes
from godwit.contract.errors import MalformedError
from godwit.contract.times import format_time, nanoseconds, parse_time

SECOND = 1_000_000_000
T = 1_705_314_600 * SECOND
MOMENTS = st.datetimes(datetime(2000, 1, 2), datetime(2099, 12, 30))  # noqa: DTZ001 - the zone is drawn beside


@pytest.mark.parametrize(
    ("said", "time", "is_zoneless"),
    [
        ("2024-01-15T10:30:00Z", T, False),
        ("2024-01-15t10:30:00z", T, False),
        ("2024-01-15 10:30:00Z", T, False),
        ("2024-01-15T10:30:00", T, True),
        ("2024-01-15T10:30:00.5", T + SECOND // 2, True),
        ("2024-01-15T10:30:00.000000001Z", T + 1, False),
        ("2024-01-15T10:30:00.0000000019Z", T + 1, False),
        ("2024-01-15T11:30:00+01:00", T, False),
        ("2024-01-15T05:00:00.25-05:30", T + SECOND // 4, False),
        ("2024-01-15T11:30:00+0100", T, False),
        ("2016-12-31T23:59:60Z", 1_483_228_800 * SECOND, False),
        ("2024-02-29T00:00:00Z", 1_709_164_800 * SECOND, False),
        ("2000-01-01T00:00:00Z", 946_684_800 * SECOND, False),
        (1_705_314_600, T, False),
        (1_705_314_600_000, T, False),
        (1_705_314_600_000_000, T, False),
        (T, T, False),
        (T + 7, T + 7, False),
        (1_705_314_600.123, T + 123_000_000, False),
        (1_705_314_600.123456, T + 123_456_000, False),
        (1_705_314_600_123.0, T + 123_000_000, False),
        (1_705_314_600_123.5, T + 123_500_000, False),
        (1.7053146e18, T, False),
    ],
)  # fmt: skip
def test_readable(said: object, time: int, is_zoneless: bool) -> None:
    assert parse_time(said) == (time, is_zoneless)
    assert parse_time(said) == (time, is_zoneless), "from the cache"


@pytest.mark.parametrize(
    "said",
    [
        "", "now", "2024-01-15", "2024-01-15T10:30Z", "2024-13-01T00:00:00Z", "2024-00-01T00:00:00Z",
        "2023-02-29T00:00:00Z", "2024-01-32T00:00:00Z", "2024-01-15T24:00:00Z", "2024-01-15T10:60:00Z",
        "2024-01-15T10:30:61Z", "2024-01-15T10:30:00.Z", "2024-01-15T10:30:00.1x", "2024-01-15T10:30:00+24:00",
        "2024-01-15T10:30:00+01:60", "2024-01-15T10:30:00ZZ", "2024-01-15T10:30:00Z\n", "1705314600",
        "\u0662\u0660\u0662\u0664-01-15T10:30:00Z", "2024-01-15T10:30:00.\u0662Z", "2024-01-15T10:30:00." + "1" * 19,
        float("nan"), float("inf"), True, None, [],
    ],
)  # fmt: skip
def test_malformed(said: object) -> None:
    parse_time("2024-01-15T10:30:00Z")  # the second is known, so that the short way is tried
    with pytest.raises(MalformedError) as caught:
        parse_time(said)
    assert caught.value.code == codes.TIME_MALFORMED


@pytest.mark.parametrize(
    "said",
    [
        0, 1, -1, 86_400, 946_684_799, 4_102_444_800, -T, 10**30, 10**4000, 0.5, 1e300, 1e-300,
        "1970-01-01T00:00:00Z", "1999-12-31T23:59:59Z", "2100-01-01T00:00:00Z", "0000-01-01T00:00:00Z",
        "2000-01-01T00:00:00+00:01", "9999-12-31T23:59:59Z",
    ],
)  # fmt: skip
def test_implausible(said: object) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_time(said)
    assert caught.value.code == codes.TIME_IMPLAUSIBLE


@given(MOMENTS, st.integers(-14 * 60, 14 * 60), st.integers(0, 999_999_999))
def test_agrees_with_the_standard_library(moment: datetime, minutes: int, fraction: int) -> None:
    local = moment.replace(microsecond=0, tzinfo=timezone(timedelta(minutes=minutes)))
    expected = round(local.timestamp()) * SECOND + fraction
    head, zone = local.isoformat()[:19], local.isoformat()[19:]
    assert parse_time(f"{head}.{fraction:09d}{zone}") == (expected, False)
    assert parse_time(format_time(expected)) == (expected, False)


@given(MOMENTS)
def test_the_unit_follows_from_the_magnitude(moment: datetime) -> None:
    seconds = round(moment.replace(microsecond=0, tzinfo=UTC).timestamp())
    assert {parse_time(seconds * scale)[0] for scale in (1, 10**3, 10**6, 10**9)} == {seconds * SECOND}
    assert parse_time(seconds + 0.25)[0] == seconds * SECOND + SECOND // 4


@pytest.mark.parametrize(
    ("seconds", "time"),
    [(0.1, 100_000_000), (-0.1, -100_000_000), (-1.5, -1_500_000_000), (2, 2 * SECOND), (1e-6, 1_000), (0.0, 0)],
)
def test_nanoseconds(seconds: float, time: int) -> None:
    assert nanoseconds(seconds) == time
