"""Is what is retained bounded, whoever lays it down, however fast, and does what is replaced leave room?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godwit.mqtt import packets as p
from godwit.mqtt.server_message import Message
from godwit.server.broker.limits import Quotas
from godwit.server.broker.retained_room import Limit, RetainedRoom, size_of


def document(topic, payload, **properties):
    return Message(p.Publish(topic, payload, retain=True, properties=p.PublishProperties(**properties)), 0)


def codes(answers):
    return [each.reason_code for each in answers if isinstance(each, p.PubAck)]


def test_topic_and_properties_count():
    assert size_of(document("t", b"12")) == 3
    assert size_of(document("ä", b"")) == 2
    properties = {"content_type": "text", "correlation_data": b"12", "user_properties": (("k", "value"),)}
    assert size_of(document("t", b"", response_topic="r", **properties)) == 1 + 4 + 2 + 6 + 1


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40), st.sampled_from("ab")), max_size=60))
def test_the_sums_are_those_of_what_lies_there(steps):
    room = RetainedRoom(Limit(200, 150, 100))
    held: dict[str, tuple[int, str]] = {}
    for number, size, owner in steps:
        message = document(f"t/{number}", b"x" * size)
        if room.exceeded(message, owner, "tenant"):
            continue
        room.put(message, owner, "tenant")
        held.pop(message.topic, None)
        if size:
            held[message.topic] = (size_of(message), owner)
        assert room.bytes == sum(each for each, _ in held.values()) <= 150
        for name in "ab":
            assert room._owners[name] == sum(each for each, whose in held.values() if whose == name) <= 100
    for topic in held:
        room.put(document(topic, b""), "a", "tenant")
    assert (room.bytes, dict(room._owners), dict(room._tenants)) == (0, {}, {})


def test_one_group_does_not_go_beyond_the_limit(make_world):
    world = make_world(quotas=Quotas(retained_bytes=100))
    client = world.connect("c")
    for number in range(1, 21):
        client.publish(f"t{number:02}", "1234567", 1, retain=True, packet_id=number)
    assert codes(client.get()) == [0x10] * 10 + [0x97] * 10
    assert len(world.broker.retained) == 10
    assert world.broker.gate.limited.retained == 10


def test_a_document_that_is_replaced_over_and_over_counts_once(make_world):
    world = make_world(quotas=Quotas(retained_bytes_per_client=50))
    client = world.connect("c")
    for number in range(1, 101):
        client.publish("state", f"{number:030}", 1, retain=True, packet_id=number)
    assert set(codes(client.get())) == {0x10}
    client.publish("other", "x" * 30, 1, retain=True)
    (answer,) = client.get()
    assert answer.reason_string == "at most 50 bytes are retained for one client"
    client.publish("state", "", 1, retain=True)
    client.publish("other", "x" * 30, 1, retain=True, packet_id=2)
    assert codes(client.get()) == [0x10, 0x10]


def test_a_tenant_has_a_bound_of_its_own(make_world):
    world = make_world(quotas=Quotas(retained_bytes_per_tenant=20), tenant_of=lambda client_id: client_id[0])
    for name, code in (("a1", 0x10), ("a2", 0x97), ("b1", 0x10)):
        client = world.connect(name)
        client.publish(f"state/{name}", "123456789", 1, retain=True)
        assert codes(client.get()) == [code]


def test_a_message_of_the_contract_is_stored_though_not_retained(make_world):
    world = make_world(quotas=Quotas(retained_bytes=40))
    device, reader = world.connect("d-1"), world.connect("r")
    reader.subscribe("devices/#")
    device.publish("devices/d-1/status", '{"status": "online", "detail": "far too long"}', 1, retain=True)
    assert codes(device.get()) == [0]
    assert len(world.ingest.received) == 1
    assert len(reader.payloads()) == 1
    assert len(world.broker.retained) == 0
    assert world.broker.gate.limited.retained == 1


def test_what_is_quarantined_takes_no_room(make_world):
    world = make_world(quotas=Quotas(retained_bytes=40))
    device = world.connect("d-1")
    device.publish("devices/d-1/status", "!malformed-json", 1, retain=True)
    device.get()
    assert world.broker.gate.retained.bytes == 0


@pytest.mark.parametrize("is_replaced", [False, True])
def test_what_has_expired_leaves_tree_journal_and_room(make_world, is_replaced):
    world = make_world(quotas=Quotas(retained_bytes=20))
    client = world.connect("c")
    client.publish("t", "1234567890", retain=True, properties=p.PublishProperties(message_expiry_interval=5))
    client.get()
    world.pass_s(4)
    if is_replaced:  # and the new one is not durable yet when the old one's time is over
        client.publish("t", "new", retain=True)
        world.now += 2 * 10**9
        world.broker.tick(world.now)
        world.group.commit()
    world.pass_s(2)
    assert len(world.broker.retained) == int(is_replaced)
    assert world.broker.gate.retained.bytes == 4 * is_replaced
    world.boot()
    assert [each.payload for each in world.broker.retained.match("t", 0)] == [b"new"] * is_replaced


def test_after_a_restart_what_was_retained_still_counts(make_world):
    world = make_world(quotas=Quotas(retained_bytes=20))
    client = world.connect("c")
    client.publish("t", "1234567890", 1, retain=True)
    client.get()
    world.boot()
    client = world.connect("c")
    client.publish("u", "1234567890", 1, retain=True)
    assert codes(client.get()) == [0x97]
