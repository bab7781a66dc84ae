"""Messages by another COSE library (pycose), opened by ours, and the other way round."""

import os
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from godwit.contract.cose import UP, Agreed, Session, about_message, open_message, seal
from godwit.contract.cose_encrypt import agree
from godwit.contract.cose_headers import EPHEMERAL
from godwit.contract.cose_keys import kid

pytest.importorskip("pycose", reason="pycose, another COSE library, is not installed")

from pycose.algorithms import A256GCM, EcdhEsHKDF256, EdDSA, Es256
from pycose.headers import IV, KID, Algorithm, EphemeralKey, StaticKey
from pycose.keys import EC2Key, OKPKey, SymmetricKey
from pycose.messages import Enc0Message, EncMessage, Sign1Message
from pycose.messages.context import CoseKDFContext, PartyInfo, SuppPubInfo
from pycose.messages.recipient import DirectKeyAgreement

P256 = ec.SECP256R1()
SIGN, EDDSA, OURS = ec.generate_private_key(P256), ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(P256)
ABOUT = about_message(UP, "d", "telemetry")
PAYLOAD = b'{"readings": {"temperature": 21.5}}'


class Ring:
    agreed = Agreed(OURS)

    def verifying(self, name: bytes) -> Any:
        return next(each.public_key() for each in (SIGN, EDDSA) if kid(each.public_key()) == name)

    def content_key(self, name: bytes, fresh: object) -> tuple[str, bytes]:
        assert name == kid(OURS.public_key())
        return self.agreed.name, self.agreed.content_key(fresh)


def theirs(key: Any, *, is_private: bool = True) -> Any:
    """Return a key as theirs."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        return OKPKey(crv="ED25519", x=key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw), d=raw)
    numbers = key.private_numbers()
    public = {name: getattr(numbers.public_numbers, name).to_bytes(32, "big") for name in ("x", "y")}
    secret = {"d": numbers.private_value.to_bytes(32, "big")} if is_private else {}
    return EC2Key(crv="P_256", **public, **secret)


def parts_of(whole: bytes, tag: int) -> list[Any]:
    """Return what stands behind a tag, as a list: their decoder does not get on with the tuples of cbor2 6."""
    assert cbor2.loads(whole).tag == tag
    protected, unprotected, *rest = cbor2.loads(whole).value
    return [protected, dict(unprotected), *rest]


@pytest.mark.parametrize(("key", "algorithm"), [(SIGN, Es256), (EDDSA, EdDSA)])
def test_they_sign_and_we_verify(key: Any, algorithm: Any) -> None:
    message = Sign1Message({Algorithm: algorithm, KID: kid(key.public_key())}, {}, PAYLOAD, ABOUT)
    message.key = theirs(key)
    assert open_message(message.encode(), ABOUT, Ring()).payload == PAYLOAD


@pytest.mark.parametrize("key", [SIGN, EDDSA])
def test_we_sign_and_they_verify(key: Any) -> None:
    whole = seal(PAYLOAD, ABOUT, sign_key=key, nonce=lambda: b"", at=1_700_000_000)
    message = Sign1Message.from_cose_obj(parts_of(whole, 18), allow_unknown_attributes=True)
    message.key, message.external_aad = theirs(key), ABOUT
    assert message.verify_signature()
    assert message.payload == PAYLOAD
    message.external_aad = about_message(UP, "e", "telemetry")
    assert not message.verify_signature()


def test_they_agree_on_a_key_and_encrypt_and_we_decrypt() -> None:
    fresh = ec.generate_private_key(P256)
    headers = {KID: kid(OURS.public_key()), EphemeralKey: theirs(fresh, is_private=False)}
    recipient = DirectKeyAgreement({Algorithm: EcdhEsHKDF256}, headers)
    recipient.key = theirs(fresh)
    recipient.local_attrs = {StaticKey: theirs(OURS, is_private=False)}
    public = SuppPubInfo(32, {Algorithm: EcdhEsHKDF256})
    recipient.context = CoseKDFContext(A256GCM, public, PartyInfo(), PartyInfo())
    message = EncMessage({Algorithm: A256GCM}, {IV: os.urandom(12)}, PAYLOAD, ABOUT, recipients=[recipient])
    opened = open_message(message.encode(), ABOUT, Ring())
    assert (opened.payload, opened.encrypted_to) == (PAYLOAD, Ring.agreed.name)


def test_we_encrypt_and_they_decrypt() -> None:
    fresh = ec.generate_private_key(P256)
    whole = seal(PAYLOAD, ABOUT, session=Session(OURS.public_key(), fresh), nonce=lambda: os.urandom(12))
    message = Enc0Message.from_cose_obj(parts_of(whole, 16), allow_unknown_attributes=True)
    assert any(getattr(label, "identifier", label) == EPHEMERAL for label in message.phdr)
    message.key, message.external_aad = SymmetricKey(k=agree(OURS, fresh.public_key())), ABOUT
    assert message.decrypt() == PAYLOAD
