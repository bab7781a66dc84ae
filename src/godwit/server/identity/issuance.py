"""Issuance: what may be issued (profiles), and the making of device certificates. Nothing here asks who may ask."""

import datetime as dt
from collections.abc import Sequence
from time import time_ns
from typing import Final

import msgspec
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId, TenantId
from godwit.server.identity import rows
from godwit.server.identity.authorities import Authorities, nanoseconds
from godwit.server.identity.grounds import check_authority, check_credential, check_devices
from godwit.server.identity.model import Certificate, CertificateState, Credential, Source
from godwit.server.identity.news import News
from godwit.server.identity.profiles import Signer, device_certificate, device_uri
from godwit.server.identity.requests import check_key, check_wishes, key_fingerprint
from godwit.server.storage import identity_tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

__all__ = ["LIFETIME_DEFAULT", "LIFETIME_MAX", "Issuance", "Issued", "Order", "device_uri"]

LIFETIME_DEFAULT: Final = dt.timedelta(days=90)
LIFETIME_MAX: Final = dt.timedelta(days=365)


class Order(msgspec.Struct, frozen=True):
    """A certificate that is wanted: the request (read by `read_request`), and for which device."""

    request: x509.CertificateSigningRequest
    device_id: DeviceId
    tenant: TenantId


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
        trusts: Sequence[str] = (),
        address: str = "",
        by: Credential | None = None,
    ) -> Issued:
        """Issue a certificate for a device that exists. The request has been read by `read_request`.

        `trusts`: the roots that the device says it trusts (a rollover asks). Raises RejectedError (`csr-wrong-name`,
        `csr-wants-authority`, `weak-key`, `lifetime-too-long`, `no-authority`), and what `grounds` raises.
        """
        order = Order(request, device_id, tenant)
        return self.issue_all([order], source, who, lifetime=lifetime, trusts=trusts, address=address, by=by)[0]

    def issue_all(
        self,
        orders: Sequence[Order],
        source: Source,
        who: str,
        *,
        lifetime: dt.timedelta | None = None,
        trusts: Sequence[str] = (),
        address: str = "",
        by: Credential | None = None,
    ) -> list[Issued]:
        """Issue certificates in one transaction: all of them, or none. Raises like `issue`.

        `by`: the credential they are issued on, which counts until they are kept; so do the devices.
        """
        lifetime = lifetime or self.lifetime
        if lifetime > LIFETIME_MAX:
            raise RejectedError(
                f"a device's certificate lives {LIFETIME_MAX.days} days at most", code="lifetime-too-long"
            )
        signer = self._authorities.signer(trusts)
        made = [_make(each, signer, source, lifetime) for each in orders]
        with self._database.write() as connection:
            connection.execute(t.certificates.insert(), [rows.row_of_certificate(each) for each in made])
            for each in made:
                after = {"fingerprint": each.fingerprint, "source": str(source), "notAfter": each.not_after}
                record(
                    connection, who, "certificate.issue", each.device_id, tenant=each.tenant, address=address,
                    after=after,
                )  # fmt: skip
            # After the insert: SQLite has begun to write by then, and nobody else does.
            check_authority(connection, signer.authority.fingerprint)
            check_devices(connection, [(each.device_id, each.tenant) for each in made])
            if by is not None:
                check_credential(connection, by)
        for each in made:
            self._news.tell(each)
        return [Issued(each, signer.chain) for each in made]

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


def _make(order: Order, signer: Signer, source: Source, lifetime: dt.timedelta) -> Certificate:
    check_wishes(order.request, order.device_id, device_uri(order.tenant, order.device_id))
    key = check_key(order.request.public_key())
    now = dt.datetime.now(dt.UTC)
    made = device_certificate(key, order.device_id, order.tenant, signer, now, lifetime)
    return Certificate(
        fingerprint=made.fingerprint(hashes.SHA256()).hex(),
        device_id=order.device_id,
        tenant=order.tenant,
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
