"""COSE_Sign1 (RFC 9052, 4.2): one signature, ES256 or EdDSA (RFC 9053, 2). The key says which: a header that says
another one is refused, so that no message chooses how it is judged.
"""  # noqa: D205 - one thought

from typing import Final

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from godwit.contract import codes
from godwit.contract.cose_headers import (
    ALG,
    CONTENT_TYPE,
    CWT_CLAIMS,
    ISSUED_AT,
    KID,
    Kind,
    Parts,
    encode_headers,
    put_together,
)
from godwit.contract.cose_keys import SigningKey, VerifyingKey, kid
from godwit.contract.errors import MalformedError, RejectedError

ES256: Final = -7
EDDSA: Final = -8
_ECDSA: Final = ec.ECDSA(SHA256())
_HALF: Final = 32


def to_be_signed(protected: bytes, external: bytes, payload: bytes) -> bytes:
    """Return the Sig_structure (RFC 9052, 4.4)."""
    return cbor2.dumps(["Signature1", protected, external, payload])


class Signer:
    """A private key, with what every message says of it."""

    __slots__ = ("algorithm", "key", "kid")

    def __init__(self, key: SigningKey) -> None:
        public = key.public_key()
        self.key, self.algorithm, self.kid = key, algorithm_of(public), kid(public)


def sign(
    payload: bytes, signer: Signer, external: bytes, *, content_type: str | None = None, at: int | None = None
) -> bytes:
    """Return `payload` in a COSE_Sign1. `at`: seconds since 1970, where the time is known."""
    protected = encode_headers({
        ALG: signer.algorithm,
        CONTENT_TYPE: content_type,
        KID: signer.kid,
        CWT_CLAIMS: None if at is None else {ISSUED_AT: at},
    })  # fmt: skip
    message = to_be_signed(protected, external, payload)
    if isinstance(signer.key, ed25519.Ed25519PrivateKey):
        signature = signer.key.sign(message)
    else:
        r, s = decode_dss_signature(signer.key.sign(message, _ECDSA))
        signature = r.to_bytes(_HALF, "big") + s.to_bytes(_HALF, "big")
    return put_together(Kind.SIGN1, protected, {}, payload, signature)


def verify(parts: Parts, key: VerifyingKey, external: bytes) -> None:
    """Raise unless a COSE_Sign1 is signed by `key` (`malformed-cose`, `algorithm-refused`, `signature-invalid`)."""
    said, signature = parts.headers.get(ALG), parts.rest
    if said != algorithm_of(key) or type(said) is not int:
        raise RejectedError(
            f"algorithm {said!r} was said (protected), the key is of {algorithm_of(key)}", code=codes.ALGORITHM_REFUSED
        )
    if type(signature) is not bytes or len(signature) != 2 * _HALF:
        raise MalformedError(f"a signature of {said} has {2 * _HALF} bytes", code=codes.MALFORMED_COSE)
    message = to_be_signed(parts.protected, external, parts.body)
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        else:
            r, s = int.from_bytes(signature[:_HALF], "big"), int.from_bytes(signature[_HALF:], "big")
            key.verify(encode_dss_signature(r, s), message, _ECDSA)
    except InvalidSignature:
        raise RejectedError(
            "the signature is not of this content, for this topic, by this key", code=codes.SIGNATURE_INVALID
        ) from None


def algorithm_of(key: VerifyingKey) -> int:
    """Return the one algorithm that a key is used with."""
    return EDDSA if isinstance(key, ed25519.Ed25519PublicKey) else ES256
