"""Sealing and opening: whatever comes, either it is what was sealed, or it is refused by a code."""

import os
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st

from godwit.contract.cose import UP, Agreed, Session, Signer, about_message, is_sealed, open_message, seal
from godwit.contract.cose_headers import CONTENT_TYPE_SIGN1, put_together, take_apart
from godwit.contract.cose_keys import agree_public, key_id, kid, pem_of, signing_key, verifying_key
from godwit.contract.cose_sign import sign
from godwit.contract.errors import MalformedError, RejectedError

P256 = ec.SECP256R1()
SIGN = ec.generate_private_key(P256)
EDDSA = ed25519.Ed25519PrivateKey.generate()
OURS = ec.generate_private_key(P256)
ABOUT = about_message(UP, "d", "telemetry")
PAYLOAD = b'{"readings": {"temperature": 21.5}}'
KINDS = ("signed", "eddsa", "encrypted", "both")


class Ring:
    """Keys as the platform has them, for one device."""

    def __init__(self) -> None:
        self.known = {key_id(each.public_key()): each.public_key() for each in (SIGN, EDDSA)}
        self.agreed = Agreed(OURS)

    def verifying(self, kid: bytes) -> tuple[str, Any]:
        for name, key in self.known.items():
            if name.startswith(kid.hex()):
                return name, key
        raise RejectedError("no such key", code="key-unknown")

    def content_key(self, kid: bytes, fresh: object) -> tuple[str, bytes]:
        if not self.agreed.name.startswith(kid.hex()):
            raise RejectedError("no such key", code="key-unknown")
        return self.agreed.name, self.agreed.content_key(fresh)


def sealed(kind: str, payload: bytes = PAYLOAD, about: bytes = ABOUT, at: int | None = 1_700_000_000) -> bytes:
    key = {"signed": SIGN, "both": SIGN, "eddsa": EDDSA}.get(kind)
    session = Session(OURS.public_key(), ec.generate_private_key(P256)) if kind in ("encrypted", "both") else None
    signer = None if key is None else Signer(key)
    return seal(payload, about, signer=signer, session=session, nonce=lambda: os.urandom(12), at=at)


SEALED = {kind: sealed(kind) for kind in KINDS}


def refusal(message: bytes, about: bytes = ABOUT, content_type: str | None = None) -> str:
    with pytest.raises((MalformedError, RejectedError)) as caught:
        open_message(message, about, Ring(), content_type)
    return caught.value.code


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_sealed_is_opened(kind: str) -> None:
    opened = open_message(SEALED[kind], ABOUT, Ring())
    assert opened.payload == PAYLOAD
    assert opened.made == 1_700_000_000_000_000_000
    assert opened.signed_by == {"eddsa": key_id(EDDSA.public_key()), "encrypted": ""}.get(
        kind, key_id(SIGN.public_key())
    )
    assert opened.encrypted_to == (key_id(OURS.public_key()) if kind in ("encrypted", "both") else "")
    assert is_sealed(SEALED[kind], None)
    assert PAYLOAD not in SEALED[kind] or kind in ("signed", "eddsa")


@pytest.mark.parametrize("kind", KINDS)
def test_on_another_topic_it_is_refused(kind: str) -> None:
    expected = "signature-invalid" if kind in ("signed", "eddsa") else "message-undecryptable"
    others = (("up", "e", "telemetry"), ("up", "d", "events"), ("down", "d", "telemetry"))
    assert {refusal(SEALED[kind], about_message(*each)) for each in others} == {expected}


@pytest.mark.parametrize("kind", KINDS)
def test_altered_by_one_bit_anywhere_it_is_refused(kind: str) -> None:
    whole = SEALED[kind]
    for at in range(8 * len(whole)):
        altered = bytearray(whole)
        altered[at // 8] ^= 1 << at % 8
        refusal(bytes(altered))


@pytest.mark.parametrize("kind", KINDS)
def test_cut_or_followed_by_more_it_is_refused(kind: str) -> None:
    whole = SEALED[kind]
    assert {refusal(whole[:end]) for end in range(len(whole))} == {"malformed-cose"}
    assert refusal(whole + b"\0") == "malformed-cose"


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=300), st.sampled_from([None, CONTENT_TYPE_SIGN1, 'application/cose; cose-type="cose-encrypt"'])
)
@example(b"\xd2\x84\x40\xa0\x40\x40", None)
@example(b"\xd2\x84" + b"\x9b" + b"\xff" * 8, None)
def test_whatever_bytes_only_our_errors_come_out(payload: bytes, content_type: str | None) -> None:
    for start in (b"", b"\xd2\x84", b"\xd0\x83", b"\xd8\x60\x84"):
        with pytest.raises((MalformedError, RejectedError)):
            open_message(start + payload, ABOUT, Ring(), content_type)


labels = st.integers(-70_000, 20) | st.text(max_size=3) | st.booleans() | st.floats() | st.binary(max_size=3)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.binary(max_size=40)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(labels, inner, max_size=4),
    max_leaves=8,
)
near = st.fixed_dictionaries(
    {1: st.sampled_from([-7, -8, 3, 1, "ES256"]) | values},
    optional={
        2: values, 3: values, 4: st.just(kid(SIGN.public_key())) | st.just(kid(OURS.public_key())) | values,
        15: st.dictionaries(st.just(6), values) | values, -65_537: values,
        -1: values,
    },
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([16, 18, 96]), near | values, st.dictionaries(labels, values, max_size=3), values,
    st.lists(values, max_size=2),
)  # fmt: skip
def test_whatever_stands_in_the_headers_only_our_errors_come_out(
    tag: int, headers: Any, unprotected: Any, body: Any, rest: Any
) -> None:
    try:
        protected = cbor2.dumps(headers)
        message = cbor2.dumps(cbor2.CBORTag(tag, [protected, unprotected, body, *rest]))
    except (ValueError, TypeError, cbor2.CBOREncodeError):
        return
    with pytest.raises((MalformedError, RejectedError)):
        open_message(message, ABOUT, Ring())


# ------------------------------------------------------------------ what attackers try with headers


def signed_with(headers: dict[Any, Any], unprotected: dict[Any, Any] | None = None, key: Any = SIGN) -> bytes:
    """Return a message whose signature is right, whatever its headers are."""
    protected = cbor2.dumps(headers)
    to_sign = cbor2.dumps(["Signature1", protected, ABOUT, PAYLOAD])
    r, s = decode_dss_signature(key.sign(to_sign, ec.ECDSA(SHA256())))
    return put_together(18, protected, unprotected or {}, PAYLOAD, r.to_bytes(32, "big") + s.to_bytes(32, "big"))


NAME = kid(SIGN.public_key())


def test_headers_that_are_right_by_hand_too() -> None:
    assert open_message(signed_with({1: -7, 4: NAME}), ABOUT, Ring()).payload == PAYLOAD
    assert open_message(signed_with({1: -7}, {4: NAME}), ABOUT, Ring()).payload == PAYLOAD
    critical = signed_with({1: -7, 4: NAME, 15: {6: 1_700_000_000}, 2: [15]})
    assert open_message(critical, ABOUT, Ring()).made == 1_700_000_000_000_000_000


@pytest.mark.parametrize(
    ("headers", "unprotected", "code"),
    [
        ({4: NAME}, {}, "algorithm-refused"),  # none
        ({4: NAME}, {1: -7}, "malformed-cose"),  # not protected
        ({1: -7, 4: NAME}, {1: -7}, "malformed-cose"),  # twice
        ({1: -8, 4: NAME}, {}, "algorithm-refused"),  # of another kind of key
        ({1: 5, 4: NAME}, {}, "algorithm-refused"),  # HMAC with the public key as secret
        ({1: "ES256", 4: NAME}, {}, "algorithm-refused"),
        ({1: -7.0, 4: NAME}, {}, "algorithm-refused"),
        ({1: -7, 4: NAME, 2: [99], 99: 1}, {}, "malformed-cose"),  # critical and not understood
        ({1: -7, 4: NAME, 2: []}, {}, "malformed-cose"),
        ({1: -7, 4: NAME, 2: [15]}, {}, "malformed-cose"),  # critical and not there
        ({1: -7, 4: NAME}, {2: [4]}, "malformed-cose"),
        ({1: -7, 4: NAME}, {99: 1}, "malformed-cose"),  # anybody could have put it there
        ({1: -7, 4: NAME}, {15: {6: 1}}, "malformed-cose"),  # a time that nobody signed
        ({1: -7}, {}, "key-unknown"),
        ({1: -7, 4: NAME[:7]}, {}, "key-unknown"),
        ({1: -7, 4: b"\0" * 8}, {}, "key-unknown"),
        ({1: -7, 4: kid(EDDSA.public_key())}, {}, "algorithm-refused"),
        ({1: -7, 4: NAME, 15: {6: "today"}}, {}, "malformed-cose"),
        ({1: -7, 4: NAME, 3: 9_999}, {}, "unknown-content-type"),
    ],
)
def test_headers_that_are_refused(headers: Any, unprotected: Any, code: str) -> None:
    assert refusal(signed_with(headers, unprotected)) == code


def test_a_signature_by_another_key_under_the_name_of_the_right_one_is_refused() -> None:
    assert refusal(signed_with({1: -7, 4: NAME}, key=ec.generate_private_key(P256))) == "signature-invalid"


def test_the_other_half_of_an_ecdsa_signature_has_the_same_mark() -> None:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    whole = sealed("signed")
    twin = whole[:-32] + (order - int.from_bytes(whole[-32:], "big")).to_bytes(32, "big")
    assert twin != whole
    assert open_message(twin, ABOUT, Ring()).mark == open_message(whole, ABOUT, Ring()).mark
    assert open_message(sealed("signed"), ABOUT, Ring()).mark != open_message(whole, ABOUT, Ring()).mark


def test_a_signature_does_not_pass_for_one_from_inside_and_encryption_is_not_nested_twice() -> None:
    session = Session(OURS.public_key(), ec.generate_private_key(P256))
    twice = session.encrypt(SEALED["encrypted"], os.urandom(12), ABOUT)
    assert refusal(twice) == "malformed-cose"
    other = sign(PAYLOAD, Signer(SIGN), about_message(UP, "e", "telemetry"))  # another device's, in a new envelope
    assert (
        refusal(session.encrypt(other, os.urandom(12), ABOUT, content_type=CONTENT_TYPE_SIGN1)) == "signature-invalid"
    )


def test_a_fresh_key_that_is_no_point_is_refused() -> None:
    point = {1: 2, -1: 1, -2: b"\1" * 32, -3: b"\1" * 32}
    protected = cbor2.dumps({1: 3, 4: kid(OURS.public_key()), -65_537: point})
    assert refusal(put_together(16, protected, {5: bytes(12)}, bytes(32))) == "malformed-cose"


def test_keys_that_are_not_fit() -> None:
    for key in (rsa.generate_private_key(65_537, 2_048), ec.generate_private_key(ec.SECP384R1())):
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for read, pem in ((verifying_key, public), (agree_public, public), (signing_key, private)):
            with pytest.raises(RejectedError) as caught:
                read(pem)
            assert caught.value.code == "key-unfit"
    for pem in ("", "rubbish", pem_of(SIGN.public_key())[:60], "-" * 10_000):
        with pytest.raises(RejectedError):
            verifying_key(pem)


def test_agreeing_is_done_once_for_a_session_and_nobody_can_fill_the_memory() -> None:
    agreed = Agreed(OURS)
    ring = Ring()
    ring.agreed = agreed
    session = Session(OURS.public_key(), ec.generate_private_key(P256))
    for _ in range(10):
        open_message(session.encrypt(PAYLOAD, os.urandom(12), ABOUT), ABOUT, ring)
    assert len(agreed._known) == 1
    for _ in range(10):
        open_message(sealed("encrypted"), ABOUT, ring)
    assert len(agreed._known) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_protected_headers_are_deterministic_cbor(kind: str) -> None:
    protected = take_apart(SEALED[kind]).protected
    assert cbor2.dumps(cbor2.loads(protected), canonical=True) == protected
