"""Devices as programs: `godwit device join` and `godwit device run`, and what the platform has of them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

GODWIT = [sys.executable, "-m", "godwit.cli.main"]


def root_of(platform: Any) -> str:
    """Return the fingerprint of the root, as its owner reads it to somebody."""
    return x509.load_pem_x509_certificate(platform.certificate.read_bytes()).fingerprint(hashes.SHA256()).hex()


def claim_of(platform: Any, device_id: str, directory: Path) -> Path:
    """Return a file with a one-time claim for a device."""
    path = directory / f"{device_id}.claim"
    path.write_text(platform.post("/api/v1/claims", {"deviceId": device_id})["token"] + "\n")
    return path


def certificates_of(platform: Any, device_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = platform.json(f"/api/v1/certificates?deviceId={device_id}&limit=100")["items"]
    return found


def values_of(platform: Any, device: str, reading: str = "n") -> list[float]:
    path = f"/api/v1/devices/{device}/telemetry?readings={reading}&from=2020-01-01T00:00:00Z&to=2099-01-01T00:00:00Z"
    values: list[float] = platform.json(f"{path}&limit=100000")["columns"]["value"]
    return values


STARTED: list["subprocess.Popen[str]"] = []


def end_all() -> None:
    """End what a test leaves behind."""
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
        process.communicate()


def start(command: list[str]) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    STARTED.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
    return STARTED[-1]


def join(
    platform: Any, device_id: str, directory: Path, *more: str, prefix: tuple[str, ...] = ()
) -> "subprocess.Popen[str]":
    command = [
        *prefix, *GODWIT, "device", "join", device_id, "--port", str(platform.mqtts), "--identity",
        str(directory / device_id), "--claim-file", str(directory / f"{device_id}.claim"), *more,
    ]  # fmt: skip
    return start(command)


def run(
    platform: Any, device_id: str, directory: Path, *more: str, prefix: tuple[str, ...] = (), port: int = 0
) -> "subprocess.Popen[str]":
    command = [
        *prefix, *GODWIT, "device", "run", device_id, "--port", str(port or platform.mqtts), "--identity",
        str(directory / device_id), "--spool", str(directory / f"{device_id}.spool"), *more,
    ]  # fmt: skip
    return start(command)
