"""Does a look at the broker show who is there, at what rate, in the order and the page that were asked for?"""

import pytest

from godwit.mqtt import packets as p
from godwit.server.broker.inspection import Inspection


@pytest.fixture
def inspection(world):
    return Inspection(world.broker, lambda: world.now)


def names(page):
    return [each.client_id for each in page.items]


def test_a_connection_is_told_with_what_it_does(world, inspection):
    device = world.connect("dev-1", keep_alive=30)
    device.subscribe("devices/dev-1/commands", 1)
    world.connect("sender").publish("devices/dev-1/commands", "go", 1)
    for number in range(10):
        device.publish("devices/dev-1/telemetry", "1", 1, packet_id=number + 1)
    (row,) = inspection.connections("dev-1", "clientId", 0, 10, descending=False).items
    assert (row.client_id, row.device_id, row.listener, row.version) == ("dev-1", "dev-1", "local", "5")
    assert (row.since, row.keep_alive_s, row.subscriptions, row.messages_in) == (world.now, 30, 1, 10)
    assert row.inflight == 10
    assert row.bytes_in > 100


def test_rates_are_those_since_the_look_before(world, inspection):
    device = world.connect("dev-1")
    for _ in range(5):
        device.publish("a", "1")
    world.pass_s(10)
    look = lambda: inspection.connections("", "clientId", 0, 10, descending=False).items[0].messages_per_s  # noqa: E731
    assert look() == 0.5
    for _ in range(8):
        device.publish("a", "1")
    world.pass_s(0.5)
    assert look() == 0.5  # looked at a moment ago
    world.pass_s(3.5)
    assert look() == 2.0
    device.vanish()
    world.connect("dev-1")
    world.pass_s(2)
    assert look() == 0.0


def test_rows_are_found_ordered_and_paged(world, inspection):
    for name in ("b", "a", "C", "other"):
        world.connect(name, version=4 if name == "a" else 5)
        world.pass_s(1)
    world.broker.clients["b"].bytes_out = 10_000
    page = inspection.connections("", "since", 1, 2, descending=True)
    assert (names(page), page.total) == (["C", "a"], 4)
    assert names(inspection.connections("c", "clientId", 0, 10, descending=False)) == ["C", "a", "b", "other"]  # local
    assert names(inspection.connections("OTH", "clientId", 0, 10, descending=False)) == ["other"]
    assert names(inspection.connections("3.1.1", "clientId", 0, 10, descending=False)) == ["a"]
    assert names(inspection.connections("", "bytesOut", 0, 1, descending=True)) == ["b"]


def test_sessions_stay_when_their_clients_leave(world, inspection):
    away = world.connect("away", session_expiry_interval=3_600)
    away.subscribe("news/#", 1)
    away.vanish()
    world.connect("speaker").publish("news/today", "x" * 10, 1)
    world.group.commit()
    (row,) = inspection.sessions("away", "clientId", 0, 10, descending=False).items
    assert (row.connected, row.expiry_s, row.subscriptions, row.queued, row.queued_bytes) == (False, 3_600, 1, 1, 10)
    assert inspection.connections("away", "clientId", 0, 10, descending=False).total == 0


def test_subscriptions_are_found_by_filter_and_by_client(world, inspection):
    world.connect("one").subscribe("a/#", 2, number=9, no_local=True)
    world.connect("two").subscribe("$share/g/b", 1)
    look = lambda search: inspection.subscriptions(search, "topicFilter", 0, 10, descending=False)  # noqa: E731
    assert [each.topic_filter for each in look("").items] == ["$share/g/b", "a/#"]
    (row,) = look("one").items
    assert (row.qos, row.no_local, row.subscription_id) == (2, True, 9)
    assert look("share").total == 1


def test_the_broker_does_not_count_who_was_refused(world, inspection):
    world.connect("$bad")
    world.connect("x", listener="tls")
    assert inspection.connections("", "clientId", 0, 10, descending=False).total == 0


def test_a_client_that_is_kicked_is_told_so(world):
    from godwit.mqtt import reasons  # noqa: PLC0415

    device = world.connect("dev-1")
    world.broker.clients["dev-1"].core.close(reasons.ADMINISTRATIVE_ACTION, "disconnected by an administrator")
    (said,) = device.get()
    assert isinstance(said, p.Disconnect)
    assert (said.reason_code, said.reason_string) == (0x98, "disconnected by an administrator")
