"""What does the broker do with sockets that are slow, silent, half open, or faster than the store?"""

import asyncio
import time
from time import time_ns
from typing import ClassVar

import pytest
import uvloop

from godwit.mqtt import packets as p
from godwit.mqtt.codec import Decoder, encode
from godwit.mqtt.server_connection import Limits
from godwit.server.broker import listener
from godwit.server.broker.authentication import PasswordAuthenticator
from godwit.server.broker.broker import Broker
from godwit.server.broker.journal import Journal
from godwit.server.broker.listener import Server

pytestmark = pytest.mark.real
WAIT_S = 10
STORY_S = 40


class NoContract:
    def parse(self, _topic):
        return None

    def receive(self, arrival):
        raise AssertionError(arrival)


class HeldGroup:
    """Commits when released; congested when told so."""

    def __init__(self):
        self.arrivals = []
        self.is_congested = False
        self.is_held = False
        self.stalled = ""

    def join(self, arrival):
        self.arrivals.append(arrival)
        if not self.is_held:
            asyncio.get_running_loop().call_soon(self.commit)

    def commit(self):
        arrivals, self.arrivals = self.arrivals, []
        for arrival in arrivals:
            arrival.source.settle(arrival)


class Client:
    """A raw client. All are closed when the story is over."""

    writers: ClassVar[list[asyncio.StreamWriter]] = []

    async def open(self, port, client_id, version=5, **options):
        self.version = version
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        self.writers.append(self.writer)
        self.decoder = Decoder("client", version=version)
        self.waiting = []
        self.send(p.Connect(client_id, version=version, **options))
        assert (await self.take()).reason_code == 0
        return self

    def send(self, *packets):
        self.writer.write(b"".join(encode(each, self.version) for each in packets))

    async def take(self, wait_s=WAIT_S):
        while not self.waiting:
            data = await asyncio.wait_for(self.reader.read(65_536), wait_s)
            if not data:
                return None
            self.waiting += self.decoder.feed(data)
        return self.waiting.pop(0)


async def is_silent(client, wait_s=0.3):
    try:
        return await client.take(wait_s) is None
    except TimeoutError:
        return True


@pytest.fixture
def play(tmp_path):
    """Run a story against a broker; it gets (broker, group, port)."""

    def run(story, **limits):
        async def main():
            journal, group = Journal(tmp_path / "broker.sqlite"), HeldGroup()
            contract = NoContract()
            broker = Broker(
                contract, contract, group, journal, PasswordAuthenticator(), limits=Limits(**limits), now=time_ns()
            )
            server = Server(broker)
            port = await server.listen("local", "127.0.0.1", 0)
            try:
                await asyncio.wait_for(story(broker, group, port), STORY_S)
            finally:
                await server.close()
                for writer in Client.writers:
                    writer.transport.abort()
                await asyncio.sleep(0.05)
                Client.writers.clear()
            journal.close()

        uvloop.run(main())

    return run


def test_silence_before_connect_and_after_it_ends_the_connection(play, monkeypatch):
    monkeypatch.setattr(listener, "CONNECT_S_MAX", 1)

    async def story(broker, _group, port):
        watcher = await Client().open(port, "watcher")
        watcher.send(p.Subscribe(1, (p.Subscription("will"),)))
        await watcher.take()
        slow_reader, slow_writer = await asyncio.open_connection("127.0.0.1", port)
        Client.writers.append(slow_writer)
        slow_writer.write(b"\x10\x0d\x00\x04MQ")
        silent = await Client().open(port, "silent", keep_alive=1, will=p.Will("will", b"gone"))
        before = time.monotonic()
        assert await asyncio.wait_for(slow_reader.read(), WAIT_S) == b""
        assert (await silent.take()).reason_code == 0x8D
        assert 1 < time.monotonic() - before < 5
        assert (await watcher.take()).payload == b"gone"
        assert broker.connections == 1

    play(story)


def test_congestion_leaves_311_unread_and_mqtt_5_answered(play):
    async def story(_broker, group, port):
        old = await Client().open(port, "old", 4, keep_alive=1)
        new = await Client().open(port, "new", keep_alive=60)
        group.is_held = group.is_congested = True
        for client in (old, new):
            client.send(p.Publish("t", b"1", 1, packet_id=1))
        await asyncio.sleep(0.1)
        for client in (old, new):
            client.send(p.PingReq())
        assert isinstance(await new.take(), p.PingResp)
        assert await is_silent(old, 3), "unread for longer than its keep-alive, and not disconnected for it"
        group.is_held = group.is_congested = False
        group.commit()
        assert await old.take() == p.PubAck(1)
        assert isinstance(await old.take(), p.PingResp)
        assert (await new.take()).packet_id == 1

    play(story)


@pytest.mark.parametrize("flushers", [1, 8])
def test_a_message_waits_for_no_more_than_one_read_of_each_socket_that_is_full(play, flushers):
    payload = bytes(200)
    in_one_read = listener.READ_BYTES // len(payload)

    async def story(_broker, group, port):
        full = [await Client().open(port, f"flusher-{number}", 4) for number in range(flushers)]
        calm = await Client().open(port, "calm")
        group.is_held = True
        for each in full:
            each.send(*(p.Publish("backlog", payload, 1, packet_id=number) for number in range(1, 1_001)))
        calm.send(p.Publish("calm", b"now", 1, packet_id=1))
        topics: list[str] = []
        while "calm" not in topics:
            await asyncio.sleep(0.01)
            topics = [each.publish.topic for each in group.arrivals]
        # Its socket is ready in the same turn of the loop as theirs, or, at worst, in the next.
        assert topics.index("calm") <= 2 * flushers * in_one_read
        group.is_held = False
        group.commit()
        for each in full:
            for number in range(1, 1_001):
                assert await each.take() == p.PubAck(number)

    play(story)


def test_beyond_the_hard_limit_nobody_is_read(play, monkeypatch):
    monkeypatch.setattr("godwit.server.broker.broker.PENDING_BYTES_MAX", 100_000)

    async def story(broker, group, port):
        client = await Client().open(port, "new", maximum_packet_size=100)
        group.is_held = True
        for number in range(400):
            client.send(p.Publish("t", bytes(20_000), 1, packet_id=number + 1))
        await asyncio.sleep(0.3)
        assert broker.pending_bytes < 1_000_000
        group.is_held = False
        group.commit()
        for number in range(400):
            assert (await client.take()).packet_id == number + 1
        assert broker.pending_bytes == 0

    play(story, receive_maximum=1000)


def test_slow_reader_costs_bounded_memory_and_holds_nobody_up(play):
    async def story(broker, _group, port):
        slow = await Client().open(port, "slow")
        slow.send(p.Subscribe(1, (p.Subscription("flood", 0), p.Subscription("must", 1))))
        await slow.take()
        slow.writer.transport.pause_reading()
        fast = await Client().open(port, "fast")
        fast.send(p.Subscribe(1, (p.Subscription("flood", 0),)))
        await fast.take()
        writer = await Client().open(port, "writer")
        payload = bytes(10_000)
        for _ in range(40):
            for _ in range(50):
                writer.send(p.Publish("flood", payload))
            await writer.writer.drain()
            for _ in range(50):
                assert isinstance(await fast.take(), p.Publish)
        connection = broker.clients["slow"].core
        assert connection.session.dropped > 100
        assert connection.is_blocked
        for number in range(20):
            writer.send(p.Publish("must", b"%d" % number, 1, packet_id=number + 1))
            assert isinstance(await writer.take(), p.PubAck)
        slow.writer.transport.resume_reading()
        must = []
        while len(must) < 20:
            packet = await slow.take()
            if packet.topic == "must":
                must.append(int(packet.payload))
        assert must == list(range(20))

    play(story)


def test_answers_leave_in_one_write_per_turn(play):
    async def story(_broker, group, port):
        client = await Client().open(port, "a")
        group.is_held = True
        client.send(*(p.Publish("t", b"x", 1, packet_id=number + 1) for number in range(100)))
        await asyncio.sleep(0.1)
        group.commit()
        data = await asyncio.wait_for(client.reader.read(65_536), WAIT_S)
        assert len(client.decoder.feed(data)) == 100

    play(story)


def test_retained_beyond_a_burst_arrives_whole(play):
    async def story(broker, _group, port):
        for number in range(300):
            broker.announce(f"doc/{number}", bytes(20_000), time_ns())
        client = await Client().open(port, "a")
        client.send(p.Subscribe(1, (p.Subscription("doc/#", 0),)))
        await client.take()
        topics = {(await client.take()).topic for _ in range(300)}
        assert len(topics) == 300

    play(story)
