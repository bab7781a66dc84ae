"""Certificates that TLS did not accept, by stable codes: OpenSSL has words for them, and CONNECT never comes."""

import ssl
from typing import Final

_CODES: Final = {
    "self-signed certificate": "certificate-self-signed",
    "self-signed certificate in certificate chain": "authority-unknown",
    "unable to get issuer certificate": "authority-unknown",
    "unable to get local issuer certificate": "authority-unknown",
    "unable to verify the first certificate": "authority-unknown",
    "certificate signature failure": "authority-unknown",
    "EE certificate key too weak": "weak-key",
    "CA certificate key too weak": "weak-key",
    "CA signature digest algorithm too weak": "weak-signature",
}


def code_of(error: ssl.SSLCertVerificationError) -> str:
    """Return the stable code of a certificate that TLS did not accept."""
    return _CODES.get(error.verify_message, "certificate-refused")
