"""Enrollment: a client asks for a certificate, and is given one.

On `enrollment/{clientId}/request` and `.../grant` over MQTT at QoS 2, and as the bodies of `POST /enroll` on the HTTPS
port of devices. A device that has a certificate renews it in the same words, without a claim.
"""

from typing import Annotated, Any

import msgspec

from godwit.contract.documents import Fingerprint, decode_document
from godwit.contract.limits import TRUSTS_MAX


class EnrollmentRequest(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a client asks with. `request` is a PKCS#10 certificate request, PEM.

    `claim` proves that it may ask, where the connection does not. The keys are public ones, PEM, for messages that are
    signed (`sign_key`) or encrypted (`agree_key`) end to end. `trusts` are the fingerprints (SHA-256 of the DER,
    lower-case) of the roots that the client trusts: during a rollover they say how far it is.
    """

    device_id: str
    request: str
    claim: str | None = None
    sign_key: str | None = None
    agree_key: str | None = None
    trusts: Annotated[list[Fingerprint], msgspec.Meta(max_length=TRUSTS_MAX)] = []


class EnrollmentGrant(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The answer: certificate, those above it, and whom to trust from now on, PEM; or the `code` of the refusal.

    `authorities` are all roots in force, also one that comes next. `configuration` is the device's first. `agree_key`
    is the platform's public key for encrypted messages, `sign_key` the one that it signs with itself. `time` is the
    platform's, ns UTC: it is never earlier. `taken` are the ids (SHA-256 of the SubjectPublicKeyInfo) of the
    device's keys of messages that came with the request: it may use them now.
    """

    device_id: str
    certificate: str = ""
    chain: list[str] = []
    authorities: list[str] = []
    configuration: dict[str, Any] | None = None
    agree_key: str | None = None
    time: int = 0
    code: str | None = None
    message: str | None = None
    sign_key: str | None = None
    taken: list[str] = []


_encoder = msgspec.json.Encoder()


def encode(document: EnrollmentRequest | EnrollmentGrant) -> bytes:
    """Return a request or a grant as JSON."""
    return _encoder.encode(document)


def decode_request(payload: bytes, content_type: str | None = None) -> EnrollmentRequest:
    """Decode a request. Raises MalformedError only."""
    return decode_document(payload, EnrollmentRequest, content_type)


def decode_grant(payload: bytes, content_type: str | None = None) -> EnrollmentGrant:
    """Decode an answer. Raises MalformedError only."""
    return decode_document(payload, EnrollmentGrant, content_type)
