"""Notices to a device: a limit was hit, something is in quarantine, a certificate is due, samples are missing."""

from typing import Any

import msgspec

from godwit.contract.documents import decode_document


class Notice(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Something the device should know. `code` is stable."""

    code: str
    message: str = ""
    details: dict[str, Any] | None = None


def decode(payload: bytes, content_type: str | None = None) -> Notice:
    """Decode a notice. Raises MalformedError only."""
    return decode_document(payload, Notice, content_type)
