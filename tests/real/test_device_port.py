"""The HTTPS port of devices, asked by clients that we did not write: curl and openssl."""

import base64
import datetime as dt
import json
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from joserfc import jwt
from joserfc.jwk import ECKey
from tests.real.certified_fleet import Fleet, request_of, self_signed

pytestmark = pytest.mark.real


class Site:
    """A running platform with two devices, and curl."""

    def __init__(self, platform: Any, fleet: Fleet) -> None:
        self.platform, self.fleet = platform, fleet
        self.ca = platform.data_dir / "tls" / "ca.crt"
        self.good = self.pair("pump-1")

    def pair(self, name: str) -> tuple[Path, Path]:
        return self.fleet.keys / f"{name}.crt", self.fleet.keys / f"{name}.key"

    def curl(self, path: str, *arguments: str, pair: tuple[Path, Path] | None = None) -> tuple[int, str]:
        """Return curl's HTTP status (0: no TLS) and body."""
        own = ["--cert", str(pair[0]), "--key", str(pair[1])] if pair else []
        url = f"https://127.0.0.1:{self.platform.https}{path}"
        done = subprocess.run(
            ["curl", "-s", "-S", "-w", "\n%{http_code}", "--cacert", str(self.ca), *own, *arguments,
             url],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body or done.stderr

    def telemetry(self, device_id: str, pair: tuple[Path, Path] | None, *arguments: str) -> tuple[int, str]:
        body = ["-d", '{"sensors": {"temperature": 21.5}}'] if "-d" not in arguments else []
        return self.curl(f"/v1/devices/{device_id}/telemetry", *body, *arguments, pair=pair)

    def audit(self) -> list[str]:
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
    for name in ("pump-1", "pump-3"):
        fleet.issue(name)
    fleet.issue("pump-1", "expired", lifetime=dt.timedelta(seconds=1))
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
    status, body = site.telemetry("pump-1", None, "-H", "Authorization: Bearer nonsense")
    assert (status, json.loads(body)["code"]) == (401, "unauthorized")
    claim = site.fleet.claim()
    status, body = site.telemetry("pump-1", None, "-H", f"Authorization: Bearer {claim}")
    assert (status, json.loads(body)["code"]) == (403, "forbidden"), "a claim enrolls, and does nothing else"
    status, body = site.curl("/nothing/here")
    assert (status, json.loads(body)["code"]) == (404, "not-found")


def test_bad_certificates(site: Site) -> None:
    fleet = site.fleet
    key = ec.generate_private_key(ec.SECP256R1())
    assert site.telemetry("pump-1", fleet.write("self", self_signed("pump-1", key), key))[0] == 0
    weak = rsa.generate_private_key(65537, 1024)
    assert site.telemetry("pump-1", fleet.write("weak", self_signed("pump-1", weak), weak))[0] == 0
    status, body = site.telemetry("pump-1", site.pair("expired"))
    assert (status, json.loads(body)["code"]) == (401, "certificate-expired")
    revoked = site.pair("pump-3")
    assert site.telemetry("pump-3", revoked)[0] == 204
    pem = x509.load_pem_x509_certificate(revoked[0].read_bytes())
    fingerprint = pem.fingerprint(hashes.SHA256()).hex()
    site.platform.post(f"/api/v1/certificates/{fingerprint}/revoke", {"reason": "keyCompromise"})
    status, body = site.telemetry("pump-3", revoked)
    assert (status, json.loads(body)["code"]) == (401, "certificate-revoked")
    assert {"certificate-self-signed", "certificate-revoked", "certificate-expired"} <= set(site.audit())


def test_enroll_over_https(site: Site) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    claim = site.fleet.claim()
    asked = {"deviceId": "fresh-1", "request": request_of("fresh-1", key).decode()}
    (site.fleet.keys / "asked.json").write_text(json.dumps(asked))
    post = ("-H", "Content-Type: application/json", "-d", f"@{site.fleet.keys / 'asked.json'}")
    status, body = site.curl("/enroll", *post)
    assert (status, json.loads(body)["code"]) == (403, "claim-needed")
    status, body = site.curl("/enroll", *post, "-H", f"Authorization: Bearer {claim}")
    grant = json.loads(body)
    assert status == 200, body
    pair = site.fleet.write("fresh-1", grant["certificate"] + "".join(grant["chain"]), key)
    assert site.telemetry("fresh-1", pair)[0] == 204
    status, body = site.curl("/enroll", *post, pair=pair)  # it renews, with the same key: the grant was not used up
    assert status == 200
    status, body = site.curl("/enroll", *post, pair=site.good)
    assert (status, json.loads(body)["code"]) == (403, "device-mismatch")
    status, body = site.curl("/oauth/device_authorization", "-d", "client_id=kiosk-1")
    assert (status, "user_code" in json.loads(body)) == (200, True), body


def test_revocation_is_published(site: Site) -> None:
    """OpenSSL asks by OCSP and reads the CRL; over plain HTTP, as clients do, on the console's port."""
    keys, certificate = site.fleet.keys, site.pair("pump-1")[0]
    authority = site.fleet.identity.authorities.signer().authority
    (keys / "issuing.crt").write_text(authority.certificate)
    (keys / "all.crt").write_text(authority.certificate + site.ca.read_text())
    done = subprocess.run(
        ["openssl", "ocsp", "-issuer", str(keys / "issuing.crt"), "-cert", str(certificate), "-CAfile",
         str(keys / "all.crt"), "-url", f"http://127.0.0.1:{site.platform.http}/pki/ocsp"],
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    assert "Response verify OK" in done.stderr
    assert ": good" in done.stdout
    asked, answered = keys / "ocsp.req", keys / "ocsp.resp"
    subprocess.run(
        ["openssl", "ocsp", "-issuer", str(keys / "issuing.crt"), "-cert", str(certificate), "-reqout", str(asked),
         "-no_nonce"],
        capture_output=True, timeout=20, check=True,
    )  # fmt: skip
    posted = ("-H", "Content-Type: application/ocsp-request", "--data-binary", f"@{asked}", "-o", str(answered))
    assert site.curl("/ocsp", *posted)[0] == 200
    by_post = ocsp.load_der_ocsp_response(answered.read_bytes())
    assert by_post.certificate_status is ocsp.OCSPCertStatus.GOOD
    question = quote(base64.b64encode(asked.read_bytes()).decode(), safe="")
    assert site.curl(f"/ocsp/{question}", "-o", str(answered))[0] == 200
    assert ocsp.load_der_ocsp_response(answered.read_bytes()).serial_number == by_post.serial_number
    assert site.curl(f"/crl/{authority.fingerprint}.crl", "-o", str(keys / "crl"))[0] == 200
    crl = x509.load_der_x509_crl((keys / "crl").read_bytes())
    issuer = x509.load_pem_x509_certificate(authority.certificate.encode()).public_key()
    assert isinstance(issuer, ec.EllipticCurvePublicKey)
    assert crl.is_signature_valid(issuer)
    assert site.curl(f"/crl/{'0' * 64}.crl")[0] == 404


def test_device_tokens_and_what_a_device_signs(site: Site) -> None:
    made: Any = site.platform.post("/api/v1/devices/pump-1/tokens", {"name": "meter"})
    bearer = ("-H", f"Authorization: Bearer {made['token']}")
    assert site.telemetry("pump-1", None, *bearer)[0] == 204
    status, body = site.telemetry("pump-3", None, *bearer)
    assert (status, json.loads(body)["code"]) == (401, "wrong-device")
    assert site.telemetry("pump-2", None, "-u", f"pump-1:{made['token']}")[0] == 204, "its gateway, by name"
    site.platform.post(f"/api/v1/devices/pump-1/tokens/{made['tokenId']}/revoke", {})
    status, body = site.telemetry("pump-1", None, *bearer)
    assert (status, json.loads(body)["code"]) == (401, "unauthorized")
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    site.platform.post("/api/v1/devices/pump-1/keys", {"public": public})
    now = int(time.time())
    claims = {"sub": "pump-1", "aud": "godwit", "iat": now, "exp": now + 60}
    signed = jwt.encode({"alg": "ES256"}, claims, ECKey.import_key(key))
    assert site.telemetry("pump-1", None, "-H", f"Authorization: Bearer {signed}")[0] == 204
    foreign = jwt.encode({"alg": "ES256"}, claims, ECKey.import_key(ec.generate_private_key(ec.SECP256R1())))
    status, body = site.telemetry("pump-1", None, "-H", f"Authorization: Bearer {foreign}")
    assert (status, json.loads(body)["code"]) == (401, "jwt-signature")
