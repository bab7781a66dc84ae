"""Keys of messages: ES256 and EdDSA to sign, P-256 to agree; their ids, and their way in and out of PEM. Pure."""

from hashlib import sha256
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from godwit.contract import codes
from godwit.contract.errors import RejectedError

SigningKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
VerifyingKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
AgreeKey = ec.EllipticCurvePrivateKey
AgreePublic = ec.EllipticCurvePublicKey
KID_BYTES: Final = 8
"""So much of a key's id stands in a message: it finds the key, and proves nothing."""
PEM_BYTES_MAX: Final = 4_096


def key_id(public: VerifyingKey) -> str:
    """Return the id of a public key: SHA-256 of its SubjectPublicKeyInfo, lower-case hexadecimal."""
    return sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def kid(public: VerifyingKey) -> bytes:
    """Return what a message says to name the key."""
    return bytes.fromhex(key_id(public))[:KID_BYTES]


def pem_of(public: VerifyingKey) -> str:
    """Return a public key as PEM."""
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def verifying_key(pem: str | bytes) -> VerifyingKey:
    """Return a key to verify with. Raises RejectedError (`key-unfit`) unless it is P-256 or Ed25519."""
    found = _public(pem)
    if isinstance(found, ed25519.Ed25519PublicKey) or _is_p256(found):
        return found  # type: ignore[return-value]  # as was just seen
    raise RejectedError("a key for signatures is P-256 (ES256) or Ed25519 (EdDSA)", code=codes.KEY_UNFIT)


def agree_public(pem: str | bytes) -> AgreePublic:
    """Return a key to agree with. Raises RejectedError (`key-unfit`) unless it is P-256."""
    found = _public(pem)
    if isinstance(found, ec.EllipticCurvePublicKey) and _is_p256(found):
        return found
    raise RejectedError("a key for key agreement is P-256", code=codes.KEY_UNFIT)


def signing_key(given: SigningKey | str | bytes) -> SigningKey:
    """Return a private key to sign with, from PEM or as it is. Raises RejectedError (`key-unfit`)."""
    found = _private(given) if isinstance(given, str | bytes) else given
    if isinstance(found, ed25519.Ed25519PrivateKey) or _is_p256(found):
        return found  # type: ignore[return-value]  # as was just seen
    raise RejectedError("a key for signatures is P-256 (ES256) or Ed25519 (EdDSA)", code=codes.KEY_UNFIT)


def agree_key(given: AgreeKey | str | bytes) -> AgreeKey:
    """Return a private key to agree with, from PEM or as it is. Raises RejectedError (`key-unfit`)."""
    found = _private(given) if isinstance(given, str | bytes) else given
    if isinstance(found, ec.EllipticCurvePrivateKey) and _is_p256(found):
        return found
    raise RejectedError("a key for key agreement is P-256", code=codes.KEY_UNFIT)


def _is_p256(key: object) -> bool:
    return isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey) and isinstance(
        key.curve, ec.SECP256R1
    )


def _public(pem: str | bytes) -> object:
    data = pem.encode() if isinstance(pem, str) else pem
    try:
        if len(data) > PEM_BYTES_MAX:
            raise ValueError("too long")
        return load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise RejectedError("no public key in PEM (SubjectPublicKeyInfo)", code=codes.KEY_UNFIT) from None


def _private(pem: str | bytes) -> object:
    try:
        return load_pem_private_key(pem.encode() if isinstance(pem, str) else pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise RejectedError("no private key in PEM (PKCS#8, not encrypted)", code=codes.KEY_UNFIT) from None
