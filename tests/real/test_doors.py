"""Who comes in at the TLS listener, what he may there, and how fast he has to go: asked by clients of others."""

import datetime as dt
import json
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import ECKey

sys.path.insert(0, str(Path(__file__).parent))

from fleet_certificates import Bundle, Maker, issue, name, pem_of, public_pem
from house import ADMIN, READING, House, until
from ports import free_port
from programs import running

from godwit.server.registry.model import Device

pytestmark = pytest.mark.real

DYNAMIC_SECURITY = Path("/usr/lib") / f"{platform.machine()}-linux-gnu" / "mosquitto_dynamic_security.so"
KEEPER = "a secret of the keeper's"
RUSH = Path(__file__).parents[2] / "bench" / "rush.py"


def test_a_certificate_opens_the_door_to_its_device_and_no_other(house: House) -> None:
    press, other = house.device("press-7"), house.device("press-8")
    for version in ("tlsv1.2", "tlsv1.3"):
        told = house.publish("devices/press-7/telemetry", press, "-i", "press-7", "--tls-version", version)
        assert told.returncode == 0, told.stderr
    for topic in ("devices/press-8/telemetry", "devices/press-7/commands", "elsewhere", "devices/ghost/telemetry"):
        assert "ot authorized" in house.publish(topic, press, "-i", "press-7").stderr, topic
    wrong = house.publish("devices/press-7/telemetry", other, "-i", "press-7")
    assert wrong.returncode == 133, wrong  # 0x85
    nobody = house.publish("devices/press-7/telemetry", None, "-i", "press-7")
    assert nobody.returncode == 135, nobody


def test_revoked_or_suspended_an_open_session_ends_at_once(house: House, eventually: Callable[..., Any]) -> None:
    for case, end in {
        "press-1": lambda bundle: house.identity.revocation.revoke(bundle.fingerprint, "keyCompromise", "test"),
        "press-2": lambda _: house.registry.change_device(ADMIN, "press-2", {"lifecycle": "suspended"}),
        "press-3": lambda _: house.registry.retire_device(ADMIN, "press-3"),
    }.items():
        bundle = house.device(case)
        command = house.client(
            "mosquitto_sub", "-W", "12", "-d", "-i", case, "-t", f"devices/{case}/commands", bundle=bundle
        )
        with running(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as listening:
            until(listening, "SUBACK")
            end(bundle)
            began = time.monotonic()
            line = until(listening, "DISCONNECT")
            assert "152" in line, line  # 0x98, administrative action
            assert time.monotonic() - began < 1
        again = house.publish(f"devices/{case}/telemetry", bundle, "-i", case)
        assert again.returncode == 135, again


def test_the_loopback_listener_speaks_for_nobodys_devices_only(house: House) -> None:
    press = house.device("press-7")
    assert house.on_loopback("mosquitto_pub", "-t", "devices/free-1/telemetry", "-m", READING).returncode == 0
    told = house.on_loopback("mosquitto_pub", "-t", "devices/press-7/telemetry", "-m", READING)
    assert "ot authorized" in told.stderr
    told = house.on_loopback("mosquitto_pub", "-t", "devices/press-7/commands", "-m", "{}")
    assert "ot authorized" in told.stderr
    command = ["stdbuf", "-oL", "mosquitto_sub", "-p", str(house.mqtt), "-t", "#", "-F", "%t", "-W", "3", "-d"]
    with running(command, stdout=subprocess.PIPE, text=True) as listening:
        until(listening, "SUBACK")
        assert house.publish("devices/press-7/telemetry", press, "-i", "press-7").returncode == 0
        house.on_loopback("mosquitto_pub", "-t", "devices/free-1/telemetry", "-m", READING)
        heard = listening.communicate()[0]
    assert "devices/free-1/telemetry" in heard
    assert "press-7" not in heard


def test_bad_certificates_are_told_why_or_do_not_come_to_tls(house: House, tmp_path: Path) -> None:
    press, seconds = house.device("press-7"), dt.timedelta(seconds=1)
    factory = Maker()
    house.trust(factory)
    stranger = Maker("stranger")
    day = dt.timedelta(days=1)
    house.registry.create_device(ADMIN, Device("press-9"))
    short = issue(house.identity, tmp_path / "short", "press-9", lifetime=seconds)
    time.sleep(1.2)
    told = {
        "expired": (short, "press-9", "expired"),
        "not yet valid": (factory.device(tmp_path / "n", "press-9", begins=day, ends=2 * day), "press-9", ""),
        "expired, a factory's": (factory.device(tmp_path / "e", "press-9", begins=-2 * day, ends=-day), "press-9", ""),
        "right authority, wrong CN": (press, "press-9", ""),
    }
    for what, (bundle, client_id, sentence) in told.items():
        refused = house.publish(f"devices/{client_id}/telemetry", bundle, "-i", client_id)
        assert refused.returncode in {133, 135}, (what, refused)
        assert sentence in refused.stderr or refused.returncode, what
    silent = {
        "self-signed": Maker("press-7").device(tmp_path / "s", "press-7"),
        "wrong authority": stranger.device(tmp_path / "w", "press-7"),
        "RSA-1024": factory.device(tmp_path / "r", "press-7", bits=1024),
    }
    for what, bundle in silent.items():
        refused = house.publish("devices/press-7/telemetry", bundle, "-i", "press-7")
        assert refused.returncode not in {0, 133, 135}, (what, refused)
    codes = {each["code"] for each in house.refusals()}
    assert {"certificate-expired", "client-id-mismatch"} <= codes


def test_an_application_hears_its_tenants_devices_only(house: House) -> None:
    house.registry.put_tenant(ADMIN, "acme")
    own = house.device("pump-1", tenant="acme")
    other = house.device("press-1")
    token = house.api_token({"acme": "operator"}, ("mqtt:subscribe", "mqtt:publish"))
    for topic in ("#", "$share/workers/devices/+/telemetry"):
        listening = house.client(
            "mosquitto_sub", "-u", "app:dashboard", "-P", token, "-t", topic, "-F", "%t", "-d", "-W", "4"
        )
        with running(listening, stdout=subprocess.PIPE, text=True) as program:
            until(program, "SUBACK")
            for bundle, device in ((other, "press-1"), (own, "pump-1")):
                assert house.publish(f"devices/{device}/telemetry", bundle, "-i", device).returncode == 0
            heard = program.communicate()[0]
        assert "devices/pump-1/telemetry" in heard, topic
        assert "press-1" not in heard
        assert "heartbeat" not in heard
    as_app = ("-u", "app:dashboard", "-P", token)
    assert house.publish("devices/pump-1/commands", None, *as_app, text="{}").returncode in {0, 16}
    for topic in ("devices/press-1/commands", "elsewhere"):
        assert "ot authorized" in house.publish(topic, None, *as_app).stderr, topic
    assert "ot authorized" in house.publish("devices/pump-1/commands", None, "-u", "app", "-P", "gwt_wrong").stderr


def test_a_claim_opens_enrollment_and_nothing_else(house: House, tmp_path: Path) -> None:
    token = house.claim("pump-7")
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(name("pump-7")).sign(key, hashes.SHA256())
    request = {"deviceId": "pump-7", "request": csr.public_bytes(serialization.Encoding.PEM).decode()}
    answer = house.client(
        "mosquitto_rr", "-i", "pump-7", "-u", "pump-7", "-P", token, "-q", "2", "-W", "10",
        "-t", "enrollment/pump-7/request", "-e", "enrollment/pump-7/grant", "-m", json.dumps(request),
    )  # fmt: skip
    done = subprocess.run(answer, capture_output=True, text=True, timeout=20, check=False)
    grant = json.loads(done.stdout)
    assert "code" not in grant, grant
    bundle = Bundle(tmp_path / "pump-7", grant["certificate"], key, "".join(grant["chain"]))
    assert house.publish("devices/pump-7/telemetry", bundle, "-i", "pump-7").returncode == 0
    token = house.claim("pump-8")
    for topic in ("devices/pump-8/telemetry", "enrollment/pump-7/request", "enrollment/pump-8/grant"):
        assert "ot authorized" in house.publish(topic, None, "-i", "pump-8", "-u", "x", "-P", token).stderr, topic


def test_tokens_and_signed_claims_of_devices_without_certificates(house: House, tmp_path: Path) -> None:
    house.registry.create_device(ADMIN, Device("meter-3"))
    token, secret = house.identity.device_tokens.create(ADMIN, "meter-3")
    topic = "devices/meter-3/telemetry"
    assert house.publish(topic, None, "-i", "meter-3", "-u", "meter-3", "-P", secret).returncode == 0
    assert house.publish(topic, None, "-i", "meter-3", "-u", "meter-4", "-P", secret).returncode == 135
    listening = house.client(
        "mosquitto_sub", "-W", "12", "-d", "-i", "meter-3", "-u", "meter-3", "-P", secret, "-t", "device/commands/#"
    )
    with running(listening, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        until(program, "SUBACK")
        house.post("devices/meter-3/commands")
        until(program, "PUBLISH")
        house.identity.device_tokens.revoke(ADMIN, "meter-3", token.token_id)
        began = time.monotonic()
        until(program, "DISCONNECT")
        assert time.monotonic() - began < 1
    assert house.publish(topic, None, "-i", "meter-3", "-u", "meter-3", "-P", secret).returncode == 135
    key = ec.generate_private_key(ec.SECP256R1())
    house.identity.device_keys.register(ADMIN, "meter-3", public_pem(key))
    now = int(time.time())
    signed = jwt.encode({"alg": "ES256"}, {"aud": "godwit", "iat": now, "exp": now + 5}, ECKey.import_key(pem_of(key)))
    began = time.monotonic()
    command = house.client(
        "mosquitto_sub", "-W", "12", "-d", "-i", "meter-3", "-u", "meter-3", "-P", signed, "-t", "device/commands/#"
    )
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        line = until(program, "DISCONNECT")
        assert "160" in line  # 0xA0, maximum connect time: its token has ended
        assert time.monotonic() - began < 7


def dynamic_security(files: Path, port: int) -> str:
    """Return the lines of Mosquitto's plugin, with a door for its keeper."""
    made = ["mosquitto_ctrl", "dynsec", "init", str(files / "dynamic.json"), "keeper", KEEPER]
    subprocess.run(made, check=True, capture_output=True, timeout=20)
    plugin = f"plugin {DYNAMIC_SECURITY}\nplugin_opt_config_file {files / 'dynamic.json'}\n"
    return f"{plugin}listener {port} 127.0.0.1\n"


@pytest.mark.skipif(not DYNAMIC_SECURITY.exists(), reason="Mosquitto's dynamic security plugin is not installed")
def test_mosquitto_admits_our_devices_by_our_files(
    house: House, mosquitto_in: Callable[..., Any], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    press, other = house.device("press-7"), house.device("press-8")
    files = tmp_path / "files"
    command = [sys.executable, "-m", "godwit.cli.main", "mosquitto-files", str(files)]
    server = ["--server", f"http://127.0.0.1:{house.http}", "--token-file", str(house.directory / "data/admin-token")]
    subprocess.run([*command, *server], check=True, capture_output=True, timeout=30)
    tls = house.directory / "data" / "tls"
    for name_of in ("server.crt", "server.key"):
        (files / name_of).write_bytes((tls / name_of).read_bytes())
    lines = (files / "godwit.conf").read_text().replace("listener 8883\n", "")
    mosquitto = mosquitto_in(lines=lines + dynamic_security(files, door := free_port())).start()
    trust = ["-h", "localhost", "-p", str(mosquitto.port), "--cafile", str(tls / "ca.crt"), "-V", "mqttv5", "-q", "1"]

    def publish(topic: str, bundle: Bundle) -> int:
        told = ["mosquitto_pub", *trust, *bundle.mosquitto, "-t", topic, "-m", READING]
        done = subprocess.run(told, capture_output=True, text=True, timeout=20, check=False)
        return 1 if "ot authorized" in done.stderr else done.returncode

    def control(*words: str) -> None:
        keeper = ["mosquitto_ctrl", "-p", str(door), "-u", "keeper", "-P", KEEPER, "dynsec", *words]
        subprocess.run(keeper, check=True, capture_output=True, timeout=20)

    assert publish("devices/press-7/telemetry", press) in {0, 16}
    assert publish("devices/press-8/telemetry", press) == 1
    assert publish("devices/press-7/commands", press) == 1
    control("createClient", "press-7", "-p", "it comes by certificate")
    listening = [
        "stdbuf",
        "-oL",
        "mosquitto_sub",
        *trust,
        *press.mosquitto,
        "-W",
        "60",
        "-d",
        "-t",
        "devices/press-7/commands",
    ]
    with running(listening, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as open_session:
        until(open_session, "SUBACK")
        house.identity.revocation.revoke(press.fingerprint, "keyCompromise", "test")
        subprocess.run([*command, *server], check=True, capture_output=True, timeout=30)
        mosquitto.process.send_signal(signal.SIGHUP)
        eventually(lambda: publish("devices/press-7/telemetry", press) not in {0, 16})
        assert open_session.poll() is None  # a list is for those who come
        control("disableClient", "press-7")
        assert "152" in until(open_session, "DISCONNECT")  # 0x98, administrative action
    # the plugin asks nobody who shows a certificate: without the list he would be back
    control("createClient", "press-8", "-p", "it comes by certificate")
    control("disableClient", "press-8")
    assert publish("devices/press-8/telemetry", other) in {0, 16}


def test_hundreds_of_devices_come_back_at_once_and_none_fails(house: House) -> None:
    """With certificates: full handshakes, all begun in the same moment."""
    count, bundles = 300, [house.device(f"press-{number}") for number in range(50)]
    told = [f"localhost:{house.mqtts}", str(house.directory / "data" / "tls" / "ca.crt"), str(count)]
    command = [sys.executable, str(RUSH), *told, *(str(bundle.certificate.parent) for bundle in bundles)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    found = json.loads(done.stdout)
    assert found["admitted"] == count, found
