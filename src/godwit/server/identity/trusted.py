"""Authorities of customers and factories: trusted for one tenant, by who proves that he has their key.

The proof is a certificate that the authority signs over a random code of ours, in its CN. Codes wait in memory: after
a restart one begins again.
"""

import datetime as dt
import hashlib
import secrets
import threading
from collections.abc import Collection
from time import time_ns
from typing import Final

import msgspec
import sqlalchemy as sa
from cryptography import x509

from godwit.contract.errors import RejectedError
from godwit.contract.ids import TenantId
from godwit.server.accounts.principal import Principal
from godwit.server.identity import rows
from godwit.server.identity.authorities import describe, nanoseconds
from godwit.server.identity.model import Authority, AuthorityKind, AuthorityTerms, Landing
from godwit.server.identity.news import News
from godwit.server.identity.requests import common_name
from godwit.server.identity.rules import check_landing, check_patterns
from godwit.server.identity.vouching import is_issued_by, read_certificate
from godwit.server.registry.access import not_found, require_tenant
from godwit.server.storage import identity_tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database
from godwit.server.storage.tables import tenants

PROOF_S: Final = 24 * 3_600
WAITING_MAX: Final = 100
"""Of a tenant: nobody keeps another from announcing his own."""
_NS: Final = 1_000_000_000


class Awaited(msgspec.Struct, frozen=True):
    """An authority whose proof is awaited until `expires` (ns UTC): a certificate with CN `code`."""

    authority: Authority
    code: str
    expires: int


class TermsChange(msgspec.Struct, frozen=True):
    """What of an authority is to be another: None: it stays."""

    name: str | None = None
    ids: tuple[str, ...] | None = None
    just_in_time: bool | None = None
    landing: Landing | None = None


def mark_of(authority: Authority) -> str:
    """Return the mark of what can be changed: it is another when anything of that is (RFC 9110, 8.8.3)."""
    said = msgspec.json.encode((authority.name, str(authority.state), authority.terms))
    return hashlib.sha256(said).hexdigest()[:16]


class TrustedAuthorities:
    """Thread-safe; blocks."""

    def __init__(self, database: Database, news: News) -> None:
        self._database, self._news = database, news
        self._waiting: dict[str, Awaited] = {}
        self._lock = threading.Lock()

    def begin(
        self,
        who: Principal,
        pem: str,
        kind: AuthorityKind,
        tenant: TenantId | None,
        *,
        name: str,
        terms: AuthorityTerms,
    ) -> Awaited:
        """Take note of an authority, and return the code that it has to sign.

        Raises RejectedError (`not-found`, `exists`, `authority-unfit`, `weak-key`, `weak-signature`).
        """
        tenant = require_tenant(who, tenant)
        check_landing(terms.landing)
        check_patterns(*terms.ids)
        certificate = read_certificate(pem)
        _check_authority(certificate)
        described = describe(certificate, kind)
        authority = msgspec.structs.replace(
            described, tenant=tenant, name=name[:128] or described.name, terms=terms, has_key=False
        )
        now = time_ns()
        awaited = Awaited(authority, secrets.token_hex(20), now + PROOF_S * _NS)
        with self._database.read() as connection:
            if connection.execute(sa.select(tenants.c.name).where(tenants.c.name == tenant)).first() is None:
                raise not_found("tenant", tenant)
        self._refuse_known(authority)
        with self._lock:
            self._waiting = {key: each for key, each in self._waiting.items() if each.expires > now}
            key = f"{tenant} {authority.fingerprint}"
            others = [each for name, each in self._waiting.items() if each.authority.tenant == tenant and name != key]
            if len(others) >= WAITING_MAX:
                raise RejectedError("too many authorities wait for their proof", code="rate-limited")
            self._waiting[key] = awaited
        return awaited

    def waiting(self, who: Principal) -> list[Awaited]:
        """Return the authorities that wait for their proof, as far as `who` may see them; the oldest first."""
        now = time_ns()
        with self._lock:
            found = [each for each in self._waiting.values() if each.expires > now]
        return [each for each in found if _may_see(who, each.authority)]

    def prove(self, who: Principal, fingerprint: str, pem: str) -> Authority:
        """Trust an authority from now on, which signed the code. Raises RejectedError (`not-found`, `proof-wrong`)."""
        with self._lock:
            found = [each for each in self._waiting.values() if each.authority.fingerprint == fingerprint]
        visible = [each for each in found if who.tenants is None or each.authority.tenant in who.tenants]
        if not visible or visible[0].expires <= time_ns():
            raise not_found("authority that waits for its proof", fingerprint[:64])
        awaited = visible[0]
        authority = awaited.authority
        proof = read_certificate(pem)
        is_signed = is_issued_by(proof, x509.load_pem_x509_certificate(authority.certificate.encode()))
        if not is_signed or not secrets.compare_digest(common_name(proof.subject).encode(), awaited.code.encode()):
            with self._database.write() as connection:
                record(
                    connection, who.name, "authority.refuse", fingerprint, after={"code": "proof-wrong"},
                    tenant=authority.tenant or "", address=who.address,
                )  # fmt: skip
            raise RejectedError(
                f"the proof is a certificate with CN {awaited.code}, signed by {authority.name}", code="proof-wrong"
            )
        self._refuse_known(authority)
        authority = msgspec.structs.replace(authority, created=time_ns())
        with self._database.write() as connection:
            connection.execute(t.authorities.insert(), rows.row_of_authority(authority, None))
            record(
                connection, who.name, "authority.trust", fingerprint, tenant=authority.tenant or "",
                address=who.address,
                after={"name": authority.name, "kind": str(authority.kind), "terms": authority.terms},
            )  # fmt: skip
        with self._lock:
            self._waiting.pop(f"{authority.tenant} {fingerprint}", None)
        self._news.tell(authority)
        return authority

    def change(
        self, who: Principal, fingerprint: str, wanted: TermsChange, *, marks: Collection[str] | None = None
    ) -> Authority:
        """Change the name or the terms of an authority that is trusted. `marks`: only while it has one of these.

        Narrower terms count for what is enrolled next; who came by the wider ones stays, and the audit names him.
        Raises RejectedError (`not-found`, `authority-ours`, `precondition-failed`, `invalid-pattern` ...).
        """
        is_its = t.authorities.c.fingerprint == fingerprint
        with self._database.write() as connection:
            row = connection.execute(sa.select(t.authorities).where(is_its)).one_or_none()
            before = None if row is None else rows.authority_of(row)
            if before is None or not _may_see(who, before):
                raise not_found("authority", fingerprint[:64])
            if before.tenant is None:
                raise RejectedError("our own authorities have no terms", code="authority-ours")
            who.require("admin", before.tenant)
            if marks is not None and mark_of(before) not in marks:
                raise RejectedError(
                    "somebody has changed this authority meanwhile: look at it again", code="precondition-failed"
                )
            after = _changed(before, wanted)
            if after == before:
                return before
            values = {"name": after.name, "terms": msgspec.to_builtins(after.terms)}
            connection.execute(t.authorities.update().where(is_its).values(values))
            record(
                connection, who.name, "authority.change", fingerprint, tenant=before.tenant, address=who.address,
                before={"name": before.name, "terms": before.terms}, after={"name": after.name, "terms": after.terms},
            )  # fmt: skip
        self._news.tell(after)
        return after

    def _refuse_known(self, authority: Authority) -> None:
        """Refuse an authority that is trusted already, also under another certificate: it belongs to one tenant."""
        a = t.authorities.c
        same = sa.or_(a.fingerprint == authority.fingerprint, a.key_identifier == authority.key_identifier)
        with self._database.read() as connection:
            if connection.execute(sa.select(a.fingerprint).where(same)).first() is not None:
                raise RejectedError("this authority is registered already", code="exists")


def _may_see(who: Principal, authority: Authority) -> bool:
    return authority.tenant is None or who.tenants is None or authority.tenant in who.tenants


def _changed(before: Authority, wanted: TermsChange) -> Authority:
    """Return what an authority becomes. Raises RejectedError (`invalid-pattern`, `invalid-name`, `invalid-tag` ...)."""
    old = before.terms
    terms = AuthorityTerms(
        old.ids if wanted.ids is None else wanted.ids,
        old.just_in_time if wanted.just_in_time is None else wanted.just_in_time,
        old.landing if wanted.landing is None else wanted.landing,
    )
    check_patterns(*terms.ids)
    check_landing(terms.landing)
    name = before.name if wanted.name is None else wanted.name.strip()[:128]
    if not name:
        raise RejectedError("an authority has a name", code="invalid-name")
    return msgspec.structs.replace(before, name=name, terms=terms)


def _check_authority(certificate: x509.Certificate) -> None:
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError, x509.DuplicateExtension):
        raise RejectedError("this is not the certificate of an authority", code="authority-unfit") from None
    if not basic.ca:
        raise RejectedError("this is not the certificate of an authority", code="authority-unfit")
    if nanoseconds(certificate.not_valid_after_utc) <= nanoseconds(dt.datetime.now(dt.UTC)):
        raise RejectedError("this authority has expired", code="authority-unfit")
