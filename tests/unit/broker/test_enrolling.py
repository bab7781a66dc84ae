"""Who hears the answer to a request for an identity, where several clients call themselves alike."""

import pytest

from godwit.contract.enrollment import EnrollmentGrant, EnrollmentRequest, decode_grant, encode
from godwit.mqtt import packets as p
from godwit.server.broker.enrolling import Enrolling
from godwit.server.broker.rights import EnrollmentRights, Grant
from godwit.server.identity.model import Credential, Door


class Claims:
    """Whoever says a claim as his user name comes in by it; `fleet` is one that many have."""

    def authenticate(self, _listener, connect, _certificate, _address):
        name = connect.username
        credential = Credential(Door.CLAIM, name, "default", is_shared=name == "fleet")
        return Grant(f"claim:{name}", EnrollmentRights(connect.client_id), credential=credential, tenant="default")

    def rights_of(self, _identity, _terms, client_id):
        return EnrollmentRights(client_id)


class Desk:
    """Answers when told to; the first configuration is the device's secret."""

    def __init__(self):
        self.waiting = []

    def aside(self, ask, done):
        self.waiting.append((ask, done))

    def enroll(self, asked, by, _source, *, address=""):
        del address
        return EnrollmentGrant(asked.device_id, configuration={"of": asked.request}, message=by and by.name)

    def answer(self):
        waiting, self.waiting = self.waiting, []
        for ask, done in waiting:
            done(ask())


@pytest.fixture
def desk(make_world):
    world, desk = make_world(), Desk()
    world.broker.reception._authenticator = world.broker._authenticator = Claims()
    desk.world = world
    world.broker.enrolling = Enrolling(
        desk,
        desk.aside,
        lambda publish: world.broker.post(publish, world.now),
        lambda publish: world.broker.announce(publish.topic, publish.payload, world.now, qos=2, retain=False),
    )
    return desk


def come(desk, claim, **options):
    options = {"clean_start": False, "session_expiry_interval": 600, **options}
    made = desk.world.connect("pump-7", username=claim, listener="tls", **options)
    assert made.connack.reason_code == 0
    made.subscribe("enrollment/pump-7/grant", 2)
    return made


def ask(desk, device, whose):
    device.publish("enrollment/pump-7/request", encode(EnrollmentRequest("pump-7", whose)).decode(), 2)
    desk.world.group.commit()


def grants(device):
    return [decode_grant(each.payload).configuration["of"] for each in device.get() if isinstance(each, p.Publish)]


def test_an_answer_waits_for_the_device_with_a_claim_of_its_own(desk):
    device = come(desk, "one-time")
    ask(desk, device, "first")
    device.vanish()
    desk.answer()
    again = desk.world.connect("pump-7", username="one-time", listener="tls", clean_start=False)
    assert again.connack.session_present
    assert grants(again) == ["first"]


@pytest.mark.parametrize("moment", ["asked", "answered", "delivered"])
def test_who_takes_the_place_of_another_hears_nothing_of_its_grant(desk, moment):
    """Two devices of a fleet have the same claim, and the same client id from the factory."""
    first = come(desk, "fleet")
    ask(desk, first, "first")
    if moment == "answered":  # before it is committed, were it posted
        desk.answer()
    elif moment == "delivered":  # and not acknowledged
        desk.answer()
        assert grants(first) == ["first"]
    second = come(desk, "fleet")
    assert not second.connack.session_present
    assert first.client.closed.reason_code == 0x8E
    ask(desk, second, "second")  # it is not kept waiting for the answer to the other
    desk.answer()
    assert grants(second) == ["second"]


def test_nothing_is_kept_for_whoever_comes_next(desk):
    first = come(desk, "fleet")
    ask(desk, first, "first")
    first.vanish()
    desk.answer()
    assert "pump-7" not in desk.world.broker.sessions
    assert grants(come(desk, "fleet")) == []
    desk.world.group.write()
    assert desk.world.journal._connect().execute("SELECT count(*) FROM session").fetchone() == (0,)


def test_who_was_there_when_he_asked_is_known_when_he_is_gone(desk):
    """The credential of a request is that of its connection, which may be over before the request is durable."""
    device = come(desk, "one-time")
    device.publish("enrollment/pump-7/request", encode(EnrollmentRequest("pump-7", "first")).decode(), 2)
    device.vanish()
    desk.world.group.commit()
    desk.answer()
    again = desk.world.connect("pump-7", username="one-time", listener="tls", clean_start=False)
    (told,) = [decode_grant(each.payload).message for each in again.get() if isinstance(each, p.Publish)]
    assert told == "one-time"
