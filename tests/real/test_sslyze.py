"""Does sslyze find anything on the TLS ports: protocols, ciphers, curves, and the attacks that it knows?"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real

SSLYZE = Path(sys.prefix) / "sslyze" / "bin" / "sslyze"
SCANS = (
    "--certinfo", "--sslv2", "--sslv3", "--tlsv1", "--tlsv1_1", "--tlsv1_2", "--tlsv1_3", "--heartbleed",
    "--openssl_ccs", "--robot", "--reneg", "--compression", "--fallback", "--elliptic_curves", "--ems",
)  # fmt: skip
OLD = ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1")
GOOD = ("ECDHE_ECDSA_WITH_AES", "ECDHE_ECDSA_WITH_CHACHA20", "TLS_AES", "TLS_CHACHA20")


def scan(tmp_path: Path, *places: str) -> list[dict[str, Any]]:
    command = SSLYZE if SSLYZE.exists() else shutil.which("sslyze")
    assert command is not None, "sslyze is not installed: make .venv/sslyze/.done"
    report = tmp_path / "sslyze.json"
    subprocess.run(
        [str(command), *SCANS, "--mozilla_config", "disable", "--json_out", str(report), *places],
        check=False,
        capture_output=True,
        timeout=120,
    )
    found = json.loads(report.read_text())["server_scan_results"]
    assert [each["connectivity_status"] for each in found] == ["COMPLETED"] * len(places)
    return [each["scan_result"] for each in found]


def check(found: dict[str, Any], *, has_old_tls: bool = True) -> None:
    def result(name: str) -> Any:
        assert found[name]["status"] == "COMPLETED", f"{name}: {found[name]}"
        return found[name]["result"]

    for protocol in OLD:
        assert result(f"{protocol}_cipher_suites")["accepted_cipher_suites"] == []
    accepted = {
        protocol: [
            each["cipher_suite"]["name"] for each in result(f"{protocol}_cipher_suites")["accepted_cipher_suites"]
        ]
        for protocol in ("tls_1_2", "tls_1_3")
    }
    assert accepted["tls_1_3"]
    assert bool(accepted["tls_1_2"]) is has_old_tls
    for name in accepted["tls_1_2"] + accepted["tls_1_3"]:
        assert any(each in name for each in GOOD), name
        assert "CBC" not in name
    assert not result("heartbleed")["is_vulnerable_to_heartbleed"]
    assert not result("openssl_ccs_injection")["is_vulnerable_to_ccs_injection"]
    assert result("robot")["robot_result"].startswith("NOT_VULNERABLE")
    assert not result("tls_compression")["supports_compression"]
    if found["session_renegotiation"]["status"] == "COMPLETED":  # not always, where a certificate is asked for
        renegotiation = result("session_renegotiation")
        assert not renegotiation["is_vulnerable_to_client_renegotiation_dos"]
        assert renegotiation["supports_secure_renegotiation"] or not has_old_tls
    assert result("tls_fallback_scsv")["supports_fallback_scsv"] or not has_old_tls
    assert result("tls_extended_master_secret")["supports_ems_extension"] or not has_old_tls
    curves = {each["name"] for each in result("elliptic_curves")["supported_curves"]}
    assert curves <= {"X25519", "X448", "prime256v1", "secp256r1", "secp384r1", "secp521r1"}
    [chain] = found["certificate_info"]["result"]["certificate_deployments"]
    assert chain["received_chain_has_valid_order"]
    for each in chain["received_certificate_chain"]:
        assert each["signature_hash_algorithm"]["name"] == "sha256"
        assert each["public_key"]["algorithm"] == "EllipticCurvePublicKey" or each["public_key"]["key_size"] >= 256


def early_data_of(port: int) -> int:
    """Return how much early data a session may carry: it could be replayed (RFC 8446, 8)."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"localhost:{port}", "-tls1_3", "-ign_eof"],
        input=b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", capture_output=True, timeout=20,
        check=False,
    )  # fmt: skip
    found = set(re.findall(rb"Max Early Data: (\d+)", done.stdout))
    assert len(found) == 1, done.stdout
    return int(found.pop())


def renegotiates(port: int) -> bool:
    """Whether a client may have a new handshake on its connection."""
    command = ["openssl", "s_client", "-connect", f"localhost:{port}", "-tls1_2"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.STDOUT) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"R\n")
        client.stdin.flush()
        said = b""
        while b"RENEGOTIATING" not in said:
            said += client.stdout.readline()
        rest = client.stdout.read(2_000)
        client.kill()
    return b"no renegotiation" not in rest


def test_no_finding_on_any_tls_port(platform_in: Callable[..., Any], tmp_path: Path) -> None:
    platform = platform_in("tls", SERVER_HOST="0.0.0.0")
    platform.start()
    ports = (platform.https, platform.http, platform.mqtts)
    for found in scan(tmp_path, *(f"localhost:{port}" for port in ports)):
        check(found)
    assert not any(renegotiates(port) for port in ports)
    assert [early_data_of(port) for port in ports[:2]] == [0, 0]


def test_tls_1_3_only(platform_in: Callable[..., Any], tmp_path: Path) -> None:
    platform = platform_in("tls", TLS_MINIMUM="1.3")
    platform.start()
    for found in scan(tmp_path, f"localhost:{platform.https}", f"localhost:{platform.mqtts}"):
        check(found, has_old_tls=False)
