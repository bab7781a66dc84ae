"""Who takes whose session over, what waits while somebody is asked, and what each may publish and hear."""

import pytest

from godwit.contract.topics import topics_for
from godwit.mqtt import packets as p
from godwit.mqtt.codec import Decoder, encode
from godwit.server.broker.refusals import Denial
from godwit.server.broker.rights import (
    ApplicationRights,
    ApplicationTerms,
    DeviceRights,
    EnrollmentRights,
    Grant,
    LocalRights,
)
from godwit.server.identity.model import Credential, Door
from godwit.server.identity.roster import Roster
from godwit.server.registry.model import Device, Lifecycle, Location

NS = 1_000_000_000


class Names:
    """Whoever says `name/...` as his user name is that identity; some have to be asked about."""

    def __init__(self, world):
        self.world = world
        self.roster = Roster()
        self.terms = ""

    def authenticate(self, _listener, connect, _certificate, _address):
        kind, _, name = (connect.username or "").partition(":")
        if kind == "ask":
            return lambda: self.decide(name)
        return self.decide(connect.username or "")

    def decide(self, name):
        if not name:
            return Grant(None, None)
        if name == "wrong":
            return Denial("credentials-wrong", "wrong", is_guess=True)
        credential = Credential(Door.TOKEN, name, "default", name.removeprefix("device:"), self.world.now + 60 * NS)
        return Grant(name, None, credential=credential, terms=self.terms)

    def rights_of(self, _identity, _terms, _client_id):
        return None


@pytest.fixture
def named(make_world):
    world = make_world()
    names = world.broker.reception._authenticator = Names(world)
    world.questions = []
    world.broker.reception.aside = lambda question, done: world.questions.append((question, done))
    world.broker.reception._now_ns = lambda: world.now
    world.broker._authenticator = names
    return world


def test_nobody_takes_over_what_is_anothers(named):
    app = named.connect("dashboard", username="app:acme", clean_start=False, session_expiry_interval=600)
    assert app.connack.reason_code == 0
    denied = []
    named.broker.reception.on_denied = lambda _client, _packet, denial: denied.append(denial.code)
    thief = named.connect("dashboard", username="app:evil")
    assert thief.connack.reason_code == 0x85
    assert denied == ["client-id-in-use"]
    assert app.client.closed is None
    app.vanish()
    assert named.connect("dashboard", username="app:evil", clean_start=False).connack.reason_code == 0x85
    assert named.connect("dashboard", username="app:acme", clean_start=False).connack.session_present


def test_a_devices_own_name_is_nobodys_but_its(named):
    squatter = named.connect("press-7", username="app:evil", clean_start=False, session_expiry_interval=600)
    device = named.connect("press-7", username="device:press-7", clean_start=False)
    assert device.connack.reason_code == 0
    assert not device.connack.session_present
    assert squatter.client.closed.reason_code == 0x98


def test_what_waits_for_a_device_is_not_its_next_tenants(named):
    """A device that was transferred comes back under its own name: what its last tenant told it is not delivered."""
    names, kept = named.broker._authenticator, {"clean_start": False, "session_expiry_interval": 600}
    names.terms = "acme"
    device = named.connect("press-7", username="device:press-7", **kept)
    device.vanish()
    again = named.connect("press-7", username="device:press-7", **kept)
    assert again.connack.session_present
    again.vanish()
    names.terms = "globex"
    assert not named.connect("press-7", username="device:press-7", **kept).connack.session_present


def test_what_nobody_began_is_no_obstacle(named):
    """A trial on loopback, with the same client id, does not keep out who comes with an identity."""
    trial = named.connect("dashboard", clean_start=False, session_expiry_interval=600)
    assert trial.connack.reason_code == 0
    app = named.connect("dashboard", username="app:acme", clean_start=False)
    assert (app.connack.reason_code, app.connack.session_present) == (0, False)
    assert trial.client.closed is not None
    assert named.connect("dashboard", clean_start=False).connack.reason_code == 0x85, "and not the other way round"


def test_owners_are_remembered_over_a_restart_and_unknown_to_older_files(named, make_world):
    named.connect("dashboard", username="app:acme", clean_start=False, session_expiry_interval=600)
    named.group.write()
    db = named.journal._connect()
    assert db.execute("SELECT owner FROM session").fetchall() == [("app:acme",)]
    named.journal.close()
    db = named.journal._connect()
    for column in ("owner", "terms"):
        db.execute(f"ALTER TABLE session DROP COLUMN {column}")
    named.journal.close()
    world = make_world()
    assert world.broker.sessions["dashboard"].owner == "*"
    taken = world.connect("dashboard", username="user", password=b"secret", listener="tls", clean_start=False)
    assert taken.connack.session_present


def test_what_comes_while_somebody_is_asked_waits_and_comes_in_order(named):
    client = PeerBefore(named, "press-7")
    assert client.is_choked
    client.send(p.Publish("t", b"later"))
    (question, done), *_ = named.questions
    done(question())
    assert not client.is_choked
    named.group.commit()
    assert [type(each) for each in client.peek()] == [p.ConnAck, p.PubAck]
    assert named.broker.counters.messages_in == 2


class PeerBefore:
    """Sends CONNECT and a message at once, and does not wait for CONNACK (MQTT 5, 3.1.4)."""

    def __init__(self, world, client_id, username="ask:device:press-7"):
        self.world, self.is_choked = world, False
        self.decoder = Decoder("client", version=5)
        self.client = world.broker.admit(self, "tls", None)
        self.send(p.Connect(client_id, username=username), p.Publish("t", b"first", 1, packet_id=1))

    def wake(self):
        pass

    def hold(self, seconds):
        pass

    def choke(self, *, is_choked):
        self.is_choked = is_choked

    def send(self, *packets):
        data = b"".join(encode(each, 5) for each in packets)
        self.world.broker.receive(self.client, data, self.world.now)

    def peek(self):
        data = b"".join(self.client.core.outgoing)
        self.client.core.outgoing.clear()
        return self.decoder.feed(data)


def test_a_wrong_guess_waits_for_its_answer(named):
    peer = PeerBefore(named, "x", "wrong")
    assert peer.is_choked
    named.pass_s(0.5)
    assert not peer.peek()
    named.pass_s(0.6)
    assert peer.peek()[0].reason_code == 0x87


def test_a_session_ends_with_its_credential(named):
    peer = named.connect("press-7", username="device:press-7")
    named.pass_s(59)
    assert peer.client.closed is None
    named.pass_s(2)
    assert peer.client.closed.reason_code == 0xA0


@pytest.fixture
def roster():
    roster = Roster()
    for device in (
        Device("press-7", location=Location("hall"), device_type="press"),
        Device("child-1", metadata={"gateway": "press-7"}),
        Device("child-2", metadata={"gateway": "press-7"}, lifecycle=Lifecycle.SUSPENDED),
        Device("child-3", tenant="acme", metadata={"gateway": "press-7"}),
        Device("pump-1", tenant="acme"),
        Device("free", lifecycle=Lifecycle.UNCLAIMED),
    ):
        roster.learn(device)
    return roster


PLACED = topics_for("placed")


def refusal(rights, topic):
    return rights.refusal(topic, PLACED.parse(topic))


def hears(rights, topic):
    return rights.may_receive(topic, PLACED.parse(topic))


def test_a_device_speaks_up_and_hears_down_and_so_for_its_children(roster):
    rights = DeviceRights(roster, "press-7", lambda client_id, _device: client_id == "dashboard/1")
    for topic in (
        "devices/press-7/telemetry", "device/press-7/telemetry", "devices/press-7/command-results/9",
        "default/hall/press/press-7/readings", "devices/child-1/telemetry", "responses/dashboard%2F1/x",
        "enrollment/press-7/request",
    ):  # fmt: skip
        assert not refusal(rights, topic), topic
    for topic in (
        "devices/press-7/commands", "devices/pump-1/telemetry", "devices/child-2/telemetry",
        "devices/child-3/telemetry", "devices/ghost/telemetry", "default/yard/press/press-7/readings",
        "acme/hall/press/press-7/readings", "responses/other/x", "elsewhere", "enrollment/press-7/grant",
        "enrollment/pump-1/request", "system/heartbeat",
    ):  # fmt: skip
        assert refusal(rights, topic), topic
    for topic in (
        "devices/press-7/commands",
        "devices/child-1/notices",
        "responses/press-7/a",
        "enrollment/press-7/grant",
    ):
        assert hears(rights, topic), topic
    for topic in ("devices/press-7/telemetry", "devices/pump-1/commands", "device/commands/pump-1", "system/heartbeat"):
        assert not hears(rights, topic), topic
    for topic_filter in (
        "devices/press-7/#", "devices/press-7/commands", "device/commands/#", "device/commands/press-7",
        "default/hall/press/press-7/#", "+/+/+/press-7/commands", "devices/child-1/commands", "responses/press-7/#",
        "enrollment/press-7/grant",
    ):  # fmt: skip
        assert rights.may_subscribe(topic_filter), topic_filter
    for topic_filter in (
        "#", "devices/+/commands", "devices/#", "devices/pump-1/#", "acme/+/+/press-7/#", "$SYS/#", "system/heartbeat",
        "+/+/+/+/commands", "enrollment/#", "",
    ):  # fmt: skip
        assert not rights.may_subscribe(topic_filter), topic_filter


def test_an_application_has_its_tenants(roster):
    some = ApplicationRights(roster, "a", ApplicationTerms(("acme",), ("acme",)))
    everything = ApplicationRights(roster, "a", ApplicationTerms(None, None))
    viewer = ApplicationRights(roster, "a", ApplicationTerms(("acme",), ()))
    assert hears(some, "devices/pump-1/telemetry")
    assert hears(some, "tenants/acme/alerts/critical")
    assert hears(some, "responses/a/1")
    for topic in ("devices/press-7/telemetry", "devices/ghost/x", "tenants/acme2/alerts/critical", "x", "responses/b/1",
                  "$SYS/broker/uptime", "enrollment/pump-1/grant"):  # fmt: skip
        assert not hears(some, topic), topic
    assert hears(everything, "devices/press-7/telemetry")
    assert hears(everything, "$SYS/broker/uptime")
    assert not hears(everything, "enrollment/pump-1/grant")
    assert not some.may_subscribe("$SYS/#")
    assert everything.may_subscribe("$SYS/#")
    assert not refusal(some, "devices/pump-1/commands")
    assert refusal(some, "devices/press-7/commands")
    assert refusal(some, "x")
    assert refusal(viewer, "devices/pump-1/commands")
    assert not refusal(everything, "x")
    assert refusal(everything, "enrollment/pump-1/request")


def test_loopback_has_what_is_nobodys(roster):
    rights = LocalRights(roster, "me")
    assert refusal(rights, "devices/press-7/commands") == "device-claimed"
    assert refusal(rights, "devices/free/telemetry") == refusal(rights, "devices/ghost/x") == refusal(rights, "x") == ""
    assert hears(rights, "devices/free/telemetry")
    assert not hears(rights, "devices/press-7/telemetry")
    assert not hears(rights, "enrollment/x/grant")
    assert not rights.may_subscribe("devices/press-7/#")
    assert rights.may_subscribe("#")


def test_a_claim_opens_its_two_topics(roster):
    rights = EnrollmentRights("pump-9")
    assert not refusal(rights, "enrollment/pump-9/request")
    assert hears(rights, "enrollment/pump-9/grant")
    for topic in ("enrollment/pump-1/request", "devices/pump-9/telemetry", "responses/pump-9/x", "x"):
        assert refusal(rights, topic), topic
        assert not hears(rights, topic), topic
    assert rights.may_subscribe("enrollment/pump-9/#")
    assert not rights.may_subscribe("enrollment/#")
