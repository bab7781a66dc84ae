"""The rooms of identity over a registry of their own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from godwit.contract.ids import DEFAULT_TENANT, DeviceId
from godwit.server.accounts.principal import Principal
from godwit.server.identity.model import Certificate, Source
from godwit.server.identity.profiles import common
from godwit.server.identity.room import open_identity
from godwit.server.registry.model import Device
from godwit.server.registry.service import Registry
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine

ADMIN = Principal("admin")


def request_for(device_id: str, key: Any = None) -> x509.CertificateSigningRequest:
    key = key or ec.generate_private_key(ec.SECP256R1())
    return x509.CertificateSigningRequestBuilder().subject_name(common(device_id)).sign(key, hashes.SHA256())


class Rooms:
    """Registry and identity in one directory; `again` opens them as a restart does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.again()

    def again(self, **settings: Any) -> None:
        self.database = Database(open_engine("", self.directory))
        self.registry = Registry(self.database)
        self.identity = open_identity(self.database, self.registry, self.directory, **settings)
        self.authorities, self.issuance = self.identity.authorities, self.identity.issuance
        self.told: list[Any] = []
        self.identity.news.on_change(self.told.append)

    def enrolled(self, device_id: str = "pump-7", **options: Any) -> Certificate:
        if not options.pop("is_known", False):
            self.registry.create_device(ADMIN, Device(DeviceId(device_id)))
        issued = self.issuance.issue(
            request_for(device_id), DeviceId(device_id), DEFAULT_TENANT, Source.OPERATOR, "t", **options
        )
        return issued.certificate


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    made = Rooms(tmp_path)
    yield made
    made.database.engine.dispose()


@pytest.fixture
def csr() -> Callable[..., x509.CertificateSigningRequest]:
    return request_for
