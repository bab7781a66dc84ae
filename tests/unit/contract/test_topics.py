"""Does the one topic schema take apart what it builds, and nothing else?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godwit.contract import codes
from godwit.contract.errors import MalformedError
from godwit.contract.ids import DEVICE_ID_PATTERN, DeviceId
from godwit.contract.topics import (
    RULES,
    Channel,
    DeviceTopic,
    EnrollmentStep,
    NativeTopics,
    PlacedTopics,
    alerts_topic,
    enrollment_topic,
    parse_enrollment,
    resolve_alias,
    topics_for,
)

DEVICE_IDS = st.from_regex(DEVICE_ID_PATTERN, fullmatch=True).map(DeviceId)
LEVEL = st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True)


def tail_of(channel: Channel) -> str:
    return "c-1" if channel is Channel.COMMAND_RESULTS else ""


@given(DEVICE_IDS, st.sampled_from(Channel))
def test_native_both_ways(device_id: DeviceId, channel: Channel) -> None:
    where = DeviceTopic(device_id, channel, tail_of(channel))
    for topics in (NativeTopics(), PlacedTopics()):
        assert topics.parse(topics.build(where)) == where


@given(DEVICE_IDS, st.sampled_from(Channel), LEVEL, LEVEL, LEVEL)
def test_placed_both_ways(device_id: DeviceId, channel: Channel, tenant: str, location: str, kind: str) -> None:
    where = DeviceTopic(device_id, channel, tail_of(channel), f"t-{tenant}", location, kind)
    topics = PlacedTopics()
    topic = topics.build(where)
    assert topics.parse(topic) == where
    assert NativeTopics().parse(topic) is None


def test_the_topics_of_the_seeds() -> None:
    native, placed = topics_for("native"), topics_for("placed")
    for topics in (native, placed):
        assert topics.parse("devices/sensor001/telemetry") == DeviceTopic(DeviceId("sensor001"), Channel.TELEMETRY)
        assert topics.parse("devices/sensor001/commands") == DeviceTopic(DeviceId("sensor001"), Channel.COMMANDS)
        assert topics.parse("device/s1/telemetry") == DeviceTopic(DeviceId("s1"), Channel.TELEMETRY)
        assert topics.parse("device/commands/s1") == DeviceTopic(DeviceId("s1"), Channel.COMMANDS)
    where = ("", "acme", "factory1", "sensor")
    for name, channel in {
        "readings": Channel.TELEMETRY, "status": Channel.STATUS, "commands": Channel.COMMANDS
    }.items():  # fmt: skip
        topic = f"acme/factory1/sensor/temp-001/{name}"
        assert placed.parse(topic) == DeviceTopic(DeviceId("temp-001"), channel, *where)
        assert placed.build(DeviceTopic(DeviceId("temp-001"), channel, *where)) == topic


@pytest.mark.parametrize(
    "topic",
    [
        "", "/", "devices", "devices/a", "devices/a/", "devices/a/nothing", "devices/a/telemetry/",
        "devices/a/status/x", "devices/a/command-results", "devices/a/command-results/b/c", "device/a/status",
        "homeassistant/sensor/a/config", "system/heartbeat", "alerts/critical", "tenants/acme/alerts/critical",
        "$SYS/a/b/c/status", "a/b/c/d", "/b/c/d/status", "a//c/d/status", "system/b/c/d/status",
        "enrollment/x/request",
    ],
)  # fmt: skip
def test_ordinary_topics(topic: str) -> None:
    assert NativeTopics().parse(topic) is None
    assert PlacedTopics().parse(topic) is None


@pytest.mark.parametrize("name", ["", "-a", "a b", "ä", "a+", "#", "a" * 65, "a\n"])
def test_a_bad_device_id_is_told(name: str) -> None:
    with pytest.raises(MalformedError) as caught:
        NativeTopics().parse(f"devices/{name}/telemetry")
    assert caught.value.code == codes.INVALID_DEVICE_ID


def test_memory_is_bounded_whatever_names_peers_make_up() -> None:
    topics = NativeTopics()
    for number in range(100_050):
        topics.parse(f"x/{number}")
    topics.parse("y" * 65_000)
    assert len(topics._known) <= 100_000
    assert max(map(len, topics._known)) <= 256


def test_every_channel_has_its_rule() -> None:
    assert set(RULES) == set(Channel)
    assert {channel for channel, rule in RULES.items() if rule.is_retained} == {
        Channel.STATUS, Channel.TWIN_DESIRED, Channel.FIRMWARE_OFFER
    }  # fmt: skip


def test_enrollment_and_alerts() -> None:
    for step in EnrollmentStep:
        assert parse_enrollment(enrollment_topic("c1", step)) == ("c1", step)
    for topic in ("enrollment/c1", "enrollment//request", "enrollment/c1/x", "enrollment/c1/request/y", "a/c1/request"):
        assert parse_enrollment(topic) is None
    assert alerts_topic("critical") == "alerts/critical"
    assert alerts_topic("critical", "acme") == "tenants/acme/alerts/critical"


def test_the_alias_for_commands_means_the_devices_own() -> None:
    assert resolve_alias("device/commands/#", DeviceId("d1")) == "devices/d1/commands/#"
    assert resolve_alias("devices/+/commands", DeviceId("d1")) == "devices/+/commands"
