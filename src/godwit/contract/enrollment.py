"""Enrollment: a client asks for a certificate, and is given one."""

import msgspec

from godwit.contract.documents import decode_document


class EnrollmentRequest(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a client asks with. `request` is a PKCS#10 certificate request, PEM; `claim` proves that it may ask."""

    device_id: str
    request: str
    claim: str | None = None


class EnrollmentGrant(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The answer: the device's certificate and those above it, PEM; or the `code` of the refusal."""

    device_id: str
    certificate: str = ""
    chain: list[str] = []
    code: str | None = None
    message: str | None = None


def decode_request(payload: bytes, content_type: str | None = None) -> EnrollmentRequest:
    """Decode a request. Raises MalformedError only."""
    return decode_document(payload, EnrollmentRequest, content_type)


def decode_grant(payload: bytes, content_type: str | None = None) -> EnrollmentGrant:
    """Decode an answer. Raises MalformedError only."""
    return decode_document(payload, EnrollmentGrant, content_type)
