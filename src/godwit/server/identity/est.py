"""Enrollment over Secure Transport (RFC 7030, with the corrections of RFC 8951): its encodings. Pure.

Requests are PKCS#10, answers certificates in PKCS#7, both in base64.
"""

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from godwit.contract.errors import MalformedError
from godwit.server.identity.requests import REQUEST_BYTES_MAX, read_request

BODY_BYTES_MAX: Final = 2 * REQUEST_BYTES_MAX
"""A request in base64, with line breaks."""
CERTIFICATES: Final = "application/pkcs7-mime"
CERTIFICATES_ONLY: Final = "application/pkcs7-mime; smime-type=certs-only"
ATTRIBUTES: Final = "application/csrattrs"
WISHES: Final = bytes.fromhex(
    "3021"  # CsrAttrs (RFC 7030, 4.5.2)
    "3015 06072a8648ce3d0201 310a 06082a8648ce3d030107"  # id-ecPublicKey: secp256r1
    "06082a8648ce3d040302"  # ecdsa-with-SHA256
)
"""What a request should be like."""
_BLANKS: Final = b" \t\r\n"


def read_est_request(body: bytes) -> x509.CertificateSigningRequest:
    """Return the request in a body: base64 in lines or in one, or PEM.

    Raises MalformedError (`csr-malformed`, `csr-too-large`) or RejectedError (see `read_request`).
    """
    if len(body) > BODY_BYTES_MAX:
        raise MalformedError(f"a certificate request has at most {REQUEST_BYTES_MAX} bytes", code="csr-too-large")
    if body.lstrip().startswith(b"-----BEGIN"):
        return read_request(body)
    try:
        return read_request(b64decode(body.translate(None, _BLANKS), validate=True))
    except binascii.Error as error:
        raise MalformedError(f"the body is not base64: {error}", code="csr-malformed") from None


def certificates_only(pems: Iterable[str]) -> bytes:
    """Return certificates as PKCS#7 without content or signature (RFC 5272, 4.1), in DER."""
    return pkcs7.serialize_certificates([x509.load_pem_x509_certificate(each.encode()) for each in pems], Encoding.DER)


def transfer(der: bytes) -> bytes:
    """Return DER as it travels: in base64 without line breaks (RFC 8951, 3.1), over which some clients stumble."""
    return b64encode(der)
