"""Signed and encrypted messages on the road: what is believed, what is refused, and that nothing is lost by either."""

import json
import os
import zlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from godwit.contract.cose import DOWN, Session, Signer, about_message, seal
from godwit.contract.cose_keys import key_id, pem_of
from godwit.contract.ids import DeviceId, TenantId, TypeName
from godwit.contract.topics import Channel
from godwit.device.sealing import Sealing
from godwit.mqtt.packets import Publish
from godwit.server.identity.model import DeviceKey, KeyPurpose, PlatformKey
from godwit.server.ingest.arrival import Arrival
from godwit.server.registry.model import Device, DeviceType, Protection, TenantPolicy

from .conftest import NS, T0, Road

P256 = ec.SECP256R1()
DAY = 86_400
TENANT = TenantId("default")


class Keys:
    """A device's keys, and the platform's, as a road learns them."""

    def __init__(self, road: Road, device: str = "d") -> None:
        self.road, self.device = road, device
        self.sign, self.agree = ec.generate_private_key(P256), ec.generate_private_key(P256)
        self.ours, self.our_sign = ec.generate_private_key(P256), ec.generate_private_key(P256)
        road.directory.learn(Device(DeviceId(device)))
        self.tell()

    def tell(self, *, retired: int = 0, ours_retired: int = 0) -> None:
        learn = self.road.ingest.pipeline.seals.learn
        for key, purpose in ((self.sign, KeyPurpose.SIGN), (self.agree, KeyPurpose.AGREE)):
            public = key.public_key()
            learn(DeviceKey(key_id(public), DeviceId(self.device), TENANT, purpose, pem_of(public), 1, retired))
        for key, purpose in ((self.our_sign, KeyPurpose.SIGN), (self.ours, KeyPurpose.AGREE)):
            public = key.public_key()
            end = ours_retired if purpose is KeyPurpose.AGREE else 0
            learn(PlatformKey(key_id(public), TENANT, purpose, pem_of(public), 1, end), key)

    def seal(
        self, document: Any, how: str = "both", *, device: str = "", channel: str = "telemetry", **more: Any
    ) -> bytes:
        at = more.pop("at", self.road.now // NS)
        payload = document if isinstance(document, bytes) else json.dumps(document).encode()
        session = Session(more.pop("to", self.ours).public_key(), ec.generate_private_key(P256))
        return seal(
            payload,
            about_message("up", device or self.device, channel),
            signer=Signer(more.pop("key", self.sign)) if how != "encrypted" else None,
            session=session if how != "signed" else None,
            nonce=lambda: os.urandom(12),
            at=at,
        )


def say(road: Road, payload: bytes, *, device: str = "d", channel: str = "telemetry", dup: bool = False) -> Arrival:
    topic = f"devices/{device}/{channel}"
    publish = Publish(topic, payload, 1, packet_id=7, dup=dup)
    arrival = Arrival(road, publish, road.peer(), road.now, road.topics.parse(topic))
    road.ingest.receive(arrival)
    road._open.append(arrival)
    road.commit()
    assert arrival in road.settled  # whatever became of it, it is durable
    return arrival


def numbered(first: int = 0, count: int = 1) -> dict[str, Any]:
    listed = [{"timestamp": T0 + n * NS, "readings": {"v": float(n)}} for n in range(first, first + count)]
    return {"stream": "s", "epoch": "e", "seq": first, "samples": listed}


@pytest.fixture
def road() -> Road:
    return Road()


@pytest.fixture
def keys(road: Road) -> Keys:
    return Keys(road)


@pytest.mark.parametrize("how", ["signed", "encrypted", "both"])
def test_what_is_sealed_is_stored_as_if_it_were_plain(road: Road, keys: Keys, how: str) -> None:
    assert say(road, keys.seal(numbered(0, 3), how)).code == ""
    assert road.values() == {("s", "e"): [(0, 0.0), (1, 1.0), (2, 2.0)]}
    state = road.directory.entries["d"].sealed
    assert state is not None
    assert (bool(state.signed_by), bool(state.encrypted_to)) == (how != "encrypted", how != "signed")


def test_what_is_compressed_before_it_is_encrypted_is_stored(road: Road, keys: Keys) -> None:
    assert say(road, keys.seal(zlib.compress(json.dumps(numbered(0, 50)).encode()))).accepted == 50


def test_what_cannot_be_believed_goes_to_quarantine_whole(road: Road, keys: Keys) -> None:
    other = Keys(road, "other")
    altered = bytearray(keys.seal(numbered()))
    altered[-1] ^= 1
    forged = ec.generate_private_key(P256)
    cases = [
        (bytes(altered), "message-undecryptable"),
        (keys.seal(numbered(), "signed")[:-1] + b"\0", "signature-invalid"),
        (keys.seal(numbered(), key=forged), "key-unknown"),
        (keys.seal(numbered(), key=other.sign), "key-unknown"),  # another device's key
        (keys.seal(numbered(), to=forged), "key-unknown"),  # not our key
        (keys.seal(numbered(), "signed", device="other"), "signature-invalid"),  # sealed for another topic
        (keys.seal(numbered(), device="other"), "message-undecryptable"),
        (keys.seal(numbered(), channel="events"), "message-undecryptable"),
        (b"\xd2\x84rubbish", "malformed-cose"),
    ]
    for payload, code in cases:
        assert say(road, payload).code == code
    kept = road.store.quarantine()
    assert sorted(each.code for each in kept) == sorted(code for _, code in cases)
    assert {each.payload for each in kept} == {payload for payload, _ in cases}
    assert road.values() == {}
    assert {code for _, code in road.ingest.pipeline.seals.refused} == {code for _, code in cases}


def test_policy_of_tenant_and_type_add_up(road: Road, keys: Keys) -> None:
    road.directory.learn(TenantPolicy(messages=Protection.SIGNED))
    plain = json.dumps(numbered()).encode()
    assert say(road, plain).code == "signature-required"
    assert say(road, keys.seal(numbered(), "encrypted")).code == "signature-required"
    assert say(road, keys.seal(numbered(), "signed")).code == ""
    road.directory.learn(DeviceType(TypeName("default"), messages=Protection.ENCRYPTED))
    assert say(road, keys.seal(numbered(1), "signed")).code == "encryption-required"
    assert say(road, keys.seal({"event": "boot"}, "signed", channel="events"), channel="events").code == (
        "encryption-required"
    )
    assert say(road, b'{"event": "boot"}', channel="events").code == "signature-required"
    assert say(road, b'{"status": "online"}', channel="status").code == ""
    assert say(road, keys.seal(numbered(1))).code == ""
    road.directory.learn(TenantPolicy())
    road.directory.learn(DeviceType(TypeName("default")))
    assert say(road, json.dumps(numbered(2)).encode()).code == ""


def test_a_redelivery_is_a_duplicate_and_an_old_one_a_replay(road: Road, keys: Keys) -> None:
    first = keys.seal(numbered(0, 3))
    assert say(road, first).accepted == 3
    again = say(road, first, dup=True)
    assert (again.code, again.duplicate) == ("", 3)
    resent = say(road, keys.seal(numbered(0, 3)))  # from the spool, signed anew
    assert (resent.code, resent.duplicate) == ("", 3)
    road.later(DAY + 1)
    assert say(road, first).code == "message-replayed"
    resent = say(road, keys.seal(numbered(0, 3)))
    assert (resent.code, resent.duplicate) == ("", 3)
    assert len(road.values()["s", "e"]) == 3


def test_what_was_sealed_long_ago_and_never_came_is_taken(road: Road, keys: Keys) -> None:
    late = keys.seal(numbered(0, 3))
    road.later(10 * DAY)
    assert say(road, late).accepted == 3


def test_messages_without_numbers_are_known_by_themselves(road: Road, keys: Keys) -> None:
    plain = {"readings": {"v": 1.0}}
    first = keys.seal(plain)
    assert say(road, first).accepted == 1
    assert say(road, first).duplicate == 1
    road = keys.road = road.crash()
    road.directory.learn(Device(DeviceId("d")))
    keys.tell()
    assert say(road, first).duplicate == 1  # remembered on the disk
    assert say(road, keys.seal(plain)).accepted == 1
    for at in (None, road.now // NS - DAY - 1, road.now // NS + DAY + 1):
        assert say(road, keys.seal(plain, at=at)).code == "message-replayed"


def test_events_are_replayed_in_vain(road: Road, keys: Keys) -> None:
    event = keys.seal({"event": "boot"}, channel="events")
    assert say(road, event, channel="events").accepted == 1
    assert say(road, event, channel="events").duplicate == 1
    road.later(DAY + 1)
    assert say(road, event, channel="events").code == "message-replayed"


def test_a_retired_key_counts_for_a_while_for_what_it_signed_before(road: Road, keys: Keys) -> None:
    before = [keys.seal(numbered(n)) for n in range(3)]
    keys.tell(retired=road.now)
    road.later(3_700)
    assert say(road, before[0]).code == ""
    assert say(road, keys.seal(numbered(5))).code == "key-retired"
    road.later(7 * DAY)
    assert say(road, before[1]).code == "key-retired"
    road.directory.learn(TenantPolicy(key_overlap_s=30 * DAY))
    assert say(road, before[1]).code == ""
    keys.tell(retired=1)  # removed
    assert say(road, before[2]).code == "key-retired"


def test_a_device_that_uses_an_old_key_of_ours_is_told_the_new_one(road: Road, keys: Keys) -> None:
    told: list[bytes] = []
    road.ingest.stored.send = lambda topic, payload: told.append(payload) or True if topic.endswith("notices") else True
    device = Sealing(
        sign_key=keys.sign,
        platform_agree_key=pem_of(keys.ours.public_key()),
        platform_sign_key=pem_of(keys.our_sign.public_key()),
        clock=road,
    )
    assert say(road, device.seal("d", Channel.TELEMETRY, json.dumps(numbered(0)).encode())).code == ""
    assert not told
    old = keys.ours
    keys.tell(ours_retired=road.now)
    keys.ours = ec.generate_private_key(P256)
    public = keys.ours.public_key()
    new = PlatformKey(key_id(public), TENANT, KeyPurpose.AGREE, pem_of(public), road.now)
    road.ingest.pipeline.seals.learn(new, keys.ours)
    for n in (1, 2):
        assert say(road, device.seal("d", Channel.TELEMETRY, json.dumps(numbered(n)).encode())).code == ""
    assert len(told) == 1
    device.notice("d", told[0])
    assert say(road, device.seal("d", Channel.TELEMETRY, json.dumps(numbered(3)).encode())).code == ""
    assert road.directory.entries["d"].sealed.encrypted_to == new.key_id
    assert old is not keys.ours
    assert len(told) == 1


def test_what_the_platform_sends_is_for_one_device_on_one_channel(road: Road, keys: Keys) -> None:
    seals = road.ingest.pipeline.seals
    sent = seals.seal_for_device("d", TENANT, Channel.COMMANDS, b"{}", now=road.now)
    assert sent[0] == 0xD0  # encrypted, since the device has a key
    device = Sealing(agree_key=keys.agree, platform_sign_key=pem_of(keys.our_sign.public_key()), clock=road)
    opened = device.open("d", Channel.COMMANDS, sent)
    assert (opened.payload, opened.signed_by) == (b"{}", key_id(keys.our_sign.public_key()))
    assert about_message(DOWN, "d", "commands") != about_message(DOWN, "d", "notices")
    for device_id, channel in (("e", Channel.COMMANDS), ("d", Channel.TWIN_DESIRED)):
        with pytest.raises(Exception, match="altered"):
            device.open(device_id, channel, sent)


def test_the_device_page_knows_that_the_last_message_was_plain(road: Road, keys: Keys) -> None:
    assert say(road, keys.seal(numbered())).code == ""
    assert say(road, json.dumps(numbered(1)).encode()).code == ""
    assert road.directory.entries["d"].sealed is None


def test_a_device_without_keys_of_its_own_agrees_once(road: Road, keys: Keys) -> None:
    road.directory.learn(Device(DeviceId("keyless")))
    device = Sealing(platform_agree_key=pem_of(keys.ours.public_key()), clock=road)
    for n in range(3):
        payload = device.seal("keyless", Channel.TELEMETRY, json.dumps(numbered(n)).encode())
        assert say(road, payload, device="keyless").code == ""
    (agreed,) = road.ingest.pipeline.seals._devices["keyless"].agreed.values()
    assert len(agreed._known) == 1
    assert say(road, payload, device="stranger").code != ""
    assert "stranger" not in road.ingest.pipeline.seals._devices
