"""Does a batch survive `kill -9` and Ctrl-C: no device with two certificates, none with half of its files?"""

import csv
import json
import signal
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

pytestmark = pytest.mark.real

DEVICES = 1_500
FILES = {"device.crt", "device.key", "ca.crt", "config.json"}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "godwit.cli.main", "device", "enroll", *map(str, arguments)]


def enroll(platform: Any, *arguments: object, code: int = 0) -> str:
    told = subprocess.run(
        command(*arguments), env=platform.environment | {"GODWIT_SERVER": platform.url}, cwd=platform.data_dir.parent,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert told.returncode == code, told.stdout + told.stderr
    return told.stdout + told.stderr


def check_bundle(directory: Path) -> str:
    """See that a directory has all that a device needs; returns whose it is."""
    assert {each.name for each in directory.iterdir()} == FILES
    key_path = directory / "device.key"
    assert stat.S_IMODE(key_path.stat().st_mode) == 0o600
    key = serialization.load_pem_private_key(key_path.read_bytes(), None)
    leaf, issuing = x509.load_pem_x509_certificates((directory / "device.crt").read_bytes())
    assert key.public_key() == leaf.public_key()
    leaf.verify_directly_issued_by(issuing)
    config = json.loads((directory / "config.json").read_text())
    assert leaf.subject.rfc4514_string() == f"CN={config['deviceId']}"
    return str(config["deviceId"])


def test_a_batch_that_is_killed_goes_on(platform: Any, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    lines, out = tmp_path / "devices.csv", tmp_path / "out"
    ids = [f"press-{each:04}" for each in range(DEVICES)]
    bad = "press-0001,twice,\n?,no id,\nother,no such tenant,nobody\n"
    lines.write_text("device_id,name,tenant\n" + "".join(f"{each},Press,\n" for each in ids) + bad)

    def made() -> list[Path]:
        return list(out.glob("press-*")) if out.is_dir() else []

    ends = ((20, signal.SIGKILL, -signal.SIGKILL), (300, signal.SIGINT, 130), (700, signal.SIGKILL, -signal.SIGKILL))
    for enough, how, code in ends:  # with different amounts of work done
        process = subprocess.Popen(
            command("--batch", lines, "--out", out), env=platform.environment | {"GODWIT_SERVER": platform.url},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        eventually(lambda enough=enough: len(made()) >= enough, within_s=40, every_s=0.01)
        process.send_signal(how)
        assert process.wait(20) == code
        assert len(made()) < DEVICES, "what waited was not begun"
        for each in made():
            check_bundle(each)
    told = enroll(platform, "--batch", lines, "--out", out, code=1)
    assert "are left" in told
    assert {check_bundle(each) for each in made()} == set(ids)
    assert not list(out.glob(".*"))  # no keys lie about
    total = platform.json("/api/v1/certificates?limit=1")["total"]
    assert total == DEVICES
    with (out / "refused.csv").open() as file:
        refused = {row["device_id"]: row["code"] for row in csv.DictReader(file)}
    assert refused == {"press-0001": "duplicate-device", "?": "invalid-device-id", "other": "not-found"}


def test_one_device_from_its_own_request_or_as_a_zip(platform: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert str(out / "press-7") in enroll(platform, "press-7", "--out", out, "--type", "press")
    assert check_bundle(out / "press-7") == "press-7"
    assert platform.json("/api/v1/devices/press-7")["deviceType"] == "press"
    assert "is there already" in enroll(platform, "press-7", "--out", out, code=1)
    key, request = tmp_path / "8.key", tmp_path / "8.csr"
    subprocess.run(
        ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
         "/CN=press-8", "-keyout", str(key), "-out", str(request)], check=True, capture_output=True,
    )  # fmt: skip
    enroll(platform, "press-8", "--csr", request, "--out", out)
    assert {each.name for each in (out / "press-8").iterdir()} == FILES - {"device.key"}
    assert "csr-" not in enroll(platform, "press-9", "--csr", request, "--out", out, code=1)
    enroll(platform, "press-10", "--zip", "--out", out)
    with zipfile.ZipFile(out / "press-10.zip") as packed:
        assert set(packed.namelist()) == {f"press-10/{each}" for each in FILES}
    # What was enrolled can connect, and is who it says.
    reading = '{"readings": {"temperature": 21.5}}'
    told = subprocess.run(
        ["mosquitto_pub", "-h", "localhost", "-p", str(platform.mqtts), "-q", "1", "-V", "mqttv5", "-i", "press-7",
         "--cafile", str(out / "press-7/ca.crt"), "--cert", str(out / "press-7/device.crt"),
         "--key", str(out / "press-7/device.key"), "-t", "devices/press-7/telemetry", "-m", reading],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert platform.json("/api/v1/devices/press-7/telemetry/latest")["readings"]["temperature"]["value"] == 21.5
