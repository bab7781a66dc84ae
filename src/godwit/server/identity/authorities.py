"""The authorities: our root and its issuing intermediate, and those of customers and factories that we trust.

Root and intermediate are ECDSA P-256. The root's key is needed for a new intermediate only, and may be moved offline.
"""

import datetime as dt
import threading
from collections.abc import Sequence
from time import time_ns
from typing import Final

import msgspec
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from godwit.contract.errors import RejectedError
from godwit.server.identity import rows
from godwit.server.identity.model import Authority, AuthorityKind, AuthorityState, Change
from godwit.server.identity.news import News
from godwit.server.identity.profiles import BACKDATED, ISSUING_KEYS, Signer, SigningKey, authority_certificate, common
from godwit.server.identity.requests import common_name
from godwit.server.identity.vault import Vault
from godwit.server.storage import identity_tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

__all__ = ["BACKDATED", "Authorities", "Signer", "SigningKey", "authority_certificate", "describe", "nanoseconds"]

ROOT_LIFETIME: Final = dt.timedelta(days=20 * 365)
ISSUING_LIFETIME: Final = dt.timedelta(days=5 * 365)


class Authorities:
    """Thread-safe; every method may block. They change rarely, and are asked for often: they are kept in memory."""

    def __init__(self, database: Database, vault: Vault, news: News) -> None:
        self._database, self._vault, self._news = database, vault, news
        self._lock = threading.Lock()
        self._known: tuple[Authority, ...] | None = None
        self._version = 0
        self._signers: dict[str, Signer] = {}
        news.on_change(self._forget)

    def _forget(self, change: Change) -> None:
        if isinstance(change, Authority):
            with self._lock:
                self._known, self._version = None, self._version + 1
                self._signers.clear()

    # --- looking ------------------------------------------------------------------------------------------------

    def all(self) -> list[Authority]:
        """Return every authority, the newest last."""
        with self._lock:
            known, version = self._known, self._version
        if known is None:
            with self._database.read() as connection:
                c = t.authorities.c
                found = connection.execute(sa.select(t.authorities).order_by(c.created, c.kind.desc())).all()
            known = tuple(rows.authority_of(each) for each in found)
            with self._lock:
                if self._version == version:
                    self._known = known
        return list(known)

    def get(self, fingerprint: str) -> Authority:
        """Return an authority. Raises RejectedError (`not-found`)."""
        found = next((each for each in self.all() if each.fingerprint == fingerprint), None)
        if found is None:
            raise RejectedError(f"no authority {fingerprint[:64]!r}", code="not-found")
        return found

    def issuing(self, state: AuthorityState = AuthorityState.ACTIVE) -> Authority | None:
        """Return our newest issuing authority in a state whose key is here."""
        found = [
            each for each in self.all() if each.kind is AuthorityKind.ISSUING and each.state is state and each.has_key
        ]
        return found[-1] if found else None

    def root_of(self, authority: Authority) -> Authority | None:
        """Return the last of the authorities above one, if we know it."""
        known = {each.fingerprint: each for each in self.all()}
        at: Authority | None = authority
        for _ in range(len(known)):
            if at is None or at.issuer in (None, at.fingerprint):
                break
            at = known.get(at.issuer or "")
        return at

    def signer(self, trusts: Sequence[str] = ()) -> Signer:
        """Return who issues now. Raises RejectedError (`no-authority`, `key-passphrase`).

        `trusts`: the roots that the client names. While a new root is brought in, whoever trusts it already is served
        by its issuing authority.
        """
        authority = self._next_for(trusts) or self.issuing()
        if authority is None:
            raise RejectedError("there is no authority that can issue: its key is not here", code="no-authority")
        return self.signer_of(authority)

    def signer_of(self, authority: Authority) -> Signer:
        """Return what signs for one of our authorities. Raises RejectedError (`no-authority`, `key-passphrase`)."""
        with self._lock:
            found = self._signers.get(authority.fingerprint)
        if found is None:
            found = Signer(
                authority,
                x509.load_pem_x509_certificate(authority.certificate.encode()),
                self.key_of(authority),
                self._chain(authority),
            )
            with self._lock:
                self._signers[authority.fingerprint] = found
        return found

    def _next_for(self, trusts: Sequence[str]) -> Authority | None:
        coming = self.issuing(AuthorityState.NEXT) if trusts else None
        root = self.root_of(coming) if coming is not None else None
        is_trusted = root is not None and root.state is AuthorityState.NEXT and root.fingerprint in trusts
        return coming if is_trusted else None

    def _chain(self, authority: Authority) -> tuple[str, ...]:
        """Return the PEM from `authority` up, without the root (which whoever checks has, or does not trust)."""
        known = {each.fingerprint: each for each in self.all()}
        chain: list[str] = []
        at: Authority | None = authority
        while at is not None and at.issuer != at.fingerprint and at.certificate not in chain:
            if at.kind is AuthorityKind.ROOT:
                break
            chain.append(at.certificate)
            at = known.get(at.issuer or "")
        return tuple(chain)

    def chain_of(self, fingerprint: str) -> tuple[str, ...]:
        """Return the PEM from an authority up, without the root. Raises RejectedError (`not-found`)."""
        return self._chain(self.get(fingerprint))

    def key_of(self, authority: Authority) -> SigningKey:
        """Return an authority's key. Raises RejectedError (`no-authority`, `key-passphrase`)."""
        statement = sa.select(t.authorities.c.key).where(t.authorities.c.fingerprint == authority.fingerprint)
        with self._database.read() as connection:
            sealed = connection.execute(statement).scalar_one_or_none()
        if sealed is None:
            raise RejectedError(f"the key of {authority.name} is not here", code="no-authority")
        key = serialization.load_der_private_key(self._vault.open(sealed, about_authority(authority.fingerprint)), None)
        assert isinstance(key, ISSUING_KEYS)
        return key

    def anchors(self) -> list[str]:
        """Return the PEM of the roots in force: whom devices trust."""
        return [each.certificate for each in self.roots()]

    def roots(self) -> list[Authority]:
        """Return the roots in force, an issuing authority that signed itself included."""
        return [
            each
            for each in self.all()
            if each.state is not AuthorityState.RETIRED
            and (each.kind is AuthorityKind.ROOT or (each.kind is AuthorityKind.ISSUING and _is_own(each)))
        ]

    # --- making -------------------------------------------------------------------------------------------------

    def ensure(self) -> None:
        """Make root and issuing intermediate where there are none."""
        if any(each.kind is AuthorityKind.ISSUING for each in self.all()):
            return
        self.make_root(AuthorityState.ACTIVE, "godwit")

    def make_root(self, state: AuthorityState, who: str) -> tuple[Authority, Authority]:
        """Make a root and its issuing intermediate; returns both."""
        root_key, issuing_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        root_name, issuing_name = name_for("godwit root", root_key), name_for("godwit issuing", issuing_key)
        root = authority_certificate(root_name, root_key.public_key(), root_name, root_key, now, ROOT_LIFETIME, depth=1)
        issuing = authority_certificate(
            issuing_name, issuing_key.public_key(), root_name, root_key, now, ISSUING_LIFETIME, depth=0
        )
        above = describe(root, AuthorityKind.ROOT, has_key=True, state=state)
        above = msgspec.structs.replace(above, issuer=above.fingerprint)
        made = describe(issuing, AuthorityKind.ISSUING, issuer=above.fingerprint, has_key=True, state=state)
        self.keep([(above, root_key), (made, issuing_key)], who)
        return above, made

    def keep(self, new: Sequence[tuple[Authority, SigningKey | None]], who: str, what: str = "create") -> None:
        """Keep authorities, with their keys where we have them."""
        with self._database.write() as connection:
            for authority, key in new:
                sealed = (
                    None if key is None else self._vault.seal(key_bytes(key), about_authority(authority.fingerprint))
                )
                connection.execute(t.authorities.insert(), rows.row_of_authority(authority, sealed))
                record(
                    connection, who, f"authority.{what}", authority.fingerprint, tenant=authority.tenant or "",
                    after={"subject": authority.subject, "kind": str(authority.kind), "state": str(authority.state)},
                )  # fmt: skip
        for authority, _ in new:
            self._news.tell(authority)

    def set_state(self, fingerprint: str, state: AuthorityState, who: str) -> Authority:
        """Have an authority be in another state. Raises RejectedError (`not-found`)."""
        before = self.get(fingerprint)
        after = msgspec.structs.replace(before, state=state)
        if after != before:
            with self._database.write() as connection:
                connection.execute(
                    t.authorities.update().where(t.authorities.c.fingerprint == fingerprint).values(state=str(state))
                )
                record(
                    connection, who, "authority.change", fingerprint, tenant=before.tenant or "",
                    before={"state": str(before.state)}, after={"state": str(state)},
                )  # fmt: skip
            self._news.tell(after)
        return after

    def make_issuing(self, state: AuthorityState, who: str) -> Authority:
        """Make an issuing intermediate under our root. Raises RejectedError (`root-offline`)."""
        root = next((each for each in reversed(self.roots()) if each.has_key and each.kind is AuthorityKind.ROOT), None)
        if root is None:
            raise RejectedError(
                "the root's key is not here: godwit ca issue-intermediate --root FILE signs with it",
                code="root-offline",
            )
        above, key = x509.load_pem_x509_certificate(root.certificate.encode()), ec.generate_private_key(ec.SECP256R1())
        certificate = issuing_certificate(name_for("godwit issuing", key), key.public_key(), above, self.key_of(root))
        made = describe(certificate, AuthorityKind.ISSUING, issuer=root.fingerprint, has_key=True, state=state)
        self.keep([(made, key)], who)
        return made


def issuing_certificate(
    name: x509.Name, key: ec.EllipticCurvePublicKey, root: x509.Certificate, root_key: SigningKey
) -> x509.Certificate:
    """Return the certificate of an issuing intermediate, signed by a root; it ends before the root does."""
    now = dt.datetime.now(dt.UTC)
    lifetime = min(ISSUING_LIFETIME, root.not_valid_after_utc - now)
    return authority_certificate(name, key, root.subject, root_key, now, lifetime, depth=0)


def name_for(kind: str, key: SigningKey) -> x509.Name:
    """Return a name for a new authority: no two of one installation have the same."""
    digest = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest
    return common(f"{kind} {digest.hex()[:6]}")


def about_authority(fingerprint: str) -> str:
    """Return what the vault is told of an authority's key: names may come twice, with a customer's authorities."""
    return f"authority {fingerprint}"


def key_bytes(key: SigningKey) -> bytes:
    """Return a private key as PKCS#8, for the vault."""
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


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
        name=(common_name(certificate.subject) or subject)[:128],
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


def _is_own(authority: Authority) -> bool:
    return authority.issuer == authority.fingerprint
