"""The life of a certificate after it was issued: pending, active from its first use, superseded, revoked.

A revoked one counts no more, at once. The CRL and the answers of OCSP are made from the same rows, for others.
"""

from collections.abc import Callable, Sequence
from time import time_ns
from typing import Final

import msgspec
import sqlalchemy as sa

from godwit.contract.errors import RejectedError, UnavailableError
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
_AT_ONCE: Final = 500


class Revocation:
    """Thread-safe; blocks."""

    def __init__(self, database: Database, news: News) -> None:
        self._database, self._news = database, news
        self._seen: dict[str, int] = {}

    def seen(self, fingerprint: str, at: int | None = None) -> None:
        """Note that a device has connected with a certificate. Does not block: `flush` writes it down.

        Only the first time is of interest; said again, nothing happens.
        """
        self._seen.setdefault(fingerprint, at or time_ns())

    @property
    def has_seen(self) -> bool:
        """Whether there is something to write down."""
        return bool(self._seen)

    def flush(self) -> list[Certificate]:
        """Write down which certificates came into use, and that those before them are superseded; tells everybody.

        Returns what has changed. Raises UnavailableError (`registry-unavailable`): all is kept for the next time.
        """
        seen, self._seen = self._seen, {}
        changed: list[Certificate] = []
        try:
            with self._database.write() as connection:
                c = t.certificates.c
                fingerprints = sorted(seen)
                for at in range(0, len(fingerprints), _AT_ONCE):
                    part = fingerprints[at : at + _AT_ONCE]
                    statement = sa.select(t.certificates).where(
                        c.fingerprint.in_(part), c.state == str(CertificateState.PENDING)
                    )
                    for row in connection.execute(statement).all():
                        changed += _activate(connection, rows.certificate_of(row), seen[row.fingerprint])
        except UnavailableError:
            self._seen = seen | self._seen
            raise
        for each in changed:
            self._news.tell(each)
        return changed

    def revoke(self, fingerprint: str, reason: str, who: str, *, address: str = "") -> Certificate:
        """Revoke a certificate; again is no error. Raises RejectedError (`not-found`, `invalid-reason`)."""
        if reason not in REASONS:
            raise RejectedError(f"a reason is one of {', '.join(REASONS)}", code="invalid-reason")

        def revoked(before: Certificate) -> Certificate:
            if before.state is CertificateState.REVOKED:
                return before
            return msgspec.structs.replace(before, state=CertificateState.REVOKED, revoked=time_ns(), reason=reason)

        return self._change(fingerprint, revoked, "certificate.revoke", who, address)

    def revoke_unused(self, fingerprints: Sequence[str], reason: str, who: str, address: str = "") -> None:
        """Revoke those of these certificates that were never connected with, many at once."""
        c = t.certificates.c
        for at in range(0, len(fingerprints), _AT_ONCE):
            is_one = sa.and_(
                c.fingerprint.in_(fingerprints[at : at + _AT_ONCE]), c.state == str(CertificateState.PENDING)
            )
            now = time_ns()
            with self._database.write() as connection:
                before = [
                    rows.certificate_of(each) for each in connection.execute(sa.select(t.certificates).where(is_one))
                ]
                connection.execute(
                    t.certificates.update()
                    .where(is_one)
                    .values(state=str(CertificateState.REVOKED), revoked=now, reason=reason)
                )
                for each in before:
                    record(
                        connection, who, "certificate.revoke", each.device_id, tenant=each.tenant, address=address,
                        before={"fingerprint": each.fingerprint, "state": str(each.state)},
                        after={"fingerprint": each.fingerprint, "state": "revoked", "reason": reason},
                    )  # fmt: skip
            for each in before:
                self._news.tell(
                    msgspec.structs.replace(each, state=CertificateState.REVOKED, revoked=now, reason=reason)
                )

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


def _activate(connection: sa.Connection, certificate: Certificate, at: int) -> list[Certificate]:
    """Have a certificate be the one in use. Those in use before it count until their own end."""
    c = t.certificates.c
    older = sa.select(t.certificates).where(
        c.device_id == certificate.device_id, c.state == str(CertificateState.ACTIVE), c.created <= certificate.created
    )
    before = [rows.certificate_of(each) for each in connection.execute(older).all()]
    after = [
        *(msgspec.structs.replace(each, state=CertificateState.SUPERSEDED) for each in before),
        msgspec.structs.replace(certificate, state=CertificateState.ACTIVE, first_seen=at),
    ]
    for old, new in zip([*before, certificate], after, strict=True):
        connection.execute(
            t.certificates.update().where(c.fingerprint == new.fingerprint), rows.row_of_certificate(new)
        )
        record(
            connection, "godwit", "certificate.first-use" if old is certificate else "certificate.supersede",
            new.device_id, tenant=new.tenant, before={"fingerprint": new.fingerprint, "state": str(old.state)},
            after={"fingerprint": new.fingerprint, "state": str(new.state)},
        )  # fmt: skip
    return after
