"""Issuance: what may be issued (profiles), and the making of device certificates. Nothing here asks who may ask."""

import datetime as dt
from time import time_ns
from typing import Final
from urllib.parse import quote

import msgspec
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId, TenantId
from godwit.server.identity import rows
from godwit.server.identity.authorities import BACKDATED, Authorities, nanoseconds
from godwit.server.identity.model import Certificate, CertificateState, Source
from godwit.server.identity.news import News
from godwit.server.identity.requests import check_key, check_wishes, key_fingerprint
from godwit.server.storage import identity_tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

LIFETIME_DEFAULT: Final = dt.timedelta(days=90)
LIFETIME_MAX: Final = dt.timedelta(days=365)


def device_uri(tenant: str, device_id: str) -> str:
    """Return the name of a device in its certificate's SAN: with its tenant."""
    return f"urn:godwit:{quote(tenant, safe='')}:{device_id}"


class Issued(msgspec.Struct, frozen=True):
    """A new certificate, and the PEM of the authorities between it and the root."""

    certificate: Certificate
    chain: tuple[str, ...]


class Issuance:
    """Issues device certificates. Thread-safe; blocks."""

    def __init__(
        self, database: Database, authorities: Authorities, news: News, *, lifetime: dt.timedelta = LIFETIME_DEFAULT
    ) -> None:
        self._database, self._authorities, self._news = database, authorities, news
        self.lifetime = min(lifetime, LIFETIME_MAX)

    def issue(
        self,
        request: x509.CertificateSigningRequest,
        device_id: DeviceId,
        tenant: TenantId,
        source: Source,
        who: str,
        *,
        lifetime: dt.timedelta | None = None,
    ) -> Issued:
        """Issue a certificate for a device that exists. The request has been read by `read_request`.

        Raises RejectedError (`csr-wrong-name`, `csr-wants-authority`, `weak-key`, `lifetime-too-long`,
        `no-authority`).
        """
        check_wishes(request, device_id, device_uri(tenant, device_id))
        lifetime = lifetime or self.lifetime
        if lifetime > LIFETIME_MAX:
            raise RejectedError(
                f"a device's certificate lives {LIFETIME_MAX.days} days at most", code="lifetime-too-long"
            )
        signer = self._authorities.signer()
        key = check_key(request.public_key())
        now = dt.datetime.now(dt.UTC)
        ends = min(now + lifetime, signer.certificate.not_valid_after_utc)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)]))
            .issuer_name(signer.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True, key_cert_sign=False, crl_sign=False, content_commitment=False,
                    key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(device_uri(tenant, device_id))]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False
            )
            .sign(signer.key, hashes.SHA256())
        )  # fmt: skip
        certificate = Certificate(
            fingerprint=made.fingerprint(hashes.SHA256()).hex(),
            device_id=device_id,
            tenant=tenant,
            authority=signer.authority.fingerprint,
            serial=f"{made.serial_number:x}",
            key_fingerprint=key_fingerprint(key),
            state=CertificateState.PENDING,
            source=source,
            certificate=made.public_bytes(serialization.Encoding.PEM).decode(),
            not_before=nanoseconds(made.not_valid_before_utc),
            not_after=nanoseconds(made.not_valid_after_utc),
            created=time_ns(),
        )
        with self._database.write() as connection:
            connection.execute(t.certificates.insert(), rows.row_of_certificate(certificate))
            record(
                connection, who, "certificate.issue", device_id, tenant=tenant,
                after={
                    "fingerprint": certificate.fingerprint, "source": str(source), "notAfter": certificate.not_after,
                },
            )  # fmt: skip
        self._news.tell(certificate)
        return Issued(certificate, signer.chain)

    def find(self, fingerprint: str) -> Certificate | None:
        """Return a certificate that we know."""
        with self._database.read() as connection:
            row = connection.execute(
                sa.select(t.certificates).where(t.certificates.c.fingerprint == fingerprint)
            ).one_or_none()
        return None if row is None else rows.certificate_of(row)

    def of_device(self, device_id: DeviceId) -> list[Certificate]:
        """Return a device's certificates, the newest first."""
        c = t.certificates.c
        statement = sa.select(t.certificates).where(c.device_id == device_id).order_by(c.created.desc())
        with self._database.read() as connection:
            return [rows.certificate_of(each) for each in connection.execute(statement)]
