"""Encodings of payloads: how they are told apart, and their way into plain trees.

JSON, CBOR, SenML of both, Protobuf.
"""

import json
from enum import StrEnum
from io import BytesIO
from typing import Any, Final, NoReturn

import cbor2
import msgspec

from godwit.contract import codes
from godwit.contract.compression import decompress, is_compressed
from godwit.contract.duplicate_keys import check_depth, check_duplicate_keys
from godwit.contract.errors import MalformedError
from godwit.contract.limits import NESTING_MAX, PAYLOAD_BYTES_MAX


class Encoding(StrEnum):
    """How a payload is written. The values are what a device type may declare as its codec."""

    JSON = "json"
    CBOR = "cbor"
    PROTOBUF = "protobuf"
    SENML_JSON = "senml+json"
    SENML_CBOR = "senml+cbor"


CONTENT_TYPES: Final = {
    "application/json": Encoding.JSON,
    "text/json": Encoding.JSON,
    "application/cbor": Encoding.CBOR,
    "application/protobuf": Encoding.PROTOBUF,
    "application/x-protobuf": Encoding.PROTOBUF,
    "application/vnd.google.protobuf": Encoding.PROTOBUF,
    "application/senml+json": Encoding.SENML_JSON,
    "application/senml+cbor": Encoding.SENML_CBOR,
}
_ENCODINGS: Final = {str(each): each for each in Encoding}
_JSON_STARTS: Final = frozenset(b'{[ \t\r\n"-0123456789tfn')


def unpacked(payload: bytes, content_type: str | None, codec: str | None = None) -> bytes:
    """Return the payload, decompressed where it is compressed. Protobuf, which may begin so too, is left alone."""
    if not is_compressed(payload) or codec == Encoding.PROTOBUF or "protobuf" in (content_type or ""):
        return payload
    if len(payload) > PAYLOAD_BYTES_MAX:
        return payload  # and refused for its length
    return decompress(payload)


def legible(payload: bytes) -> str | None:
    """Return a CBOR or compressed message as JSON, for people to read; None where it is neither."""
    try:
        plain = unpacked(payload, None)
        encoding = encoding_of(plain, None, None)
        if encoding is Encoding.JSON:
            return None if plain is payload else plain.decode()
        tree = load(plain, encoding)
        if not isinstance(tree, dict | list) or not tree:
            return None
        return json.dumps(tree, ensure_ascii=False, default=bytes.hex)
    except (MalformedError, ValueError, TypeError):
        return None


def encoding_of(payload: bytes, content_type: str | None, codec: str | None) -> Encoding:
    """Tell the encoding: by content type (MQTT 5), else as the device's type declares, else by the first byte."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise MalformedError(
            f"{len(payload)} bytes, at most {PAYLOAD_BYTES_MAX} are read", code=codes.PAYLOAD_TOO_LARGE
        )
    if content_type:
        found = CONTENT_TYPES.get(content_type.partition(";")[0].strip().lower())
        if found is None:
            raise MalformedError(f"content type {content_type[:80]!r} is not known", code=codes.UNKNOWN_CONTENT_TYPE)
        return found
    if codec:
        found = _ENCODINGS.get(codec)
        if found is None:
            raise MalformedError(f"codec {codec[:80]!r} is not known", code=codes.UNKNOWN_CONTENT_TYPE)
        return found
    if payload and payload[0] not in _JSON_STARTS:
        # CBOR maps and arrays begin with 0x80 to 0xBF, a tag with 0xC0 and above (RFC 8949, 3).
        return Encoding.CBOR
    return Encoding.JSON


def load(payload: bytes, encoding: Encoding) -> Any:
    """Return the payload as a plain tree of checked depth. Raises MalformedError only."""
    if encoding in (Encoding.JSON, Encoding.SENML_JSON):
        return _load_json(payload)
    if encoding is Encoding.SENML_CBOR:
        return _load_cbor(payload, codes.MALFORMED_SENML)
    return _load_cbor(payload, codes.MALFORMED_CBOR)


def check_utf8(payload: bytes) -> None:
    """Raise MalformedError (`invalid-utf8`) unless `payload` is UTF-8."""
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"byte {error.start} is not UTF-8", code=codes.INVALID_UTF8) from None


def _load_json(payload: bytes) -> Any:
    try:
        tree = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise fault_of(payload, error) from None
    check_utf8(payload)
    check_duplicate_keys(payload)
    return tree


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedError(f"{name} is no JSON number", code=codes.NOT_FINITE)


def fault_of(payload: bytes, error: Exception) -> MalformedError:
    """Say what exactly is wrong with a JSON text that could not be read. `error` is what the decoder said."""
    try:
        check_utf8(payload)
        json.loads(payload.decode(), parse_constant=_refuse_constant)
    except MalformedError as fault:
        return fault
    except RecursionError:
        return MalformedError("objects are nested too deep", code=codes.NESTING_TOO_DEEP)
    except ValueError as fault:
        return MalformedError(f"not JSON: {fault}"[:200], code=codes.MALFORMED_JSON)
    if "out of range" in str(error):  # 1e999
        return MalformedError("a number is too large for 64 bits", code=codes.NOT_FINITE)
    return MalformedError(f"not JSON: {error}"[:200], code=codes.MALFORMED_JSON)  # half a surrogate pair


def _untagged(value: Any, _is_immutable: bool) -> Any:  # noqa: FBT001 - the library's call
    return value


def refuse_tag(*_value: object) -> NoReturn:
    """Refuse a CBOR tag, for decoders that call it."""
    raise ValueError("a tag that has no place in a message")


# Times (tags 0 and 1, RFC 8949, 3.4) are read as the text or number they hold, and so is what says that it is CBOR.
# All other tags that the library would follow are refused: shared references build cycles and trees that explode.
_TAGS: Final = dict.fromkeys(
    (2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000), refuse_tag
) | dict.fromkeys((0, 1, 55799), _untagged)
_LEAVES: Final = frozenset((str, int, float, bool, bytes, type(None)))


def _load_cbor(payload: bytes, code: str) -> Any:
    stream = BytesIO(payload)
    decoder = cbor2.CBORDecoder(
        stream,
        tag_hook=refuse_tag,
        semantic_decoders=_TAGS,
        max_depth=2 * NESTING_MAX,
        allow_duplicate_keys=False,
    )
    try:
        tree = decoder.decode()
    except RecursionError:
        raise MalformedError("maps are nested too deep", code=codes.NESTING_TOO_DEEP) from None
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, MemoryError, EOFError) as error:
        raise _cbor_fault(error, code) from None
    if stream.tell() != len(payload):
        raise MalformedError("bytes follow the CBOR document", code=code)
    check_depth(tree)
    _check_kinds(tree, code)
    return tree


def _cbor_fault(error: Exception, code: str) -> MalformedError:
    said = str(error)
    if "duplicate" in said.lower():
        return MalformedError("a map holds the same key twice", code=codes.DUPLICATE_KEY)
    if "depth" in said.lower() or "nest" in said.lower():
        return MalformedError("maps are nested too deep", code=codes.NESTING_TOO_DEEP)
    if isinstance(error.__cause__, UnicodeDecodeError) or isinstance(error, UnicodeDecodeError):
        return MalformedError("a text is not UTF-8", code=codes.INVALID_UTF8)
    return MalformedError(f"not CBOR: {said}"[:200], code=code)


def _check_kinds(tree: object, code: str) -> None:
    """Refuse what JSON could not say either: `undefined`, simple values, keys that are no texts (SenML has labels)."""
    kinds_of_keys = (str, int) if type(tree) is list else (str,)
    pending: list[Any] = [tree]
    while pending:
        each = pending.pop()
        kind = type(each)
        if kind is dict:
            for key, value in each.items():
                if type(key) not in kinds_of_keys:
                    raise MalformedError("a key is a text", code=code)
                if type(value) not in _LEAVES:
                    pending.append(value)
        elif kind is list:
            pending.extend(each)
        elif kind not in _LEAVES:
            raise MalformedError(f"a {kind.__name__} has no place in a message", code=code)
