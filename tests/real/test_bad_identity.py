"""Everything bad that somebody may come with, at the doors of a running platform: refused with its code, and audited.

Clients are curl, mosquitto_pub and openssl's. What other tests prove already is named in docs/security.md.
"""

import datetime as dt
import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.real.certified_fleet import Fleet

sys.path.insert(0, str(Path(__file__).parent))

from fleet_certificates import Maker, name

from godwit.contract.ids import DEFAULT_TENANT, DeviceId
from godwit.server.identity.model import Source
from godwit.server.identity.vouching import describe_certificate

pytestmark = pytest.mark.real

READING = '{"readings": {"temperature": 21.5}}'
DAY = dt.timedelta(days=1)
Pair = tuple[Path, Path]


class Town:
    """A running platform, its registry beside it, and clients."""

    def __init__(self, directory: Path, platform: Any, fleet: Fleet) -> None:
        self.directory, self.platform, self.fleet = directory, platform, fleet
        self.ca = platform.data_dir / "tls" / "ca.crt"
        # the platform learns at its start what is made beside it
        self.expired = self.signed_by_us("pump-2", -2 * DAY, -DAY)
        self.early = self.signed_by_us("pump-2", DAY, 2 * DAY)

    def https(self, path: str, body: str, pair: Pair | None = None) -> tuple[int, str]:
        """Return status (0: no TLS) and code of an answer of the devices' port."""
        own = ["--cert", str(pair[0]), "--key", str(pair[1])] if pair else []
        done = subprocess.run(
            [
                "curl", "-s", "-w", "\n%{http_code}", "--cacert", str(self.ca), *own, "--data-binary", "@-",
                "-H", "content-type: application/json", f"https://127.0.0.1:{self.platform.https}{path}",
            ],
            input=body, capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        answer, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(answer)["code"] if answer.startswith("{") and '"code"' in answer else ""

    def report(self, device_id: str, pair: Pair) -> tuple[int, str]:
        return self.https(f"/v1/devices/{device_id}/telemetry", READING, pair)

    def mqtt(self, device_id: str, pair: Pair) -> int:
        """Return how mosquitto_pub ends: 0 is good."""
        done = subprocess.run(
            [
                "mosquitto_pub", "-h", "localhost", "-p", str(self.platform.mqtts), "-V", "mqttv5", "-q", "1",
                "--cafile", str(self.ca), "--cert", str(pair[0]), "--key", str(pair[1]), "-i", device_id,
                "-t", f"devices/{device_id}/telemetry", "-m", READING,
            ],
            capture_output=True, timeout=20, check=False,
        )  # fmt: skip
        return done.returncode

    def enroll(self, device_id: str, request: str, claim: str) -> tuple[int, str]:
        return self.https("/enroll", json.dumps({"deviceId": device_id, "request": request, "claim": claim}))

    def audited(self, code: str, about: str = "") -> bool:
        """Whether a refusal with a code is in the audit log."""
        lines: Any = self.platform.json(
            f"/api/v1/audit?limit=1000&about={about}" if about else "/api/v1/audit?limit=1000"
        )
        return any((each["after"] or {}).get("code") == code for each in lines["items"] if "refuse" in each["what"])

    def issue(self, device_id: str) -> Pair:
        """Return a new certificate, as an operator gets it."""
        made: Any = self.platform.post(f"/api/v1/devices/{device_id}/enroll", {})
        files = self.directory / f"{made['fingerprint']}.crt", self.directory / f"{made['fingerprint']}.key"
        files[0].write_text(made["certificate"] + "".join(made["chain"]))
        files[1].write_text(made["key"])
        return files

    def revoke(self, pair: Pair) -> None:
        pem = x509.load_pem_x509_certificate(pair[0].read_bytes())
        fingerprint = pem.fingerprint(hashes.SHA256()).hex()
        self.platform.post(f"/api/v1/certificates/{fingerprint}/revoke", {"reason": "keyCompromise"})

    def signed_by_us(
        self, device_id: str, begins: dt.timedelta, ends: dt.timedelta, *, is_registered: bool = True
    ) -> Pair:
        """Return a certificate of the platform's own authority, with any dates."""
        signer = self.fleet.identity.authorities.signer()
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        made = (
            x509.CertificateBuilder().subject_name(name(device_id)).issuer_name(signer.certificate.subject)
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now + begins).not_valid_after(now + ends)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False)
            .sign(signer.key, hashes.SHA256())
        )  # fmt: skip
        pem = made.public_bytes(serialization.Encoding.PEM).decode() + signer.authority.certificate
        if is_registered:
            named = msgspec.structs.replace(signer.authority, tenant=DEFAULT_TENANT)
            row = describe_certificate(made, named, DeviceId(device_id), Source.API, time.time_ns())
            self.fleet.identity.enrollment.keep(row, "test", "")
        return self.fleet.write(f"ours-{made.serial_number}", pem, key)

    def signed_by(self, maker: Maker, device_id: str, *, bits: int = 0) -> Pair:
        bundle = maker.device(self.directory / f"foreign-{time.monotonic_ns()}", device_id, bits=bits)
        return bundle.certificate, bundle.key


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, platform_class: Callable[..., Any]) -> Iterator[Town]:
    directory = tmp_path_factory.mktemp("town")
    platform = platform_class(directory / "data")
    fleet = Fleet(directory / "data", directory / "keys")
    for each in ("pump-1", "pump-2", "pump-3"):
        fleet.add(each)
    town = Town(directory, platform, fleet)
    platform.start()
    yield town
    platform.stop()


def csr(device_id: str, key: Any = None, *extensions: x509.ExtensionType) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(name(device_id))
    for each in extensions:
        builder = builder.add_extension(each, critical=False)
    made = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def sha1_csr(directory: Path, device_id: str) -> str:
    """Return a request signed over SHA-1: cryptography makes none any more, openssl does."""
    key = directory / "sha1.key"
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)], check=True)
    made = subprocess.run(
        ["openssl", "req", "-new", "-sha1", "-key", str(key), "-subj", f"/CN={device_id}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return made.stdout


def test_a_good_certificate_opens_both_doors(town: Town) -> None:
    """Else the tests below would find that nothing opens them."""
    good = town.issue("pump-1")
    assert town.report("pump-1", good) == (204, "")
    assert town.mqtt("pump-1", good) == 0


def test_certificates_that_nobody_should_take(town: Town) -> None:
    revoked = town.issue("pump-2")
    town.revoke(revoked)
    stranger, ours = Maker("somebody else"), x509.load_pem_x509_certificate(town.ca.read_bytes())
    namesake = Maker("impostor")
    namesake.name = ours.subject  # it calls itself as our root is called
    other = town.issue("pump-3")
    cases: list[tuple[Pair, str, set[str]]] = [
        (town.expired, "pump-2", {"certificate-expired"}),
        (town.early, "pump-2", {"certificate-not-yet-valid"}),
        (town.signed_by_us("pump-2", -DAY, DAY, is_registered=False), "pump-2", {"authority-unknown"}),
        (revoked, "pump-2", {"certificate-revoked"}),
        (town.signed_by(stranger, "pump-2"), "pump-2", {"authority-unknown"}),
        (town.signed_by(namesake, "pump-2"), "pump-2", {"authority-unknown", "certificate-signature"}),
        (town.signed_by(stranger, "pump-2", bits=1_024), "pump-2", {"authority-unknown", "weak-key"}),
        (other, "pump-2", {"forbidden", "certificate-wrong-name"}),
    ]  # fmt: skip
    wrong = []
    for pair, device_id, codes in cases:
        status, code = town.report(device_id, pair)
        ended = town.mqtt(device_id, pair)
        is_told = any(town.audited(each) for each in codes)
        if status in {200, 204} or (status and code not in codes) or not is_told or ended == 0:
            wrong.append((codes, status, code, ended, is_told))
    assert wrong == [], "\n".join(map(str, wrong))


def test_requests_that_no_certificate_is_given_for(town: Town) -> None:
    claim = town.fleet.claim(kind="fleet", uses_max=10)
    cases = {
        "csr-wrong-name": csr("pump-8"),
        "csr-wrong-name ": csr("pump-7", None, x509.SubjectAlternativeName([x509.DNSName("broker.example")])),
        "csr-wants-authority": csr("pump-7", None, x509.BasicConstraints(ca=True, path_length=None)),
        "weak-key": csr("pump-7", rsa.generate_private_key(65_537, 1_024)),
        "weak-signature": sha1_csr(town.directory, "pump-7"),
        "csr-too-large": "-----BEGIN CERTIFICATE REQUEST-----\n" + "A" * 20_000,
        "csr-malformed": csr("pump-7")[:-200],
    }  # fmt: skip
    for code, request in cases.items():
        status, said = town.enroll("pump-7", request, claim)
        assert (status >= 400, said) == (True, code.strip())
        assert town.audited(code.strip()), code
    assert town.enroll("pump-7", csr("pump-7"), claim)[0] == 200  # and none of it used the claim up


def test_claims_that_are_good_for_nothing(town: Town) -> None:
    town.platform.ask("PUT", "/api/v1/tenants/acme", None, {})
    town.fleet.add("acme-1", tenant="acme")
    claim = town.fleet.claim()
    assert town.enroll("pump-11", csr("pump-11"), claim)[0] == 200
    replayed = town.enroll("pump-11", csr("pump-11"), claim)  # by another key
    assert (replayed[0] >= 400, replayed[1]) == (True, "claim-bound")
    foreign = town.enroll("acme-1", csr("acme-1"), town.fleet.claim(tenant="default"))
    assert (foreign[0] >= 400, foreign[1]) == (True, "claim-unknown")
    assert town.audited("claim-unknown", "acme-1") or town.audited("claim-unknown")
    made_up = town.enroll("pump-12", csr("pump-12"), "gwc_" + "x" * 43)
    assert made_up[1] == "claim-unknown"


def test_a_stolen_cookie_signs_everybody_out(town: Town) -> None:
    """The thief has the cookie, and another kind of browser."""
    platform = town.platform
    firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    safari = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Safari/604.1"

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            """Look at the redirect itself."""

    opener = urllib.request.build_opener(Stay)

    def ask(path: str, agent: str, cookie: str = "", form: dict[str, str] | None = None) -> Any:
        body = urllib.parse.urlencode(form).encode() if form else None
        headers = {"User-Agent": agent} | ({"Cookie": cookie} if cookie else {})
        try:
            with opener.open(urllib.request.Request(platform.url + path, body, headers), timeout=10) as answer:
                return answer
        except urllib.error.HTTPError as error:
            with error:
                return error

    signed_in = ask("/sign-in", firefox, form={"token": platform.token})
    cookie = signed_in.headers["set-cookie"].partition(";")[0]
    assert ask("/", firefox, cookie).status == 200
    assert ask("/", safari, cookie).status == 303  # to the sign-in page
    assert ask("/", firefox, cookie).status == 303  # whoever of the two is the thief
    assert town.audited("session-stolen") or "session-stolen" in platform.get("/api/v1/audit?limit=1000").decode()


def test_openssl_finds_no_old_protocol_and_no_weak_cipher(town: Town) -> None:
    """TLS 1.1, and ciphers without forward secrecy or without AEAD, are not spoken on any port."""
    assert shutil.which("openssl")
    for port in (town.platform.mqtts, town.platform.https):
        for how in (
            ["-tls1_1", "-cipher", "ALL@SECLEVEL=0"], ["-tls1_2", "-cipher", "AES128-GCM-SHA256"],
            ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"],
        ):  # fmt: skip
            done = subprocess.run(
                ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *how],
                input="", capture_output=True, text=True, timeout=20, check=False,
            )  # fmt: skip
            assert "Cipher is (NONE)" in done.stdout or done.returncode != 0, (port, how)
