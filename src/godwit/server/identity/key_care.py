"""Care of the authorities' keys: move the root's key offline, bring in an issuing authority, change the passphrase.

The root's key leaves under a passphrase, and is removed here only when the owner says that the file is safe. A new
issuing authority's key is made here and never leaves: what goes out is a request, what comes back a certificate; in
between the sealed key is in the hands of whoever asked, so that nothing waits in the database.
"""

import base64
import binascii
import datetime as dt
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from godwit.contract.errors import MalformedError, RejectedError, UnavailableError
from godwit.server.accounts.principal import Principal
from godwit.server.identity.authorities import Authorities, about_authority, describe, key_bytes, name_for
from godwit.server.identity.message_keys import about_key
from godwit.server.identity.model import Authority, AuthorityKind, AuthorityState
from godwit.server.identity.news import News
from godwit.server.identity.profiles import ISSUING_KEYS, SigningKey, hash_for
from godwit.server.identity.registrars import about_registrar
from godwit.server.identity.requests import check_key
from godwit.server.identity.vault import Vault
from godwit.server.storage import identity_tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database
from godwit.server.storage.scrubbing import scrub

log = logging.getLogger(__name__)

PASSPHRASE_MIN: Final = 12
CHAIN_MAX: Final = 8
PEM_BYTES_MAX: Final = 65_536
_REQUEST: Final = "issuing request"
_SEALED: Final[tuple[tuple[sa.Table, str, Callable[[Any], str]], ...]] = (
    (t.authorities, "key", lambda row: about_authority(row.fingerprint)),
    (t.platform_keys, "secret", lambda row: about_key(row.key_id)),
    (t.registrars, "key", lambda row: about_registrar(row.fingerprint)),
)
"""Everything that the vault has sealed in the database: table, column, and what it was told of a row."""


class IssuingRequest(msgspec.Struct, frozen=True, rename="camel"):
    """A request for an issuing authority's certificate, PEM, and its key, sealed by this installation."""

    request: str
    sealed_key: str


class KeyCare:
    """Only for administrators of the installation. Thread-safe; blocks."""

    def __init__(self, database: Database, authorities: Authorities, vault: Vault, news: News) -> None:
        self._database, self._authorities, self._vault, self._news = database, authorities, vault, news

    # --- the root -------------------------------------------------------------------------------------------------

    def export_root(self, who: Principal, passphrase: str) -> tuple[Authority, str]:
        """Return our root, and the PEM of its certificate and of its key under a passphrase. The key stays for now.

        Raises RejectedError (`root-offline`, `weak-passphrase`).
        """
        who.require_installation()
        check_passphrase(passphrase)
        root = self._root_with_key()
        key = self._authorities.key_of(root)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase.encode()),
        )
        with self._database.write() as connection:
            record(connection, who.name, "authority.export", root.fingerprint, address=who.address)
        return root, root.certificate + pem.decode()

    def remove_root_key(self, who: Principal, fingerprint: str) -> Authority:
        """Remove the root's key, which is safe elsewhere. Raises RejectedError (`not-found`, `key-needed`)."""
        who.require_installation()
        root = self._authorities.get(fingerprint)
        if root.kind is not AuthorityKind.ROOT:
            raise RejectedError("only the key of a root can be done without here", code="key-needed")
        after = msgspec.structs.replace(root, has_key=False)
        where = t.authorities.c.fingerprint == fingerprint
        with self._database.write() as connection:
            connection.execute(t.authorities.update().where(where).values(key=None))
            record(
                connection, who.name, "authority.key-removed", fingerprint, address=who.address,
                before={"hasKey": root.has_key}, after={"hasKey": False},
            )  # fmt: skip
        self._news.tell(after)
        self._scrub()
        return after

    def _root_with_key(self) -> Authority:
        found = [each for each in self._authorities.roots() if each.kind is AuthorityKind.ROOT and each.has_key]
        if not found:
            raise RejectedError("the root's key is not here: it was moved offline", code="root-offline")
        return found[-1]

    # --- issuing authorities --------------------------------------------------------------------------------------

    def request_issuing(self, who: Principal) -> IssuingRequest:
        """Make the key of a new issuing authority; returns its request, and the key, sealed."""
        who.require_installation()
        key = ec.generate_private_key(ec.SECP256R1())
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(name_for("godwit issuing", key))
            .sign(key, hash_for(key))
            .public_bytes(serialization.Encoding.PEM)
        )
        sealed = self._vault.seal(key_bytes(key), _REQUEST)
        return IssuingRequest(request.decode(), base64.b64encode(sealed).decode())

    def add_issuing(
        self, who: Principal, chain: str, *, sealed_key: str = "", key: str = "", passphrase: str = ""
    ) -> Authority:
        """Take in an issuing authority: its certificate and those above it up to the root, PEM, and its key.

        It waits (`next`) for a rollover, unless no device has a certificate yet: then it issues from now on. Raises
        MalformedError (`certificate-malformed`, `key-malformed`) or RejectedError (`authority-unfit`, `weak-key`,
        `chain-incomplete`, `key-mismatch`, `key-passphrase`, `exists`).
        """
        who.require_installation()
        private = self._unsealed(sealed_key) if sealed_key else _read_key(key, passphrase)
        certificates = _read_chain(chain)
        own, *above = certificates
        if own.public_key() != private.public_key():
            raise RejectedError("certificate and key do not belong together", code="key-mismatch")
        known = {each.fingerprint: each for each in self._authorities.all()}
        if own.fingerprint(hashes.SHA256()).hex() in known:
            raise RejectedError("this authority is here already", code="exists")
        roots = [x509.load_pem_x509_certificate(each.certificate.encode()) for each in self._authorities.roots()]
        path = _path(own, above, roots)
        is_first = not self._has_certificates()
        state = AuthorityState.ACTIVE if is_first else AuthorityState.NEXT
        prints = [each.fingerprint(hashes.SHA256()).hex() for each in path]
        new: list[tuple[Authority, SigningKey | None]] = []
        for at, each in enumerate(path):
            if prints[at] in known:
                continue
            is_root, issuer = at == len(path) - 1, prints[min(at + 1, len(path) - 1)]
            kind = AuthorityKind.ROOT if is_root and at > 0 else AuthorityKind.ISSUING
            described = describe(each, kind, issuer=issuer, has_key=at == 0, state=state)
            new.append((described, private if at == 0 else None))
        before = self._authorities.issuing()
        self._authorities.keep(list(reversed(new)), who.name, "add")
        if is_first and before is not None:
            self._authorities.set_state(before.fingerprint, AuthorityState.RETIRED, who.name)
            old_root = self._authorities.root_of(before)
            if old_root is not None and old_root.fingerprint != prints[-1]:
                self._authorities.set_state(old_root.fingerprint, AuthorityState.RETIRED, who.name)
        return self._authorities.get(prints[0])

    def _unsealed(self, sealed: str) -> SigningKey:
        try:
            data = base64.b64decode(sealed, validate=True)
        except (binascii.Error, ValueError):
            raise MalformedError("the sealed key cannot be read", code="key-malformed") from None
        key = serialization.load_der_private_key(self._vault.open(data, _REQUEST), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key

    def _has_certificates(self) -> bool:
        with self._database.read() as connection:
            return connection.execute(sa.select(t.certificates.c.fingerprint).limit(1)).first() is not None

    # --- the passphrase -------------------------------------------------------------------------------------------

    def change_passphrase(self, who: Principal, passphrase: str) -> bool:
        """Seal every secret anew. True: it was written to our own file, too; False: the owner has to put it in place.

        Raises RejectedError (`weak-passphrase`, `key-passphrase`).
        """
        who.require_installation()
        check_passphrase(passphrase)
        with self._database.alone():  # whoever seals something meanwhile does it with the new one
            try:
                self._seal_anew(who, passphrase)
            except BaseException:
                with suppress(UnavailableError):  # which one is in force then shows at the next start
                    self.settle()
                raise
        self._scrub()
        return self._vault.keeps_its_passphrase

    def _seal_anew(self, who: Principal, passphrase: str) -> None:
        with self._vault.changing(passphrase) as fresh, self._database.write() as connection:
            for table, column, about_of in _SEALED:
                keys = list(table.primary_key.columns)
                for row in connection.execute(sa.select(table).where(table.c[column].is_not(None))).all():
                    about = about_of(row)
                    sealed = fresh.seal(self._vault.open(getattr(row, column), about), about)
                    where = sa.and_(*(each == getattr(row, each.name) for each in keys))
                    connection.execute(table.update().where(where).values({column: sealed}))
            record(connection, who.name, "authority.passphrase", "keys", address=who.address)

    def settle(self) -> None:
        """Go on where a change of the passphrase was interrupted. Raises RejectedError (`key-passphrase`)."""
        for table, column, about_of in _SEALED:
            with self._database.read() as connection:
                row = connection.execute(sa.select(table).where(table.c[column].is_not(None)).limit(1)).one_or_none()
            if row is not None:
                self._vault.settle(getattr(row, column), about_of(row))
                return

    def _scrub(self) -> None:
        """Leave nothing of keys in the database's files that are not here any more, or were sealed otherwise."""
        if not scrub(self._database, *(table for table, _, _ in _SEALED)):
            log.warning(
                "what was removed stands in the database's files yet: a reader was in the way. SQLite drops it at its "
                "next checkpoint, PostgreSQL at VACUUM FULL"
            )


def check_passphrase(passphrase: str) -> None:
    """Raise RejectedError (`weak-passphrase`) for one that is guessed soon."""
    if len(passphrase) < PASSPHRASE_MIN:
        raise RejectedError(f"a passphrase has {PASSPHRASE_MIN} characters or more", code="weak-passphrase")


def _read_key(pem: str, passphrase: str) -> SigningKey:
    try:
        key = serialization.load_pem_private_key(pem.encode(), passphrase.encode() or None)
    except TypeError:
        what = "is encrypted: say its passphrase" if not passphrase else "is not encrypted: say no passphrase"
        raise RejectedError(f"the key {what}", code="key-passphrase") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        code = "key-passphrase" if passphrase else "key-malformed"
        raise MalformedError(f"the key cannot be read: {error}"[:200], code=code) from None
    if not isinstance(key, ISSUING_KEYS):
        raise RejectedError("an authority's key is ECDSA, Ed25519 or RSA", code="weak-key")
    return key


def _read_chain(pem: str) -> list[x509.Certificate]:
    if len(pem) > PEM_BYTES_MAX:
        raise MalformedError("the chain is too long", code="certificate-malformed")
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise MalformedError(f"certificates in PEM are expected: {error}"[:200], code="certificate-malformed") from None
    for each in found[:CHAIN_MAX]:
        check_key(each.public_key())
    return found[:CHAIN_MAX]


def _path(
    own: x509.Certificate, above: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """Return the certificates from `own` to its root. Raises RejectedError (`authority-unfit`, `chain-incomplete`)."""
    now = dt.datetime.now(dt.UTC)
    path = [own]
    while path[-1].issuer != path[-1].subject:
        issuer = next((each for each in (*above, *roots) if _has_issued(each, path[-1]) and each not in path), None)
        if issuer is None or len(path) > CHAIN_MAX:
            raise RejectedError(
                f"the issuer of {path[-1].subject.rfc4514_string()[:128]} is missing: the file has to hold all "
                "certificates up to the root",
                code="chain-incomplete",
            )
        path.append(issuer)
    for depth, each in enumerate(path):
        try:
            basic = each.extensions.get_extension_for_class(x509.BasicConstraints).value
        except (x509.ExtensionNotFound, ValueError, x509.DuplicateExtension):
            basic = None
        is_fit = basic is not None and basic.ca and (basic.path_length is None or basic.path_length >= depth)
        if not is_fit or not each.not_valid_before_utc <= now < each.not_valid_after_utc:
            name = each.subject.rfc4514_string()[:128]
            raise RejectedError(f"{name} cannot issue: it is no authority, or not valid now", code="authority-unfit")
    return path


def _has_issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
