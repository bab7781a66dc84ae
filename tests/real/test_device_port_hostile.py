"""Does the port of devices hold against clients that mean no good: slow, endless, too large, of another world?"""

import contextlib
import json
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from ports import free_port
from tests.real.certified_fleet import Fleet, request_of, self_signed

from godwit.server.accounts.refusals import Refusals as Notes
from godwit.server.device_port.port import DevicePort
from godwit.server.device_port.refusals import Refusals
from godwit.server.device_port.trust import Trust
from godwit.server.identity.issuance import device_uri
from godwit.server.identity.room import open_identity
from godwit.server.registry.service import Registry
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine

pytestmark = pytest.mark.real


class Site:
    def __init__(self, platform: Any, fleet: Fleet) -> None:
        self.platform, self.fleet = platform, fleet
        self.ca = platform.data_dir / "tls" / "ca.crt"
        self.good = fleet.keys / "pump-1.crt", fleet.keys / "pump-1.key"

    def connect(self, *, is_known: bool = True) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.ca)
        if is_known:
            context.load_cert_chain(*self.good)
        plain = socket.create_connection(("localhost", self.platform.https), 40)
        return context.wrap_socket(plain, server_hostname="localhost")

    def s_client(self, pair: tuple[Path, Path], *how: str) -> str:
        """Return what a request of s_client is answered, or what openssl says of the handshake."""
        request = b"GET /.well-known/est/csrattrs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"localhost:{self.platform.https}", "-CAfile", str(self.ca), "-quiet",
             "-cert", str(pair[0]), "-key", str(pair[1]), *how],
            input=request, capture_output=True, timeout=20, check=False,
        )  # fmt: skip
        return (done.stdout + done.stderr).decode(errors="replace")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, platform_class: Callable[..., Any]) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("hostile")
    platform = platform_class(directory / "data")
    fleet = Fleet(directory / "data", directory / "keys")
    fleet.add("pump-1")
    fleet.issue("pump-1")
    platform.start()
    yield Site(platform, fleet)
    platform.stop()


def read_all(connection: ssl.SSLSocket) -> bytes:
    found = b""
    with contextlib.suppress(OSError):
        while data := connection.recv(65_536):
            found += data
    return found


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


HEAD = b"POST /v1/devices/pump-1/telemetry HTTP/1.1\r\nHost: x\r\n"


def test_s_client_with_good_and_bad_certificates(site: Site) -> None:
    fleet = site.fleet
    for version in ("-tls1_2", "-tls1_3"):
        assert "200 OK" in site.s_client(site.good, version)
    key = ec.generate_private_key(ec.SECP256R1())
    alone = fleet.write("alone", self_signed("pump-1", key), key)
    assert "200 OK" not in site.s_client(alone)
    other = Fleet(site.platform.data_dir.parent / "other", fleet.keys)  # a stranger's authority
    other.add("pump-1")
    assert "200 OK" not in site.s_client(other.issue("pump-1", "stranger"))
    for name, bits in (("weak", 1024), ("strong", 2048)):
        weak = rsa.generate_private_key(65537, bits)
        pair = fleet.write(name, self_signed("pump-1", weak), weak)
        assert "200 OK" not in site.s_client(pair, "-cipher", "DEFAULT@SECLEVEL=0")
    assert "200 OK" not in site.s_client(site.good, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")


def test_the_right_authority_and_a_wrong_name(site: Site) -> None:
    """A certificate of our authority that the registry does not have: copied key, or issued behind its back."""
    signer = site.fleet.identity.authorities.signer()
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.load_pem_x509_csr(request_of("pump-1", key))
    now = signer.certificate.not_valid_before_utc
    made = (
        x509.CertificateBuilder().subject_name(request.subject).issuer_name(signer.certificate.subject)
        .public_key(key.public_key()).serial_number(7).not_valid_before(now)
        .not_valid_after(signer.certificate.not_valid_after_utc)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(device_uri("default", "pump-1"))]),
            critical=False,
        )
        .sign(signer.key, hashes.SHA256())
    )  # fmt: skip
    pem = made.public_bytes(serialization.Encoding.PEM).decode() + "".join(signer.chain)
    pair = site.fleet.write("behind", pem, key)
    body = subprocess.run(
        ["curl", "-s", "--cacert", str(site.ca), "--cert", str(pair[0]), "--key", str(pair[1]), "-d", "{}",
         f"https://localhost:{site.platform.https}/v1/devices/pump-1/telemetry"],
        capture_output=True, timeout=20, check=False,
    ).stdout  # fmt: skip
    assert json.loads(body)["status"] == 401


def test_bodies_and_heads_are_bounded(site: Site) -> None:
    with site.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 99999999\r\n\r\n")
        assert status_of(read_all(connection)) == 413
    with site.connect() as connection, contextlib.suppress(OSError):
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        while sent < 40_000_000:  # until it is cut off
            connection.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            sent += 65_536
    assert sent < 20_000_000
    with site.connect() as connection:
        answer = b""
        with contextlib.suppress(OSError):
            connection.sendall(HEAD)
            for _ in range(10_000):
                connection.sendall(b"X-Filling: " + b"y" * 1_000 + b"\r\n")
        answer = read_all(connection)
        assert status_of(answer) in (0, 400)


def test_what_is_no_http_is_answered_and_cut_off(site: Site) -> None:
    for rubbish in (b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET\r\n\r\n"):
        with site.connect(is_known=False) as connection:
            connection.sendall(rubbish)
            assert status_of(read_all(connection)) == 400
    with site.connect() as connection:  # a WebSocket is not for devices here
        connection.sendall(
            b"GET /health/live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert connection.recv(4_096).startswith(b"HTTP/1.1 200")
    with socket.create_connection(("localhost", site.platform.https), 20) as plain:  # no TLS
        plain.sendall(HEAD + b"\r\n")
        plain.settimeout(20)
        with contextlib.suppress(OSError):
            assert not plain.recv(4_096).startswith(b"HTTP")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def test_who_is_slow_is_cut_off_and_others_are_served(tmp_path: Path) -> None:
    database = Database(open_engine("", tmp_path))
    identity = open_identity(database, Registry(database), tmp_path)
    trust = Trust(identity.authorities, identity.server.ensure())
    place = free_port()
    port = DevicePort(
        echo, "127.0.0.1", place, trust, Refusals(Notes(database)), body_bytes_max=1_000_000, patience_s=0.5
    )
    port.start()
    context = ssl.create_default_context(cafile=identity.server.ca)

    def connect() -> ssl.SSLSocket:
        return context.wrap_socket(socket.create_connection(("127.0.0.1", place), 10), server_hostname="127.0.0.1")

    begun = monotonic()
    slow = [connect() for _ in range(4)]
    slow[0].sendall(b"POST /enroll HT")
    slow[1].sendall(b"\r\n")
    slow[2].sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123")
    with connect() as quick:
        for _ in range(3):
            quick.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert quick.recv(4_096).startswith(b"HTTP/1.1 200")
    for each in slow:
        read_all(each)
        each.close()
    assert 0.4 < monotonic() - begun < 8
    port.stop()
