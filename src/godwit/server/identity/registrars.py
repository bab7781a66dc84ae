"""The registrar of SCEP: an RSA key, since requests are encrypted to it, certified by our issuing authority.

Made when somebody first asks, and anew before its end and when another authority issues. Older ones still read what was
encrypted to them.
"""

import datetime as dt
import threading
from time import time_ns
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier

from godwit.contract.errors import RejectedError
from godwit.server.identity.authorities import BACKDATED, Authorities, Signer, nanoseconds
from godwit.server.identity.profiles import hash_for, key_identifier_of
from godwit.server.identity.registrar import Registrar
from godwit.server.identity.vault import Vault
from godwit.server.storage import identity_tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

LIFETIME: Final = dt.timedelta(days=365)
RENEW_BEFORE: Final = dt.timedelta(days=30)
KEY_BITS: Final = 3_072
_REGISTRAR: Final = ObjectIdentifier("1.3.6.1.5.5.7.3.28")
"""id-kp-cmcRA (RFC 6402, 2.10): it is no client and no server."""


class Certified(msgspec.Struct, frozen=True):
    """A registrar, with the PEM of the authorities above it, without the root."""

    registrar: Registrar
    chain: tuple[str, ...]


class Registrars:
    """Thread-safe; blocks. Making a key takes some tenths of a second."""

    def __init__(self, database: Database, vault: Vault, authorities: Authorities) -> None:
        self._database, self._vault, self._authorities = database, vault, authorities
        self._known: dict[int, Registrar] = {}
        self._lock = threading.Lock()

    def current(self) -> Certified:
        """Return who answers now. Raises RejectedError (`no-authority`)."""
        signer = self._authorities.signer()
        now = dt.datetime.now(dt.UTC)
        soon = min(now + RENEW_BEFORE, signer.certificate.not_valid_after_utc)
        with self._lock:
            c = t.registrars.c
            row = self._row(sa.and_(c.authority == signer.authority.fingerprint, c.not_after >= nanoseconds(soon)))
            registrar = self._open(row) if row is not None else self._make(signer, now)
        return Certified(registrar, signer.chain)

    def of_serial(self, serial: int) -> Registrar:
        """Return who can read what was encrypted to the certificate of this serial number.

        Raises RejectedError (`scep-envelope`).
        """
        with self._lock:
            found = self._known.get(serial)
            if found is None:
                c = t.registrars.c
                row = self._row(sa.and_(c.serial == f"{serial:x}"[:64], c.not_after > time_ns()))
                if row is None:
                    raise RejectedError("the envelope is not for this server", code="scep-envelope")
                found = self._open(row)
        return found

    def _row(self, where: "sa.ColumnElement[bool]") -> Any:
        newest = sa.select(t.registrars).where(where).order_by(t.registrars.c.not_after.desc()).limit(1)
        with self._database.read() as connection:
            return connection.execute(newest).one_or_none()

    def _open(self, row: Any) -> Registrar:
        certificate = x509.load_pem_x509_certificate(row.certificate.encode())
        found = self._known.get(certificate.serial_number)
        if found is None:
            key = serialization.load_der_private_key(self._vault.open(row.key, about_registrar(row.fingerprint)), None)
            assert isinstance(key, rsa.RSAPrivateKey)
            found = self._known[certificate.serial_number] = Registrar(certificate, key)
        return found

    def _make(self, signer: Signer, now: dt.datetime) -> Registrar:
        key = rsa.generate_private_key(65_537, KEY_BITS)
        certificate = _certify(key.public_key(), signer, now)
        fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
        der = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        row = {
            "fingerprint": fingerprint,
            "authority": signer.authority.fingerprint,
            "serial": f"{certificate.serial_number:x}",
            "certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(),
            "not_after": nanoseconds(certificate.not_valid_after_utc),
            "created": time_ns(),
        }
        with self._database.write() as connection:
            # sealed in here: a change of the passphrase waits, and finds it
            sealed = self._vault.seal(der, about_registrar(fingerprint))
            connection.execute(t.registrars.insert(), {**row, "key": sealed})
            record(connection, "godwit", "registrar.create", fingerprint, after={"notAfter": row["not_after"]})
        made = self._known[certificate.serial_number] = Registrar(certificate, key)
        return made


def about_registrar(fingerprint: str) -> str:
    """Return what the vault is told of a registrar's key."""
    return f"registrar {fingerprint}"


def _certify(key: rsa.RSAPublicKey, signer: Signer, now: dt.datetime) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "godwit registrar")]))
        .issuer_name(signer.certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(min(now + LIFETIME, signer.certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_encipherment=True, key_cert_sign=False, crl_sign=False,
                content_commitment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([_REGISTRAR]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(key_identifier_of(signer.certificate), critical=False)
        .sign(signer.key, hash_for(signer.key))
    )  # fmt: skip
