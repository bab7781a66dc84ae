"""The server's certificate, for broker, console, API and the port of devices: issued and renewed by us, or from files.

Ours is ECDSA P-256, issued by our issuing authority and served with it. `DATA_DIR/tls/ca.crt` holds the roots, for
whoever is to trust us. All is looked at again and again while the platform runs: an end that comes near, other names,
another issuing authority, files that were replaced; listeners then take the new one for new connections.
"""

import asyncio
import datetime as dt
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from godwit.contract.errors import RejectedError
from godwit.runtime.files import write_whole
from godwit.server.identity.authorities import Authorities
from godwit.server.identity.profiles import SERVER_LIFETIME, Signer, server_certificate

log = logging.getLogger(__name__)

RENEW_BEFORE: Final = dt.timedelta(days=30)
_EVERYWHERE: Final = ("0.0.0.0", "::", "")  # noqa: S104 - no address to go to
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")


class ServerCertificate(NamedTuple):
    """Where certificate chain and key are, both PEM."""

    certificate: Path
    key: Path


class Given(NamedTuple):
    """What the owner says: names and addresses of this server, or files to serve with instead of our own."""

    names: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""


OF_ITS_OWN: Final = Given()


class ServerCertificates:
    """Keeps the files of one server. `refresh` may be called from any one thread at a time."""

    def __init__(self, data_dir: Path, authorities: Authorities, given: Given) -> None:
        self._directory, self._authorities, self._given = data_dir / "tls", authorities, given
        self._served = b""
        self._names: list[str] = []
        self._listeners: list[Callable[[], object]] = []
        if given.certificate or given.key:
            self.files = ServerCertificate(Path(given.certificate), Path(given.key))
        else:
            self.files = ServerCertificate(self._directory / "server.crt", self._directory / "server.key")

    @property
    def host(self) -> str:
        """Return the name by which devices are to reach this server."""
        return next((each for each in self._given.names if each not in _EVERYWHERE), socket.gethostname())

    @property
    def ca(self) -> Path:
        """Return the file of the roots, for whoever is to trust us."""
        return self._directory / "ca.crt"

    def ensure(self) -> ServerCertificate:
        """Return the certificate to serve with: the given files, or our own, made or renewed if need be.

        Raises RejectedError (`tls-files`) when only one file is given, or they do not serve.
        """
        given = self._given
        is_given = bool(given.certificate or given.key)
        if is_given and not (given.certificate and given.key and self.files[0].is_file() and self.files[1].is_file()):
            raise RejectedError(
                f"TLS_CERTIFICATE ({given.certificate or 'not set'}) and TLS_KEY ({given.key or 'not set'}) must both "
                "name a file",
                code="tls-files",
            )
        self.refresh(dt.datetime.now(dt.UTC))
        try:
            check_files(self.files)
        except OSError as error:
            raise RejectedError(
                f"TLS_CERTIFICATE and TLS_KEY ({self.files[0]}, {self.files[1]}) do not serve: {error}",
                code="tls-files",
            ) from error
        return self.files

    def refresh(self, now: dt.datetime) -> bool:
        """Renew what is ours if need be, and write the roots; True when there is another certificate than before."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        anchors = "".join(self._authorities.anchors()).encode()
        if not self.ca.is_file() or self.ca.read_bytes() != anchors:
            write_whole(self.ca, anchors)
        if not self._given.certificate:
            self._renew(now)
        served = self.files.certificate.read_bytes() + self.files.key.read_bytes()
        is_other, self._served = served != self._served, served
        return is_other

    def _renew(self, now: dt.datetime) -> None:
        try:
            signer = self._authorities.signer()
        except RejectedError:
            if self.files.certificate.is_file():
                log.warning("the server's certificate cannot be renewed: no authority can issue here")
                return
            raise
        self._names = self._names or names_of(self._given.names)  # once: asking may take a while
        if not _is_good(self.files, signer, self._names, now):
            _make(self.files, signer, self._names, now)

    def on_change(self, listener: Callable[[], object]) -> None:
        """Call `listener`, on the loop of `look`, when there is another certificate to serve with."""
        self._listeners.append(listener)

    async def look(self) -> None:
        """Look now; have the listeners take what is new."""
        try:
            if await asyncio.to_thread(self._look):
                for listener in self._listeners:
                    listener()
        except (OSError, RejectedError, ValueError) as error:  # half replaced: the next look finds the rest
            self._served = b""
            log.warning("the server's certificate stays as it is: %s", error)

    def _look(self) -> bool:
        is_other = self.refresh(dt.datetime.now(dt.UTC))
        if is_other:
            check_files(self.files)
            log.info("the server's certificate is another one: %s", fingerprint(self.files))
        return is_other


def check_files(files: ServerCertificate) -> None:
    """Raise OSError (ssl.SSLError is one) unless certificate and key can be served with.

    Asked before a live context takes them: one that fails half-way has a certificate without its key.
    """
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*files)


def fingerprint(files: ServerCertificate) -> str:
    """Return the SHA-256 of the certificate, as people compare it."""
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def names_of(given: Sequence[str]) -> list[str]:
    """Return the names and addresses by which this machine is reached: those given, its host name, loopback."""
    host = socket.gethostname()
    found = [each for each in given if each not in _EVERYWHERE]
    found += [host, *_LOCAL]
    if any(each in _EVERYWHERE for each in given):
        found += _addresses(host)
    return list(dict.fromkeys(each for each in found if each))


def _addresses(host: str) -> list[str]:
    """Return the addresses of this machine, as far as it can be asked without sending anything."""
    try:
        found = {str(each[4][0]).partition("%")[0] for each in socket.getaddrinfo(host, None)}
    except OSError:
        found = set()
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as asked:
                asked.connect((far, 9))  # a datagram socket only looks up the route
                found.add(asked.getsockname()[0])
        except OSError:
            continue
    return sorted(found)


def _is_good(files: ServerCertificate, signer: Signer, names: Sequence[str], now: dt.datetime) -> bool:
    if not (files.certificate.is_file() and files.key.is_file()):
        return False
    try:
        certificate, *chain = x509.load_pem_x509_certificates(files.certificate.read_bytes())
        key = serialization.load_pem_private_key(files.key.read_bytes(), None)
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        certificate.verify_directly_issued_by(signer.certificate)
    except (ValueError, TypeError, x509.ExtensionNotFound, InvalidSignature):
        return False  # cut short by a full disk, or signed by itself: made anew
    known = {str(each.value) for each in found}
    return (
        key.public_key() == certificate.public_key()
        and known.issuperset(names)
        and [each.public_bytes(serialization.Encoding.PEM).decode() for each in chain] == list(signer.chain)
        and now < certificate.not_valid_after_utc - min(RENEW_BEFORE, _third_of(certificate))
    )


def _third_of(certificate: x509.Certificate) -> dt.timedelta:
    return (certificate.not_valid_after_utc - certificate.not_valid_before_utc) / 3


def _make(files: ServerCertificate, signer: Signer, names: Sequence[str], now: dt.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = server_certificate(key.public_key(), names, signer, now, SERVER_LIFETIME)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain = certificate.public_bytes(serialization.Encoding.PEM) + "".join(signer.chain).encode()
    write_whole(files.key, pem, mode=0o600)
    write_whole(files.certificate, chain)
