"""Do the commands of the authorities work on a running platform: root offline, customer's authority, rollover?"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real


def ca(platform: Any, *arguments: object, code: int = 0) -> str:
    told = subprocess.run(
        [sys.executable, "-m", "godwit.cli.main", *map(str, arguments)],
        env=platform.environment | {"GODWIT_SERVER": platform.url, "GODWIT_CA_PASSPHRASE": "correct horse battery"},
        cwd=platform.data_dir.parent, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert told.returncode == code, told.stdout + told.stderr
    return told.stdout + told.stderr


def mqtt(platform: Any, bundle: Path, topic: str, payload: str) -> subprocess.CompletedProcess[str]:
    files = [str(bundle / each) for each in ("ca.crt", "device.crt", "device.key")]
    return subprocess.run(
        ["mosquitto_pub", "-h", "localhost", "-p", str(platform.mqtts), "-q", "1", "-V", "mqttv5", "-i", bundle.name,
         "--cafile", files[0], "--cert", files[1], "--key", files[2], "-t", topic, "-m", payload],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


def test_the_root_goes_offline_and_another_intermediate_is_rolled_out(
    platform: Any, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    out, root = tmp_path / "out", tmp_path / "root.pem"
    ca(platform, "device", "enroll", "press-7", "--out", out)
    assert mqtt(platform, out / "press-7", "devices/press-7/status", '{"status": "online"}').returncode == 0
    tree = ca(platform, "ca", "show")
    assert tree.count("key here") == 2
    own = platform.data_dir / "tls" / "ca.crt"
    printed = subprocess.run(
        ["openssl", "x509", "-in", str(own), "-noout", "-fingerprint", "-sha256"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert printed.partition("=")[2].strip().replace(":", "").lower() in tree
    ca(platform, "ca", "export-root", root)
    assert (root.stat().st_mode & 0o777) == 0o600
    assert "key elsewhere" in ca(platform, "ca", "show")
    assert "not overwritten" in ca(platform, "ca", "export-root", root, code=1)
    assert "issue-intermediate" in ca(platform, "ca", "rollover", "start", "intermediate", code=1)
    assert "waits for" in ca(platform, "ca", "issue-intermediate", "--root", root)
    before = (platform.data_dir / "tls" / "server.crt").read_bytes()
    ca(platform, "ca", "rollover", "start", "intermediate")
    assert "1 waiting" in ca(platform, "ca", "rollover", "status")
    # The server shows itself with the new one at once; the device, which trusts the root, does not mind.
    eventually(lambda: (platform.data_dir / "tls" / "server.crt").read_bytes() != before, within_s=15)
    assert mqtt(platform, out / "press-7", "devices/press-7/status", '{"status": "online"}').returncode == 0
    assert "have not renewed" in ca(platform, "ca", "rollover", "finish", code=1)
    ca(platform, "device", "enroll", "press-7", "--out", tmp_path / "new")  # its owner renews for it
    assert mqtt(platform, tmp_path / "new/press-7", "devices/press-7/status", '{"status": "online"}').returncode == 0
    eventually(lambda: "finished" in ca(platform, "ca", "rollover", "status"), within_s=15)
    assert mqtt(platform, out / "press-7", "devices/press-7/status", "{}").returncode != 0  # the old one is retired
    assert mqtt(platform, tmp_path / "new/press-7", "devices/press-7/status", '{"status": "online"}').returncode == 0


def test_a_customers_authority_and_another_passphrase_survive_a_restart(platform: Any, tmp_path: Path) -> None:
    key, cert = tmp_path / "acme.key", tmp_path / "acme.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
         "-subj", "/CN=Acme devices", "-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
         "-addext", "basicConstraints=critical,CA:TRUE", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    assert "issues from now on" in ca(platform, "ca", "import", "--cert", cert, "--key", key)
    ca(platform, "ca", "passphrase")
    platform.stop()
    platform.start()
    ca(platform, "device", "enroll", "press-8", "--out", tmp_path)
    chain = (tmp_path / "press-8" / "ca.crt").read_text()
    assert chain == cert.read_text()
    assert mqtt(platform, tmp_path / "press-8", "devices/press-8/status", '{"status": "online"}').returncode == 0
    assert json.loads(platform.get("/api/v1/certificates"))["items"][0]["deviceId"] == "press-8"
