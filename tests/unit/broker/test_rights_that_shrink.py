"""Rights that shrink while something waits: what is queued, sent in vain or left as a will is not for its old owner."""

import msgspec
import pytest

from godwit.mqtt import packets as p
from godwit.server.accounts.principal import Principal
from godwit.server.accounts.room import Known
from godwit.server.broker.authentication import Desk, FleetAuthenticator
from godwit.server.broker.journal import Journal, LeftWill
from godwit.server.broker.rights import SUBSCRIBE
from godwit.server.broker.wills import Wills
from godwit.server.identity.model import DeviceToken
from godwit.server.identity.roster import Roster
from godwit.server.ingest.arrival import Peer
from godwit.server.registry.model import Device, Lifecycle

NS = 1_000_000_000
KEPT = {"clean_start": False, "session_expiry_interval": 3_600}


class House:
    """A broker whose clients are known by a roster, and programs by what `programs` says of their token."""

    def __init__(self, make_world):
        self.roster = Roster()
        self.programs = {}
        self.version = 0
        for device in (Device("press-7"), Device("child-1", metadata={"gateway": "press-7"}), Device("pump-1", "acme")):
            self.change(device)
        for name in ("press-7", "pump-1"):
            token = DeviceToken(f"id-{name}", name, self.roster.devices[name].tenant, "", 0, "")
            self.roster.add_token(f"gwd_{name}", token)
        self.world = make_world()
        self.boot()

    def boot(self):
        world = self.world
        desk = Desk(lambda _token: None, lambda _der, **_: None, lambda token, **_: self.programs.get(token))
        authenticator = FleetAuthenticator(
            self.roster, lambda _client, _device: True, None, None, desk, find_token=self.roster.token,
            now_ns=lambda: world.now,
        )  # fmt: skip
        broker = world.broker
        broker._authenticator = broker.reception._authenticator = broker.guard._judge = authenticator
        for session in broker.sessions.values():  # as a start with this authenticator finds them
            session.rights = authenticator.rights_of(session.owner, session.terms, session.client_id)
        self.withheld = []
        broker.on_withheld = lambda left, code: self.withheld.append((left.will.topic, code))

    def change(self, device):
        self.version += 1
        device = msgspec.structs.replace(device, updated=self.version)
        self.roster.learn(device)
        if hasattr(self, "world"):
            self.world.broker.guard.follow(device)
            self.world.broker.rights_changed()
            self.world.pass_s(0.1)

    def end_token(self, name):
        ended = DeviceToken(f"id-{name}", name, "default", "", 0, "", revoked=1)
        self.roster.follow(ended)
        self.world.broker.guard.follow(ended)

    def device(self, name, **options):
        return self.world.connect(name, listener="tls", username=name, password=f"gwd_{name}".encode(), **options)

    def program(self, *tenants, **options):
        self.programs["gwt_a"] = Known(Principal("ann/board", tenants, "operator", (SUBSCRIBE,)), token_id="t1")
        return self.world.connect("board", listener="tls", password=b"gwt_a", **KEPT, **options)

    def say(self, *devices):
        for number, name in enumerate(devices, 1):
            self.world.broker.post(p.Publish(f"devices/{name}/notices", name.encode(), 1), self.world.now)
            assert number
        self.world.group.commit()


@pytest.fixture
def house(make_world):
    return House(make_world)


@pytest.mark.parametrize("is_restarted", [False, True])
def test_what_waits_for_a_program_whose_tenants_are_fewer_is_not_delivered(house, is_restarted):
    board = house.program("default", "acme", receive_maximum=2)
    board.subscribe("devices/+/notices", 1)
    house.say("press-7", "press-7")  # sent, never acknowledged
    assert len(board.get()) == 2
    board.vanish()
    house.say("press-7", "pump-1", "press-7", "pump-1", "pump-1")
    if is_restarted:
        house.world.group.write()
        house.world.journal.close()
        house.world.boot()
        house.boot()
    again = house.program("acme")
    assert again.connack.session_present
    assert again.payloads() == ["pump-1"] * 3
    house.world.group.commit()
    assert again.client.core.session.dropped == 4
    again.send(*(p.PubAck(each) for each in list(again.client.core.session.inflight)))
    house.world.pass_s(1)
    left = house.world.journal._connect().execute("SELECT count(*) FROM queue").fetchone()
    assert left == (0,)


def test_what_a_connected_program_had_not_taken_yet_is_not_sent_either(house):
    board = house.program("default", "acme", receive_maximum=1)
    board.subscribe("$share/all/devices/+/notices", 1)
    house.say("pump-1", "press-7", "pump-1")
    first, *others = board.get()
    assert (first.payload, others) == (b"pump-1", [])
    house.change(Device("press-7", "globex"))  # moved to a tenant that the program does not see
    board.send(p.PubAck(first.packet_id))
    (last,) = board.get()
    board.send(p.PubAck(last.packet_id))
    assert (last.payload, board.get()) == (b"pump-1", [])


def test_what_waits_for_a_child_that_was_taken_away_is_not_delivered(house):
    gateway = house.device("press-7", **KEPT)
    gateway.subscribe("devices/press-7/notices", 1)
    gateway.subscribe("devices/child-1/notices", 1)
    gateway.vanish()
    house.say("child-1", "press-7")
    house.change(Device("child-1"))
    assert house.device("press-7", **KEPT).payloads() == ["press-7"]


def test_what_was_taken_at_qos_2_is_finished(house):
    """The program has it (PUBREC): only the handshake is left, and nothing more is said of the message."""
    board = house.program("default")
    board.subscribe("devices/+/notices", 2)
    house.world.broker.post(p.Publish("devices/press-7/notices", b"x", 2), house.world.now)
    (sent,) = board.get()
    board.send(p.PubRec(sent.packet_id))
    board.vanish()
    again = house.program("acme")
    assert [type(each) for each in again.get()] == [p.PubRel]


def test_a_device_with_a_name_that_it_was_given_stays_when_it_is_changed(house):
    nameless = house.world.connect("", listener="tls", username="press-7", password=b"gwd_press-7")
    assert nameless.connack.assigned_client_id.startswith("auto-")
    house.change(Device("press-7", name="the old press"))
    assert nameless.client.closed is None
    house.change(Device("press-7", lifecycle=Lifecycle.SUSPENDED))
    assert nameless.client.closed.reason_code == 0x98


# --- wills ----------------------------------------------------------------------------------------------------------


def listener_of(world):
    ear = world.connect("ear", username="user", password=b"secret")
    ear.client.core.session.rights = None
    ear.subscribe("#")
    return ear


def will(topic="devices/press-7/notices", **more):
    return {"will": p.Will(topic, b"gone", **more), "session_expiry_interval": 3_600, "clean_start": False}


@pytest.fixture
def dying(house):
    """A gateway, and who hears its will; the topic is one that any device may be spoken to on, by who may."""
    house.ear = listener_of(house.world)
    return house


def status(name="press-7"):
    return f"devices/{name}/status"


def test_the_will_of_a_revoked_device_is_not_published(dying):
    dying.device("press-7", **will(status()))
    dying.end_token("press-7")
    client = dying.world.broker.clients["press-7"]
    assert client.closed.reason_code == 0x98
    dying.world.broker.disconnect(client, dying.world.now)
    assert dying.ear.payloads() == []
    assert dying.withheld == [(status(), "token-revoked")]


def test_that_of_one_that_is_lost_is_and_that_of_one_whose_credential_has_ended(dying):
    device = dying.device("press-7", **will(status()))
    device.vanish()
    assert dying.ear.payloads() == ["gone"]
    device = dying.device("press-7", **will(status()))
    client = device.client
    client.credential = msgspec.structs.replace(client.credential, ends=dying.world.now + 5 * NS)
    dying.world.broker.guard._ends.put("press-7", client.credential.ends, client)
    dying.world.pass_s(6)
    assert client.closed.reason_code == 0xA0
    device.vanish()
    assert dying.ear.payloads() == ["gone"]


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize(
    ("topic", "end", "code"),
    [
        (status(), lambda house: house.end_token("press-7"), "token-revoked"),
        (status(), lambda house: house.change(Device("press-7", lifecycle=Lifecycle.SUSPENDED)), "device-suspended"),
        (status(), lambda house: house.change(Device("press-7", "acme")), "wrong-tenant"),
        (status(), lambda house: house.roster.learn("press-7"), "unknown-device"),
        (status("child-1"), lambda house: house.change(Device("child-1")), "not-authorised"),
    ],
)
def test_a_delayed_will_is_judged_when_it_is_due(dying, topic, end, code, is_restarted):
    dying.device("press-7", **will(topic, delay_interval=60)).vanish()
    if is_restarted:
        dying.world.group.write()
        dying.world.journal.close()
        dying.world.boot()
        dying.boot()
        dying.ear = listener_of(dying.world)
    end(dying)
    dying.world.pass_s(61)
    assert dying.ear.payloads() == []
    assert dying.withheld == [(topic, code)]


def test_wills_of_an_earlier_version_are_still_read(dying):
    journal, world = dying.world.journal, dying.world
    dying.device("press-7", **will(status(), delay_interval=60)).vanish()
    world.group.write()
    db = journal._connect()
    ((body,),) = db.execute("SELECT body FROM will")
    db.execute("UPDATE will SET body = ?", (msgspec.msgpack.encode(msgspec.msgpack.decode(body)[:2]),))
    journal.close()
    world.boot()
    dying.boot()
    ear = listener_of(world)
    world.pass_s(61)
    assert ear.payloads() == ["gone"]


def test_the_will_of_a_program_whose_token_is_revoked_is_not_published(dying):
    ways = {"will": p.Will("devices/press-7/commands", b"gone"), "clean_start": False}
    dying.programs["gwt_a"] = Known(Principal("ann/board", None, "operator"), token_id="t1")
    board = dying.world.connect("board", listener="tls", password=b"gwt_a", **ways)
    del dying.programs["gwt_a"]
    guard = dying.world.broker.guard
    guard.deny((client, still()) for client, still in list(guard.asked.items()))
    assert board.client.closed.reason_code == 0x98
    board.vanish()
    assert dying.ear.payloads() == []


def test_an_answer_about_an_earlier_will_takes_no_later_one_away(tmp_path):
    """The token is asked about in a thread; meanwhile its client was back, and left another will by another token."""
    wills = Wills(Journal(tmp_path / "broker.sqlite"))
    left = LeftWill(p.Will("board/status", b"gone"), Peer("board", "tls"))
    wills.put("board", 5 * NS, left, revoked := lambda: None)
    assert wills.take("board") == left
    wills.put("board", 9 * NS, left, good := lambda: None)
    assert wills.deny("board", revoked) is None
    assert wills.deny("board", good) == left
    assert wills.due(10 * NS) == []
