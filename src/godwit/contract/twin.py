"""Twin documents: what the owner wants, what the device reports, and what they differ in."""

from typing import Any

import msgspec

from godwit.contract.documents import Time, check_times, decode_document


class TwinDocument(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A whole or partial twin state with its version."""

    state: dict[str, Any]
    version: int = 0
    timestamp: Time | None = None


def decode(payload: bytes, content_type: str | None = None) -> TwinDocument:
    """Decode a twin document. Raises MalformedError only."""
    said = decode_document(payload, TwinDocument, content_type)
    check_times(said.timestamp)
    return said
