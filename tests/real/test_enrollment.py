"""New devices get in, by claim, factory, owner and tenant: asked by openssl, curl, mosquitto, authlib, the seed."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session

pytestmark = pytest.mark.real

PROVISIONER = '''class DeviceProvisioner:
    def __init__(self, api_endpoint):
        self.endpoint = api_endpoint

    def register_device(self, device_id, certificate_pem):
        """Register device with cloud backend"""
        response = requests.post(
            f"{self.endpoint}/devices",
            json={
                "device_id": device_id,
                "certificate": certificate_pem,
                "status": "active"
            },
            headers={"Authorization": "Bearer " + self.get_token()}
        )
        return response.json()

    def rotate_certificate(self, device_id, new_cert_pem):
        """Rotate device certificate (security best practice)"""
        response = requests.patch(
            f"{self.endpoint}/devices/{device_id}/certificate",
            json={"certificate": new_cert_pem}
        )
        return response.status_code == 200
'''


class Site:
    """A platform in a process of its own, openssl, and the command line."""

    def __init__(self, platform: Any, directory: Path) -> None:
        self.platform, self.directory = platform, directory
        self.ca = platform.data_dir / "tls" / "ca.crt"

    def run(self, *words: str) -> str:
        done = subprocess.run(words, cwd=self.directory, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def godwit(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "godwit.cli.main", *words, "--server", self.platform.url], cwd=self.directory,
            env=self.platform.environment, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def key_and_csr(self, name: str) -> str:
        self.run(
            "openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr",
        )  # fmt: skip
        return (self.directory / f"{name}.csr").read_text()

    def curl(self, path: str, body: Any, *arguments: str, pair: str = "") -> tuple[int, Any]:
        """Ask the port of devices; returns status and document."""
        own = ["--cert", f"{pair}.crt", "--key", f"{pair}.key"] if pair else []
        text = self.run(
            "curl", "-s", "-S", "-w", "\n%{http_code}", "--cacert", str(self.ca), *own, *arguments,
            "-H", "content-type: application/json", "-d", json.dumps(body),
            f"https://127.0.0.1:{self.platform.https}{path}",
        )  # fmt: skip
        answer, _, status = text.rpartition("\n")
        return int(status), json.loads(answer) if answer else None

    def keep(self, name: str, grant: Any) -> None:
        (self.directory / f"{name}.crt").write_text(grant["certificate"] + "".join(grant["chain"]))

    def publish(self, name: str, topic: str) -> int:
        return subprocess.run(
            ["mosquitto_pub", "-h", "localhost", "-p", str(self.platform.mqtts), "--cafile", str(self.ca),
             "--cert", f"{name}.crt", "--key", f"{name}.key", "-i", name, "-V", "mqttv5", "-q", "1", "-t", topic,
             "-m", '{"readings": {"temperature": 21.5}}'],
            cwd=self.directory, capture_output=True, timeout=20, check=False,
        ).returncode  # fmt: skip

    def certificates(self, device_id: str) -> list[str]:
        found = self.platform.json(f"/api/v1/certificates?deviceId={device_id}")["items"]
        return sorted(each["state"] for each in found)

    def works(self, name: str, *options: str) -> None:
        """Make an authority, and have it trusted by proof."""
        self.run(
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9",
            "-keyout", f"{name}.key", "-subj", f"/O=Works/CN={name}", "-out", f"{name}.pem",
        )  # fmt: skip
        told = self.godwit("factory", "add", f"{name}.pem", *options).split()
        fingerprint, code = told[1], told[3]
        self.sign(name, code)
        assert "vouches for devices of" in self.godwit("factory", "prove", fingerprint, f"{code}.crt")

    def sign(self, works: str, name: str) -> str:
        """Have an authority sign a certificate."""
        self.key_and_csr(name)
        self.run(
            "openssl", "x509", "-req", "-in", f"{name}.csr", "-CA", f"{works}.pem", "-CAkey", f"{works}.key",
            "-CAcreateserial", "-days", "3", "-sha256", "-out", f"{name}.crt",
        )  # fmt: skip
        return (self.directory / f"{name}.crt").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, platform_class: Callable[..., Any]) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("enrollment")
    platform = platform_class(directory / "data").start()
    yield Site(platform, directory)
    platform.stop()


def test_a_claim_from_the_command_line_to_a_renewed_certificate(site: Site, eventually: Callable[..., Any]) -> None:
    (site.directory / "pumps.json").write_text('{"intervalS": 10}')
    site.godwit("rule", "put", "pumps", "--ids", "pump-*", "--group", "pumps", "--configuration", "pumps.json")
    site.godwit("claim", "create", "--device", "pump-1", "--out", "claim.txt")
    token = (site.directory / "claim.txt").read_text().strip()
    asked = {"deviceId": "pump-1", "request": site.key_and_csr("pump-1"), "claim": token}

    status, grant = site.curl("/enroll", asked)
    assert (status, grant["configuration"]) == (200, {"intervalS": 10})
    assert site.curl("/enroll", asked)[1]["certificate"] == grant["certificate"], "the answer may have been lost"
    site.keep("pump-1", grant)
    other = asked | {"request": site.key_and_csr("thief")}
    assert site.curl("/enroll", other)[1]["code"] == "csr-wrong-name"
    assert site.publish("pump-1", "devices/pump-1/telemetry") == 0
    desired = site.run(
        "mosquitto_sub", "-h", "localhost", "-p", str(site.platform.mqtts), "--cafile", str(site.ca), "--cert",
        "pump-1.crt", "--key", "pump-1.key", "-i", "pump-1", "-t", "devices/pump-1/twin/desired", "-C", "1", "-W", "5",
    )  # fmt: skip
    assert json.loads(desired) == {"intervalS": 10}
    eventually(lambda: "spent" in site.godwit("claim", "list"))
    assert site.curl("/enroll", asked)[1]["code"] == "claim-spent"

    renewing = {"deviceId": "pump-1", "request": site.key_and_csr("next")}
    assert site.curl("/enroll", renewing, pair="pump-1")[1]["code"] == "csr-wrong-name"
    site.run("openssl", "req", "-new", "-key", "next.key", "-subj", "/CN=pump-1", "-out", "next.csr")
    renewing["request"] = (site.directory / "next.csr").read_text()
    status, grant = site.curl("/enroll", renewing, pair="pump-1")
    assert status == 200
    site.run("cp", "next.key", "pump-1.key")
    site.keep("pump-1", grant)
    assert site.publish("pump-1", "devices/pump-1/telemetry") == 0
    eventually(lambda: site.certificates("pump-1") == ["active", "superseded"])


def test_factory_certificates_enroll_and_come_in_just_in_time(site: Site, eventually: Callable[..., Any]) -> None:
    site.works("factory-one", "--ids", "fan-*", "--group", "fans")
    site.sign("factory-one", "fan-1")
    asked = {"deviceId": "fan-1", "request": (site.directory / "fan-1.csr").read_text()}
    status, grant = site.curl("/enroll", asked, pair="fan-1")
    assert (status, "certificate" in grant) == (200, True)
    assert site.platform.json("/api/v1/devices?group=fans")["total"] == 1
    site.sign("factory-one", "press-1")
    refused = site.curl("/enroll", {"deviceId": "press-1", "request": asked["request"]}, pair="press-1")
    assert refused[0] in (401, 403)

    site.works("factory-two", "--ids", "lift-*", "--just-in-time", "--group", "lifts")
    site.sign("factory-two", "lift-1")
    reading = {"sensors": {"temperature": 3.5}}
    assert site.curl("/v1/devices/lift-1/telemetry", reading, pair="lift-1")[0] == 204
    device = site.platform.json("/api/v1/devices/lift-1")
    assert device["lifecycle"] == "active"
    site.sign("factory-two", "lift-2")
    assert site.publish("lift-2", "devices/lift-2/telemetry") == 0
    assert site.platform.json("/api/v1/devices?group=lifts")["total"] == 2
    eventually(lambda: site.certificates("lift-2") == ["active"])
    site.sign("factory-two", "crane-1")
    assert site.publish("crane-1", "devices/crane-1/telemetry") != 0
    assert site.platform.json("/api/v1/enrollments?limit=1")["items"][0]["code"] == "certificate-wrong-name"

    listed = site.godwit("factory", "list").splitlines()
    two = next(each.split()[0] for each in listed if "factory-two" in each)
    assert "may name crane-*" in site.godwit("factory", "change", two, "--ids", "crane-*")
    assert site.publish("crane-1", "devices/crane-1/telemetry") == 0, "the new terms count at once"
    assert site.publish("lift-2", "devices/lift-2/telemetry") == 0, "who was there is not shut out"
    assert site.curl("/v1/devices/lift-1/telemetry", reading, pair="lift-1")[0] == 204
    site.sign("factory-two", "lift-3")
    assert site.publish("lift-3", "devices/lift-3/telemetry") != 0
    findings = {each["code"]: each for each in site.platform.json("/api/v1/security/audit")["findings"]}
    outside = {each["name"] for each in findings["authority-outside-terms"]["affected"]}
    assert outside == {"lift-1", "lift-2"}
    site.godwit("device", "revoke", "lift-2")
    assert site.publish("lift-2", "devices/lift-2/telemetry") != 0


def test_an_owner_lets_a_device_in_by_its_code(site: Site) -> None:
    base = f"https://localhost:{site.platform.https}"
    session = OAuth2Session(client_id="screen-1", token_endpoint_auth_method="none")
    session.verify, session.trust_env = str(site.ca), False  # no CA bundle of the environment
    begun = session.request(
        "POST", f"{base}/oauth/device_authorization", withhold_token=True, data={"client_id": "screen-1"}
    ).json()
    assert begun["verification_uri"] == f"{site.platform.url}/device", "that port has no pages"
    answers: list[str] = []

    def poll() -> str:
        while True:
            try:
                return session.fetch_token(
                    f"{base}/oauth/token", grant_type="urn:ietf:params:oauth:grant-type:device_code",
                    device_code=begun["device_code"],
                )["access_token"]  # fmt: skip
            except OAuthError as error:
                answers.append(error.error)
            if answers[-1] not in ("authorization_pending", "slow_down"):
                pytest.fail(answers[-1])
            time.sleep(begun["interval"])

    def approve() -> None:
        time.sleep(1)
        body = json.dumps({"userCode": begun["user_code"], "approve": True}).encode()
        site.platform.ask("POST", "/api/v1/device-grants/decision", body, {"content-type": "application/json"})

    owner = threading.Thread(target=approve)
    owner.start()
    token = poll()
    owner.join()
    assert answers == ["authorization_pending"]
    asked = {"deviceId": "screen-1", "request": site.key_and_csr("screen-1")}
    status, grant = site.curl("/enroll", asked, "-H", f"authorization: Bearer {token}")
    assert status == 200
    site.keep("screen-1", grant)
    assert site.publish("screen-1", "devices/screen-1/telemetry") == 0


def test_the_provisioner_of_the_seed(site: Site, shared: Path, eventually: Callable[..., Any]) -> None:
    assert PROVISIONER.strip() in (shared / "seeds" / "iot-domain.md").read_text()
    site.works("customer", "--kind", "customer", "--ids", "device-*")
    session = requests.Session()  # the seed's second call says no token: the session does
    session.headers["Authorization"] = f"Bearer {site.platform.token}"
    known: dict[str, Any] = {"requests": session}
    exec(PROVISIONER, known)
    provisioner = known["DeviceProvisioner"](site.platform.url)
    provisioner.get_token = lambda: site.platform.token

    made = provisioner.register_device("device-001", site.sign("customer", "device-001"))
    assert (made["device_id"], made["status"]) == ("device-001", "active"), made
    assert site.publish("device-001", "device/device-001/telemetry") == 0
    eventually(lambda: site.certificates("device-001") == ["active"])
    assert provisioner.rotate_certificate("device-001", site.sign("customer", "device-001"))
    assert site.publish("device-001", "device/device-001/telemetry") == 0
    eventually(lambda: site.certificates("device-001") == ["active", "superseded"])
    assert not provisioner.rotate_certificate("device-001", "rubbish")
    session.close()


def test_hardware_is_replaced_and_a_device_moves_to_another_tenant(site: Site, eventually: Callable[..., Any]) -> None:
    def enroll(name: str, token: str) -> tuple[int, Any]:
        site.run("openssl", "req", "-new", "-key", f"{name}.key", "-subj", "/CN=mixer-1", "-out", "mixer.csr")
        body = {"deviceId": "mixer-1", "request": (site.directory / "mixer.csr").read_text(), "claim": token}
        return site.curl("/enroll", body)

    site.key_and_csr("mixer-1")
    site.key_and_csr("spare")
    status, grant = enroll("mixer-1", site.godwit("claim", "create").strip())
    assert status == 200
    site.keep("mixer-1", grant)
    site.keep("old", grant)
    site.run("cp", "mixer-1.key", "old.key")
    assert site.publish("mixer-1", "devices/mixer-1/telemetry") == 0
    assert enroll("spare", site.godwit("claim", "create").strip())[1]["code"] == "already-enrolled"
    status, grant = enroll("spare", site.godwit("claim", "create", "--device", "mixer-1").strip())
    assert status == 200
    site.keep("mixer-1", grant)
    site.run("cp", "spare.key", "mixer-1.key")
    assert site.publish("mixer-1", "devices/mixer-1/telemetry") == 0
    eventually(lambda: site.certificates("mixer-1") == ["active", "revoked"])
    assert site.curl("/v1/devices/mixer-1/telemetry", {"sensors": {"t": 1}}, pair="old")[1]["code"] == (
        "certificate-revoked"
    )

    site.platform.ask("PUT", "/api/v1/tenants/acme", b"{}", {"content-type": "application/json"})
    assert "acme" in site.godwit("device", "transfer", "mixer-1", "acme")
    assert site.publish("mixer-1", "devices/mixer-1/telemetry") != 0
    assert "acme" in site.godwit("device", "claim", "mixer-1")
    site.run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "mixer-1.key")
    token = site.godwit("claim", "create", "--device", "mixer-1", "--tenant", "acme").strip()
    status, grant = enroll("mixer-1", token)
    assert status == 200
    site.keep("mixer-1", grant)
    assert site.publish("mixer-1", "devices/mixer-1/telemetry") == 0
    assert site.platform.json("/api/v1/devices/mixer-1")["tenant"] == "acme"


def test_tokens_are_shown_nowhere_again(site: Site) -> None:
    listed = site.godwit("claim", "list", "--json")
    assert "gwc_" not in listed
    assert "gwc_" not in site.platform.output
