"""Encodings of payloads: how they are told apart, and their way into plain trees.

JSON, CBOR, SenML of both, Protobuf.
"""

import json
from enum import StrEnum
from io import BytesIO
from typing import Any, Final

import cbor2

from godwit.contract import codes
from godwit.contract.duplicate_keys import check_duplicate_keys
from godwit.contract.errors import MalformedError
from godwit.contract.limits import PAYLOAD_BYTES_MAX


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
_JSON_STARTS: Final = frozenset(b'{[ \t\r\n"-0123456789tfn')
_NESTING_MAX: Final = 32


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
        return Encoding(codec)
    if payload and payload[0] not in _JSON_STARTS:
        # CBOR maps and arrays begin with 0x80 to 0xBF, a tag with 0xC0 and above (RFC 8949, 3).
        return Encoding.CBOR
    return Encoding.JSON


def load(payload: bytes, encoding: Encoding) -> Any:
    """Return the payload as a plain tree. Raises MalformedError only."""
    if encoding in (Encoding.JSON, Encoding.SENML_JSON):
        return _load_json(payload)
    return _load_cbor(payload, codes.MALFORMED_SENML if encoding is Encoding.SENML_CBOR else codes.MALFORMED_CBOR)


def _refuse_constant(name: str) -> None:
    raise MalformedError(f"{name} is no JSON number", code=codes.NOT_FINITE)


def _load_json(payload: bytes) -> Any:
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"byte {error.start} is not UTF-8", code=codes.INVALID_UTF8) from None
    try:
        tree = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise MalformedError("objects are nested too deep", code=codes.NESTING_TOO_DEEP) from None
    except ValueError as error:
        raise MalformedError(f"not JSON: {error}"[:200], code=codes.MALFORMED_JSON) from None
    check_depth(tree)
    check_duplicate_keys(payload)
    return tree


def _load_cbor(payload: bytes, code: str) -> Any:
    stream = BytesIO(payload)
    try:
        tree = cbor2.CBORDecoder(stream, object_hook=None, str_errors="strict").decode()
    except RecursionError:
        raise MalformedError("maps are nested too deep", code=codes.NESTING_TOO_DEEP) from None
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, MemoryError, EOFError, OSError) as error:
        raise MalformedError(f"not CBOR: {error}"[:200], code=code) from None
    if stream.tell() != len(payload):
        raise MalformedError("bytes follow the CBOR document", code=code)
    check_depth(tree)
    return tree


def check_depth(tree: object) -> None:
    """Raise MalformedError (`nesting-too-deep`) for trees deeper than 32 levels. Iterative."""
    level: list[object] = [tree]
    for _depth in range(_NESTING_MAX):
        inner: list[object] = []
        for each in level:
            if isinstance(each, dict):
                inner.extend(each.values())
            elif isinstance(each, list | tuple):
                inner.extend(each)
        if not inner:
            return
        level = inner
    raise MalformedError(f"nested deeper than {_NESTING_MAX} levels", code=codes.NESTING_TOO_DEEP)
