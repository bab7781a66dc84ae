"""COSE_Encrypt0 and COSE_Encrypt (RFC 9052, 5): AES-256-GCM under a key agreed by ECDH-ES with P-256 (RFC 9053, 6.3).

The sender makes a fresh key pair for a session, the recipient's key was given at enrollment; what both agree on goes
through HKDF-SHA-256 with the context of RFC 9053, 5.2. COSE_Encrypt holds the fresh public key in its one recipient, as
any library makes it. COSE_Encrypt0 has no recipients: it is the same message with the fresh key in a protected header.
"""

from collections.abc import Mapping
from typing import Any, Final

import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from godwit.contract import codes
from godwit.contract.cose_headers import (
    ALG,
    CONTENT_TYPE,
    CWT_CLAIMS,
    EPHEMERAL,
    ISSUED_AT,
    IV,
    KID,
    Kind,
    Parts,
    encode_headers,
    key_id_of,
    put_together,
)
from godwit.contract.cose_keys import AgreeKey, AgreePublic, kid
from godwit.contract.errors import MalformedError, RejectedError

A128GCM: Final = 1
A192GCM: Final = 2
A256GCM: Final = 3
KEY_BITS: Final = {A128GCM: 128, A192GCM: 192, A256GCM: 256}
ALLOWED: Final = frozenset((A256GCM,))
ECDH_ES_HKDF_256: Final = -25
IV_BYTES: Final = 12
TAG_BYTES: Final = 16
_RECIPIENT: Final = encode_headers({ALG: ECDH_ES_HKDF_256})
_EPHEMERAL_OF_RECIPIENT: Final = -1
_KTY, _CRV, _X, _Y = 1, -1, -2, -3
_EC2, _P256 = 2, 1
_COORDINATE: Final = 32


def kdf_context(algorithm: int, recipient: bytes = _RECIPIENT) -> bytes:
    """Return the COSE_KDF_Context (RFC 9053, 5.2): parties are not named, they are bound by `external_aad`."""
    nobody = [None, None, None]
    return cbor2.dumps([algorithm, nobody, nobody, [KEY_BITS[algorithm], recipient]])


def agree(own: AgreeKey, other: AgreePublic, algorithm: int = A256GCM) -> bytes:
    """Return the key that two agree on."""
    secret = own.exchange(ec.ECDH(), other)
    return HKDF(SHA256(), KEY_BITS[algorithm] // 8, None, kdf_context(algorithm)).derive(secret)


def to_be_bound(kind: Kind, protected: bytes, external: bytes) -> bytes:
    """Return the Enc_structure (RFC 9052, 5.3)."""
    return cbor2.dumps(["Encrypt0" if kind is Kind.ENCRYPT0 else "Encrypt", protected, external])


def cose_key(public: AgreePublic) -> dict[int, Any]:
    """Return a public key as COSE_Key, its point compressed (RFC 9053, 7.1.1)."""
    point = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    return {_KTY: _EC2, _CRV: _P256, _X: point[1:], _Y: point[0] == 3}


def public_of(said: object) -> AgreePublic:
    """Return the public key that a COSE_Key holds. Raises MalformedError unless it is a point of P-256."""
    if type(said) is not dict or said.get(_KTY) != _EC2 or said.get(_CRV) != _P256 or len(said) != 4:
        raise _malformed("the sender's fresh key is a COSE_Key of kind EC2, curve P-256, with x and y")
    x, y = said.get(_X), said.get(_Y)
    if type(x) is not bytes or len(x) != _COORDINATE:
        raise _malformed("x has 32 bytes")
    if type(y) is bool:
        point = bytes((3 if y else 2,)) + x
    elif type(y) is bytes and len(y) == _COORDINATE:
        point = b"\x04" + x + y
    else:
        raise _malformed("y has 32 bytes, or is the sign")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        raise _malformed("the sender's fresh key is no point of P-256") from None


class Session:
    """What a sender encrypts with: one fresh key pair, agreed with one recipient.

    It lives in memory only: after a power loss, or in a copied or restored device, there is another one, so that no
    counter has to survive for a nonce not to come twice. Nonces are random, and a session ends long before 2^32.
    """

    def __init__(self, recipient: AgreePublic, ephemeral: AgreeKey) -> None:
        self.recipient = kid(recipient)
        self._said = cose_key(ephemeral.public_key())
        self._cipher = AESGCM(agree(ephemeral, recipient))

    def encrypt(
        self, payload: bytes, nonce: bytes, external: bytes, *, content_type: str | None = None, at: int | None = None
    ) -> bytes:
        """Return `payload` in a COSE_Encrypt0. `nonce` is 12 random bytes, never used before."""
        protected = encode_headers({
            ALG: A256GCM,
            CONTENT_TYPE: content_type,
            KID: self.recipient,
            CWT_CLAIMS: None if at is None else {ISSUED_AT: at},
            EPHEMERAL: self._said,
        })  # fmt: skip
        sealed = self._cipher.encrypt(nonce, payload, to_be_bound(Kind.ENCRYPT0, protected, external))
        return put_together(Kind.ENCRYPT0, protected, {IV: nonce}, sealed)


def fresh_key_of(parts: Parts) -> tuple[bytes, object]:
    """Return (the recipient's key id, the sender's fresh COSE_Key) of an encrypted message."""
    if parts.kind is Kind.ENCRYPT0:
        return key_id_of(parts), parts.headers.get(EPHEMERAL)
    recipient = _recipient_of(parts.rest)
    said = recipient.headers.get(_EPHEMERAL_OF_RECIPIENT, recipient.unprotected.get(_EPHEMERAL_OF_RECIPIENT))
    return key_id_of(recipient), said


def decrypt(parts: Parts, key: bytes, external: bytes, allowed: frozenset[int] = ALLOWED) -> bytes:
    """Return the content. Raises MalformedError or RejectedError (`algorithm-refused`, `message-undecryptable`)."""
    said = parts.headers.get(ALG)
    if type(said) is not int or said not in allowed or len(key) * 8 != KEY_BITS[said]:
        raise RejectedError(f"algorithm {said!r} was said (protected); A256GCM is taken", code=codes.ALGORITHM_REFUSED)
    nonce = parts.unprotected.get(IV, parts.headers.get(IV))
    if type(nonce) is not bytes or len(nonce) != IV_BYTES:
        raise _malformed("the IV (5) has 12 bytes")
    if len(parts.body) < TAG_BYTES:
        raise _malformed("the ciphertext is shorter than its tag")
    try:
        return AESGCM(key).decrypt(nonce, parts.body, to_be_bound(parts.kind, parts.protected, external))
    except InvalidTag:
        raise RejectedError(
            "it is not encrypted with this key, for this topic, or was altered", code=codes.MESSAGE_UNDECRYPTABLE
        ) from None


def _recipient_of(recipients: object) -> Parts:
    """Return the one recipient of a COSE_Encrypt: direct key agreement, ECDH-ES, HKDF-SHA-256."""
    if type(recipients) is not list or len(recipients) != 1:
        raise _malformed("it is for one recipient")
    recipient = recipients[0]
    if type(recipient) is not list or len(recipient) != 3 or recipient[2] not in (b"", None):
        raise _malformed("its recipient has three parts, and no ciphertext")
    protected, unprotected, _ = recipient
    if protected != _RECIPIENT:
        raise RejectedError("its recipient's key is agreed otherwise than by ECDH-ES + HKDF-256, with nothing more in "
                            "the protected headers", code=codes.ALGORITHM_REFUSED)  # fmt: skip
    if type(unprotected) is not dict or unprotected.keys() - {KID, _EPHEMERAL_OF_RECIPIENT}:
        raise _malformed("a recipient's headers are a key id and a fresh key")
    headers: Mapping[Any, Any] = {ALG: ECDH_ES_HKDF_256}
    return Parts(Kind.ENCRYPT, protected, dict(headers), unprotected, b"")


def _malformed(text: str) -> MalformedError:
    return MalformedError(f"no COSE message that can be read: {text}", code=codes.MALFORMED_COSE)
