"""TLS contexts for MQTT: TLS 1.2 or later, in 1.2 only with forward secrecy and authenticated ciphers.

Certificates are made elsewhere. A server may ask clients for theirs; whom a certificate stands for is decided by rooms
above.
"""

import ssl
from pathlib import Path
from typing import Final

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2 (RFC 9325, 4.2.1); all of TLS 1.3 are of this kind."""


def client_context(
    *, authority: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Return a context that checks the server's certificate and name.

    `authority`: PEM of whom to trust instead of the system's authorities. `certificate` and `key`: the client's own.
    Raises OSError (ssl.SSLError is one) where a file cannot be read.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=authority)
    _strengthen(context)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def server_context(
    certificate: Path, key: Path, *, authority: Path | None = None, needs_certificate: bool = False
) -> ssl.SSLContext:
    """Return a listener's context. `authority`: PEM of who vouches for clients; they may or must show a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _strengthen(context)
    context.load_cert_chain(certificate, key)
    if authority is not None:
        context.load_verify_locations(authority)
        context.verify_mode = ssl.CERT_REQUIRED if needs_certificate else ssl.CERT_OPTIONAL
    return context


def _strengthen(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
