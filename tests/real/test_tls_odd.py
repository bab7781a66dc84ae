"""Odd and hostile TLS at the broker's port: chains, sizes, names, handshakes that never end; and whose a session is."""

import contextlib
import datetime as dt
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.sync.client import connect

sys.path.insert(0, str(Path(__file__).parent))

from fleet_certificates import Bundle, Maker, issue, name
from house import ADMIN, House
from line import Line, context_of, visit

from godwit.mqtt import packets as p
from godwit.mqtt.codec import Decoder, encode
from godwit.server.accounts.principal import Principal
from godwit.server.broker import acceptor
from godwit.server.registry.model import Device

pytestmark = pytest.mark.real

HALF_OPEN = 1_000
DAY = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def house(house_of_all: Callable[..., House]) -> House:
    return house_of_all()


@pytest.fixture(scope="module")
def factory(house: House) -> Maker:
    made = Maker("odd works")
    house.trust(made)
    return made


def leaf(factory: Maker, directory: Path, device_id: str, padding: int = 0, chain: str = "") -> Bundle:
    """Return a certificate of a factory, as large as one likes."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    filler = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), bytes(padding))
    made = (
        x509.CertificateBuilder().subject_name(name(device_id)).issuer_name(factory.name)
        .public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY).not_valid_after(now + DAY).add_extension(filler, critical=False)
        .sign(factory.key, hashes.SHA256())
    )  # fmt: skip
    return Bundle(directory, made.public_bytes(serialization.Encoding.PEM).decode(), key, chain)


def test_how_much_of_its_chain_a_device_shows_makes_no_difference(house: House) -> None:
    press = house.device("odd-chain")
    both = press.certificate.read_text()
    alone = both[: both.index("-----END CERTIFICATE-----") + len("-----END CERTIFICATE-----\n")]
    root = (house.directory / "data" / "tls" / "ca.crt").read_text()
    for shown in (both, alone, both + root, both + Maker("stranger").pem, alone + root * 9):
        press.certificate.write_text(shown)
        assert visit(house, press, "odd-chain") == 0


def test_an_authority_that_a_trusted_one_made_is_not_trusted_for_that(
    house: House, factory: Maker, eventually: Callable[..., Any]
) -> None:
    """A chain of ten leads to the factory, and verifies; but nobody has said that the tenth may name devices."""
    maker, chain = factory, ""
    for number in range(10):
        below = Maker(f"below {number}")
        below.certificate = maker.sign(below.name, below.key.public_key(), is_authority=True)
        chain, maker = below.pem + chain, below
    house.registry.create_device(ADMIN, Device("odd-ten"))
    assert visit(house, leaf(maker, house.directory / "odd-ten", "odd-ten", chain=chain), "odd-ten") == 0x87
    eventually(lambda: "authority-unknown" in {each["code"] for each in house.refusals()})


def test_a_huge_certificate_does_not_come_far(house: House, factory: Maker) -> None:
    house.registry.create_device(ADMIN, Device("odd-huge"))
    large = leaf(factory, house.directory / "odd-large", "odd-huge", 60_000)
    assert visit(house, large, "odd-huge") == 0x87  # it verifies, but is not worth keeping
    for size in (150_000, 1_000_000):  # OpenSSL itself takes no more than 100 KB
        assert visit(house, leaf(factory, house.directory / f"odd-{size}", "odd-huge", size), "odd-huge") == -1
    press = house.device("odd-after")
    assert visit(house, press, "odd-after") == 0


@pytest.mark.parametrize("server_name", ["localhost", "no.such.name", "a" * 63 + ".example", "xn--80ak6aa92e.example"])
def test_neither_server_name_nor_alpn_matters(house: House, server_name: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["x-amzn-mqtt-ca", "h2", "mqtt"])
    with (
        socket.create_connection(("127.0.0.1", house.mqtts), 10) as plain,
        context.wrap_socket(plain, server_hostname=server_name) as wire,
    ):
        assert wire.selected_alpn_protocol() is None
        wire.sendall(encode(p.Connect("x"), 5))
        (answer,) = Decoder("client", version=5).feed(wire.recv(1_024))
        assert answer.reason_code == 0x87


def test_nobody_renegotiates(house: House) -> None:
    command = ["openssl", "s_client", "-connect", f"localhost:{house.mqtts}", "-tls1_2"]
    done = subprocess.run(command, input="R\n", capture_output=True, text=True, timeout=20, check=False)
    assert "RENEGOTIATING" in done.stderr + done.stdout
    assert "no renegotiation" in done.stderr


def test_a_thousand_who_never_end_their_handshake_keep_nobody_out(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "HANDSHAKE_S_MAX", 3)  # less waiting
    press = house.device("odd-crowd")
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # the beginning of a ClientHello
    with contextlib.ExitStack() as crowd:
        stalled = []
        for number in range(HALF_OPEN):
            wire = crowd.enter_context(socket.create_connection(("127.0.0.1", house.mqtts), 10))
            if number % 2:
                wire.sendall(hello)
            stalled.append(wire)
        assert visit(house, press, "odd-crowd") == 0
        for wire in stalled[:20]:  # and they are parted from
            wire.settimeout(10)
            assert wire.recv(1) == b""


def over_websocket(house: House, connect_packet: p.Connect) -> int:
    """Return what the broker says to a CONNECT at the console's port, through a proxy."""
    with connect(
        f"ws://127.0.0.1:{house.http}/mqtt", subprotocols=["mqtt"], additional_headers={"Via": "a proxy"}
    ) as line:
        line.send(encode(connect_packet, 5))
        (answer,) = Decoder("client", version=5).feed(line.recv(10))
        return answer.reason_code


def test_a_session_is_its_owners_at_every_door(house: House) -> None:
    press = house.device("odd-own")
    _, secret = house.identity.device_tokens.create(ADMIN, "odd-own")
    program = house.server._accounts.tokens.create(
        Principal("admin"), "board", grants={"default": "operator"}, scopes=("mqtt:subscribe",)
    )
    claim = house.claim("odd-new")
    device = Line(house, press)
    assert device.come("odd-own", session_expiry_interval=600) == 0
    as_program = {"username": "board", "password": program.secret.encode()}
    others = {
        "a program": over_websocket(house, p.Connect("odd-own", **as_program)),
        "a claim": over_websocket(house, p.Connect("odd-own", username="x", password=claim.encode())),
        "loopback": house.on_loopback("mosquitto_pub", "-i", "odd-own", "-t", "x", "-m", "x").returncode,
        "a program by TLS": visit(house, None, "odd-own", **as_program),
    }
    assert others == dict.fromkeys(others, 0x85)
    assert isinstance(device.say(p.PingReq()), p.PingResp)
    own = p.Connect("odd-own", username="odd-own", password=secret.encode(), clean_start=False)
    assert over_websocket(house, own) == 0  # the same device, by another credential and door
    assert device.end() == 0x8E
    board = Line(house)
    assert board.come("board", **as_program) == 0
    assert house.on_loopback("mosquitto_pub", "-i", "board", "-t", "x", "-m", "x").returncode == 0x85
    house.registry.create_device(ADMIN, Device("board"))  # a device of that name comes: it is its own
    assert visit(house, issue(house.identity, house.directory / "board", "board"), "board") == 0
    assert board.end() == 0x98


def test_tls_session_of_one_device_is_no_way_in_for_another(house: House) -> None:
    """What was resumed has the certificate of the first handshake, whatever certificate the client has now."""
    first, second = house.device("odd-first"), house.device("odd-second")
    context = context_of(house, first)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    line = Line(house, context=context)
    assert line.come("odd-first") == 0
    session = line.wire.session
    line.close()
    context.load_cert_chain(second.certificate, second.key)
    again = Line(house, context=context, session=session)
    assert again.wire.session_reused
    assert again.come("odd-second") == 0x85
