"""A year of rotations on both sides, in virtual time: is everything that was measured stored, whoever was away?"""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec

from godwit.contract.cose_keys import key_id, pem_of
from godwit.contract.enrollment import EnrollmentRequest
from godwit.contract.errors import RejectedError, UnavailableError
from godwit.contract.ids import DEFAULT_TENANT, DeviceId, TenantId
from godwit.contract.notices import decode
from godwit.contract.topics import Channel
from godwit.device.sealing import Sealing
from godwit.server.accounts.principal import Principal
from godwit.server.identity.key_rotation import KeyRotation
from godwit.server.identity.message_keys import MessageKeys
from godwit.server.identity.model import KeyPurpose
from godwit.server.identity.news import News
from godwit.server.identity.vault import open_vault
from godwit.server.ingest.seal_keys import SealKeys
from godwit.server.registry.model import Device, Protection, TenantPolicy
from godwit.server.registry.service import Registry
from godwit.server.storage import identity_tables as t
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine
from godwit.server.storage.tables import audit

from .conftest import NS, Road
from .test_seals import numbered, say

ADMIN = Principal("admin")
DAY = 86_400 * NS


class Platform:
    """The road, and the keys behind it, at one time; the housekeeping and the clockwork are called by hand."""

    def __init__(self, road: Road, directory: Path) -> None:
        self.road = road
        self.database = Database(open_engine("", directory))
        self.registry = Registry(self.database)
        self.registry.on_change(road.directory.learn)
        news = News()
        self.keys = MessageKeys(self.database, open_vault(directory), news, lambda: road.now)
        self.rotation = KeyRotation(self.database, self.keys)
        self.seals = road.ingest.pipeline.seals
        self.seal_keys = SealKeys(road.directory, self.seals, self.keys)
        self.seal_keys.follow(news, self.registry, lambda work, *given: work(*given))
        self.policy = self.registry.policies.put(ADMIN, TenantPolicy(messages=Protection.SIGNED_ENCRYPTED))
        self.heard: dict[str, list[bytes]] = {}
        self.seals.tell = lambda device_id, payload: self.heard.setdefault(device_id, []).append(payload)

    def tick(self) -> None:
        self.seal_keys.write()
        self.rotation.tick(self.road.now)

    def restart(self) -> None:
        """Forget what is in memory, and read it again."""
        for each in (self.seals._devices, self.seals._ours):
            each.clear()
        self.seal_keys.load(self.registry.policies)

    def secrets(self) -> dict[str, bool]:
        with self.database.read() as connection:
            c = t.platform_keys.c
            rows = connection.execute(sa.select(c.key_id, c.secret).where(c.purpose == "agree").order_by(c.created))
            return {row.key_id: row.secret is not None for row in rows}

    def audited(self, what: str) -> list[Any]:
        with self.database.read() as connection:
            return list(connection.execute(sa.select(audit).where(audit.c.what == what)))


class Meter:
    """A device that signs and encrypts."""

    def __init__(self, platform: Platform, name: str) -> None:
        self.platform, self.name, self.seq = platform, name, 0
        platform.registry.create_device(ADMIN, Device(DeviceId(name)))
        self.sealing = self.enroll()

    def enroll(self, *, is_answered: bool = True) -> Sealing:
        """Tell new keys, as a renewal does; without its answer the device goes on with those that it has."""
        sign, agree = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        asked = EnrollmentRequest(
            self.name, "csr", sign_key=pem_of(sign.public_key()), agree_key=pem_of(agree.public_key())
        )
        ours = self.platform.keys.enroll(DeviceId(self.name), DEFAULT_TENANT, asked, self.name, "")
        assert set(ours.taken) == {key_id(sign.public_key()), key_id(agree.public_key())}
        made = Sealing(
            sign_key=sign, agree_key=agree, platform_agree_key=ours.agree_key, platform_sign_key=ours.sign_key,
            since=self.platform.road.now, clock=self.platform.road,
        )  # fmt: skip
        return made if is_answered else self.sealing

    def measure(self) -> str:
        """Send one sample; returns the code of its refusal. What the platform has to say is heard."""
        payload = self.sealing.seal(self.name, Channel.TELEMETRY, str(numbered(self.seq)).replace("'", '"').encode())
        self.seq += 1
        code = say(self.platform.road, payload, device=self.name).code
        for each in self.platform.heard.pop(self.name, []):
            with contextlib.suppress(RejectedError):  # it is said once with each key that the device may know
                self.sealing.notice(self.name, each)
        return code

    @property
    def stored(self) -> int:
        return sum(len(each) for each in self.platform.road.values(self.name).values())


@pytest.fixture
def platform(road: Road, tmp_path: Path) -> Platform:
    return Platform(road, tmp_path)


def test_a_year_of_rotations_loses_nothing(platform: Platform) -> None:
    steady, away, gone = (Meter(platform, name) for name in ("steady", "away", "gone"))
    for each in (steady, away, gone):
        assert each.measure() == ""
    (first,) = platform.secrets()
    for day in range(5, 366, 5):
        platform.road.now += 5 * DAY
        platform.tick()
        if day % 60 == 0:  # the answer is lost, and comes five days later
            steady.enroll(is_answered=False)
        if day % 60 == 5 and day > 5:
            steady.sealing = steady.enroll()
        if day % 50 == 0:
            platform.restart()
        assert steady.measure() == "", day
        if day == 200:
            assert platform.secrets()[first], "two devices may come back with it"
            assert platform.keys.holders(DEFAULT_TENANT)[first] == 2
            assert away.measure() == ""  # with the key of 200 days ago
            assert away.measure() == ""  # and now with the one it was told
            platform.registry.retire_device(ADMIN, DeviceId("gone"))
        if day == 205:
            assert not platform.secrets()[first], "nobody is left who has no other"
    assert (steady.stored, away.stored, gone.stored) == (74, 3, 1)
    in_use = "the one of day 360, the one before, whose week is not over, and the one that the device away knows"
    assert list(platform.secrets().values()) == [False, False, True, True, True], in_use
    assert len(platform.secrets()) == 5
    assert platform.road.store.quarantine() == []
    platform.tick()
    kept = platform.keys.keys(ADMIN, DeviceId("steady"))
    assert {each.purpose for each in kept if not each.retired} == {KeyPurpose.AGREE, KeyPurpose.SIGN}
    assert sum(not each.retired for each in kept) == 2, "those from before retired when these were used"
    assert len(platform.audited("platform-key.end")) >= 3


def test_what_an_operator_removed_stays_refused_and_the_device_is_told(platform: Platform) -> None:
    meter = Meter(platform, "meter")
    assert meter.measure() == ""
    told: list[str] = []
    platform.keys.on_removed = told.append
    (sign,) = [each for each in platform.keys.keys(ADMIN, DeviceId("meter")) if each.purpose is KeyPurpose.SIGN]
    platform.keys.remove(ADMIN, DeviceId("meter"), sign.key_id)
    assert told == ["meter"]
    payload = meter.sealing.seal("meter", Channel.TELEMETRY, b'{"readings": {"v": 1.0}}')
    assert say(platform.road, payload, device="meter").code == "key-removed"
    (notice,) = [decode(each) for each in platform.heard["meter"]]
    assert (notice.code, notice.details) == ("renew", {"reason": "message-keys"})
    platform.restart()
    assert say(platform.road, payload, device="meter").code == "key-removed", "also after a restart"
    again = EnrollmentRequest("meter", "csr", sign_key=sign.public)
    with pytest.raises(RejectedError) as refused:
        platform.keys.enroll(DeviceId("meter"), DEFAULT_TENANT, again, "meter", "")
    assert refused.value.code == "key-removed"
    with pytest.raises(RejectedError, match="removed"):
        platform.keys.register(ADMIN, DeviceId("meter"), KeyPurpose.SIGN, sign.public)
    meter.sealing = meter.enroll()
    assert meter.measure() == ""


def test_a_key_of_ours_that_was_removed_opens_nothing_and_another_is_there(platform: Platform) -> None:
    meter = Meter(platform, "meter")
    assert meter.measure() == ""
    (first,) = platform.secrets()
    platform.road.now += NS
    platform.keys.remove_ours(ADMIN, DEFAULT_TENANT, first)
    assert platform.secrets()[first] is False
    assert meter.measure() == "key-removed"
    assert meter.measure() == "", "it was told the new one, signed by the key that it knows"
    with pytest.raises(RejectedError):
        platform.keys.remove_ours(ADMIN, DEFAULT_TENANT, first)
    assert len(platform.audited("platform-key.remove")) == 1


def test_keys_are_not_made_anew_where_nobody_wants_it_or_has_any(platform: Platform) -> None:
    platform.road.now += 1_000 * DAY
    platform.tick()
    assert platform.secrets() == {}
    platform.registry.policies.put(ADMIN, TenantPolicy(key_age_s=0))
    Meter(platform, "meter")
    platform.road.now += 1_000 * DAY
    platform.tick()
    assert len(platform.secrets()) == 1


def test_what_cannot_be_written_down_now_is_written_down_later(platform: Platform) -> None:
    meters = [Meter(platform, name) for name in ("press", "pump")]
    (first,) = platform.secrets()
    for each in meters:
        assert each.measure() == ""
        platform.road.now += NS
        each.sealing = each.enroll()
    platform.road.now += NS
    platform.keys.rotate(ADMIN, DEFAULT_TENANT, KeyPurpose.AGREE)
    for each in meters:
        platform.road.now += NS
        assert [each.measure(), each.measure()] == ["", ""]
    with platform.database.write() as connection:
        connection.execute(sa.text("ALTER TABLE device_keys RENAME TO gone"))
        connection.execute(sa.text("ALTER TABLE held_keys RENAME TO gone_too"))
    for back in (("gone", "device_keys"), ("gone_too", "held_keys")):
        with pytest.raises(UnavailableError):
            platform.seal_keys.write()
        with platform.database.write() as connection:
            connection.execute(sa.text(f"ALTER TABLE {back[0]} RENAME TO {back[1]}"))
    assert platform.keys.holders(DEFAULT_TENANT) == {first: 2}
    platform.seal_keys.write()
    assert first not in platform.keys.holders(DEFAULT_TENANT), "a key that nobody holds any more may end"
    for each in meters:
        kept = platform.keys.keys(ADMIN, DeviceId(each.name))
        assert sum(not key.retired for key in kept) == 2
    platform.seal_keys.write()


def test_the_clockwork_reads_our_keys_and_not_those_of_all_devices(platform: Platform) -> None:
    Meter(platform, "meter")
    said: list[str] = []
    sa.event.listen(platform.database.engine, "before_cursor_execute", lambda *given: said.append(given[2]))
    platform.rotation.tick(platform.road.now)
    assert said
    assert not [each for each in said if "FROM device_keys" in each]


def test_a_device_that_was_given_away_keeps_no_key_of_its_last_owner_alive(platform: Platform) -> None:
    Meter(platform, "meter")
    (first,) = platform.secrets()
    platform.road.now += NS
    platform.keys.renew_ours("godwit", DEFAULT_TENANT)
    platform.road.now += 30 * DAY
    platform.rotation.tick(platform.road.now)
    assert platform.secrets()[first], "it may come back with it"
    platform.registry.put_tenant(ADMIN, TenantId("acme"))
    platform.registry.hand_over(ADMIN, DeviceId("meter"), TenantId("acme"))
    platform.rotation.tick(platform.road.now)
    assert not platform.secrets()[first], "it has another owner, to whom that key says nothing"
