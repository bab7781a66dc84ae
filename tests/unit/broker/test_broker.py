"""Routing, sessions and what survives a kill, without sockets."""

import pytest

from godwit.mqtt import packets as p

LASTING = {"clean_start": False, "session_expiry_interval": 3600}


def test_acknowledged_only_after_the_commit_and_in_order(world):
    client = world.connect("a")
    for packet_id in (3, 1, 2):
        client.publish("devices/d/telemetry", "{}", 1, packet_id=packet_id)
    assert client.peek() == []
    assert client.get() == [p.PubAck(3), p.PubAck(1), p.PubAck(2)]


def test_subscribers_are_served_after_the_commit(world):
    reader, writer = world.connect("r"), world.connect("w")
    reader.subscribe("t/#")
    writer.publish("t/a", "x")
    assert reader.peek() == []
    assert reader.payloads() == ["x"]


@pytest.mark.parametrize(
    ("code", "reason"), [("malformed-json", 0x99), ("unknown-device", 0x87), ("series-limit", 0x97)]
)
def test_quarantined_is_acknowledged_with_its_reason_and_not_delivered(world, code, reason):
    reader, writer, old = world.connect("r"), world.connect("w"), world.connect("o", version=4)
    reader.subscribe("devices/#", 1)
    writer.publish("devices/d/telemetry", f"!{code}", 1)
    old.publish("devices/d/telemetry", f"!{code}", 1, retain=True)
    assert writer.get() == [p.PubAck(1, reason, code)]
    assert old.get() == [p.PubAck(1)]
    assert reader.get() == []
    assert len(world.broker.retained) == 0


def test_bad_device_id_goes_to_ingest_with_its_code(world):
    client = world.connect("a")
    client.publish("devices/bad id/telemetry", "{}", 1)
    assert client.get()[0].reason_code == 0x90
    assert world.ingest.received[0].code == "invalid-device-id"


def test_commands_do_not_pass_through_ingest(world):
    device, person = world.connect("d"), world.connect("p")
    device.subscribe("devices/d/commands", 1)
    person.publish("devices/d/commands", "go", 1)
    assert device.payloads() == ["go"]
    assert world.ingest.received == []


def test_reserved_topics_are_the_servers_own(world):
    client = world.connect("a")
    client.publish("$SYS/broker/uptime", "1", 1)
    assert client.get() == [p.PubAck(1, 0x87)]
    assert world.broker.counters.forbidden == 1


def test_overlapping_subscriptions_become_one_delivery_with_all_ids(world):
    client = world.connect("a")
    client.subscribe("t/+", 0, number=3)
    client.subscribe("t/#", 2, number=4)
    client.publish("t/a", "x", 1)
    found = [each for each in client.get() if isinstance(each, p.Publish)]
    assert len(found) == 1
    assert found[0].qos == 1
    assert sorted(found[0].properties.subscription_ids) == [3, 4]


def test_no_local(world):
    one, two = world.connect("1"), world.connect("2")
    one.subscribe("t", 1, no_local=True)
    one.publish("t", "mine", 1)
    two.publish("t", "yours", 1)
    assert one.payloads() == ["yours"]


@pytest.mark.parametrize(("handling", "expected"), [(0, [["r"], ["r"]]), (1, [["r"], []]), (2, [[], []])])
def test_retain_handling(world, handling, expected):
    client = world.connect("a")
    client.publish("t", "r", 1, retain=True)
    client.get()
    found = []
    for _ in range(2):
        answers = client.subscribe("t", retain_handling=handling)
        found.append([each.payload.decode() for each in answers if isinstance(each, p.Publish)])
    assert found == expected


def test_retain_as_published(world):
    client = world.connect("a")
    client.subscribe("plain")
    client.subscribe("kept", retain_as_published=True)
    client.publish("plain", "1", retain=True)
    client.publish("kept", "2", retain=True)
    assert [each.retain for each in client.get()] == [False, True]


def test_retained_documents_expire(world):
    client = world.connect("a")
    client.publish("t", "r", retain=True, properties=p.PublishProperties(message_expiry_interval=5))
    client.get()
    world.pass_s(3)
    answers = client.subscribe("t")
    assert answers[1].properties.message_expiry_interval == 2
    world.pass_s(3)
    assert len(client.subscribe("t")) == 1


def test_session_is_resumed_and_taken_over(world):
    first = world.connect("a", **LASTING)
    first.subscribe("t", 1)
    second = world.connect("a", **LASTING)
    assert second.connack.session_present
    assert first.peek()[-1].reason_code == 0x8E
    second.publish("t", "x", 1)
    assert second.payloads() == ["x"]
    third = world.connect("a", clean_start=True)
    assert not third.connack.session_present
    third.publish("t", "y", 1)
    assert third.payloads() == []


def test_session_ends_with_its_expiry(world):
    world.connect("a", clean_start=False, session_expiry_interval=10).vanish()
    world.pass_s(11)
    assert not world.connect("a", **LASTING).connack.session_present
    assert world.broker.routes.count == 0


def test_will_waits_for_its_delay_or_the_end_of_the_session(world):
    reader = world.connect("r")
    reader.subscribe("will/#")

    def mortal(name, delay_s, expiry_s):
        will = p.Will(f"will/{name}", name.encode(), delay_interval=delay_s)
        return world.connect(name, clean_start=False, session_expiry_interval=expiry_s, will=will)

    mortal("now", 0, 60).vanish()
    mortal("session", 60, 5).vanish()
    mortal("delay", 5, 60).vanish()
    returned = mortal("returned", 5, 60)
    returned.vanish()
    mortal("returned", 5, 60)
    polite = mortal("polite", 0, 60)
    polite.send(p.Disconnect())
    polite.vanish()
    assert reader.payloads() == ["now"]
    world.pass_s(6)
    assert sorted(reader.payloads()) == ["delay", "session"]
    world.pass_s(60)
    assert reader.payloads() == []


def test_will_of_a_device_takes_the_road_of_the_contract(world):
    device = world.connect("d", will=p.Will("devices/d/status", b'{"status":"offline"}', 1, retain=True))
    assert world.presence.news == [("d", True)]
    device.vanish()
    world.group.commit()
    assert world.presence.news == [("d", True), ("d", False)]
    assert [each.publish.topic for each in world.ingest.received] == ["devices/d/status"]
    assert len(world.broker.retained) == 1


def test_shared_subscription_prefers_who_is_there(world):
    away, one, two = world.connect("away", **LASTING), world.connect("1"), world.connect("2")
    for worker in (away, one, two):
        worker.subscribe("$share/crew/jobs", 1)
    away.vanish()
    writer = world.connect("w")
    for number in range(10):
        writer.publish("jobs", str(number), 1, packet_id=number + 1)
    taken = [one.payloads(), two.payloads()]
    assert sorted(map(int, taken[0] + taken[1])) == list(range(10))
    assert min(map(len, taken)) == 5


def test_tls_listener_asks_for_the_password(world):
    assert world.connect("a", listener="tls").connack.reason_code == 0x87
    assert world.connect("a", listener="tls", version=4, username="user", password=b"no").connack.reason_code == 5
    assert world.connect("a", listener="tls", username="user", password=b"secret").connack.reason_code == 0


def test_nobody_comes_in_while_nothing_can_be_stored(world):
    world.group.stalled = "the disk is full"
    refused = world.connect("a").connack
    assert refused.reason_code == 0x89
    assert refused.reason_string == "nothing can be stored now: the disk is full; try again in 30 s or more"
    assert world.connect("a", version=4).connack.reason_code == 3


# ---------------------------------------------------------------------- what survives a kill


def test_queue_of_an_application_survives_a_kill(world):
    reader, writer = world.connect("app", **LASTING), world.connect("w")
    reader.subscribe("t/#", 2)
    writer.publish("t/a", "online", 1, packet_id=1)
    assert reader.payloads() == ["online"]
    reader.vanish()
    writer.publish("t/a", "offline", 2, packet_id=2)
    writer.get()
    world.boot()
    back = world.connect("app", **LASTING)
    assert back.connack.session_present
    found = back.get()
    assert [(each.payload, each.qos, each.dup) for each in found] == [(b"online", 1, True), (b"offline", 2, True)]
    back.send(p.PubAck(found[0].packet_id), p.PubRec(found[1].packet_id), p.PubComp(found[1].packet_id))
    world.pass_s(1)
    world.boot()
    assert world.connect("app", **LASTING).get() == []


def test_nothing_acknowledged_is_lost_between_commit_and_delivery(world):
    reader, writer = world.connect("app", **LASTING), world.connect("w")
    reader.subscribe("t", 1)
    writer.publish("t", "x", 1)
    world.group.write()  # durable, and then the power fails before anybody is served
    world.boot()
    assert world.connect("app", **LASTING).payloads() == ["x"]


def test_subscription_is_acknowledged_when_it_is_durable(world):
    client = world.connect("app", **LASTING)
    client.send(p.Subscribe(5, (p.Subscription("t", 1),)))
    assert client.peek() == []
    assert client.get() == [p.SubAck(5, (1,))]
    world.boot()
    world.connect("w").publish("t", "x", 1)
    world.group.commit()
    assert world.connect("app", **LASTING).payloads() == ["x"]


def test_qos_0_reaches_a_durable_session_that_is_there(world):
    client = world.connect("app", **LASTING)
    client.subscribe("zero", 0)
    client.subscribe("one", 1)
    client.publish("zero", "a", 1)
    client.publish("one", "b", 0)
    assert client.payloads() == ["a", "b"]


def test_queue_of_a_device_is_not_kept_but_its_session_is(world):
    device, person = world.connect("d", **LASTING), world.connect("p")
    device.publish("devices/d/telemetry", "{}", 1)
    device.subscribe("devices/d/commands", 1)
    device.vanish()
    person.publish("devices/d/commands", "go", 1)
    world.group.commit()
    world.boot()
    back = world.connect("d", **LASTING)
    assert back.connack.session_present
    assert back.get() == []
    world.connect("p").publish("devices/d/commands", "again", 1)
    assert back.payloads() == ["again"]


def test_qos_2_packet_ids_survive_a_kill(world):
    client = world.connect("a", **LASTING)
    client.publish("devices/d/telemetry", "{}", 2, packet_id=9)
    assert client.get() == [p.PubRec(9)]
    world.boot()
    back = world.connect("a", **LASTING)
    back.publish("devices/d/telemetry", "{}", 2, packet_id=9, dup=True)
    assert back.get() == [p.PubRec(9)]
    assert world.ingest.received == []
    back.send(p.PubRel(9))
    assert back.get() == [p.PubComp(9)]
    back.publish("devices/d/telemetry", "{}", 2, packet_id=9)
    assert len(world.ingest.received) == 1


def test_retained_documents_survive_a_kill_and_can_be_cleared(world):
    client = world.connect("a")
    client.publish("x/1", "one", 1, retain=True)
    client.publish("x/2", "two", 1, retain=True)
    client.get()
    client.publish("x/1", "", 1, retain=True)
    client.get()
    world.boot()
    again = world.connect("a")
    answers = again.subscribe("x/#", 1)
    assert [each.payload for each in answers if isinstance(each, p.Publish)] == [b"two"]


def test_full_queue_drops_and_counts(make_world):
    world = make_world(queued_messages_max=3, inflight_max=2)
    reader, writer = world.connect("app", **LASTING), world.connect("w")
    reader.subscribe("t", 1)
    reader.vanish()
    for number in range(6):
        writer.publish("t", str(number), 1, packet_id=number + 1)
        writer.get()
    assert world.broker.counters.dropped == 3
    back = world.connect("app", **LASTING)
    assert back.payloads() == ["0", "1"]
    back.send(p.PubAck(1), p.PubAck(2))
    assert back.payloads() == ["2"]


def test_what_the_server_publishes_is_durable_when_it_says_so(world):
    done = []
    world.broker.post(p.Publish("plan", b"x", 1, retain=True), world.now, done=lambda: done.append(True))
    assert not done
    world.group.commit()
    assert done
    world.boot()
    assert world.broker.retained.get("plan").payload == b"x"
    assert world.broker.pending_bytes == 0


def test_delayed_will_survives_a_kill_and_is_sent_once(world):
    will = p.Will("will/a", b"gone", 1, delay_interval=30)
    for name in ("a", "back"):
        world.connect(name, clean_start=False, session_expiry_interval=60, will=will).vanish()
    world.pass_s(1)
    world.boot()
    reader = world.connect("r")
    reader.subscribe("will/#", 1)
    world.connect("back", clean_start=False, session_expiry_interval=60)
    world.pass_s(20)
    assert reader.payloads() == []
    world.pass_s(10)
    assert reader.payloads() == ["gone"], "the one that came back has none any more"
    world.boot()
    reader = world.connect("r")
    reader.subscribe("will/#", 1)
    world.pass_s(60)
    assert reader.payloads() == []


def test_an_alias_of_an_older_device_means_its_own_commands(world):
    device, other = world.connect("d1"), world.connect("not a device id/#")
    device.subscribe("device/commands/#", 1)
    other.subscribe("device/commands/#", 1)
    world.connect("p").publish("devices/d1/commands", "go", 1)
    assert device.payloads() == ["go"]
    assert other.payloads() == []
    device.subscribe("devices/d1/commands/#", 1)
    device.send(p.Unsubscribe(5, ("devices/d1/commands/#",)))
    world.connect("p").publish("devices/d1/commands", "again", 1)
    assert device.payloads() == ["again"]
    device.send(p.Unsubscribe(6, ("device/commands/#",)))
    world.connect("p").publish("devices/d1/commands", "late", 1)
    assert device.payloads() == []


def test_long_topics_are_routed_but_not_remembered(world):
    reader, writer = world.connect("r", topic_alias_maximum=65_535), world.connect("w")
    reader.subscribe("#")
    known = len(world.broker.routes._routes)
    topics = [f"{number}" + "x" * 60_000 for number in range(20)]
    for topic in topics:
        writer.publish(topic, "1")
    found = [each for each in reader.get() if isinstance(each, p.Publish)]
    assert [each.topic for each in found] == topics
    assert len(world.broker.routes._routes) == known
    assert not any(each.topic_alias for each in found)


def test_very_deep_retained_topics_cost_no_dictionary_per_level(world):
    deep = "/".join("x" * 10_000)
    writer = world.connect("w")
    writer.publish(deep, "deep", 1, retain=True)
    writer.get()
    assert world.broker.retained.get(deep).payload == b"deep"
    assert len(world.broker.retained) == 1
    assert [each.topic for each in world.broker.retained.match("x/+/#", world.now)] == [deep]
    assert world.broker.retained.match("y/#", world.now) == []
    writer.publish(deep, "", 1, retain=True)
    writer.get()
    assert len(world.broker.retained) == world.broker.gate.retained.bytes == 0
