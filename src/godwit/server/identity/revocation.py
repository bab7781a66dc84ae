"""Revocation: a certificate that counts no more, at once. The CRL is made from the same rows, for others."""

from collections.abc import Callable
from time import time_ns
from typing import Final

import msgspec
import sqlalchemy as sa

from godwit.contract.errors import RejectedError
from godwit.server.identity import rows
from godwit.server.identity.model import Certificate, CertificateState
from godwit.server.identity.news import News
from godwit.server.storage import identity_tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

REASONS: Final = (
    "unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded", "cessationOfOperation",
    "privilegeWithdrawn",
)  # fmt: skip
"""RFC 5280, 5.3.1, those that last. What is only for a while is the suspension of a device."""


class Revocation:
    """Thread-safe; blocks."""

    def __init__(self, database: Database, news: News) -> None:
        self._database, self._news = database, news

    def revoke(self, fingerprint: str, reason: str, who: str, *, address: str = "") -> Certificate:
        """Revoke a certificate; again is no error. Raises RejectedError (`not-found`, `invalid-reason`)."""
        if reason not in REASONS:
            raise RejectedError(f"a reason is one of {', '.join(REASONS)}", code="invalid-reason")

        def revoked(before: Certificate) -> Certificate:
            if before.state is CertificateState.REVOKED:
                return before
            return msgspec.structs.replace(before, state=CertificateState.REVOKED, revoked=time_ns(), reason=reason)

        return self._change(fingerprint, revoked, "certificate.revoke", who, address)

    def _change(
        self, fingerprint: str, change: Callable[[Certificate], Certificate], what: str, who: str, address: str
    ) -> Certificate:
        where = t.certificates.c.fingerprint == fingerprint
        with self._database.write() as connection:
            row = connection.execute(sa.select(t.certificates).where(where)).one_or_none()
            if row is None:
                raise RejectedError(f"no certificate {fingerprint[:64]!r}", code="not-found")
            before = rows.certificate_of(row)
            after = change(before)
            if after == before:
                return before
            connection.execute(t.certificates.update().where(where), rows.row_of_certificate(after))
            record(
                connection, who, what, before.device_id, tenant=before.tenant, address=address,
                before={"fingerprint": fingerprint, "state": str(before.state)},
                after={"fingerprint": fingerprint, "state": str(after.state), "reason": after.reason},
            )  # fmt: skip
        self._news.tell(after)
        return after
