"""Whom a device trusts, and what time it can be: the two go together, since certificates have dates.

A device's clock may stand at 1970, and a server's certificate would look as if it were not valid yet; or the clock was
set back on purpose, and one that ended long ago would look valid. So OpenSSL checks chain and name, and the dates are
checked here, against a guarded time: never before this software was built, nor before the last time that came over an
authenticated connection. A certificate that our own authority made is such a word, too: it is not earlier than its
beginning. Nothing is trusted at first sight: roots come from a file, or by a fingerprint that a person brought.
"""

import http.client
import socket
import ssl
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from godwit.contract.errors import MalformedError, RejectedError, UnavailableError
from godwit.device.clock import BUILT_NS, is_believable
from godwit.mqtt.tls import presented_chain, undated_context, verified_chain
from godwit.runtime.clock import NS, Clock

FETCH_S_MAX: Final = 10.0
CERTIFICATES_BYTES_MAX: Final = 262_144
_CACERTS: Final = "/.well-known/est/cacerts"


class TimeGuard:
    """What time it is, as far as can be said for sure. `floor`: the last time that was told before this process."""

    def __init__(self, clock: Clock, floor: int = 0, *, built: int = BUILT_NS) -> None:
        self._clock, self._built = clock, built
        self._floor, self._floor_at = max(floor, built), clock.uptime_ns()
        self._told: tuple[int, int] | None = None

    def now_ns(self) -> int:
        """Return the time: the platform's if it told it, else the machine's, and never before what is known."""
        uptime = self._clock.uptime_ns()
        floor = self._floor + uptime - self._floor_at
        if self._told is not None:
            return max(self._told[0] + uptime - self._told[1], floor)
        wall = self._clock.now_ns()
        return max(wall, floor) if is_believable(wall, self._built) else floor

    @property
    def known_ns(self) -> int:
        """Return what time it is at least, as far as it was told."""
        return self._floor + self._clock.uptime_ns() - self._floor_at

    def at_least(self, time: int) -> None:
        """Take up that it is not earlier."""
        uptime = self._clock.uptime_ns()
        if time > self._floor + uptime - self._floor_at:
            self._floor, self._floor_at = time, uptime

    def told(self, time: int, latest: int) -> bool:
        """Take up the platform's time, told over an authenticated connection; not one after `latest`, or before now.

        `latest` is the end of the root that vouches for it: nobody makes us believe in a time from which there is no
        way back. Returns whether it was taken.
        """
        uptime = self._clock.uptime_ns()
        if not self._floor - _SLACK_NS <= time < latest:
            return False
        self._told = time, uptime
        self.at_least(time)
        return True


_SLACK_NS: Final = 60 * NS
"""Two servers of one platform may differ."""


class Seen(NamedTuple):
    """The server of a connection: fingerprint of its root, and when that ends (ns UTC)."""

    root: str
    root_ends: int


class Trust:
    """Roots and time, as TLS contexts need them."""

    def __init__(self, guard: TimeGuard) -> None:
        self._guard = guard

    @staticmethod
    def context(roots: tuple[str, ...]) -> ssl.SSLContext:
        """Return a context that trusts these roots alone, and whose connections have to be shown to `inspect`."""
        return undated_context("".join(each.strip() + "\n" for each in roots))

    def inspect(self, wire: ssl.SSLObject | ssl.SSLSocket) -> Seen:
        """Check the dates of whom a connection leads to. Raises UnavailableError (`server-certificate-ended`)."""
        chain = [x509.load_der_x509_certificate(each) for each in verified_chain(wire)]
        begins = max(each.not_valid_before_utc.timestamp() for each in chain)
        ends = [int(each.not_valid_after_utc.timestamp()) * NS for each in chain]
        now = max(self._guard.now_ns(), int(begins) * NS)
        for certificate, end in zip(chain, ends, strict=True):
            if end < now:
                name = certificate.subject.rfc4514_string()[:100]
                raise UnavailableError(
                    f"the server's certificate {name!r} ended on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M}"
                    f" UTC; our clock says {_shown(now)}",
                    code="server-certificate-ended",
                )
        self._guard.at_least(int(begins) * NS)
        return Seen(chain[-1].fingerprint(hashes.SHA256()).hex(), ends[-1])


def _shown(time: int) -> str:
    import datetime as dt  # noqa: PLC0415 - for a sentence

    return f"{dt.datetime.fromtimestamp(time / NS, dt.UTC):%Y-%m-%d %H:%M} UTC"


# --- the first trust --------------------------------------------------------------------------------------------------


def read_fingerprint(text: str) -> str:
    """Return a SHA-256 fingerprint as people write it, in lower case without colons. Raises MalformedError."""
    found = text.strip().lower().removeprefix("sha256:").replace(":", "").replace(" ", "")
    if len(found) != 64 or set(found) - set("0123456789abcdef"):
        raise MalformedError(f"{text!r} is no SHA-256 fingerprint: 64 hexadecimal digits", code="fingerprint-malformed")
    return found


def read_pems(path: Path) -> tuple[str, ...]:
    """Return the certificates of a PEM file, one by one. Raises RejectedError (`ca-file`)."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RejectedError(f"{path} holds no certificates that can be read: {error}", code="ca-file") from None
    return tuple(_pem(each) for each in found)


def fetch_root(host: str, port: int, fingerprint: str, *, https_port: int) -> str:
    """Return the PEM of the certificate with this fingerprint, from what the server shows. Blocks.

    The connection is not trusted, and carries nothing of ours; the fingerprint vouches for what is found. Where the
    server shows no root in its handshake, its list of authorities is asked for (RFC 7030, 4.1).

    Raises OSError, RejectedError (`ca-fingerprint`): there is none with this fingerprint.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, port), FETCH_S_MAX) as plain,
        context.wrap_socket(plain, server_hostname=host) as wire,
    ):
        found = [x509.load_der_x509_certificate(each) for each in presented_chain(wire)]
    wanted = [each for each in found if each.fingerprint(hashes.SHA256()).hex() == fingerprint]
    if not wanted:
        listed = _listed_roots(host, https_port, context)
        wanted = [each for each in listed if each.fingerprint(hashes.SHA256()).hex() == fingerprint]
    if not wanted:
        raise RejectedError(
            f"{host}:{port} shows no authority with the fingerprint {fingerprint}: compare it with what the platform's "
            "owner says; if it is right, somebody else answers in the server's place",
            code="ca-fingerprint",
        )
    return _pem(wanted[0])


def _listed_roots(host: str, port: int, context: ssl.SSLContext) -> list[x509.Certificate]:
    """Return what EST's list has, nothing where there is none."""
    connection = http.client.HTTPSConnection(host, port, timeout=FETCH_S_MAX, context=context)
    try:
        connection.request("GET", _CACERTS)
        answer = connection.getresponse()
        body = answer.read(CERTIFICATES_BYTES_MAX)
        if answer.status != http.client.OK:
            return []
        pem = b"-----BEGIN PKCS7-----\n" + b"".join(body.split()) + b"\n-----END PKCS7-----\n"
        return list(pkcs7.load_pem_pkcs7_certificates(pem))
    except (OSError, http.client.HTTPException, ValueError):
        return []
    finally:
        connection.close()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
