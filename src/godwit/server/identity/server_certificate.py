"""The server's certificate: made at first start, renewed at a start near its end, or given by the owner.

ECDSA P-256, signed by itself, for the names by which a machine is reached in a trial. Kept under `DATA_DIR/tls`; the
key is readable by its owner only.
"""

import datetime as dt
import os
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from godwit.contract.errors import RejectedError

LIFETIME: Final = dt.timedelta(days=397)
"""The longest that today's clients accept (CA/Browser Forum baseline requirements, 6.3.2)."""
RENEW_BEFORE: Final = dt.timedelta(days=30)
_BACKDATED: Final = dt.timedelta(hours=1)


class ServerCertificate(NamedTuple):
    """Where certificate chain and key are, both PEM."""

    certificate: Path
    key: Path


def ensure_server_certificate(
    data_dir: Path, now: dt.datetime, *, certificate: str = "", key: str = ""
) -> ServerCertificate:
    """Return the certificate to serve with: the given files, or our own, made or renewed if need be.

    Raises RejectedError (`tls-files`) when only one file is given, or one is missing.
    """
    if certificate or key:
        given = ServerCertificate(Path(certificate), Path(key))
        if not (certificate and key and given.certificate.is_file() and given.key.is_file()):
            raise RejectedError(
                f"TLS_CERTIFICATE ({certificate or 'not set'}) and TLS_KEY ({key or 'not set'}) must both name a file",
                code="tls-files",
            )
        return given
    own = ServerCertificate(data_dir / "tls" / "server.crt", data_dir / "tls" / "server.key")
    if not _is_good(own, now):
        _make(own, now)
    return own


def fingerprint(files: ServerCertificate) -> str:
    """Return the SHA-256 of the certificate, as people compare it."""
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def _is_good(files: ServerCertificate, now: dt.datetime) -> bool:
    if not (files.certificate.is_file() and files.key.is_file()):
        return False
    try:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    except ValueError:  # cut short by a full disk: made anew
        return False
    return key.public_key() == certificate.public_key() and now < certificate.not_valid_after_utc - RENEW_BEFORE


def _make(files: ServerCertificate, now: dt.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    host = socket.gethostname()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64] or "godwit")])
    names: list[x509.GeneralName] = [x509.DNSName(each) for each in dict.fromkeys(["localhost", host]) if each]
    names += [x509.IPAddress(ip_address("127.0.0.1")), x509.IPAddress(ip_address("::1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now - _BACKDATED + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files.key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(files.key, pem, 0o600)
    _write(files.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace `path`, never with half of it."""
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
