"""Certificates for a real Mosquitto."""

import datetime as dt
import ipaddress
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

sys.path.insert(0, str(Path(__file__).parent))

from house import House
from line import Line
from playwright.sync_api import Browser, expect, sync_playwright
from ports import free_ports

expect.set_options(timeout=20_000)  # pages follow within a second; on a busy machine the browser itself takes several


CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Start a browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Certificates:
    """An authority, a server's certificate for 127.0.0.1 and a client's, as PEM files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.authority = directory / "authority.crt"
        self.authority.write_bytes(self._sign(self._name, self._key.public_key(), is_authority=True))
        self.server, self.server_key = self._make("server")
        self.client, self.client_key = self._make("client")

    def _sign(self, name: x509.Name, key: ec.EllipticCurvePublicKey, *, is_authority: bool) -> bytes:
        now = dt.datetime.now(dt.UTC)
        addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(addresses, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def _make(self, name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate_file, key_file = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        certificate_file.write_bytes(self._sign(subject, key.public_key(), is_authority=False))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate_file, key_file


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """Make certificates for this test."""
    directory = tmp_path / "certificates"
    directory.mkdir()
    return Certificates(directory)


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    """Make a Mosquitto password file with godwit's and a device's names; the passwords are `secret`."""
    path = tmp_path / "passwords"
    path.touch(0o600)
    for name in ("godwit", "device"):
        subprocess.run(["mosquitto_passwd", "-b", str(path), name, "secret"], check=True, capture_output=True)
    return path


def houses(directory: Path) -> Iterator[Callable[..., House]]:
    """Give what starts platforms in this process; they are stopped at the end."""
    made: list[House] = []

    def make(**settings: Any) -> House:
        made.append(House(directory, free_ports(4), **settings))
        return made[-1]

    yield make
    for each in made:
        each.server.stop()


@pytest.fixture
def house_in(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Return what starts a platform in this process."""
    yield from houses(tmp_path)


@pytest.fixture(scope="module")
def house_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., House]]:
    """Return what starts a platform in this process for all tests of a module."""
    yield from houses(tmp_path_factory.mktemp("house"))


@pytest.fixture
def house(house_in: Callable[..., House]) -> House:
    """Start a platform in this process."""
    return house_in()


@pytest.fixture(autouse=True)
def _closed_lines() -> Iterator[None]:
    """Hang up what a failed test leaves open."""
    yield
    while Line.opened:
        Line.opened.pop().close()
