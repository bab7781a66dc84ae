"""A broker without sockets: clients speak bytes, a group that commits when told to, time that is a number."""

from pathlib import Path

import pytest

from godwit.contract.errors import MalformedError
from godwit.contract.topics import Channel, DeviceTopic
from godwit.mqtt import packets as p
from godwit.mqtt.codec import Decoder, encode
from godwit.mqtt.server_connection import Limits
from godwit.server.broker.authentication import PasswordAuthenticator
from godwit.server.broker.broker import Broker
from godwit.server.broker.journal import Journal

START = 1_790_000_000_000_000_000
NS = 1_000_000_000


class Layout:
    """The native layout, as far as these tests use it."""

    def parse(self, topic):
        levels = topic.split("/")
        if levels[0] != "devices" or len(levels) < 3:
            return None
        if levels[1] == "bad id":
            raise MalformedError("no device id", code="invalid-device-id")
        return DeviceTopic(levels[1], Channel("/".join(levels[2:])))

    def build(self, where):
        return f"devices/{where.device_id}/{where.channel}"


class Ingest:
    """Quarantines payloads that say so, under the code they name."""

    def __init__(self):
        self.received = []
        self.turned_away = []

    def turn_away(self, arrival):
        self.turned_away.append(arrival)

    def receive(self, arrival):
        self.received.append(arrival)
        if arrival.publish.payload.startswith(b"!"):
            arrival.code = arrival.publish.payload[1:].decode()


class Group:
    """Commits when told to."""

    def __init__(self, journal):
        self.journal = journal
        self.arrivals = []
        self.is_congested = False
        self.stalled = ""

    def join(self, arrival):
        self.arrivals.append(arrival)

    def write(self):
        work = self.journal.seal()
        if work is not None:
            self.journal.write(work)

    def commit(self):
        while self.arrivals:
            arrivals, self.arrivals = self.arrivals, []
            self.write()
            for arrival in arrivals:
                arrival.source.settle(arrival)


class Presence:
    def __init__(self):
        self.news = []

    def connected(self, device_id, _now):
        self.news.append((device_id, True))

    def disconnected(self, device_id, _reason, _now):
        self.news.append((device_id, False))


class Peer:
    """A client by its bytes."""

    def __init__(self, world, client_id, version, listener, options):
        self.world = world
        self.version = version
        self.waiting = []
        self.holds = []
        self.is_choked = False
        self.decoder = Decoder("client", version=version)
        self.client = world.broker.admit(self, listener, None, options.pop("address", ""))
        self.send(p.Connect(client_id, version=version, **options))

    def wake(self):
        """The shell's part: here the bytes are fetched by `get`."""

    def choke(self, *, is_choked):
        self.is_choked = is_choked

    def hold(self, seconds):
        self.holds.append(round(seconds, 3))

    def send(self, *packets):
        data = b"".join(encode(each, self.version) for each in packets)
        self.world.broker.receive(self.client, data, self.world.now)

    def get(self):
        """All packets that came, oldest first, after everything was committed."""
        self.world.group.commit()
        return self.peek()

    def peek(self):
        data = b"".join(self.client.core.outgoing)
        self.client.core.outgoing.clear()
        found, self.waiting = self.waiting + self.decoder.feed(data), []
        assert self.decoder.error is None
        return found

    def payloads(self):
        return [each.payload.decode() for each in self.get() if isinstance(each, p.Publish)]

    def subscribe(self, topic_filter, qos=0, *, number=None, **options):
        self.send(p.Subscribe(77, (p.Subscription(topic_filter, qos, **options),), number))
        return self.get()

    def publish(self, topic, payload="", qos=0, **options):
        packet_id = options.pop("packet_id", 1 if qos else 0)
        self.send(p.Publish(topic, payload.encode(), qos, packet_id=packet_id, **options))

    def vanish(self):
        self.world.broker.disconnect(self.client, self.world.now)


class World:
    def __init__(self, directory: Path, quotas=None, tenant_of=None, **limits):
        self.quotas, self.tenant_of = quotas, tenant_of
        self.directory = directory
        self.limits = Limits(**limits)
        self.now = START
        self.boot()

    def boot(self):
        """Start, or start again after a kill: what was not written is gone."""
        self.journal = Journal(self.directory / "broker.sqlite")
        self.group = Group(self.journal)
        self.ingest = Ingest()
        self.broker = Broker(
            Layout(), self.ingest, self.group, self.journal, PasswordAuthenticator("user", "secret"),
            limits=self.limits, quotas=self.quotas, tenant_of=self.tenant_of, now=self.now,
        )  # fmt: skip
        self.presence = self.broker.presence = Presence()

    def pass_s(self, seconds):
        self.now += int(seconds * NS)
        self.broker.tick(self.now)
        self.group.commit()

    def connect(self, client_id="", version=5, listener="local", **options):
        peer = Peer(self, client_id, version, listener, options)
        peer.connack, *peer.waiting = peer.peek()
        return peer


@pytest.fixture
def make_world(tmp_path):
    return lambda **limits: World(tmp_path, **limits)


@pytest.fixture
def world(make_world):
    return make_world()
