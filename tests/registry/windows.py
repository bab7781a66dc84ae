"""What changes between the decision over a certificate and its row: SQLite by the unit tests, PostgreSQL beside them.

The hook strikes in the transaction that keeps the certificate, right before its insert, and commits first.
"""

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from godwit.contract.enrollment import EnrollmentRequest
from godwit.contract.errors import RejectedError, UnavailableError
from godwit.contract.ids import DEFAULT_TENANT, DeviceId
from godwit.server.accounts.principal import Principal
from godwit.server.identity import rows
from godwit.server.identity.authorities import authority_certificate, describe
from godwit.server.identity.claims import NewClaim
from godwit.server.identity.model import (
    AuthorityKind,
    AuthorityState,
    AuthorityTerms,
    Certificate,
    CertificateState,
    ClaimKind,
    Credential,
    Door,
    Source,
)
from godwit.server.identity.operators import Wanted
from godwit.server.identity.profiles import common
from godwit.server.identity.room import Identity
from godwit.server.identity.trusted import TermsChange
from godwit.server.registry.model import Device
from godwit.server.registry.service import Registry
from godwit.server.storage import identity_tables as t
from godwit.server.storage.database import Database
from godwit.server.storage.tables import audit

ADMIN = Principal("admin")
PUMP = DeviceId("pump-7")
Doer = Callable[[], object]


def request(name: str = PUMP) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(common(name)).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def public_pem() -> str:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


@contextmanager
def just_before_the_insert(database: Database, strike: Doer) -> Iterator[list[int]]:
    """Do something once, when the row of a certificate is about to be written."""
    struck: list[int] = []

    def listen(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if statement.startswith("INSERT INTO certificates") and not struck:
            struck.append(1)
            strike()

    sa.event.listen(database.engine, "before_cursor_execute", listen)
    try:
        yield struck
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", listen)


class WindowSuite:
    """Inherit, with fixtures `database`, `registry` and `identity`."""

    @pytest.fixture(autouse=True)
    def _rooms(self, database: Database, registry: Registry, identity: Identity) -> None:
        self.database, self.registry, self.identity = database, registry, identity
        registry.create_device(ADMIN, Device(PUMP))

    def count(self) -> int:
        with self.database.read() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(t.certificates)).scalar_one()

    def refused(self, by: Credential, strike: Doer) -> str | None:
        """Ask with a credential while something happens; nothing may be left of it but a line in the log."""
        before, keys = self.count(), public_pem()
        with just_before_the_insert(self.database, strike) as struck:
            asked = EnrollmentRequest(PUMP, request(), sign_key=keys)
            grant = self.identity.enrollment.enroll(asked, by, Source.CLAIM, address="192.0.2.7")
        assert struck
        assert grant.certificate == ""
        assert self.count() == before
        with self.database.read() as connection:
            assert connection.execute(sa.select(t.device_keys).where(t.device_keys.c.purpose == "sign")).all() == []
            row = connection.execute(sa.select(audit).order_by(audit.c.id.desc()).limit(1)).one()
        if grant.code != "no-authority":
            assert (row.what, row.after["code"], row.address) == ("enrollment.refuse", grant.code, "192.0.2.7")
        return grant.code

    def enrolled(self) -> Credential:
        (done,) = self.identity.operators.enroll_all(ADMIN, [Wanted(Device(PUMP))])
        assert done.certificate is not None
        self.identity.revocation.seen(done.certificate.fingerprint)
        self.identity.revocation.flush()
        return Credential(Door.CERTIFICATE, done.certificate.fingerprint, DEFAULT_TENANT, PUMP)

    def test_the_predecessor_is_revoked(self) -> None:
        by = self.enrolled()
        strike = lambda: self.identity.revocation.revoke(by.name, "keyCompromise", "admin")  # noqa: E731
        assert self.refused(by, strike) == "certificate-revoked"
        assert self.refused_at_once(by) == "certificate-revoked"

    def refused_at_once(self, by: Credential) -> str | None:
        """Ask after the change: the decision itself says no."""
        return self.identity.enrollment.enroll(EnrollmentRequest(PUMP, request()), by, Source.CLAIM).code

    def test_its_authority_is_retired(self) -> None:
        by = self.enrolled()
        old = self.identity.authorities.signer().authority.fingerprint
        self.identity.authorities.make_issuing(AuthorityState.ACTIVE, "admin")
        strike = lambda: self.identity.authorities.set_state(old, AuthorityState.RETIRED, "admin")  # noqa: E731
        assert self.refused(by, strike) == "certificate-revoked"

    def test_the_authority_that_issues_is_retired(self) -> None:
        _, token = self.identity.enrollment.claims.create(ADMIN, NewClaim())
        by = self.identity.enrollment.credential_of_claim(token)
        assert by is not None
        own = self.identity.authorities.signer().authority.fingerprint
        strike = lambda: self.identity.authorities.set_state(own, AuthorityState.RETIRED, "admin")  # noqa: E731
        assert self.refused(by, strike) == "no-authority"

    @pytest.mark.parametrize("lifecycle", ["suspended", "retired"])
    def test_the_device_is_shut_out(self, lifecycle: str) -> None:
        by = self.enrolled()
        strike = lambda: self.registry.change_device(ADMIN, PUMP, {"lifecycle": lifecycle})  # noqa: E731
        assert self.refused(by, strike) == f"device-{lifecycle}"
        assert self.refused_at_once(by) == f"device-{lifecycle}"

    def test_an_operator_enrolls_it_while_another_suspends_it(self) -> None:
        strike = lambda: self.registry.change_device(ADMIN, PUMP, {"lifecycle": "suspended"})  # noqa: E731
        with just_before_the_insert(self.database, strike), pytest.raises(RejectedError) as refused:
            self.identity.operators.enroll_all(ADMIN, [Wanted(Device(PUMP))])
        assert refused.value.code == "device-suspended"
        assert self.count() == 0

    def test_the_authority_is_retired_while_an_operator_enrolls(self) -> None:
        own = self.identity.authorities.signer().authority.fingerprint
        strike = lambda: self.identity.authorities.set_state(own, AuthorityState.RETIRED, "admin")  # noqa: E731
        with just_before_the_insert(self.database, strike), pytest.raises(UnavailableError) as refused:
            self.identity.operators.enroll_all(ADMIN, [Wanted(Device(PUMP))])
        assert refused.value.code == "no-authority"

    def test_the_device_is_given_away(self) -> None:
        by = self.enrolled()
        self.registry.put_tenant(ADMIN, "acme")  # type: ignore[arg-type]
        strike = lambda: self.identity.custody.transfer(ADMIN, PUMP, "acme")  # type: ignore[arg-type]  # noqa: E731
        assert self.refused(by, strike) == "unknown-device"
        assert self.refused_at_once(by) == "certificate-revoked"

    def test_it_is_released_while_it_renews(self) -> None:
        """Its certificates are revoked one after the other: it renews by none of them between."""
        by, spare = self.enrolled(), EnrollmentRequest(PUMP, request())
        assert self.identity.enrollment.enroll(spare, by, Source.CLAIM).certificate
        renewing: list[threading.Thread] = []

        def renew(change: object) -> None:
            if isinstance(change, Certificate) and change.state is CertificateState.REVOKED and not renewing:
                asked = EnrollmentRequest(PUMP, request())
                other = next(each for each in self.certificates() if each.fingerprint != change.fingerprint)
                last = msgspec.structs.replace(by, name=other.fingerprint)
                renewing.append(
                    threading.Thread(target=lambda: self.identity.enrollment.enroll(asked, last, Source.CLAIM))
                )
                renewing[0].start()
                renewing[0].join(0.3)

        self.identity.news.on_change(renew)
        self.identity.custody.release(ADMIN, PUMP)
        renewing[0].join()
        assert [each.state for each in self.certificates()] == ["revoked", "revoked"]

    def certificates(self) -> list[Certificate]:
        return self.identity.issuance.of_device(PUMP)

    def test_its_token_is_revoked(self) -> None:
        token, _ = self.identity.device_tokens.create(ADMIN, PUMP)
        by = Credential(Door.TOKEN, token.token_id, DEFAULT_TENANT, PUMP)
        strike = lambda: self.identity.device_tokens.revoke(ADMIN, PUMP, token.token_id)  # noqa: E731
        assert self.refused(by, strike) == "token-revoked"
        assert self.refused_at_once(by) == "token-revoked"

    def test_its_registered_key_is_retired(self) -> None:
        key = self.identity.device_keys.register(ADMIN, PUMP, public_pem())
        by = Credential(Door.JWT, key.key_id, DEFAULT_TENANT, PUMP)
        strike = lambda: self.identity.device_keys.retire(ADMIN, PUMP, key.key_id)  # noqa: E731
        assert self.refused(by, strike) == "key-retired"
        assert self.refused_at_once(by) == "key-retired"

    def test_a_token_and_a_key_that_count_renew(self) -> None:
        token, _ = self.identity.device_tokens.create(ADMIN, PUMP)
        key = self.identity.device_keys.register(ADMIN, PUMP, public_pem())
        for door, name in ((Door.TOKEN, token.token_id), (Door.JWT, key.key_id)):
            by = Credential(door, name, DEFAULT_TENANT, PUMP)
            grant = self.identity.enrollment.enroll(EnrollmentRequest(PUMP, request()), by, Source.CLAIM)
            assert (grant.code, grant.certificate != "") == (None, True)

    @pytest.mark.parametrize("kind", [ClaimKind.ONE_TIME, ClaimKind.FLEET])
    def test_the_claim_is_withdrawn(self, kind: ClaimKind) -> None:
        claim, token = self.identity.enrollment.claims.create(ADMIN, NewClaim(kind=kind))
        by = self.identity.enrollment.credential_of_claim(token)
        assert by is not None
        strike = lambda: self.identity.enrollment.claims.revoke(ADMIN, claim.claim_id)  # noqa: E731
        assert self.refused(by, strike) == "claim-revoked"
        assert self.refused_at_once(by) == "claim-revoked"

    def test_a_certificate_in_grace_is_superseded(self) -> None:
        """The device came back twice, by the old certificate and by the new: only the new one goes on."""
        by = msgspec.structs.replace(self.enrolled(), door=Door.ENDED)
        grant = self.identity.enrollment.enroll(EnrollmentRequest(PUMP, request()), by, Source.CLAIM)
        assert grant.certificate
        renewed = next(each for each in self.certificates() if each.fingerprint != by.name)

        def strike() -> None:
            self.identity.revocation.seen(renewed.fingerprint)
            self.identity.revocation.flush()

        assert self.refused(by, strike) == "certificate-expired"
        assert self.refused_at_once(by) == "certificate-expired"

    def trust(self, kind: AuthorityKind) -> tuple[str, x509.Certificate]:
        """Trust somebody else for our device; returns who, and what it issued."""
        key, name, now = ec.generate_private_key(ec.SECP256R1()), common(str(kind)), dt.datetime.now(dt.UTC)
        year = dt.timedelta(days=365)
        own = authority_certificate(name, key.public_key(), name, key, now, year, depth=0)
        terms = AuthorityTerms(ids=("pump-*",))
        described = msgspec.structs.replace(describe(own, kind), tenant=DEFAULT_TENANT, terms=terms)
        with self.database.write() as connection:
            connection.execute(t.authorities.insert(), rows.row_of_authority(described, None))
        self.identity.news.tell(described)
        device = ec.generate_private_key(ec.SECP256R1()).public_key()
        made = x509.CertificateBuilder().subject_name(common(PUMP)).issuer_name(name).public_key(device)
        made = made.serial_number(7).not_valid_before(now).not_valid_after(now + year / 2)
        return described.fingerprint, made.sign(key, hashes.SHA256())

    def strikes(self, authority: str) -> list[Doer]:
        """Return what takes our device from an authority: other terms, and its end."""
        narrower = TermsChange(ids=("press-*",))
        return [
            lambda: self.identity.trusted.change(ADMIN, authority, narrower),
            lambda: self.identity.authorities.set_state(authority, AuthorityState.RETIRED, "admin"),
        ]

    @pytest.mark.parametrize("which", [0, 1])
    def test_the_terms_of_a_factory_are_narrowed_or_it_is_retired(self, which: int) -> None:
        authority, shown = self.trust(AuthorityKind.FACTORY)
        by = self.identity.enrollment.take_in(shown.public_bytes(serialization.Encoding.DER))
        assert by.door is Door.FACTORY
        assert self.refused(by, self.strikes(authority)[which]) == "authority-not-trusted"

    @pytest.mark.parametrize("which", [0, 1])
    def test_the_terms_of_a_customers_authority_are_narrowed_or_it_is_retired(self, which: int) -> None:
        authority, shown = self.trust(AuthorityKind.CUSTOMER)
        strike = self.strikes(authority)[which]
        with just_before_the_insert(self.database, strike) as struck, pytest.raises(RejectedError) as refused:
            self.identity.enrollment.take_in(shown.public_bytes(serialization.Encoding.DER))
        assert struck
        assert refused.value.code == "authority-not-trusted"
        assert self.count() == 0
