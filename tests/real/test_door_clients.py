"""At the TLS listener with clients of others: openssl, paho as the seed uses it, websockets; resumed sessions too."""

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
import sqlalchemy as sa
from websockets.sync.client import connect

sys.path.insert(0, str(Path(__file__).parent))

from fleet_certificates import Bundle, Maker, pem_of
from house import House, until
from programs import running

from godwit.mqtt.codec import encode
from godwit.mqtt.packets import Connect
from godwit.server.accounts.principal import Principal
from godwit.server.storage.tables import audit

pytestmark = pytest.mark.real

ACCEPTED, REFUSED = b"\x20\x02\x00\x00", b"\x20\x02\x00\x05"
WAIT_S = 10


def hello(device_id: str) -> bytes:
    return encode(Connect(device_id, keep_alive=60, version=4), 4)


def ask_openssl(house: House, bundle: Bundle, device_id: str, *options: str) -> bytes:
    """Return what the broker says to a CONNECT that openssl carries; nothing where it did not come so far."""
    trust = ["-CAfile", str(house.directory / "data" / "tls" / "ca.crt"), "-verify_return_error"]
    begin = ["openssl", "s_client", "-connect", f"localhost:{house.mqtts}", "-quiet"]
    command = [*begin, *trust, *bundle.openssl, *options]
    with running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as program:
        watch = threading.Timer(WAIT_S, program.kill)
        watch.start()
        with contextlib.suppress(BrokenPipeError):
            program.stdin.write(hello(device_id))
            program.stdin.flush()
        said = program.stdout.read(4)
        watch.cancel()
        return said


def signed_with_sha1(factory: Maker, directory: Path, device_id: str) -> Bundle:
    """Have openssl sign with SHA-1: our library does not any more."""
    good = factory.device(directory, device_id)
    (directory / "ca.crt").write_text(factory.pem)
    (directory / "ca.key").write_bytes(pem_of(factory.key))
    for step in (
        f"openssl req -new -key device.key -subj /CN={device_id} -out device.csr",
        "openssl x509 -req -sha1 -in device.csr -CA ca.crt -CAkey ca.key -set_serial 7 -days 1 -out device.crt",
    ):
        subprocess.run(step.split(), cwd=directory, check=True, capture_output=True)
    assert b"ecdsa-with-SHA1" in subprocess.check_output(
        ["openssl", "x509", "-in", str(good.certificate), "-noout", "-text"]
    )
    return good


def test_openssl_with_good_and_bad_certificates(house: House, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    press = house.device("press-7")
    factory = Maker()
    house.trust(factory)
    for version in ("-tls1_2", "-tls1_3"):
        assert ask_openssl(house, press, "press-7", version) == ACCEPTED, version
    assert ask_openssl(house, press, "press-8") in {REFUSED, b"\x20\x02\x00\x02"}
    bad = {
        "self-signed": Maker("press-7").device(tmp_path / "s", "press-7"),
        "wrong authority": Maker("stranger").device(tmp_path / "w", "press-7"),
        "RSA-1024": factory.device(tmp_path / "r", "press-7", bits=1024),
        "SHA-1": signed_with_sha1(factory, tmp_path / "h", "press-7"),
    }
    for what, bundle in bad.items():
        # the client may be let down to level 0, so that it is the server that refuses
        assert ask_openssl(house, bundle, "press-7", "-cipher", "DEFAULT@SECLEVEL=0") == b"", what
    codes = {"certificate-self-signed", "authority-unknown", "weak-key", "weak-signature"}
    eventually(lambda: codes <= {each["code"] for each in house.refusals()})
    house.identity.revocation.revoke(press.fingerprint, "keyCompromise", "test")
    assert ask_openssl(house, press, "press-7") == REFUSED


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_resumed_session_is_no_way_round_a_revocation(house: House, version: ssl.TLSVersion) -> None:
    press = house.device("press-7")
    context = ssl.create_default_context(cafile=str(house.directory / "data" / "tls" / "ca.crt"))
    context.load_cert_chain(press.certificate, press.key)
    context.minimum_version = context.maximum_version = version

    def come(session: ssl.SSLSession | None) -> tuple[bytes, bool, ssl.SSLSession | None]:
        with (
            socket.create_connection(("localhost", house.mqtts), WAIT_S) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as line,
        ):
            line.sendall(hello("press-7"))
            return line.recv(4), bool(line.session_reused), line.session

    said, _, session = come(None)
    assert said == ACCEPTED
    said, was_resumed, session = come(session)
    assert said == ACCEPTED
    house.identity.revocation.revoke(press.fingerprint, "keyCompromise", "test")
    said, still_resumed, _ = come(session)
    assert said == REFUSED
    assert was_resumed  # else it would prove nothing
    assert still_resumed


def test_the_seeds_own_client_hears_its_commands_and_is_stored(house: House) -> None:
    """seeds/iot-domain.md: MQTT 3.1.1, TLS 1.2 alone, `device/commands/#`."""
    press = house.device("press-7")
    heard: list[tuple[str, object]] = []
    is_listening, has_heard = threading.Event(), threading.Event()
    device = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="press-7", protocol=paho.MQTTv311)
    tls = ssl.create_default_context(cafile=str(house.directory / "data" / "tls" / "ca.crt"))
    tls.load_cert_chain(press.certificate, press.key)
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    device.tls_set_context(tls)

    def hear(_client, _data, message) -> None:
        heard.append((message.topic, json.loads(message.payload)))
        has_heard.set()

    device.on_connect = lambda client, *_: client.subscribe("device/commands/#")
    device.on_subscribe = lambda *_: is_listening.set()
    device.on_message = hear
    device.connect("localhost", house.mqtts, keepalive=60)
    device.loop_start()
    try:
        assert is_listening.wait(WAIT_S)
        house.device("press-8")
        house.post("devices/press-8/commands")  # somebody else's
        house.post("devices/press-7/commands")
        assert has_heard.wait(WAIT_S)
        reading = {"sensor_id": "press-7", "temperature": 21.5, "humidity": 40, "timestamp": int(time.time())}
        told = device.publish("device/press-7/telemetry", json.dumps(reading), qos=1)
        told.wait_for_publish(WAIT_S)
        assert told.is_published()
    finally:
        device.disconnect()
        device.loop_stop()
    assert len(heard) == 1
    assert "press-8" not in heard[0][0]


def test_an_applications_session_ends_with_its_token(house: House) -> None:
    made = house.server._accounts.tokens.create(
        Principal("admin"), "dashboard", grants={"default": "operator"}, scopes=("mqtt:subscribe",)
    )
    command = house.client("mosquitto_sub", "-W", "12", "-d", "-u", "app", "-P", made.secret, "-t", "#")
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as listening:
        until(listening, "SUBACK")
        house.server._accounts.tokens.revoke(Principal("admin"), made.token.token_id)
        began = time.monotonic()
        assert "152" in until(listening, "DISCONNECT")
        assert time.monotonic() - began < 1


def test_a_refusal_at_the_consoles_port_is_known_by_its_address(house: House, eventually: Callable[..., Any]) -> None:
    with connect(
        f"ws://127.0.0.1:{house.http}/mqtt", subprotocols=["mqtt"], additional_headers={"Via": "a proxy"}
    ) as line:
        line.send(encode(Connect("x", username="x", password=b"wrong", keep_alive=60, version=4), 4))
        assert line.recv(WAIT_S) == REFUSED
    statement = sa.select(audit.c.address).where(audit.c.what == "mqtt.refuse")

    def addresses() -> list[str]:
        with house.server._database.read() as connection:
            return list(connection.execute(statement).scalars())

    assert eventually(addresses) == ["127.0.0.1"]
