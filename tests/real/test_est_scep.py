"""EST and SCEP, asked by strongSwan's `pki`, curl and openssl."""

import base64
import http.server
import shutil
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from tests.real.certified_fleet import Fleet, request_of, self_signed
from tests.unit.identity.test_scep import certificate, csr, envelope, message

from godwit.server.identity import scep
from godwit.server.identity.requests import common_name

pytestmark = pytest.mark.real
EST = "/.well-known/est"


class Site:
    """A running platform, and clients in a directory of their own."""

    def __init__(self, platform: Any, fleet: Fleet, directory: Path) -> None:
        self.platform, self.fleet, self.directory = platform, fleet, directory
        self.ca = platform.data_dir / "tls" / "ca.crt"
        self.url = f"https://localhost:{platform.https}"

    def run(self, *words: str) -> tuple[int, bytes, str]:
        done = subprocess.run(words, cwd=self.directory, capture_output=True, timeout=30, check=False)
        return done.returncode, done.stdout, done.stderr.decode()

    def pki(self, *words: str) -> tuple[int, bytes, str]:
        found = shutil.which("pki") or shutil.which("pki", path="/usr/sbin:/usr/lib/ipsec")
        assert found is not None, "strongswan-pki is not installed: tests/install_services.sh does it"
        return self.run(found, *words)

    def key(self, name: str, *kind: str) -> str:
        code, pem, error = self.pki("--gen", *(kind or ("--type", "ecdsa", "--size", "256")), "--outform", "pem")
        assert code == 0, error
        (self.directory / name).write_bytes(pem)
        return name

    def request(self, name: str, key: str, device_id: str) -> str:
        code, pem, error = self.pki(
            "--req", "--in", key, "--type", "priv", "--dn", f"CN={device_id}", "--outform", "pem"
        )
        assert code == 0, error
        (self.directory / name).write_bytes(pem)
        return name

    def est(self, request: str, *how: str) -> tuple[int, bytes, str]:
        return self.pki("--est", "--url", self.url, "--in", request, "--cacert", str(self.ca), *how, "--outform", "pem")

    def curl(self, path: str, *words: str) -> tuple[int, bytes]:
        code, out, error = self.run(
            "curl", "-s", "-w", "\n%{http_code}", "--cacert", str(self.ca), *words, f"{self.url}{path}"
        )
        assert code == 0, error
        body, _, status = out.rpartition(b"\n")
        return int(status), body


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, platform_class: Callable[..., Any]) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("est")
    platform = platform_class(directory / "data")
    fleet = Fleet(directory / "data", directory / "keys")
    platform.start()
    yield Site(platform, fleet, directory)
    platform.stop()


# --- EST --------------------------------------------------------------------------------------------------------------


def test_strongswan_enrolls_and_renews_by_est(site: Site) -> None:
    code, _, error = site.pki("--estca", "--url", site.url, "--cacert", str(site.ca), "--caout", "est-ca.crt")
    assert code == 0, error
    assert (site.directory / "est-ca.crt").exists()
    key, other = site.key("est.key"), site.key("est-2.key")
    code, pem, error = site.est(site.request("est.csr", key, "est-1"), "--userpass", f"est-1:{site.fleet.claim()}")
    assert code == 0, error
    (site.directory / "est.crt").write_bytes(pem)
    first = x509.load_pem_x509_certificate(pem)
    assert common_name(first.subject) == "est-1"
    renewing = site.request("est-2.csr", other, "est-1")
    code, pem, error = site.est(renewing, "--cert", "est.crt", "--key", key)
    assert code == 0, error
    assert x509.load_pem_x509_certificate(pem).public_key() != first.public_key()
    code, _, error = site.est(site.request("est-3.csr", other, "est-9"), "--cert", "est.crt", "--key", key)
    assert code != 0  # another device's name
    assert "HTTP 403" in error
    code, _, error = site.est(site.request("est-4.csr", other, "est-1, O=elsewhere"), "--cert", "est.crt", "--key", key)
    assert code != 0  # another subject
    assert "HTTP 403" in error
    code, _, error = site.est(renewing, "--userpass", "est-1:nonsense")
    assert code != 0
    assert "HTTP 401" in error


def test_est_by_curl_and_openssl(site: Site) -> None:
    code, _, error = site.run(
        "openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "c.key",
        "-subj", "/CN=curl-1", "-outform", "DER", "-out", "c.csr",
    )  # fmt: skip
    assert code == 0, error
    site.run("openssl", "base64", "-in", "c.csr", "-out", "c.b64")  # in lines of 64
    post = ("-H", "Content-Type: application/pkcs10", "--data-binary", "@c.b64")
    claim = site.fleet.claim(device_id="curl-1")
    status, body = site.curl(f"{EST}/simpleenroll", *post)
    assert (status, body.split(b":")[0]) == (401, b"unauthorized")
    status, body = site.curl(f"{EST}/nowhere/simpleenroll", *post, "-u", f"curl-1:{claim}")
    assert status == 404, "a label is the tenant"
    status, body = site.curl(f"{EST}/default/simpleenroll", *post, "-u", f"curl-1:{claim}", "-D", "head")
    assert status == 200, body
    head = (site.directory / "head").read_text().lower()
    assert "content-type: application/pkcs7-mime; smime-type=certs-only" in head
    [issued] = pkcs7.load_der_pkcs7_certificates(base64.b64decode(body))
    assert common_name(issued.subject) == "curl-1"
    again = site.curl(f"{EST}/simpleenroll", *post, "-u", f"curl-1:{claim}")
    assert again == (200, body), "the same key is answered the same"
    status, body = site.curl(f"{EST}/simplereenroll", *post, "-u", f"curl-1:{claim}")
    assert status == 401, "only a certificate renews"
    status, body = site.curl(f"{EST}/cacerts")
    anchors = pkcs7.load_der_pkcs7_certificates(base64.b64decode(body))
    assert x509.load_pem_x509_certificate(site.ca.read_bytes()) in anchors
    (site.directory / "attrs").write_bytes(base64.b64decode(site.curl(f"{EST}/csrattrs")[1]))
    _, shown, _ = site.run("openssl", "asn1parse", "-inform", "DER", "-in", "attrs")
    assert b"id-ecPublicKey" in shown
    assert b"ecdsa-with-SHA256" in shown
    assert site.curl(f"{EST}/serverkeygen", "-X", "POST", "-d", "")[0] == 501


def test_requests_that_no_certificate_is_given_for(site: Site) -> None:
    claim = site.fleet.claim(kind="fleet")
    weak = request_of("bad-1", rsa.generate_private_key(65537, 1024))
    cases = [
        (b"no base64!", 400, b"csr-malformed"), (base64.b64encode(b"\x30\x03\x02\x01\x01"), 400, b"csr-malformed"),
        (b"A" * 40_000, 413, b"payload-too-large"), (weak, 403, b"weak-key"),
        (request_of("bad-2", ec.generate_private_key(ec.SECP256R1())), 403, b"csr-wrong-name"),
    ]  # fmt: skip
    for body, status, code in cases:
        (site.directory / "bad").write_bytes(body)
        found, said = site.curl(
            f"{EST}/simpleenroll", "-u", f"bad-1:{claim}", "-H", "Content-Type: application/pkcs10", "--data-binary",
            "@bad",
        )  # fmt: skip
        assert (found, said.split(b":")[0]) == (status, code)
    found, said = site.curl(f"{EST}/simpleenroll", "-u", f"bad-1:{claim}", "-d", "x")
    assert (found, said.split(b":")[0]) == (415, b"unknown-content-type")


# --- SCEP -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(site: Site) -> Iterator[str]:
    """Serve SCEP by plain HTTP: strongSwan's takes nobody's word but the system's for a server's certificate."""
    trust = ssl.create_default_context(cafile=site.ca)

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            request = urllib.request.Request(f"{site.url}{self.path}", data=body, method=self.command)
            try:
                with urllib.request.urlopen(request, context=trust, timeout=10) as answer:
                    self.answer(answer.status, answer.headers["Content-Type"], answer.read())
            except urllib.error.HTTPError as error:
                with error:
                    self.answer(error.code, error.headers["Content-Type"], error.read())

        do_POST = do_GET  # noqa: N815 - http.server wants it

        def answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words: Any) -> None:
            """Be quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/scep"
    server.shutdown()
    thread.join()
    server.server_close()


def test_strongswan_enrolls_and_renews_by_scep(site: Site, plain: str) -> None:
    code, _, error = site.pki(
        "--scepca", "--url", plain, "--caout", "scep-ca.crt", "--raout", "scep-ra.crt", "--outform", "pem"
    )
    assert code == 0, error
    authorities = ("--cacert-enc", "scep-ra.crt", "--cacert-sig", "scep-ra.crt", "--cacert", "scep-ca.crt",
                   "--cacert", "scep-ca-1.crt", "--outform", "pem")  # fmt: skip
    first, second = (site.key(each, "--type", "rsa", "--size", "2048") for each in ("scep.key", "scep-2.key"))

    def scep(key: str, *how: str) -> tuple[int, bytes, str]:
        return site.pki("--scep", "--url", plain, "--in", key, "--dn", "CN=scep-1", *how, *authorities)

    code, _, error = scep(first, "--password", "nonsense")
    assert code != 0
    assert "badRequest" in error
    claim = site.fleet.claim()
    code, _, error = scep(first, "--password", claim, "--cipher", "des3")
    assert code != 0
    assert "badAlg" in error
    code, pem, error = scep(first, "--password", claim, "--rsa-padding", "pss")
    assert code == 0, error
    assert "Issued certificate is trusted" in error
    (site.directory / "scep.crt").write_bytes(pem)
    code, _, error = scep(second, "--password", claim)
    assert code != 0, "a one-time claim belongs to its first key"
    code, pem, error = scep(second, "--cert", "scep.crt", "--key", first)
    assert code == 0, error
    assert common_name(x509.load_pem_x509_certificate(pem).subject) == "scep-1"
    key = rsa.generate_private_key(65537, 2048)
    certificate, file = site.fleet.write("scep-self", self_signed("scep-1", key), key)
    code, _, error = scep(second, "--cert", str(certificate), "--key", str(file))
    assert code != 0
    assert "badMessageCheck" in error


def test_a_message_signed_anew_by_another_key(site: Site) -> None:
    """Whoever has seen a request cannot have the answer to it: it is for the key that the request is for."""
    _, body = site.curl("/scep?operation=GetCACert")
    [registrar] = [
        each for each in pkcs7.load_der_pkcs7_certificates(body) if isinstance(each.public_key(), rsa.RSAPublicKey)
    ]
    thief = rsa.generate_private_key(65537, 2048)
    seen = message(envelope(csr(challenge=site.fleet.claim()), registrar))
    stolen = message(scep.read_message(seen).envelope, signer=certificate("pump-1", thief), key=thief)
    for data, info, code in (
        (stolen, "1", "scep-key-mismatch"),
        (message(envelope(csr(), registrar), kind="20"), "4", "scep-poll"),
    ):
        (site.directory / "message").write_bytes(data)
        status, answer = site.curl("/scep?operation=PKIOperation", "--data-binary", "@message")
        assert status == 200
        attributes = attributes_of(answer)
        assert attributes["2.16.840.1.113733.1.9.3"] == "2"
        assert attributes["2.16.840.1.113733.1.9.4"] == info
        assert attributes["1.3.6.1.5.5.7.24.1"].startswith(f"{code}:")
    (site.directory / "message").write_bytes(seen)
    _, answer = site.curl("/scep?operation=PKIOperation", "--data-binary", "@message")
    first = attributes_of(answer)
    assert first["2.16.840.1.113733.1.9.3"] == "0"
    again = site.curl("/scep?operation=PKIOperation", "--data-binary", "@message")[1]
    assert attributes_of(again)["2.16.840.1.113733.1.9.3"] == "0", "the same message is answered the same"


def attributes_of(answer: bytes) -> dict[str, Any]:
    signer = cms.ContentInfo.load(answer, strict=True)["content"]["signer_infos"][0]
    found = scep._Attributes.load(b"\x31" + signer["signed_attrs"].dump()[1:])
    return {each["type"].dotted: each["values"][0].parse().native for each in found}


def test_what_is_no_scep_message(site: Site) -> None:
    post = ("-H", "Content-Type: application/x-pki-message", "--data-binary", "@message")
    (site.directory / "message").write_bytes(b"\x30\x82\xff")
    status, body = site.curl("/scep?operation=PKIOperation", *post)
    assert (status, body.split(b":")[0]) == (400, b"scep-malformed")
    status, body = site.curl("/scep?operation=PKIOperation&message=MIIB%21")
    assert (status, body.split(b":")[0]) == (400, b"scep-malformed")
    assert site.curl("/scep?operation=GetEverything")[0] == 400
    (site.directory / "message").write_bytes(b"\x30" * 70_000)
    assert site.curl("/scep?operation=PKIOperation", *post)[0] == 413


def test_who_speaks_scep_learns_of_a_new_root_from_the_old_one(site: Site) -> None:
    assert site.curl("/scep?operation=GetNextCACert")[0] == 404, "there is none on its way"
    assert b"GetNextCACert\n" in site.curl("/scep?operation=GetCACaps")[1]
    campaign = site.platform.post("/api/v1/rollovers", {"kind": "root"})
    status, answer = site.curl("/scep?operation=GetNextCACert")
    (site.directory / "next").write_bytes(answer)
    (site.directory / "old.pem").write_text(site.ca.read_text().partition("-----END CERTIFICATE-----\n")[0]
                                            + "-----END CERTIFICATE-----\n")  # fmt: skip
    code, inner, error = site.run(
        "openssl", "cms", "-verify", "-inform", "DER", "-in", "next", "-CAfile", "old.pem", "-purpose", "any", "-binary"
    )
    assert (status, code) == (200, 0), error
    names = {each.fingerprint(hashes.SHA256()).hex() for each in pkcs7.load_der_pkcs7_certificates(inner)}
    coming = {
        each["fingerprint"] for each in site.platform.json("/api/v1/authorities")["items"] if each["state"] == "next"
    }
    assert names == coming
    assert campaign["new"] in names
    site.platform.post(f"/api/v1/rollovers/{campaign['campaignId']}/cancel", None)
