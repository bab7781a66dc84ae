"""TLS contexts for MQTT: TLS 1.2 or later, in 1.2 only with forward secrecy and authenticated ciphers.

Certificates are made elsewhere. A server may ask clients for theirs; whom a certificate stands for is decided by rooms
above.
"""

import ssl
from pathlib import Path
from typing import Any, Final

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
"""For TLS 1.2 (RFC 9325, 4.2.1); all of TLS 1.3 are of this kind. Security level 2: no RSA below 2048 bits, no SHA-1,
in the certificates of either side."""
NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which the standard library has no name for."""
_DER: Final = 2
VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


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


def fleet_context(certificate: Path, key: Path, authorities: str, minimum: str = "1.2") -> ssl.SSLContext:
    """Return the context of a listener that asks devices for their certificates; they may come without.

    `authorities`: PEM of who vouches for them, intermediates too: each is trusted by itself. Dates are not looked at in
    the handshake: who is told by CONNACK that his certificate has expired can do something about it. Raises OSError.
    """
    context = server_context(certificate, key)
    context.minimum_version = VERSIONS[minimum]
    # For its next connection; a second one, for another at the same time, costs a tenth of the handshake.
    context.num_tickets = 1
    if authorities:
        context.load_verify_locations(cadata=authorities)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | NO_CHECK_TIME
    return context


def undated_context(roots: str) -> ssl.SSLContext:
    """Return a context that checks chain and name of the server, and not the dates: for machines without a clock.

    It trusts `roots` (PEM) alone. Whoever uses it looks at the dates of `verified_chain` before saying anything.

    Raises ssl.SSLError where the roots cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _strengthen(context)
    context.verify_flags |= NO_CHECK_TIME
    context.load_verify_locations(cadata=roots)
    return context


def verified_chain(wire: ssl.SSLObject | ssl.SSLSocket) -> list[bytes]:
    """Return the certificates from the server's to its root, DER, as they were verified."""
    return _chain(wire, "get_verified_chain")


def presented_chain(wire: ssl.SSLObject | ssl.SSLSocket) -> list[bytes]:
    """Return the certificates that the server showed, DER, whether they are good or not."""
    return _chain(wire, "get_unverified_chain")


def _chain(wire: Any, name: str) -> list[bytes]:
    look = getattr(wire, name, None)
    if look is not None:  # from Python 3.13 on
        return list(look())
    return [each.public_bytes(_DER) for each in getattr(wire._sslobj, name)() or ()]  # noqa: SLF001


def _strengthen(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
