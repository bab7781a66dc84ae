"""Authorities of customers and factories: trusted for one tenant, by who proves that he has their key.

The proof is a certificate that the authority signs over a random code of ours, in its CN. Codes wait in memory: after
a restart one begins again.
"""

import datetime as dt
import secrets
import threading
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
from godwit.server.identity.model import Authority, AuthorityKind, AuthorityTerms
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

    def _refuse_known(self, authority: Authority) -> None:
        """Refuse an authority that is trusted already, also under another certificate: it belongs to one tenant."""
        a = t.authorities.c
        same = sa.or_(a.fingerprint == authority.fingerprint, a.key_identifier == authority.key_identifier)
        with self._database.read() as connection:
            if connection.execute(sa.select(a.fingerprint).where(same)).first() is not None:
                raise RejectedError("this authority is registered already", code="exists")


def _check_authority(certificate: x509.Certificate) -> None:
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError, x509.DuplicateExtension):
        raise RejectedError("this is not the certificate of an authority", code="authority-unfit") from None
    if not basic.ca:
        raise RejectedError("this is not the certificate of an authority", code="authority-unfit")
    if nanoseconds(certificate.not_valid_after_utc) <= nanoseconds(dt.datetime.now(dt.UTC)):
        raise RejectedError("this authority has expired", code="authority-unfit")
