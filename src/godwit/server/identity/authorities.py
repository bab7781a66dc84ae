"""The authorities: our root and its issuing intermediate, and those of customers and factories that we trust.

Root and intermediate are ECDSA P-256. The root's key is needed for a new intermediate only, and may be moved offline.
"""

import datetime as dt
from time import time_ns
from typing import Final

import msgspec
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from godwit.contract.errors import RejectedError
from godwit.server.identity import rows
from godwit.server.identity.model import Authority, AuthorityKind, AuthorityState
from godwit.server.identity.news import News
from godwit.server.identity.vault import Vault
from godwit.server.storage import identity_tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

ROOT_LIFETIME: Final = dt.timedelta(days=20 * 365)
ISSUING_LIFETIME: Final = dt.timedelta(days=5 * 365)
BACKDATED: Final = dt.timedelta(hours=1)
"""Certificates begin so much earlier: clocks of devices are not exact."""
_OURS: Final = (AuthorityKind.ROOT, AuthorityKind.ISSUING)

SigningKey = ec.EllipticCurvePrivateKey


class Signer(msgspec.Struct, frozen=True):
    """What signs: an authority's certificate with its key, and the PEM of those above it, without the root."""

    authority: Authority
    certificate: x509.Certificate
    key: SigningKey
    chain: tuple[str, ...]


class Authorities:
    """Thread-safe; every method may block."""

    def __init__(self, database: Database, vault: Vault, news: News) -> None:
        self._database, self._vault, self._news = database, vault, news
        self._signers: dict[str, Signer] = {}

    def ensure(self) -> None:
        """Make root and issuing intermediate where there are none."""
        if self._find(AuthorityKind.ISSUING, AuthorityState.ACTIVE) is not None:
            return
        root_key, issuing_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        root_name = _name("godwit root")
        root = authority_certificate(root_name, root_key.public_key(), root_name, root_key, now, ROOT_LIFETIME, depth=1)
        issuing = authority_certificate(
            _name("godwit issuing"), issuing_key.public_key(), root_name, root_key, now, ISSUING_LIFETIME, depth=0
        )
        with self._database.write() as connection:
            above = self._insert(connection, root, AuthorityKind.ROOT, root_key, None)
            made = self._insert(connection, issuing, AuthorityKind.ISSUING, issuing_key, above.fingerprint)
            for each in (above, made):
                record(connection, "godwit", "authority.create", each.fingerprint, after={"subject": each.subject})
        for each in (above, made):
            self._news.tell(each)

    def _insert(
        self,
        connection: sa.Connection,
        certificate: x509.Certificate,
        kind: AuthorityKind,
        key: SigningKey,
        issuer: str | None,
    ) -> Authority:
        authority = describe(certificate, kind, issuer=issuer, has_key=True)
        pem = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        sealed = self._vault.seal(pem, authority.subject)
        connection.execute(t.authorities.insert(), rows.row_of_authority(authority, sealed))
        return authority

    def all(self) -> list[Authority]:
        """Return every authority, the newest last."""
        with self._database.read() as connection:
            found = connection.execute(sa.select(t.authorities).order_by(t.authorities.c.created)).all()
        return [rows.authority_of(each) for each in found]

    def _find(self, kind: AuthorityKind, state: AuthorityState) -> Authority | None:
        return next((each for each in self.all() if (each.kind, each.state) == (kind, state)), None)

    def signer(self) -> Signer:
        """Return who issues now. Raises RejectedError (`no-authority`)."""
        authority = self._find(AuthorityKind.ISSUING, AuthorityState.ACTIVE)
        if authority is None or not authority.has_key:
            raise RejectedError("there is no authority that can issue: its key is not here", code="no-authority")
        found = self._signers.get(authority.fingerprint)
        if found is None:
            with self._database.read() as connection:
                sealed = connection.execute(
                    sa.select(t.authorities.c.key).where(t.authorities.c.fingerprint == authority.fingerprint)
                ).scalar_one()
            key = serialization.load_der_private_key(self._vault.open(sealed, authority.subject), None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            certificate = x509.load_pem_x509_certificate(authority.certificate.encode())
            found = self._signers[authority.fingerprint] = Signer(authority, certificate, key, (authority.certificate,))
        return found

    def anchors(self) -> list[str]:
        """Return the PEM of our roots in force: whom devices trust."""
        return [
            each.certificate
            for each in self.all()
            if each.kind is AuthorityKind.ROOT and each.state is not AuthorityState.RETIRED
        ]


def authority_certificate(  # noqa: PLR0917 - subject, then issuer, then times
    name: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    issuer_key: SigningKey,
    now: dt.datetime,
    lifetime: dt.timedelta,
    *,
    depth: int,
) -> x509.Certificate:
    """Return an authority's certificate (RFC 5280, 4.2.1.9). `depth`: how many authorities may stand below it."""
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )  # fmt: skip


def describe(
    certificate: x509.Certificate,
    kind: AuthorityKind,
    *,
    issuer: str | None = None,
    has_key: bool = False,
    state: AuthorityState = AuthorityState.ACTIVE,
) -> Authority:
    """Return the row of an authority's certificate."""
    key_identifier = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
    subject = certificate.subject.rfc4514_string()
    return Authority(
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        name=subject.removeprefix("CN=")[:128],
        tenant=None,
        kind=kind,
        state=state,
        certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        subject=subject[:512],
        key_identifier=key_identifier.digest.hex(),
        issuer=issuer,
        has_key=has_key,
        not_before=nanoseconds(certificate.not_valid_before_utc),
        not_after=nanoseconds(certificate.not_valid_after_utc),
        created=time_ns(),
    )


def nanoseconds(time: dt.datetime) -> int:
    """Return a certificate's time (whole seconds) as ns UTC."""
    return int(time.timestamp()) * 1_000_000_000


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
