"""Retained documents on their way to a new subscriber, who takes them at his own pace."""

import pytest

from godwit.mqtt import packets as p

DOCUMENTS = 50


@pytest.fixture
def world(make_world):
    """A broker whose queues are shorter than what is retained."""
    world = make_world(queued_messages_max=10, inflight_max=4)
    writer = world.connect("writer")
    for number in range(DOCUMENTS):
        writer.publish(f"t/{number}", f"{number}", 1, retain=True)
        writer.get()
    return world


def take(peer):
    """Acknowledge whatever comes until nothing does."""
    found = []
    while publishes := [each for each in peer.get() if isinstance(each, p.Publish)]:
        found += publishes
        peer.send(*(p.PubAck(each.packet_id) for each in publishes if each.qos))
    return [each.payload.decode() for each in found]


@pytest.mark.parametrize("qos", [0, 1])
def test_all_arrive_however_short_the_queues_are(world, qos):
    reader = world.connect("reader")
    reader.send(p.Subscribe(1, (p.Subscription("t/#", qos),)))
    assert sorted(take(reader), key=int) == [str(number) for number in range(DOCUMENTS)]
    assert world.broker.sessions["reader"].dropped == 0


def test_messages_wait_behind_them_and_no_older_document_follows(world):
    reader, writer = world.connect("reader"), world.connect("w")
    reader.send(p.Subscribe(1, (p.Subscription("t/#", 1),)))
    for number in range(DOCUMENTS):
        if number % 10 == 3:
            writer.publish(f"t/{number}", f"{number + 1000}", 1, retain=True)
            writer.get()
    found = take(reader)
    for number in range(3, DOCUMENTS, 10):
        mine = [each for each in found if int(each) % 1000 == number]
        assert mine[-1] == f"{number + 1000}"
        assert mine == sorted(mine, key=int)


def test_they_go_on_in_a_session_that_comes_back_and_end_with_the_subscription(world):
    lasting = {"clean_start": False, "session_expiry_interval": 3600}
    reader = world.connect("reader", **lasting)
    reader.send(p.Subscribe(1, (p.Subscription("t/#", 1),)))
    begun = [each for each in reader.get() if isinstance(each, p.Publish)]
    assert len(begun) == 4
    reader.vanish()
    again = world.connect("reader", **lasting)
    assert sorted(take(again), key=int) == [str(number) for number in range(DOCUMENTS)]

    again.send(p.Subscribe(1, (p.Subscription("t/#", 1),)))
    under_way = [each for each in again.get() if isinstance(each, p.Publish)]
    again.send(p.Unsubscribe(2, ("t/#",)))
    again.send(*(p.PubAck(each.packet_id) for each in under_way))
    assert take(again) == []
