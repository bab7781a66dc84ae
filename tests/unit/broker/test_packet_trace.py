"""Does who follows a device see its packets, all of them, and nobody else's?"""

import pytest

from godwit.mqtt import packets as p


@pytest.fixture
def follow(world):
    return lambda device_id: world.broker.trace.follow(device_id, lambda: None)


def seen(follower):
    return [(each.direction, each.name, each.detail) for each in follower.take()]


def flush(world, peer):
    """Do the shell's part: what leaves is shown."""
    data = b"".join(peer.client.core.outgoing)
    world.broker.packet_trace.sent(peer.client, data, world.now)
    return peer.get()


def test_a_connection_is_shown_from_connect_to_its_end(world, follow):
    follower = follow("dev-1")
    device = world.connect("dev-1", keep_alive=30)
    device.send(p.Subscribe(7, (p.Subscription("devices/dev-1/commands", 1),)))
    device.publish("devices/dev-1/telemetry", "21", 1)
    device.send(p.PingReq())
    world.group.commit()
    flush(world, device)
    device.vanish()
    assert seen(follower) == [
        ("in", "CONNECT", "MQTT 5, keep-alive 30 s, new session"),
        ("in", "SUBSCRIBE", "devices/dev-1/commands (QoS 1)"),
        ("in", "PUBLISH", ""),
        ("in", "PINGREQ", ""),
        ("out", "SUBACK", "QoS 1"),
        ("out", "PINGRESP", ""),
        ("out", "PUBACK", ""),
        ("", "closed", "connection lost"),
    ]


def test_others_are_not_shown_and_are_not_kept(world, follow):
    follower = follow("dev-1")
    other = world.connect("dev-2")
    other.publish("devices/dev-2/telemetry", "1", 1)
    other.vanish()
    assert seen(follower) == []
    assert world.broker.packet_trace._readers == {}


def test_a_gateway_is_shown_as_far_as_it_speaks_for_the_device(world, follow):
    gateway = world.connect("gateway")
    for number, device_id in enumerate(("dev-1", "dev-2"), 1):
        gateway.publish(f"devices/{device_id}/telemetry", "1", 1, packet_id=number)
    gateway.get()
    follower = follow("dev-1")
    gateway.publish("devices/dev-2/telemetry", "2", 1, packet_id=3)
    gateway.publish("devices/dev-1/telemetry", "!out-of-range", 1, packet_id=4)
    world.group.commit()
    flush(world, gateway)
    events = follower.take()
    assert [(each.name, each.packet_id, each.reason_code) for each in events] == [
        ("PUBLISH", 4, None),
        ("PUBACK", 4, 0x99),
    ]
    assert events[1].detail == "payload format invalid: out-of-range"


def test_following_begins_at_a_packets_beginning(world, follow):
    device = world.connect("dev-1")
    whole = p.Publish("devices/dev-1/telemetry", b"x" * 100)
    from godwit.mqtt.codec import encode  # noqa: PLC0415

    data = encode(whole, 5)
    world.broker.receive(device.client, data[:50], world.now)
    follower = follow("dev-1")
    world.broker.receive(device.client, data[50:], world.now)
    device.publish("devices/dev-1/telemetry", "next")
    assert [each.payload for each in follower.take()] == ["next"]


def test_who_follows_again_misses_nothing_for_what_went_by_meanwhile(world, follow):
    device = world.connect("dev-1")
    from godwit.mqtt.codec import encode  # noqa: PLC0415

    data = encode(p.Publish("devices/dev-1/telemetry", b"x" * 100), 5)
    with follow("dev-1"):
        world.broker.receive(device.client, data[:50], world.now)
    world.broker.receive(device.client, data[50:], world.now)
    follower = follow("dev-1")
    device.publish("devices/dev-1/telemetry", "next")
    assert [each.payload for each in follower.take()] == ["next"]


def test_topics_sent_by_number_are_shown_by_name(world, follow):
    follower = follow("dev-1")
    device = world.connect("dev-1")
    device.send(p.Publish("devices/dev-1/telemetry", b"1", topic_alias=1), p.Publish("", b"2", topic_alias=1))
    assert [each.topic for each in follower.take()[1:]] == ["devices/dev-1/telemetry"] * 2


def test_a_slow_follower_loses_its_oldest_events_and_is_told(world, follow):
    follower = follow("dev-1")
    device = world.connect("dev-1")
    for number in range(1_100):
        device.publish("devices/dev-1/telemetry", str(number))
    events = follower.take()
    assert (len(events), events[-1].payload, follower.lost) == (1_000, "1099", 101)
