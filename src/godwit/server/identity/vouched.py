"""Devices registered with a certificate that another authority issued: a customer's own, or a factory's.

The authority is trusted for one tenant, and vouches for its devices only; we issue nothing here.
"""

import datetime as dt
from time import time_ns

import sqlalchemy as sa

from godwit.contract.errors import MalformedError, RejectedError
from godwit.contract.ids import DeviceId
from godwit.server.accounts.principal import Principal
from godwit.server.identity.enrollment import Enrollment
from godwit.server.identity.issuance import Issuance
from godwit.server.identity.model import Certificate, CertificateState, Source
from godwit.server.identity.rules import landing_of
from godwit.server.identity.vouching import check_voucher, describe_certificate, issuer_of, read_certificate
from godwit.server.registry.model import DEFAULT_TYPE, Device, Lifecycle
from godwit.server.registry.service import Registry
from godwit.server.storage import identity_tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database


class Vouched:
    """Thread-safe; blocks."""

    def __init__(self, database: Database, registry: Registry, issuance: Issuance, enrollment: Enrollment) -> None:
        self._database, self._registry = database, registry
        self._issuance, self._enrollment = issuance, enrollment

    def register(
        self, who: Principal, device_id: DeviceId, pem: str, lifecycle: Lifecycle = Lifecycle.ACTIVE
    ) -> tuple[Device, Certificate]:
        """Register a new device with its certificate. Again with the same certificate is no error.

        Raises RejectedError (`authority-unknown`, `certificate-...`, `weak-...`, `key-shared`, `exists`) or
        MalformedError; audited.
        """
        try:
            certificate = self._check(who, device_id, pem)
            known = self._issuance.find(certificate.fingerprint)
            if known is not None:
                return self._registry.device(who, device_id), known
            rules = self._enrollment.rules.of_tenant(certificate.tenant)
            landing = landing_of(rules, device_id, Source.API, self._enrollment.landing_of(certificate.authority))
            device = Device(
                device_id, certificate.tenant, landing.device_type or DEFAULT_TYPE, lifecycle=lifecycle,
                tags=landing.tags,
            )  # fmt: skip
            device = self._registry.take_in(who, device, landing.groups)
        except (RejectedError, MalformedError) as error:
            self._refused(who, device_id, error.code)
            raise
        self._enrollment.configure(device_id, landing.configuration)
        self._enrollment.keep(certificate, who.name, who.address)
        return device, certificate

    def rotate(self, who: Principal, device_id: DeviceId, pem: str) -> Certificate:
        """Give a device its next certificate: the old one is superseded when the new one first connects.

        Raises RejectedError as `register` does, and `not-found`.
        """
        device = self._registry.device(who, device_id)
        try:
            certificate = self._check(who, device_id, pem)
            if certificate.tenant != device.tenant:
                raise RejectedError("nobody whom we trust issued this certificate", code="authority-unknown")
        except (RejectedError, MalformedError) as error:
            self._refused(who, device_id, error.code)
            raise
        known = self._issuance.find(certificate.fingerprint)
        if known is not None:
            return known
        self._enrollment.keep(certificate, who.name, who.address)
        return certificate

    def _check(self, who: Principal, device_id: DeviceId, pem: str) -> Certificate:
        """Return the row of a certificate that may stand for this device."""
        read = read_certificate(pem)
        authority = issuer_of(read, self._enrollment.vouching())
        is_foreign = authority is not None and who.tenants is not None and authority.tenant not in who.tenants
        if authority is None or is_foreign:
            raise RejectedError("nobody whom we trust issued this certificate", code="authority-unknown")
        named = check_voucher(read, authority, dt.datetime.now(dt.UTC))
        if named != device_id:
            raise RejectedError(
                f"the certificate is {named!r}'s, not {device_id!r}'s: its CN is the device id",
                code="certificate-wrong-name",
            )
        certificate = describe_certificate(read, authority, device_id, Source.API, time_ns())
        c = t.certificates.c
        with self._database.read() as connection:
            same_key = connection.execute(
                sa.select(c.fingerprint, c.device_id, c.state).where(c.key_fingerprint == certificate.key_fingerprint)
            ).all()
        revoked = str(CertificateState.REVOKED)
        if any(row.fingerprint == certificate.fingerprint and row.state == revoked for row in same_key):
            raise RejectedError("this certificate was revoked", code="certificate-revoked")
        if any(row.state == revoked for row in same_key):
            raise RejectedError("a certificate of this key was revoked: make a new key", code="key-revoked")
        if any(row.device_id != device_id for row in same_key):
            raise RejectedError("another device has this key: every device makes its own", code="key-shared")
        self._enrollment.check_serial(certificate)
        return certificate

    def _refused(self, who: Principal, device_id: str, code: str) -> None:
        tenant = who.tenants[0] if who.tenants else ""
        with self._database.write() as connection:
            record(
                connection, who.name, "enrollment.refuse", device_id, tenant=tenant, address=who.address,
                after={"code": code, "detail": "", "source": str(Source.API)},
            )  # fmt: skip
