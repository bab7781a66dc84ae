"""A fleet with certificates, made beside a platform on the same database; and certificates that nobody should take."""

import datetime as dt
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from godwit.contract.ids import DeviceId, TenantId
from godwit.server.accounts.principal import Principal
from godwit.server.identity.claims import NewClaim
from godwit.server.identity.model import Source
from godwit.server.identity.requests import read_request
from godwit.server.identity.room import Identity, open_identity
from godwit.server.registry.model import Device
from godwit.server.registry.service import Registry
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine

ALL = Principal("test")


class Fleet:
    """The rooms of identity, opened beside the platform on the same database."""

    def __init__(self, directory: Path, keys: Path) -> None:
        self.keys = keys
        directory.mkdir(parents=True, exist_ok=True)
        keys.mkdir(exist_ok=True)
        database = Database(open_engine("", directory))
        self.registry = Registry(database)
        self.identity: Identity = open_identity(database, self.registry, directory)

    def add(self, device_id: str, **fields: Any) -> None:
        self.registry.create_device(ALL, Device(DeviceId(device_id), **fields))

    def issue(self, device_id: str, name: str = "", *, lifetime: dt.timedelta | None = None) -> tuple[Path, Path]:
        """Return certificate and key files of a new certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        request = read_request(request_of(device_id, key))
        issued = self.identity.issuance.issue(
            request, DeviceId(device_id), TenantId("default"), Source.OPERATOR, "test", lifetime=lifetime
        )
        return self.write(name or device_id, issued.certificate.certificate + "".join(issued.chain), key)

    def claim(self, **terms: Any) -> str:
        """Return a claim token."""
        return self.identity.enrollment.claims.create(ALL, NewClaim(**terms))[1]

    def write(self, name: str, pem: str, key: Any) -> tuple[Path, Path]:
        certificate, file = self.keys / f"{name}.crt", self.keys / f"{name}.key"
        certificate.write_text(pem)
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, file


def request_of(device_id: str, key: Any) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def self_signed(device_id: str, key: Any) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - dt.timedelta(1)).not_valid_after(now + dt.timedelta(1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    return made.public_bytes(serialization.Encoding.PEM).decode()
