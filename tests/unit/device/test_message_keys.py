"""Do a device's message keys go with its identity, and does nothing leave before both sides know each other's?"""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from stage import DEVICE, NOTICES, RENEW, Stage, staged, until

from godwit.contract import codes
from godwit.contract.cose import DOWN, UP, Agreed, Signer, about_message, is_sealed, open_message, seal
from godwit.contract.cose_keys import VerifyingKey, key_id, pem_of, verifying_key
from godwit.contract.enrollment import EnrollmentGrant, EnrollmentRequest
from godwit.contract.errors import RejectedError
from godwit.contract.notices import NewMessageKeys, encode_new_message_keys
from godwit.contract.payloads import unpacked
from godwit.device import Device
from godwit.device.identity import Identity, State
from godwit.device.sealing import Sealing


class Platform:
    """The other end: its keys of messages, and what it was told of the device's."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.agree, self.sign = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self.retired: set[str] = set()
        self.known: list[EnrollmentRequest] = []
        stage.platform.answer = self.grant

    def grant(self, asked: EnrollmentRequest) -> EnrollmentGrant:
        if asked.sign_key in self.retired:
            return EnrollmentGrant(asked.device_id, code=codes.KEY_RETIRED, message="make a new one")
        self.known.append(asked)
        keys = {"agree_key": pem_of(self.agree.public_key()), "sign_key": pem_of(self.sign.public_key())}
        return msgspec.structs.replace(self.stage.grant(asked), **keys)

    def verifying(self, kid: bytes) -> tuple[str, VerifyingKey]:
        key = self.known[-1].sign_key
        assert key is not None
        found = verifying_key(key)
        assert key_id(found).startswith(kid.hex()), "signed by the key that was told last"
        return key_id(found), found

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
            stage.platform.publish(NOTICES, RENEW)
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
