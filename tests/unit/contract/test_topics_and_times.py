"""Does every topic come back as it was built, and is every time what its sender meant?"""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godwit.contract import codes
from godwit.contract.errors import MalformedError
from godwit.contract.ids import DEVICE_ID_PATTERN, DeviceId
from godwit.contract.times import EARLIEST_NS, LATEST_NS, format_time, parse_time
from godwit.contract.topics import Channel, DeviceTopic, topics_for

NS = 1_000_000_000
ids = st.from_regex(DEVICE_ID_PATTERN, fullmatch=True)


@given(ids, st.sampled_from(Channel))
def test_topics_come_back(device: str, channel: Channel) -> None:
    native, placed = topics_for("native"), topics_for("placed")
    where = DeviceTopic(DeviceId(device), channel)
    assert native.parse(native.build(where)) == where
    assert placed.parse(placed.build(where)) == where
    there = DeviceTopic(DeviceId(device), channel, "", "acme", "factory1", "sensor")
    assert placed.parse(placed.build(there)) == there


@pytest.mark.parametrize(
    ("layout", "topic", "wanted"),
    [
        ("native", "devices/a/telemetry", ("a", Channel.TELEMETRY)),
        ("native", "device/a/telemetry", ("a", Channel.TELEMETRY)),
        ("native", "device/commands/a", ("a", Channel.COMMANDS)),
        ("native", "devices/a/twin/desired", ("a", Channel.TWIN_DESIRED)),
        ("native", "homeassistant/sensor/a/config", None),
        ("native", "devices/a", None),
        ("native", "devices/a/other", None),
        ("native", "acme/factory1/sensor/temp-001/readings", None),
        ("placed", "acme/factory1/sensor/temp-001/readings", ("temp-001", Channel.TELEMETRY)),
        ("placed", "acme/factory1/sensor/temp-001/status", ("temp-001", Channel.STATUS)),
        ("placed", "acme//sensor/temp-001/status", None),
        ("placed", "devices/a/events", ("a", Channel.EVENTS)),
    ],
)
def test_layouts(layout: str, topic: str, wanted: tuple | None) -> None:
    found = topics_for(layout).parse(topic)
    assert (found[:2] if found else None) == wanted


def test_a_result_carries_its_command() -> None:
    topics = topics_for("native")
    found = topics.parse("devices/a/command-results/c-1")
    assert found is not None
    assert found.tail == "c-1"
    assert topics.build(found) == "devices/a/command-results/c-1"


@pytest.mark.parametrize("device", ["-a", "", "a" * 65, "ä", "a b", "a\0"])
def test_impossible_device_ids_are_refused(device: str) -> None:
    with pytest.raises(MalformedError) as caught:
        topics_for("native").parse(f"devices/{device}/telemetry")
    assert caught.value.code == codes.INVALID_DEVICE_ID


moments = st.integers(EARLIEST_NS // NS, LATEST_NS // NS - 1)


@given(moments, st.integers(0, NS - 1), st.integers(-14 * 60, 14 * 60))
def test_rfc_3339(seconds: int, fraction: int, zone: int) -> None:
    local = datetime.fromtimestamp(seconds, timezone(timedelta(minutes=zone)))
    text = local.strftime("%Y-%m-%dT%H:%M:%S") + f".{fraction:09d}" + local.isoformat()[-6:]
    if EARLIEST_NS <= seconds * NS + fraction < LATEST_NS:
        assert parse_time(text) == (seconds * NS + fraction, False)
        assert parse_time(format_time(seconds * NS + fraction))[0] == seconds * NS + fraction
        assert parse_time(datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")) == (seconds * NS, True)


@given(moments)
def test_units_follow_from_magnitude(seconds: int) -> None:
    for unit in (1, 1_000, 1_000_000, NS):
        assert parse_time(seconds * unit)[0] == seconds * NS
    assert abs(parse_time(seconds + 0.25)[0] - seconds * NS - NS // 4) < 500


@pytest.mark.parametrize(
    "value",
    ["", "2024-13-01T00:00:00Z", "2023-02-29T00:00:00Z", "2024-01-01T24:00:00Z", "2024-01-01T00:00:00+99:00", "12", True,
     None, float("nan"), float("inf"), [1]],
)  # fmt: skip
def test_what_is_no_time(value: object) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_time(value)
    assert caught.value.code == codes.TIME_MALFORMED


def test_milliseconds_on_the_fast_path_equal_the_slow_one() -> None:
    slow = parse_time("2024-01-15T10:30:00.123+00:00")
    assert parse_time("2024-01-15T10:30:00.123Z") == parse_time("2024-01-15T10:30:00.123Z") == slow
    assert parse_time("2024-06-30T23:59:60Z") == parse_time("2024-07-01T00:00:00Z")
