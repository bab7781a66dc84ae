"""The COSE working group's vectors, the failing ones too (cose_vectors.json says where they are from)."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519

from godwit.contract.cose_encrypt import (
    KEY_BITS,
    agree,
    decrypt,
    fresh_key_of,
    kdf_context,
    public_of,
    to_be_bound,
)
from godwit.contract.cose_headers import ALG, Kind, take_apart
from godwit.contract.cose_keys import pem_of, verifying_key
from godwit.contract.cose_sign import to_be_signed, verify
from godwit.contract.errors import MalformedError, RejectedError

VECTORS: dict[str, dict[str, Any]] = {
    each["name"].rpartition("/")[2]: each
    for each in json.loads((Path(__file__).parent / "cose_vectors.json").read_text())["vectors"]
}
CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
ALL = frozenset(KEY_BITS)


def private_of(key: dict[str, str]) -> Any:
    if key["crv"] == "Ed25519":
        return ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key["d"]))
    if key["crv"] == "Ed448":
        return ed448.Ed448PrivateKey.from_private_bytes(bytes.fromhex(key["d"]))
    return ec.derive_private_key(int(key["d"], 16), CURVES[key["crv"]])


def opened(name: str, kind: Kind | None = None) -> bytes:
    """Open a vector as a receiver does that has its key, and checks nothing but the message."""
    vector = VECTORS[name]
    parts = take_apart(bytes.fromhex(vector["message"]), kind)
    external = bytes.fromhex(vector["external"])
    if vector["kind"] == "sign0":
        key = verifying_key(pem_of(private_of(vector["key"]).public_key()))
        assert parts.kind is Kind.SIGN1
        verify(parts, key, external)
        if "toBeSigned" in vector and not vector["fail"]:
            assert to_be_signed(parts.protected, external, parts.body).hex() == vector["toBeSigned"]
        return parts.body
    if vector["kind"] == "encrypted":
        content_key = bytes.fromhex(vector["key"]["k"])
    else:
        _, fresh = _fresh(parts)
        content_key = agree(private_of(vector["key"]), public_of(fresh), parts.headers[ALG])
        assert content_key.hex() == vector["contentKey"]
        assert kdf_context(parts.headers[ALG]).hex() == vector["context"]
    if not vector["fail"]:
        assert to_be_bound(parts.kind, parts.protected, external).hex() == vector["aad"]
    return decrypt(parts, content_key, external, ALL)


def _fresh(parts: Any) -> tuple[bytes, object]:
    """Return the sender's fresh key. The vectors' key ids are names, not hashes; ours are put in their place."""
    protected, unprotected, rest = parts.rest[0]
    parts.rest[0] = [protected, {**unprotected, 4: b"8 bytes!"}, rest]
    return fresh_key_of(parts)


@pytest.mark.parametrize(
    "name",
    [
        "sign-pass-02", "ecdsa-sig-01", "eddsa-sig-01", "Appendix_C_2_1",
        "aes-gcm-enc-01", "aes-gcm-enc-02", "aes-gcm-enc-03", "enc-pass-02",
        "p256-hkdf-256-01", "p256-hkdf-256-02", "Appendix_C_3_1",
    ],
)  # fmt: skip
def test_good_messages_are_opened(name: str) -> None:
    assert opened(name) == VECTORS[name]["payload"].encode()


def test_one_without_a_tag_is_opened_where_the_content_type_says_what_it_is() -> None:
    assert opened("sign-pass-03", Kind.SIGN1) == VECTORS["sign-pass-03"]["payload"].encode()
    with pytest.raises(MalformedError, match="tag") as caught:
        opened("sign-pass-03")
    assert caught.value.code == "malformed-cose"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("sign-fail-01", "malformed-cose"),  # another tag
        ("sign-fail-02", "signature-invalid"),
        ("sign-fail-03", "algorithm-refused"),  # -999
        ("sign-fail-04", "algorithm-refused"),  # "unknown"
        ("sign-fail-06", "signature-invalid"),  # a protected header more
        ("sign-fail-07", "signature-invalid"),  # one less
        ("aes-gcm-enc-04", "message-undecryptable"),
        ("enc-fail-01", "malformed-cose"),
        ("enc-fail-02", "message-undecryptable"),
        ("enc-fail-03", "algorithm-refused"),
        ("enc-fail-04", "algorithm-refused"),
        ("enc-fail-06", "message-undecryptable"),
        ("enc-fail-07", "message-undecryptable"),
    ],
)
def test_bad_messages_are_refused(name: str, code: str) -> None:
    assert VECTORS[name]["fail"]
    with pytest.raises((MalformedError, RejectedError)) as caught:
        opened(name)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("sign-pass-01", "malformed-cose"),  # its algorithm is not protected
        ("enc-pass-01", "malformed-cose"),
        ("enc-pass-03", "malformed-cose"),
        ("ecdsa-sig-02", "key-unfit"),  # P-384
        ("ecdsa-sig-03", "key-unfit"),  # P-521
        ("ecdsa-sig-04", "algorithm-refused"),  # ES512 with a key of P-256
        ("eddsa-sig-02", "key-unfit"),  # Ed448
        ("p256-ss-hkdf-256-02", "algorithm-refused"),  # static keys on both sides, and a party named
        ("p256-hkdf-512-02", "algorithm-refused"),  # HKDF-SHA-512
        ("p521-hkdf-256-02", "malformed-cose"),
    ],
)
def test_what_the_rfc_permits_and_we_do_not_read_is_refused(name: str, code: str) -> None:
    assert not VECTORS[name]["fail"]
    with pytest.raises((MalformedError, RejectedError)) as caught:
        opened(name)
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["aes-gcm-enc-01", "aes-gcm-enc-02"])
def test_shorter_keys_are_not_taken_unless_asked_for(name: str) -> None:
    parts = take_apart(bytes.fromhex(VECTORS[name]["message"]))
    with pytest.raises(RejectedError, match="A256GCM") as caught:
        decrypt(parts, bytes.fromhex(VECTORS[name]["key"]["k"]), b"")
    assert caught.value.code == "algorithm-refused"
