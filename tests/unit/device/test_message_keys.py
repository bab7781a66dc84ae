"""Do a device's message keys go with its identity, and does nothing leave before both sides know each other's?"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from stage import DEVICE, NOTICES, RENEW, Stage, staged, until

from godwit.contract import codes
from godwit.contract.cose import DOWN, UP, Agreed, Session, Signer, about_message, is_sealed, open_message, seal
from godwit.contract.cose_keys import VerifyingKey, key_id, pem_of, verifying_key
from godwit.contract.enrollment import EnrollmentGrant, EnrollmentRequest
from godwit.contract.errors import RejectedError
from godwit.contract.notices import (
    MESSAGE_KEYS,
    NewMessageKeys,
    RenewalWanted,
    encode_new_message_keys,
    encode_renewal_wanted,
)
from godwit.contract.payloads import unpacked
from godwit.contract.topics import Channel
from godwit.device import Device
from godwit.device.identity import Identity
from godwit.device.identity_file import State
from godwit.device.message_keys import MessageKeys, Protection, digest, ids_of
from godwit.device.sealing import Sealing
from godwit.runtime.clock import VirtualClock


class Platform:
    """The other end: its keys of messages, and what it was told of the device's."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.agree, self.sign = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self.retired: set[str] = set()
        self.known: list[EnrollmentRequest] = []
        self.has_overlap = False
        self.on_known: Callable[[], None] = lambda: None
        stage.platform.answer = self.grant

    def grant(self, asked: EnrollmentRequest) -> EnrollmentGrant:
        if asked.sign_key in self.retired:
            return EnrollmentGrant(asked.device_id, code=codes.KEY_RETIRED, message="make a new one")
        self.known.append(asked)
        self.on_known()
        keys = {"agree_key": pem_of(self.agree.public_key()), "sign_key": pem_of(self.sign.public_key())}
        return msgspec.structs.replace(self.stage.grant(asked), **keys)

    def verifying(self, kid: bytes) -> tuple[str, VerifyingKey]:
        told = self.known if self.has_overlap else self.known[-1:]
        found = [verifying_key(each.sign_key) for each in told if each.sign_key is not None]
        named = [each for each in found if key_id(each).startswith(kid.hex())]
        assert named, "signed by the key that was told last"
        return key_id(named[0]), named[0]

    def content_key(self, kid: bytes, fresh: object) -> tuple[str, bytes]:
        own = Agreed(self.agree)
        assert own.name.startswith(kid.hex())
        return own.name, own.content_key(fresh)

    def opened(self, payload: bytes) -> bytes:
        return open_message(payload, about_message(UP, DEVICE, "telemetry"), self, None).payload

    @property
    def sealed(self) -> list[bytes]:
        return [each for each in self.stage.platform.payloads if is_sealed(each, None)]

    @property
    def plain(self) -> list[bytes]:
        return [each for each in self.stage.platform.payloads if not is_sealed(each, None) and each[:1] != b"{"]


def test_keys_come_with_the_identity_and_stay(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        platform = Platform(stage)
        async with stage.device(sealing="encrypt") as device:
            await device.send(n=1, wait="stored")
            (first,) = platform.sealed
            assert b'"n"' in platform.opened(first) or b"n" in unpacked(platform.opened(first), None)
            stage.platform.publish(NOTICES, RENEW)
            await until(lambda: len(stage.certificates) == 2 and device.is_settled)
            await device.send(n=2, wait="stored")
        async with stage.device(sealing="sign", claim=None) as device:
            await device.send(n=3, wait="stored")
        assert not platform.plain
        assert len({each.sign_key for each in platform.known}) == 1
        assert len({each.agree_key for each in platform.known}) == 1
        assert len(platform.known) == 2, "what is known is not told again"
        files = list((tmp_path / "identity" / "messages").iterdir())
        assert [each.stat().st_mode & 0o777 for each in files] == [0o600, 0o600]
        assert (tmp_path / "identity" / "messages").stat().st_mode & 0o777 == 0o700

    staged(tmp_path, play)


@pytest.mark.parametrize("state", [State.SETTLED, State.RENEWED])
def test_who_has_a_certificate_tells_its_keys_before_anything_else(tmp_path: Path, state: State) -> None:
    async def play(stage: Stage) -> None:
        platform = Platform(stage)
        async with stage.device() as device:
            await until(lambda: device.is_settled)
        if state is State.RENEWED:
            identity = Identity(tmp_path / "identity", DEVICE)
            asked = identity.ask()
            from godwit.device.enrollment import read_grant  # noqa: PLC0415

            grant = platform.grant(EnrollmentRequest(DEVICE, asked.request))
            identity.take(read_grant(grant, DEVICE, identity.key(asked).public_key()))
            identity.close()
        async with stage.device(claim=None, sealing="encrypt") as device:
            await device.send(n=1, wait="stored")
            await until(lambda: device.is_settled)
        assert not platform.plain
        assert len(platform.sealed) == 1
        assert platform.known[-1].sign_key

    staged(tmp_path, play)


def test_a_key_that_the_platform_does_not_take_any_more_is_replaced(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        platform = Platform(stage)
        async with stage.device(sealing="sign") as device:
            await device.send(n=1, wait="stored")
            old = platform.known[-1].sign_key
            assert old is not None
            platform.retired.add(old)
            stage.platform.publish(NOTICES, RENEW)
            await until(lambda: "renewal" in device.errors)
            assert device.errors["renewal"].message == "key-retired: make a new one"
            async with asyncio.timeout(20):  # the wait after another refusal is longer
                await until(lambda: len(platform.known) == 2 and device.is_settled and len(stage.certificates) == 2)
            await device.send(n=2, wait="stored")
            assert platform.known[-1].sign_key != old
            platform.opened(platform.sealed[-1])

    staged(tmp_path, play)


@pytest.mark.parametrize("way", ["grant", "notice"])
def test_another_key_of_the_platform_is_followed_and_kept(tmp_path: Path, way: str) -> None:
    async def play(stage: Stage) -> None:
        platform = Platform(stage)
        async with stage.device(sealing="encrypt") as device:
            await device.send(n=1, wait="stored")
            platform.agree, signed_by = ec.generate_private_key(ec.SECP256R1()), platform.sign
            if way == "grant":
                stage.platform.publish(NOTICES, RENEW)
                await until(lambda: len(stage.certificates) == 2 and device.is_settled)
            else:
                new = NewMessageKeys(pem_of(platform.agree.public_key()), pem_of(signed_by.public_key()), 1 << 62)
                about = about_message(DOWN, DEVICE, "notices")
                said = seal(encode_new_message_keys(new), about, signer=Signer(signed_by), nonce=lambda: b"")
                stage.platform.publish(NOTICES, said)
                identity = device._identity
                assert identity is not None
                await until(lambda: identity.kept.platform == new)
            await device.send(n=2, wait="stored")
            platform.opened(platform.sealed[-1])
        async with stage.device(sealing="encrypt", claim=None) as device:
            await device.send(n=3, wait="stored")
            platform.opened(platform.sealed[-1])

    staged(tmp_path, play)


def test_keys_rotate_by_themselves_and_what_was_under_way_can_be_opened(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        platform = Platform(stage)
        platform.has_overlap = True
        days = 1.5 / 86_400
        async with stage.device(sealing="encrypt", message_key_days=days) as device:

            def leave_the_third() -> None:  # however long it takes to look at them
                if len(platform.known) == 3:
                    assert device._message_keys is not None
                    device._message_keys._period_s = 0.0

            platform.on_known, number = leave_the_third, 0
            while len(platform.known) < 3:
                await device.send(n=number, wait="stored")
                platform.opened(platform.sealed[-1])
                number += 1
                await asyncio.sleep(0.05)
            await until(lambda: device.is_settled and len(stage.certificates) == 3)
            identity = device._identity
            assert identity is not None
            past = identity.kept.message_keys_past
            assert past is not None
            assert device._sealing is not None
            for name in (past.agree, identity.message_keys().agree):
                session = Session(identity.message_key(name).public_key(), ec.generate_private_key(ec.SECP256R1()))
                about = about_message(DOWN, DEVICE, "notices")
                said = seal(b"late", about, signer=Signer(platform.sign), session=session, nonce=lambda: bytes(12))
                assert device._sealing.open(DEVICE, Channel.NOTICES, said).payload == b"late"
        assert len({each.sign_key for each in platform.known}) == len({each.agree_key for each in platform.known}) == 3
        assert len(list((tmp_path / "identity" / "messages").iterdir())) == 4, "in use, and those before"
        assert not platform.plain
        told, platform.has_overlap = len(platform.known), False
        async with stage.device(sealing="encrypt", claim=None) as device:  # 60 days are not over
            await device.send(n=-1, wait="stored")
            platform.opened(platform.sealed[-1])
        assert len(platform.known) == told

    staged(tmp_path, play)


def test_a_wish_of_the_platform_rotates_and_nothing_is_told_twice(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        platform = Platform(stage)
        async with stage.device(sealing="sign", message_key_days=0) as device:
            await device.send(n=1, wait="stored")
            stage.platform.publish(NOTICES, encode_renewal_wanted(RenewalWanted(MESSAGE_KEYS)))
            await until(lambda: len(stage.certificates) == 2 and device.is_settled)
            stage.platform.publish(NOTICES, RENEW)
            await until(lambda: len(stage.certificates) == 3 and device.is_settled)
            await device.send(n=2, wait="stored")
            platform.opened(platform.sealed[-1])
        assert [each.sign_key for each in platform.known[1:]] == [platform.known[-1].sign_key] * 2
        assert platform.known[0].sign_key != platform.known[1].sign_key

    staged(tmp_path, play)


def test_an_answer_that_comes_late_is_taken_for_the_keys_that_it_names(tmp_path: Path) -> None:
    """To the first request nobody answered; the second carries other keys; then the answer to the first one comes."""
    identity = Identity(tmp_path / "identity", DEVICE)
    reports: list[str] = []
    keys = MessageKeys(identity, Protection.SIGN, VirtualClock(), lambda code, _: reports.append(code))
    first = keys.publics(0.0)
    keys.renew()
    second = keys.publics(0.0)
    assert first != second == keys.publics(0.0)
    assert keys.taken(second, tuple(ids_of(first))) == (digest(first), False)
    assert keys.taken(second, tuple(ids_of(second))) == (digest(second), True)
    assert keys.taken(second, ()) == (digest(second), True), (
        "a platform that does not say so has taken what it was told"
    )
    assert keys.taken(second, ("0" * 64,)) == ("", False), "what nobody made here is not ours"
    identity.close()


def test_a_disk_that_is_full_keeps_no_certificate_from_being_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = Identity(tmp_path / "identity", DEVICE)
    reports: list[str] = []
    keys = MessageKeys(identity, Protection.SIGN, VirtualClock(), lambda code, _: reports.append(code))
    known = keys.publics(0.0)
    keys.renew()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("godwit.device.keys.write_whole", full)
        assert keys.publics(0.0) == known
    assert reports == ["identity"]
    assert keys.publics(0.0) != known
    identity.close()


def test_keys_of_the_application_are_told_too(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        platform = Platform(stage)
        key = ec.generate_private_key(ec.SECP256R1())
        kept: list[NewMessageKeys] = []
        async with stage.device(sealing=Sealing(sign_key=key, on_keys=kept.append)) as device:
            await device.send(n=1, wait="stored")
        assert (platform.known[-1].sign_key, platform.known[-1].agree_key) == (pem_of(key.public_key()), None)
        platform.opened(platform.sealed[-1])
        assert [each.agree_key for each in kept] == [pem_of(platform.agree.public_key())]

    staged(tmp_path, play)


def test_without_the_platforms_keys_nothing_leaves(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        async with stage.device(sealing="encrypt") as device:
            await device.send(n=1)
            await until(lambda: device.is_stuck)
            assert "gave no keys for messages" in device.trouble
            assert device.depth.items == 1
        assert not stage.platform.payloads

    staged(tmp_path, play)


def test_keys_that_are_made_here_need_an_identity() -> None:
    wrong: dict[str, Any] = {"sealing": "sign"}
    with pytest.raises(RejectedError, match="kept with an identity"):
        Device(DEVICE, **wrong)
    with pytest.raises(ValueError, match="both"):
        Device(DEVICE, identity=True, **(wrong | {"sealing": "both"}))
