"""The HTTPS port of devices, asked by clients that we did not write: curl and openssl."""

import datetime as dt
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from godwit.contract.ids import DeviceId, TenantId
from godwit.server.accounts.principal import Principal
from godwit.server.identity.model import Source
from godwit.server.identity.requests import read_request
from godwit.server.identity.room import Identity, open_identity
from godwit.server.registry.model import Device
from godwit.server.registry.service import Registry
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine

pytestmark = pytest.mark.real
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


class Site:
    """A running platform with two devices, and curl."""

    def __init__(self, platform: Any, fleet: Fleet) -> None:
        self.platform, self.fleet = platform, fleet
        self.good = fleet.keys / "pump-1.crt", fleet.keys / "pump-1.key"

    def curl(self, path: str, *arguments: str, pair: tuple[Path, Path] | None = None) -> tuple[int, str]:
        """Return curl's HTTP status (0: no TLS) and body."""
        own = ["--cert", str(pair[0]), "--key", str(pair[1])] if pair else []
        url = f"https://127.0.0.1:{self.platform.https}{path}"
        done = subprocess.run(
            ["curl", "-s", "-S", "-w", "\n%{http_code}", "--cacert", str(self.platform.certificate), *own, *arguments,
             url],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body or done.stderr

    def telemetry(self, device_id: str, pair: tuple[Path, Path] | None, *arguments: str) -> tuple[int, str]:
        body = ["-d", '{"sensors": {"temperature": 21.5}}'] if "-d" not in arguments else []
        return self.curl(f"/v1/devices/{device_id}/telemetry", *body, *arguments, pair=pair)

    def audit(self) -> list[str]:
        import sqlite3  # noqa: PLC0415

        with sqlite3.connect(self.platform.data_dir / "registry.sqlite") as connection:
            found = connection.execute("select after from audit where what = 'device-port.refuse'").fetchall()
        return [json.loads(each[0])["code"] for each in found]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, platform_class: Callable[..., Any]) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("device-port")
    platform = platform_class(directory / "data")
    fleet = Fleet(directory / "data", directory / "keys")
    fleet.add("pump-1")
    fleet.add("pump-2", metadata={"gateway": "pump-1"})
    fleet.add("pump-3")
    fleet.issue("pump-1")
    platform.start()
    yield Site(platform, fleet)
    platform.stop()


def test_telemetry_is_stored_when_it_is_answered(site: Site) -> None:
    status, body = site.telemetry("pump-1", site.good)
    assert (status, body) == (204, "")
    latest = site.platform.json("/api/v1/devices/pump-1/telemetry/latest")
    assert "21.5" in json.dumps(latest)
    assert site.telemetry("pump-2", site.good)[0] == 204  # its child


def test_a_device_speaks_for_itself_only(site: Site) -> None:
    for other in ("pump-3", "nobody", "not%20an%20id"):
        status, body = site.telemetry(other, site.good)
        assert (status, json.loads(body)["code"]) == (403, "forbidden")
    status, body = site.telemetry("..%2fpump-3", site.good)
    assert (status, json.loads(body)["code"]) == (404, "not-found")


def test_what_cannot_be_read_is_told_with_its_code(site: Site) -> None:
    status, body = site.telemetry("pump-1", site.good, "-d", "{")
    assert (status, json.loads(body)["code"]) == (422, "malformed-json")


def test_without_a_certificate(site: Site) -> None:
    status, body = site.telemetry("pump-1", None)
    assert (status, json.loads(body)["code"]) == (401, "unauthorized")
    status, body = site.curl("/nothing/here")
    assert (status, json.loads(body)["code"]) == (404, "not-found")


def test_bad_certificates(site: Site) -> None:
    fleet = site.fleet
    key = ec.generate_private_key(ec.SECP256R1())
    assert site.telemetry("pump-1", fleet.write("self", self_signed("pump-1", key), key))[0] == 0
    weak = rsa.generate_private_key(65537, 1024)
    assert site.telemetry("pump-1", fleet.write("weak", self_signed("pump-1", weak), weak))[0] == 0
    revoked = fleet.issue("pump-3")
    assert site.telemetry("pump-3", revoked)[0] == 204
    pem = x509.load_pem_x509_certificate(revoked[0].read_bytes())
    fleet.identity.revocation.revoke(pem.fingerprint(hashes.SHA256()).hex(), "keyCompromise", "test")
    status, body = site.telemetry("pump-3", revoked)
    assert (status, json.loads(body)["code"]) == (401, "certificate-revoked")
    assert {"certificate-self-signed", "certificate-revoked"} <= set(site.audit())
