"""The device's half of messages end to end: whom it believes, and that no key or nonce is used twice."""

import os
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from godwit.contract.cose import DOWN, Signer, about_message, seal
from godwit.contract.cose_headers import CWT_CLAIMS, EPHEMERAL, IV, take_apart
from godwit.contract.cose_keys import pem_of
from godwit.contract.errors import MalformedError, RejectedError
from godwit.contract.notices import NewMessageKeys, encode_new_message_keys
from godwit.contract.topics import Channel
from godwit.device import sealing
from godwit.device.sealing import Sealing

P256 = ec.SECP256R1()
OURS, OUR_SIGN = ec.generate_private_key(P256), ec.generate_private_key(P256)
NOTICES = about_message(DOWN, "d", "notices")


class Clock:
    def __init__(self, now: int = 1_800_000_000_000_000_000) -> None:
        self.now = now

    def now_ns(self) -> int:
        return self.now

    def monotonic_s(self) -> float:
        return self.now / 1e9


def device(**more: Any) -> Sealing:
    given = {
        "sign_key": ec.generate_private_key(P256),
        "platform_agree_key": pem_of(OURS.public_key()),
        "platform_sign_key": pem_of(OUR_SIGN.public_key()),
        "clock": Clock(),
    }
    return Sealing(**{**given, **more})


def fresh_of(message: bytes) -> bytes:
    return cbor2.dumps(take_apart(message).headers[EPHEMERAL])


def announced(since: int, *, key: Any = OUR_SIGN, to: str = "d") -> tuple[bytes, NewMessageKeys]:
    keys = [pem_of(ec.generate_private_key(P256).public_key()) for _ in range(2)]
    new = NewMessageKeys(keys[0], keys[1], since)
    said = encode_new_message_keys(new)
    return seal(said, about_message(DOWN, to, "notices"), signer=Signer(key), nonce=lambda: b""), new


def test_each_run_of_the_program_has_a_key_of_its_own_and_each_message_a_nonce() -> None:
    runs = [device(sign_key=None) for _ in range(5)]
    sent = [[run.seal("d", Channel.TELEMETRY, b"{}") for _ in range(20)] for run in runs]
    assert [len({fresh_of(each) for each in run}) for run in sent] == [1] * 5
    assert len({fresh_of(run[0]) for run in sent}) == 5
    assert len({take_apart(each).unprotected[IV] for run in sent for each in run}) == 100


def test_a_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MESSAGES_MAX", 3)
    one = device()
    sent = [fresh_of(one.seal("d", Channel.TELEMETRY, b"{}")) for _ in range(7)]
    assert [sent.count(each) for each in dict.fromkeys(sent)] == [3, 3, 1]


def test_a_clock_that_cannot_be_believed_says_no_time() -> None:
    for now, says in ((5_000_000_000, False), (1_800_000_000_000_000_000, True)):
        message = device(platform_agree_key=None, clock=Clock(now)).seal("d", Channel.TELEMETRY, b"{}")
        assert (CWT_CLAIMS in take_apart(message).headers) is says


def test_new_keys_of_the_platform_are_taken_once_and_never_back() -> None:
    heard: list[NewMessageKeys] = []
    one = device(since=100, on_keys=heard.append)
    before = fresh_of(one.seal("d", Channel.TELEMETRY, b"{}"))
    old, _ = announced(100)
    new, told = announced(200)
    one.notice("d", old)
    assert heard == []
    for _ in range(2):
        one.notice("d", new)
    assert heard == [told]
    assert fresh_of(one.seal("d", Channel.TELEMETRY, b"{}")) != before
    older, _ = announced(150)
    one.notice("d", older)
    assert heard == [told]


def test_keys_that_the_platform_has_not_signed_for_this_device_change_nothing() -> None:
    heard: list[NewMessageKeys] = []
    one = device(on_keys=heard.append)
    others, _ = announced(200, key=ec.generate_private_key(P256))
    anothers, new = announced(200, to="e")
    for payload in (others, anothers, b"\xd2\x84rubbish"):
        with pytest.raises((RejectedError, MalformedError)):
            one.notice("d", payload)
    assert one.notice("d", encode_new_message_keys(new)).code == "message-keys"  # plain: heard, not believed
    assert heard == []


def test_what_is_only_encrypted_is_not_the_platforms() -> None:
    own = ec.generate_private_key(P256)
    one = device(agree_key=own)
    other = Sealing(platform_agree_key=pem_of(own.public_key()), clock=Clock())
    session = other._session_now()
    with pytest.raises(RejectedError) as caught:
        one.open("d", Channel.NOTICES, seal(b"{}", NOTICES, session=session, nonce=lambda: os.urandom(12)))
    assert caught.value.code == "signature-required"
