"""Reading small JSON or CBOR documents into their structs, for all channels but telemetry. Not for the hot path."""

from typing import Annotated, Any, TypeVar

import msgspec

from godwit.contract import codes
from godwit.contract.errors import MalformedError
from godwit.contract.payloads import Encoding, encoding_of, load, unpacked
from godwit.contract.times import parse_time

Document = TypeVar("Document", bound=msgspec.Struct)
Time = str | float | int
"""RFC 3339, or a number since 1970."""
Fingerprint = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
"""SHA-256 of a certificate's DER, lower-case hexadecimal."""


def decode_document(payload: bytes, kind: type[Document], content_type: str | None = None) -> Document:
    """Return `payload` as a `kind`. Raises MalformedError only; the sentence names the field."""
    payload = unpacked(payload, content_type)
    encoding = encoding_of(payload, content_type, None)
    if encoding not in (Encoding.JSON, Encoding.CBOR):
        raise MalformedError("this channel speaks JSON or CBOR", code=codes.UNKNOWN_CONTENT_TYPE)
    tree: Any = load(payload, encoding)
    if not isinstance(tree, dict):
        raise MalformedError("the message is an object", code=codes.UNKNOWN_SHAPE)
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise MalformedError(str(error)[:200], code=codes.WRONG_TYPE) from None


def check_times(*times: Time | None) -> None:
    """Raise MalformedError unless each time that is given can be read, and is plausible."""
    for time in times:
        if time is not None:
            parse_time(time)
