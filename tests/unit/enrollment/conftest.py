"""Rooms of identity on a database of their own, and devices that ask."""

import datetime as dt
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from godwit.contract.enrollment import EnrollmentGrant, EnrollmentRequest
from godwit.contract.ids import TenantId
from godwit.server.accounts.principal import Principal
from godwit.server.identity import rows
from godwit.server.identity.authorities import authority_certificate, describe
from godwit.server.identity.claims import NewClaim
from godwit.server.identity.model import AuthorityKind, AuthorityTerms, Certificate, Claim, Source
from godwit.server.identity.room import open_identity
from godwit.server.registry.service import Registry
from godwit.server.storage import identity_tables as t
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine
from godwit.server.storage.tables import audit

ADMIN = Principal("admin")


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def csr(name: str, key: Any = None, *extensions: x509.ExtensionType, digest: Any = None) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(named(name))
    for each in extensions:
        builder = builder.add_extension(each, critical=False)
    request = builder.sign(key or new_key(), digest or hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


class Rig:
    """One platform's identity, and the calls that tests make of it."""

    def __init__(self, directory: Path) -> None:
        self.database = Database(open_engine("", directory))
        self.registry = Registry(self.database)
        self.registry.put_tenant(ADMIN, TenantId("acme"))
        self.identity = open_identity(self.database, self.registry, directory)
        self.enrollment = self.identity.enrollment
        self.changes: list[Any] = []
        self.identity.news.on_change(self.changes.append)

    def claim(self, who: Principal = ADMIN, **wanted: Any) -> tuple[Claim, str]:
        return self.enrollment.claims.create(who, NewClaim(**wanted))

    def ask(
        self,
        device_id: str,
        key: Any = None,
        *,
        claim: str | None = None,
        by: Any = None,
        address: str = "",
        **more: Any,
    ) -> EnrollmentGrant:
        request = more.pop("request") if "request" in more else csr(device_id, key)
        asked = EnrollmentRequest(device_id, request, claim, **more)
        return self.enrollment.enroll(asked, by, Source.CLAIM, address=address)

    def certificate(self, grant: EnrollmentGrant) -> Certificate:
        made = x509.load_pem_x509_certificate(grant.certificate.encode())
        found = self.identity.issuance.find(made.fingerprint(hashes.SHA256()).hex())
        assert found is not None
        return found

    def connect(self, certificate: Certificate) -> Certificate:
        """Do what the broker does at the first connection with a certificate."""
        self.identity.revocation.seen(certificate.fingerprint)
        self.identity.revocation.flush()
        return self.state(certificate)

    def state(self, certificate: Certificate) -> Certificate:
        found = self.identity.issuance.find(certificate.fingerprint)
        assert found is not None
        return found

    def audited(self, what: str = "enrollment.refuse") -> list[Any]:
        with self.database.read() as connection:
            return list(connection.execute(sa.select(audit).where(audit.c.what == what).order_by(audit.c.id)))

    def trust(self, kind: AuthorityKind = AuthorityKind.FACTORY, tenant: str = "acme", **terms: Any) -> "Factory":
        return Factory(self, kind, tenant, AuthorityTerms(**terms))


class Factory:
    """An authority that is not ours."""

    def __init__(self, rig: Rig, kind: AuthorityKind, tenant: str, terms: AuthorityTerms) -> None:
        self.key = new_key()
        self.name = named(f"{kind} {id(self)}")
        now = dt.datetime.now(dt.UTC)
        self.certificate = authority_certificate(
            self.name, self.key.public_key(), self.name, self.key, now, dt.timedelta(days=365), depth=0
        )
        described = describe(self.certificate, kind)
        document = rows.row_of_authority(described, None) | {
            "tenant": tenant,
            "terms": msgspec.to_builtins(terms),
        }
        self.fingerprint = described.fingerprint
        with rig.database.write() as connection:
            connection.execute(t.authorities.insert(), document)
        rig.identity.news.tell(described)

    def make(
        self,
        name: str,
        key: Any = None,
        *extensions: x509.ExtensionType,
        begins: dt.timedelta = dt.timedelta(hours=-1),
        ends: dt.timedelta = dt.timedelta(days=30),
        digest: Any = None,
    ) -> bytes:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(self.name)
            .public_key((key or new_key()).public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
        )
        for each in extensions:
            builder = builder.add_extension(each, critical=True)
        made = builder.sign(self.key, digest or hashes.SHA256())
        return made.public_bytes(serialization.Encoding.DER)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.database.engine.dispose()


@pytest.fixture
def make() -> SimpleNamespace:
    """Return what makes keys and requests."""
    return SimpleNamespace(key=new_key, csr=csr)


@pytest.fixture
def sha1_csr(tmp_path: Path) -> str:
    """Return a request that openssl signed with SHA-1: our own library makes none any more."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    command = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -subj /CN=pump-7 -sha1"
    return subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True, text=True).stdout
