"""Messages signed and encrypted end to end: COSE (RFC 9052, 9053). Pure: keys, nonces and the time are given.

`seal` signs, then encrypts; `open_message` undoes both. A message is bound to its device, channel and direction
(`about`), so that it verifies on its own topic only. See docs/messages.md.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import Final, Protocol

import msgspec

from godwit.contract import codes
from godwit.contract.cose_encrypt import Session, agree, decrypt, fresh_key_of, public_of
from godwit.contract.cose_headers import (
    CONTENT_TYPE_SIGN1,
    Kind,
    Parts,
    content_type_of,
    is_sealed,
    issued_at,
    key_id_of,
    kind_named,
    take_apart,
)
from godwit.contract.cose_headers import about as about_message
from godwit.contract.cose_keys import AgreeKey, VerifyingKey, key_id
from godwit.contract.cose_sign import Signer, sign, verify
from godwit.contract.errors import RejectedError

__all__ = ["DOWN", "UP", "Keys", "Opened", "Session", "Signer", "about_message", "is_sealed", "open_message", "seal"]

UP: Final = "up"
DOWN: Final = "down"
SESSIONS_KEPT: Final = 2


class Opened(msgspec.Struct, frozen=True, gc=False):
    """What was in a COSE message. `signed_by` and `encrypted_to` are key ids, empty where it was not.

    `made` is when it says it was signed (or encrypted), ns UTC; `content_type` of the payload, where it says one.
    """

    payload: bytes
    content_type: str | None = None
    signed_by: str = ""
    encrypted_to: str = ""
    made: int | None = None
    mark: str = ""
    """What this message alone has, however its bytes are written: for whoever remembers what was there before."""


class Keys(Protocol):
    """Where opening finds keys."""

    def verifying(self, kid: bytes) -> tuple[str, VerifyingKey]:
        """Return (id, key) of the sender that a message names. Raises RejectedError (`key-unknown`, `key-retired`)."""
        ...

    def content_key(self, kid: bytes, fresh: object) -> tuple[str, bytes]:
        """Return (id of our key, key agreed with the sender's fresh COSE_Key). Raises likewise, or MalformedError."""
        ...


def seal(
    payload: bytes,
    about: bytes,
    *,
    signer: Signer | None = None,
    session: Session | None = None,
    nonce: Callable[[], bytes],
    at: int | None = None,
) -> bytes:
    """Return `payload` signed, then encrypted, as keys are given. `at`: seconds since 1970, where the time is known."""
    content_type = None
    if signer is not None:
        payload, content_type = sign(payload, signer, about, at=at), CONTENT_TYPE_SIGN1
    if session is not None:
        payload = session.encrypt(payload, nonce(), about, content_type=content_type, at=at)
    return payload


def open_message(payload: bytes, about: bytes, keys: Keys, content_type: str | None = None) -> Opened:
    """Return what is in a COSE message: signed, encrypted, or signed and then encrypted.

    Raises MalformedError or RejectedError only: `malformed-cose`, `algorithm-refused`, `key-unknown`, `key-retired`,
    `signature-invalid`, `message-undecryptable`.
    """
    parts = take_apart(payload, kind_named(content_type))
    if parts.kind is Kind.SIGN1:
        return _verified(parts, about, keys)
    encrypted_to, content_key = keys.content_key(*fresh_key_of(parts))
    plain = decrypt(parts, content_key, about)
    inner = content_type_of(parts.headers)
    if not is_sealed(plain, inner):
        mark = sha256(parts.protected + parts.body).hexdigest()
        return Opened(plain, inner, encrypted_to=encrypted_to, made=issued_at(parts.headers), mark=mark)
    inside = take_apart(plain, kind_named(inner))
    if inside.kind is not Kind.SIGN1:
        raise RejectedError("inside an encrypted message stands a signed one, or none", code=codes.MALFORMED_COSE)
    return msgspec.structs.replace(_verified(inside, about, keys), encrypted_to=encrypted_to)


def _verified(parts: Parts, about: bytes, keys: Keys) -> Opened:
    name, key = keys.verifying(key_id_of(parts))
    verify(parts, key, about)
    # Of the signature the first half: of ECDSA anybody can make another second one.
    mark = sha256(parts.protected + parts.body + parts.rest[:32]).hexdigest()
    return Opened(parts.body, content_type_of(parts.headers), name, made=issued_at(parts.headers), mark=mark)


class Agreed:
    """Our private key, and the keys last agreed with it by senders: agreeing costs ten times an opening.

    Bounded by who holds it: one for each device and key of ours, so that nobody can drive out what others agreed on.
    """

    __slots__ = ("_known", "_own", "name")

    def __init__(self, own: AgreeKey, name: str = "") -> None:
        self._own = own
        self.name = name or key_id(own.public_key())
        self._known: dict[str, bytes] = {}

    def content_key(self, fresh: object) -> bytes:
        """Return the key agreed with a sender's fresh COSE_Key. Raises MalformedError unless it is one."""
        mark = repr(fresh)  # of a few bytes, numbers and truth values: 1 and true are not the same
        known = self._known.get(mark)
        if known is None:
            known = agree(self._own, public_of(fresh))
            while len(self._known) >= SESSIONS_KEPT:
                del self._known[next(iter(self._known))]
            self._known[mark] = known
        return known
