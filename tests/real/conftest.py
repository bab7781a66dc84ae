"""A real Mosquitto in a process of its own, and certificates for it."""

import contextlib
import datetime as dt
import ipaddress
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

START_S_MAX = 10


def find(command: str) -> str:
    """Return the path of a program that Debian keeps out of a user's PATH."""
    found = shutil.which(command) or shutil.which(command, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.fail(f"{command} is not installed: tests/install_services.sh does it")
    return found


class Mosquitto:
    """`mosquitto -c` on a configuration, with persistence. The same directory and port serve every start."""

    def __init__(self, directory: Path, lines: str = "allow_anonymous true") -> None:
        directory.mkdir(exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.log = directory / "mosquitto.log"
        self.configuration = directory / "mosquitto.conf"
        self.configuration.write_text(
            f"listener {self.port} 127.0.0.1\n{lines}\nmax_queued_messages 0\n"
            f"persistence true\npersistence_location {directory}/\nuser root\n"
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Mosquitto":
        """Start; returns when it listens."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [find("mosquitto"), "-v", "-c", str(self.configuration)], stdout=log, stderr=log
            )
        end = time.monotonic() + START_S_MAX
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.02)
        pytest.fail(f"mosquitto does not start: {self.log.read_text()}")

    def stop(self) -> None:
        """Stop in order: it writes down sessions and retained messages."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)
            self.process = None


@pytest.fixture
def mosquitto_in(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Make brokers that are not started yet; all are stopped at the end."""
    made: list[Mosquitto] = []

    def make(name: str = "mosquitto", **options: str) -> Mosquitto:
        made.append(Mosquitto(tmp_path / name, **options))
        return made[-1]

    yield make
    for each in made:
        each.stop()


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
        subprocess.run([find("mosquitto_passwd"), "-b", str(path), name, "secret"], check=True, capture_output=True)
    return path
