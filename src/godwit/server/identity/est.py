"""Enrollment over Secure Transport (RFC 7030, with the corrections of RFC 8951): its encodings. Pure.

Requests are PKCS#10, answers certificates in PKCS#7, both in base64.
"""

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from godwit.contract.errors import MalformedError, RejectedError
from godwit.server.identity.profiles import Signer, hash_for
from godwit.server.identity.requests import REQUEST_BYTES_MAX, read_request

BODY_BYTES_MAX: Final = 2 * REQUEST_BYTES_MAX
"""A request in base64, with line breaks."""
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


def certificates_signed(pems: Iterable[str], signer: Signer) -> bytes:
    """Return certificates signed by an authority (RFC 8894, 4.7.1): whoever trusts it trusts them. In DER.

    Raises RejectedError (`not-supported`).
    """
    if not isinstance(signer.key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise RejectedError("an authority with a key of Ed25519 does not sign this", code="not-supported")
    builder = pkcs7.PKCS7SignatureBuilder().set_data(certificates_only(pems))
    for each in signer.chain:
        builder = builder.add_certificate(x509.load_pem_x509_certificate(each.encode()))
    builder = builder.add_signer(signer.certificate, signer.key, hash_for(signer.key) or hashes.SHA256())
    return builder.sign(Encoding.DER, [pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoCapabilities])


def transfer(der: bytes) -> bytes:
    """Return DER as it travels: in base64 without line breaks (RFC 8951, 3.1), over which some clients stumble."""
    return b64encode(der)
