"""Firmware messages: an offer, how an update gets on, and requests for pieces of an artifact."""

import msgspec

from godwit.contract.documents import decode_document


class FirmwareOffer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A release that a device should install. The manifest is signed; this only points to it."""

    release_id: str
    version: str
    manifest_url: str
    size: int = 0


class FirmwareProgress(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """How an update gets on: downloading, verifying, installing, trial, committed, rolledBack, failed."""

    release_id: str
    state: str
    progress: float | None = None
    code: str | None = None
    message: str | None = None


class FirmwareChunk(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A request for a piece of an artifact, or, with `data` (base64), the piece."""

    release_id: str
    offset: int
    length: int
    data: bytes | None = None


def decode_offer(payload: bytes, content_type: str | None = None) -> FirmwareOffer:
    """Decode an offer. Raises MalformedError only."""
    return decode_document(payload, FirmwareOffer, content_type)


def decode_progress(payload: bytes, content_type: str | None = None) -> FirmwareProgress:
    """Decode how an update gets on. Raises MalformedError only."""
    return decode_document(payload, FirmwareProgress, content_type)


def decode_chunk(payload: bytes, content_type: str | None = None) -> FirmwareChunk:
    """Decode a request for a piece, or the piece. Raises MalformedError only."""
    return decode_document(payload, FirmwareChunk, content_type)
