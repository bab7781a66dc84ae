"""Does `$SYS` say what tools that know Mosquitto look for, and which sessions lose messages?"""

import pytest

from godwit.mqtt import packets as p
from godwit.server.broker.load import Load
from godwit.server.broker.sys_topics import SysTopics


class Sys:
    """What the broker says of itself, read as a client reads it."""

    def __init__(self, world):
        self.world = world
        self.topics = SysTopics(world.broker, world.now)
        self.topics.tick(world.now)

    def read(self):
        self.world.now += 10 * 10**9
        self.topics.tick(self.world.now)
        retained = self.world.broker.retained
        return {each.topic.removeprefix("$SYS/broker/"): each.payload.decode() for each in retained.match("$SYS/#", 0)}


@pytest.fixture
def sys(world):
    return Sys(world)


def test_clients_messages_and_bytes_are_counted(world, sys):
    reader, writer = world.connect("r"), world.connect("w")
    reader.subscribe("t/#")
    reader.subscribe("$share/workers/t/#")
    away = world.connect("away", clean_start=False, session_expiry_interval=5)
    away.vanish()
    for number in range(1, 5):
        writer.publish("t/a", "12345", 1, packet_id=number)
    writer.get(), reader.get()
    said = sys.read()
    assert (said["clients/connected"], said["clients/total"], said["clients/disconnected"]) == ("2", "3", "1")
    assert (said["publish/messages/received"], said["publish/messages/sent"]) == ("4", "8")
    assert (said["publish/bytes/received"], said["publish/bytes/sent"]) == ("20", "40")
    assert said["messages/received"] == str(3 + 2 + 4)  # CONNECT, SUBSCRIBE, PUBLISH
    assert (said["subscriptions/count"], said["shared_subscriptions/count"]) == ("2", "1")
    world.pass_s(5)
    assert sys.read()["clients/expired"] == "1"


def test_load_is_per_minute_and_falls_when_it_is_quiet(world, sys):
    writer = world.connect("w")
    for _ in range(100):
        writer.publish("t", "x")
    busy = sys.read()
    assert busy["load/publish/received/1min"] == "92.11"  # 600 a minute for 10 of 60 s: 600 * (1 - exp(-1/6))
    assert float(busy["load/publish/received/15min"]) == pytest.approx(6.63, abs=0.01)
    quiet = sys.read()
    assert 60 < float(quiet["load/publish/received/1min"]) < 92.11


def test_a_steady_load_is_what_it_is():
    load = Load(0.0)
    for second in range(10, 10_000, 10):
        load.note({"x": second}, float(second))
    assert all(average == pytest.approx(60.0, rel=1e-3) for _, _, average in load.averages())


def test_sessions_that_lose_messages_are_named_until_they_end(make_world):
    world = make_world(queued_messages_max=2)
    sys = Sys(world)
    slow, writer = world.connect("slow/1", clean_start=False, session_expiry_interval=9), world.connect("w")
    slow.subscribe("t", 1)
    slow.vanish()
    for number in range(1, 6):
        writer.publish("t", "x", 1, packet_id=number)
        writer.get()
    said = sys.read()
    assert said["sessions/slow%2F1/dropped"] == "3"
    assert said["publish/messages/dropped"] == "3"
    world.pass_s(10)
    assert not [name for name in sys.read() if name.startswith("sessions/")]
    assert sys.read()["publish/messages/dropped"] == "3"


def test_what_a_blocked_or_small_client_does_not_get_is_counted_for_it(world):
    reader, small = world.connect("r"), world.connect("small", maximum_packet_size=30)
    writer = world.connect("w")
    reader.subscribe("t"), small.subscribe("t", 1)
    reader.client.core.is_blocked = True
    writer.publish("t", "x" * 50, 1)
    writer.get()
    assert [world.broker.sessions[name].dropped for name in ("r", "small", "w")] == [1, 1, 0]
    assert world.broker.counters.dropped == 2


def test_every_packet_that_leaves_is_counted(world):
    client = world.connect("c")
    world.broker.sent(client.client, b"", world.now)
    assert world.broker.counters.packets_out == 0
    client.send(p.PingReq(), p.PingReq())
    world.broker.sent(client.client, b"", world.now)
    assert world.broker.counters.packets_out == 2
