"""Revocation lists (RFC 5280, section 5), for others: our own broker asks the registry instead.

One list for each of our issuing authorities whose key is here. Devices that are suspended or retired stand in it with
`certificateHold`: brokers that only read lists are to keep them out, too.
"""

import datetime as dt
import threading
from collections.abc import Callable, Iterable
from time import time_ns
from typing import Final, NamedTuple

import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from godwit.contract.errors import RejectedError
from godwit.server.identity.authorities import Authorities
from godwit.server.identity.model import Authority, AuthorityKind, AuthorityState, Certificate, CertificateState, Change
from godwit.server.identity.news import News
from godwit.server.identity.profiles import BACKDATED, Signer, hash_for, key_identifier_of
from godwit.server.registry.model import Lifecycle
from godwit.server.storage import identity_tables as t
from godwit.server.storage.database import Database
from godwit.server.storage.tables import devices

LIFETIME: Final = dt.timedelta(days=2)
"""Until when a list is good. It is made anew on every change, and after half of that."""
HOLD: Final = "certificateHold"
_OUT: Final = (str(Lifecycle.SUSPENDED), str(Lifecycle.RETIRED))


class Entry(NamedTuple):
    """A certificate that does not count: its serial number, since when (ns UTC), and why."""

    serial: int
    since: int
    reason: str


class Made(NamedTuple):
    """A list as it was made."""

    der: bytes
    until: dt.datetime


def make_list(signer: Signer, entries: Iterable[Entry], number: int, now: dt.datetime) -> bytes:
    """Return a list in DER. `number` is higher than that of every list before it."""
    revoked_ones: list[x509.RevokedCertificate] = []  # handed over at once: the builder copies them each time
    for each in entries:
        revoked = (
            x509.RevokedCertificateBuilder()
            .serial_number(each.serial)
            .revocation_date(dt.datetime.fromtimestamp(each.since // 1_000_000_000, dt.UTC))
        )
        if each.reason not in ("", "unspecified"):  # which is said by saying nothing (5.3.1)
            revoked = revoked.add_extension(x509.CRLReason(x509.ReasonFlags(each.reason)), critical=False)
        revoked_ones.append(revoked.build())
    builder = (
        x509.CertificateRevocationListBuilder(revoked_certificates=revoked_ones)
        .issuer_name(signer.certificate.subject)
        .last_update(now - BACKDATED)
        .next_update(now + LIFETIME)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(key_identifier_of(signer.certificate), critical=False)
    )
    return builder.sign(signer.key, hash_for(signer.key)).public_bytes(serialization.Encoding.DER)


class RevocationLists:
    """Makes and keeps the lists. Thread-safe; blocks."""

    def __init__(self, database: Database, authorities: Authorities, news: News) -> None:
        self._database, self._authorities = database, authorities
        self._lock = threading.Lock()
        self._made: dict[str, Made] = {}
        self._version = 0
        self._listeners: list[Callable[[], object]] = []
        news.on_change(self._follow)

    def on_change(self, listener: Callable[[], object]) -> None:
        """Call `listener`, in the writing thread, when the lists are others than before."""
        self._listeners.append(listener)

    def _follow(self, change: Change) -> None:
        is_revoked = isinstance(change, Certificate) and change.state is CertificateState.REVOKED
        if is_revoked or isinstance(change, Authority):
            self.forget()

    def forget(self) -> None:
        """Have the lists made anew: something has changed."""
        with self._lock:
            self._made.clear()
            self._version += 1
        for listener in self._listeners:
            listener()

    def authorities(self) -> list[Authority]:
        """Return the authorities that there are lists of, the one that issues now first."""
        ours = [
            each
            for each in self._authorities.all()
            if each.kind is AuthorityKind.ISSUING and each.has_key and each.state is not AuthorityState.RETIRED
        ]
        return sorted(ours, key=lambda each: (each.state is not AuthorityState.ACTIVE, -each.created))

    def of(self, fingerprint: str | None = None) -> bytes:
        """Return an authority's list, DER; of the one that issues now where none is named.

        Raises RejectedError (`not-found`).
        """
        ours = {each.fingerprint: each for each in self.authorities()}
        authority = next(iter(ours.values()), None) if fingerprint is None else ours.get(fingerprint)
        if authority is None:
            raise RejectedError("there is no revocation list of this authority", code="not-found")
        now = dt.datetime.now(dt.UTC)
        with self._lock:
            found, version = self._made.get(authority.fingerprint), self._version
        if found is None or found.until - now < LIFETIME / 2:
            der = make_list(
                self._authorities.signer_of(authority), self._entries(authority.fingerprint), time_ns(), now
            )
            found = Made(der, now + LIFETIME)
            with self._lock:
                if self._version == version:
                    self._made[authority.fingerprint] = found
        return found.der

    def pem(self) -> bytes:
        """Return all lists in PEM, one after the other, as brokers read them from a file."""
        lists = (x509.load_der_x509_crl(self.of(each.fingerprint)) for each in self.authorities())
        return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in lists)

    def entry(self, authority: str, serial: int) -> Entry | None:
        """Return why a certificate does not count; None: it does.

        Raises RejectedError (`not-found`): we did not issue it.
        """
        with self._database.read() as connection:
            row = connection.execute(
                _status().where(t.certificates.c.authority == authority, t.certificates.c.serial == f"{serial:x}")
            ).one_or_none()
        if row is None:
            raise RejectedError("no certificate of this number", code="not-found")
        return _entry_of(row)

    def _entries(self, authority: str) -> list[Entry]:
        c = t.certificates.c
        counts_not = sa.or_(c.state == str(CertificateState.REVOKED), devices.c.lifecycle.in_(_OUT))
        statement = _status().where(c.authority == authority, c.not_after > time_ns(), counts_not)
        with self._database.read() as connection:
            found = [_entry_of(row) for row in connection.execute(statement)]
        return [each for each in found if each is not None]


def _status() -> "sa.Select[tuple[str, str, int, str, str, int]]":
    c = t.certificates.c
    return sa.select(c.serial, c.state, c.revoked, c.reason, devices.c.lifecycle, devices.c.updated).select_from(
        t.certificates.outerjoin(devices, devices.c.device_id == c.device_id)
    )


def _entry_of(row: "sa.Row[tuple[str, str, int, str, str, int]]") -> Entry | None:
    if row.state == CertificateState.REVOKED:
        return Entry(int(row.serial, 16), row.revoked, row.reason)
    return Entry(int(row.serial, 16), row.updated, HOLD) if row.lifecycle in _OUT else None
