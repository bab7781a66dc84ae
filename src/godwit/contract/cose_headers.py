"""COSE messages (RFC 9052) as bytes: taken apart and put together, with headers that are checked. No key is used here.

Strict where the RFC leaves room: what says how to read a message (`alg`, what it signs, when) has to be protected, no
label may be there twice or in the other bucket, and what is unknown and unprotected is refused, since anybody could
have put it there. So no bit of a message can change and the message still be taken.
"""

from collections.abc import Mapping
from enum import IntEnum
from io import BytesIO
from typing import Any, Final

import cbor2
import msgspec

from godwit.contract import codes
from godwit.contract.errors import MalformedError
from godwit.contract.limits import PAYLOAD_BYTES_MAX
from godwit.contract.payloads import refuse_tag

ALG: Final = 1
CRIT: Final = 2
CONTENT_TYPE: Final = 3
KID: Final = 4
IV: Final = 5
CWT_CLAIMS: Final = 15
"""RFC 9597; of its claims we read `iat` (6): when the message was signed or encrypted, in seconds since 1970."""
EPHEMERAL: Final = -65_537
"""The sender's fresh public key in a COSE_Encrypt0, which has no recipients to hold one: a label for private use."""
ISSUED_AT: Final = 6
_UNDERSTOOD: Final = frozenset((ALG, CONTENT_TYPE, KID, CWT_CLAIMS, EPHEMERAL))
_HEADERS_DEPTH: Final = 8
_HEADER_BYTES_MAX: Final = 4_096


class Kind(IntEnum):
    """What a COSE message is. The values are its CBOR tags."""

    ENCRYPT0 = 16
    SIGN1 = 18
    ENCRYPT = 96


_STARTS: Final = {b"\xd2\x84": Kind.SIGN1, b"\xd0\x83": Kind.ENCRYPT0, b"\xd8\x60\x84": Kind.ENCRYPT}
"""Tag and array: so no other encoding of the contract begins, Protobuf included (its field numbers are small)."""
_FIRST: Final = frozenset((b"\xd2\x84", b"\xd0\x83", b"\xd8\x60"))
_PARTS: Final = {Kind.SIGN1: 4, Kind.ENCRYPT0: 3, Kind.ENCRYPT: 4}
_TYPES: Final = {"cose-sign1": Kind.SIGN1, "cose-encrypt0": Kind.ENCRYPT0, "cose-encrypt": Kind.ENCRYPT}
CONTENT_TYPE_SIGN1: Final = 'application/cose; cose-type="cose-sign1"'
CONTENT_TYPE_ENCRYPT0: Final = 'application/cose; cose-type="cose-encrypt0"'
_COAP_FORMATS: Final = {50: "application/json", 60: "application/cbor", 110: "application/senml+json",
                        112: "application/senml+cbor", 18: CONTENT_TYPE_SIGN1}  # fmt: skip
"""Content formats (RFC 7252, 12.3) that a header may name by number."""


class Parts(msgspec.Struct, frozen=True, gc=False):
    """A COSE message taken apart. `body` is payload or ciphertext; `rest` signature or recipients."""

    kind: Kind
    protected: bytes
    headers: dict[Any, Any]
    unprotected: dict[Any, Any]
    body: bytes
    rest: Any = None


def is_sealed(payload: bytes, content_type: str | None) -> bool:
    """Whether a payload is a COSE message, as its first bytes or its content type say."""
    if payload[:2] in _FIRST:
        return True
    return content_type is not None and content_type[:16].lower().startswith("application/cose")


def kind_named(content_type: str | None) -> Kind | None:
    """Return what `application/cose; cose-type="..."` names (RFC 9052, 10.2); None where it names nothing."""
    _, _, parameters = (content_type or "").partition(";")
    name, _, value = parameters.strip().partition("=")
    return _TYPES.get(value.strip().strip('"').lower()) if name.strip().lower() == "cose-type" else None


def take_apart(payload: bytes, kind: Kind | None = None) -> Parts:
    """Return the parts of a COSE message; `kind` is what one without a tag is. Raises MalformedError only."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise MalformedError(
            f"{len(payload)} bytes, at most {PAYLOAD_BYTES_MAX} are read", code=codes.PAYLOAD_TOO_LARGE
        )
    said = _STARTS.get(payload[:2]) or _STARTS.get(payload[:3])
    if said is None and kind is None:
        raise _malformed("it begins with no tag of COSE that is read here (16, 18, 96)")
    if said is not None and kind is not None and said is not kind:
        raise _malformed(f"the content type says {kind.name}, the tag {said.name}")
    found = said or kind
    assert found is not None
    untagged = payload[2 if said is Kind.ENCRYPT else 1 :] if said else payload
    array = decode_strictly(untagged)
    if type(array) is not list or len(array) != _PARTS[found]:
        raise _malformed(f"a {found.name} is an array of {_PARTS[found]}")
    protected, unprotected, body, *rest = array
    if type(protected) is not bytes or type(unprotected) is not dict or type(body) is not bytes:
        raise _malformed("protected headers are bytes, unprotected ones a map, and the content is there, as bytes")
    headers = _protected_of(protected)
    _check(headers, unprotected)
    return Parts(found, protected if headers else b"", headers, unprotected, body, rest[0] if rest else None)


def put_together(kind: Kind, protected: bytes, unprotected: Mapping[int, object], *parts: object) -> bytes:
    """Return a tagged COSE message."""
    return cbor2.dumps(cbor2.CBORTag(kind, [protected, dict(unprotected), *parts]))


def encode_headers(headers: Mapping[int, object]) -> bytes:
    """Return protected headers as bytes, in deterministic CBOR (RFC 8949, 4.2).

    They are given in its order (1, 3, 4, 15, -65537): to have them sorted costs more than all the rest.
    """
    return cbor2.dumps({label: value for label, value in headers.items() if value is not None})


def about(direction: str, device_id: str, channel: str) -> bytes:
    """Return what a message is bound to besides its content (`external_aad`): whose it is, where it goes, which way.

    It is not sent: both sides know it from the topic. A message on another device's topic does not verify.
    """
    return cbor2.dumps(["godwit.v1", direction, device_id, channel])


def content_type_of(headers: Mapping[Any, Any]) -> str | None:
    """Return what the content is, as the header says."""
    said = headers.get(CONTENT_TYPE)
    if said is None:
        return None
    if type(said) is int:
        found = _COAP_FORMATS.get(said)
        if found is None:
            raise MalformedError(f"content format {said} is not known", code=codes.UNKNOWN_CONTENT_TYPE)
        return found
    if type(said) is not str or len(said) > 128:
        raise _malformed("a content type is a text or a number")
    return said


def key_id_of(parts: Parts) -> bytes:
    """Return which key a message names."""
    said = parts.headers.get(KID, parts.unprotected.get(KID))
    if type(said) is not bytes or not 8 <= len(said) <= 32:
        raise MalformedError(
            "the key id (4) is the first 8 to 32 bytes of the SHA-256 of its SubjectPublicKeyInfo",
            code=codes.KEY_UNKNOWN,
        )
    return said


def issued_at(headers: Mapping[Any, Any]) -> int | None:
    """Return when a message says that it was made, ns UTC."""
    claims = headers.get(CWT_CLAIMS)
    said = claims.get(ISSUED_AT) if type(claims) is dict else None
    if said is None:
        return None
    if type(said) not in (int, float) or not 0 <= said < 1e11:
        raise _malformed("iat is in seconds since 1970")
    return int(said * 1_000_000_000) if type(said) is float else said * 1_000_000_000


def decode_strictly(data: bytes) -> Any:
    """Return what CBOR says: no tags, no doubled keys, nothing behind it. Raises MalformedError only."""
    stream = BytesIO(data)
    decoder = cbor2.CBORDecoder(
        stream, tag_hook=refuse_tag, semantic_decoders=_NO_TAGS, max_depth=_HEADERS_DEPTH, allow_duplicate_keys=False
    )
    try:
        found = decoder.decode()
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, MemoryError, EOFError, RecursionError) as error:
        raise _malformed(f"not CBOR: {error}"[:200]) from None
    if stream.tell() != len(data):
        raise _malformed("bytes follow it")
    return found


_NO_TAGS: Final = dict.fromkeys(
    (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799), refuse_tag
)


def _protected_of(protected: bytes) -> dict[Any, Any]:
    if not protected:
        return {}
    if len(protected) > _HEADER_BYTES_MAX:
        raise _malformed(f"its headers have more than {_HEADER_BYTES_MAX} bytes")
    headers = decode_strictly(protected)
    if type(headers) is not dict:
        raise _malformed("protected headers are a map")
    return headers


def _check(headers: dict[Any, Any], unprotected: dict[Any, Any]) -> None:
    for label in (*headers, *unprotected):
        if type(label) not in (int, str):
            raise _malformed("a header's label is a number or a text")
    twice = headers.keys() & unprotected.keys()
    if twice:
        raise _malformed(f"header {next(iter(twice))} is there twice, protected and not")
    strange = unprotected.keys() - {KID, IV}
    if strange:
        raise _malformed(f"header {next(iter(strange))} has to be protected")
    crit = headers.get(CRIT)
    if crit is None:
        return
    if type(crit) is not list or not crit:
        raise _malformed("crit is a list of labels")
    for label in crit:
        if type(label) not in (int, str) or label not in headers:
            raise _malformed("crit names a header that is not there, or not protected")
        if label not in _UNDERSTOOD:
            raise _malformed(f"header {label} is critical, and not understood here")


def _malformed(text: str) -> MalformedError:
    return MalformedError(f"no COSE message that can be read: {text}", code=codes.MALFORMED_COSE)
