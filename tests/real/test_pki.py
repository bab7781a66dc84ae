"""Does OpenSSL, which we did not write, find our certificates, revocation lists and OCSP answers in order?"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real


def openssl(*arguments: object, code: int | None = 0) -> str:
    told = subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=20, check=False
    )  # fmt: skip
    assert code is None or told.returncode == code, told.stderr + told.stdout
    return told.stdout + told.stderr


@pytest.fixture
def enrolled(platform: Any, tmp_path: Path) -> dict[str, Path]:
    """Give the files of a device that was enrolled, and of the authorities as everybody may fetch them."""
    platform.post("/api/v1/devices", {"deviceId": "pump-7"})
    key, request = tmp_path / "key.pem", tmp_path / "request.pem"
    openssl(
        "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=pump-7",
        "-keyout", key, "-out", request,
    )  # fmt: skip
    made = platform.post("/api/v1/devices/pump-7/enroll", {"request": request.read_text()})
    files = {"leaf": tmp_path / "leaf.pem", "issuing": tmp_path / "issuing.pem", "ca": tmp_path / "ca.pem"}
    files["leaf"].write_text(made["certificate"])
    files["issuing"].write_text("".join(made["chain"]))
    files["ca"].write_bytes(platform.get("/pki/ca.crt", "*/*"))
    assert files["ca"].read_text() == "".join(made["authorities"])
    return files | {"fingerprint": made["fingerprint"], "key": key}


def test_certificates_lists_and_answers_are_in_order(platform: Any, enrolled: Any, tmp_path: Path) -> None:
    leaf, issuing, ca = enrolled["leaf"], enrolled["issuing"], enrolled["ca"]
    verify = ("verify", "-x509_strict", "-CAfile", ca, "-untrusted", issuing, "-purpose", "sslclient")
    assert "OK" in openssl(*verify, leaf)
    assert "certificate purpose" in openssl(*verify[:-1], "sslserver", leaf, code=2)
    shown = openssl("x509", "-in", leaf, "-noout", "-text")
    for each in (
        "Subject: CN = pump-7", "URI:urn:godwit:default:pump-7", "CA:FALSE", "Digital Signature",
        "TLS Web Client Authentication", "ecdsa-with-SHA256",
    ):  # fmt: skip
        assert each in shown, shown
    assert "pathlen:0" in openssl("x509", "-in", issuing, "-noout", "-text")

    crl = tmp_path / "crl.pem"

    def checked(code: int) -> str:
        crl.write_bytes(platform.get("/pki/crl.pem", "*/*"))
        return openssl(*verify, "-crl_check", "-CRLfile", crl, leaf, code=code)

    def asked(*how: str) -> str:
        return openssl(
            "ocsp", *how, "-issuer", issuing, "-cert", leaf, "-CAfile", ca, "-url", f"{platform.url}/pki/ocsp",
            code=None,
        )  # fmt: skip

    assert "OK" in checked(0)
    for how in ((), ("-no_nonce",), ("-sha256",)):
        told = asked(*how)
        assert "Response verify OK" in told, told
        assert ": good" in told, told
    platform.post(f"/api/v1/certificates/{enrolled['fingerprint']}/revoke", {"reason": "keyCompromise"})
    assert "certificate revoked" in checked(2)
    told = asked()
    assert "Response verify OK" in told, told
    assert ": revoked" in told, told
    assert "keyCompromise" in told, told


def test_the_server_is_trusted_by_our_root_and_takes_another_certificate_while_running(
    platform_in: Callable[..., Any], eventually: Callable[..., Any], tmp_path: Path
) -> None:
    first = platform_in("first").start()
    told = json.loads(first.get("/api/v1/devices"))
    assert told["total"] == 0
    own = first.data_dir / "tls"
    leaf = openssl("x509", "-in", own / "server.crt", "-noout", "-text")
    assert "TLS Web Server Authentication" in leaf

    def seen(port: int, ca: Path) -> str:
        told = openssl(
            "s_client", "-connect", f"localhost:{port}", "-CAfile", ca, "-verify_return_error", "-verify_hostname",
            "localhost", "-brief", code=None,
        )  # fmt: skip
        assert "Verification: OK" in told, told
        return openssl("s_client", "-connect", f"localhost:{port}", "-showcerts", code=None)

    assert seen(first.mqtts, own / "ca.crt").count("BEGIN CERTIFICATE") >= 2  # the chain is served
    crt, key = tmp_path / "given.crt", tmp_path / "given.key"
    for source, target in ((own / "server.crt", crt), (own / "server.key", key)):
        target.write_bytes(source.read_bytes())
    second = platform_in(
        "second", SERVER_HOST="0.0.0.0", TLS_CERTIFICATE=str(crt), TLS_KEY=str(key), WORKERS="1"
    )  # fmt: skip
    second.is_tls = True
    second.trusted = own / "ca.crt"
    second.start()
    before = [seen(port, own / "ca.crt") for port in (second.mqtts, second.http)]
    (own / "server.crt").unlink()  # the first makes another one, which its owner hands to the second
    eventually((own / "server.crt").is_file, within_s=15)
    for source, target in ((own / "server.crt", crt), (own / "server.key", key)):
        target.write_bytes(source.read_bytes())

    def body(text: str) -> str:
        return text[text.index("-----BEGIN") : text.index("-----END")]

    for port, old in zip((second.mqtts, second.http), before, strict=True):
        eventually(lambda port=port, old=old: body(seen(port, own / "ca.crt")) != body(old), within_s=15)
