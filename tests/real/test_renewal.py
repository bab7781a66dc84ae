"""Does a device live on through short certificates, cuts, kills and clocks that are wrong, without losing a reading?"""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId
from godwit.device import Device
from godwit.device.identity import Identity, State, fingerprint
from godwit.sim.proxy import Proxy

pytestmark = pytest.mark.real

LIFETIME_S = int(os.environ.get("GODWIT_CERTIFICATE_S", "15"))
RENEWALS = int(os.environ.get("GODWIT_RENEWALS", "3"))
"""`make chaos` runs ten renewals of a certificate that lives 20 s."""
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


@pytest.fixture(autouse=True)
def started() -> Iterator[list["subprocess.Popen[str]"]]:
    """End what a test leaves behind."""
    yield STARTED
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
        process.communicate()


STARTED: list["subprocess.Popen[str]"] = []


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


@pytest.mark.parametrize("road", ["mqtt", "https"])
@pytest.mark.parametrize("trust", ["fingerprint", "file"])
def test_a_machine_joins_and_runs(
    platform: Any, tmp_path: Path, road: str, trust: str, eventually: Callable[..., Any]
) -> None:
    claim_of(platform, "press-7", tmp_path)
    by_road = ["--https", "--https-port", str(platform.https)] if road == "https" else []
    by_trust = ["--cafile", str(platform.certificate)]
    if trust == "fingerprint":
        by_trust = ["--ca-fingerprint", root_of(platform), "--https-port", str(platform.https)]
    out, err = (joining := join(platform, "press-7", tmp_path, *by_trust, *by_road)).communicate(timeout=60)
    assert joining.returncode == 0, (out, err, platform.output)
    assert "press-7 is enrolled: its certificate is good until" in out
    eventually(lambda: [each["state"] for each in certificates_of(platform, "press-7")] == ["active"])
    eventually(lambda: [each["state"] for each in platform.json("/api/v1/claims")["items"]] == ["spent"])
    assert certificates_of(platform, "press-7")[0]["source"] == "claim"
    _, err = (running := run(platform, "press-7", tmp_path)).communicate('{"n": 1}\n{"n": 2}\n', timeout=60)
    assert running.returncode == 0, err
    assert values_of(platform, "press-7") == [1, 2]
    again = join(platform, "press-8", tmp_path, *by_trust, "--claim", (tmp_path / "press-7.claim").read_text())
    _, err = again.communicate(timeout=60)
    assert again.returncode == 1
    assert "not authorized" in err or "claim" in err


def test_readings_outlive_certificates_kills_and_cuts(
    platform_in: Callable[..., Any], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    platform = platform_in(DEVICE_CERTIFICATE_S=str(LIFETIME_S)).start()
    claim_of(platform, "press-7", tmp_path)
    joining = join(platform, "press-7", tmp_path, "--cafile", str(platform.certificate))
    assert joining.wait(60) == 0, joining.communicate()
    chance = random.Random(5)

    async def live() -> int:
        proxy = Proxy(platform.mqtts, chance)
        port = await proxy.start()
        try:
            return await measure(proxy, port)
        finally:
            await proxy.close()

    async def measure(proxy: Proxy, port: int) -> int:
        number = 0
        for life in range(3):  # the second one is ended by kill -9, and so is the platform
            process = run(platform, "press-7", tmp_path, "--quiet", port=port)
            assert process.stdin is not None
            wanted = 1 + RENEWALS * (life + 1) // 3
            while len(found := await asyncio.to_thread(certificates_of, platform, "press-7")) <= wanted:
                assert process.poll() is None
                assert not all(each["expired"] for each in found), "it missed its time"
                for _ in range(20):
                    process.stdin.write(f'{{"n": {number}}}\n')
                    process.stdin.flush()
                    number += 1
                    await asyncio.sleep(0.02)
                if chance.random() < 0.2:
                    proxy.cut(1.0)
            if life == 0:
                await asyncio.to_thread(platform.kill)
                await asyncio.to_thread(platform.start)
            if life == 1:
                await asyncio.sleep(0.5)  # what is in the pipe is taken
                process.send_signal(signal.SIGKILL)
                await asyncio.to_thread(process.communicate)
            else:
                _, err = await asyncio.to_thread(process.communicate, timeout=60)
                assert process.returncode == 0, err
        return number

    number = asyncio.run(asyncio.wait_for(live(), 60 + RENEWALS * LIFETIME_S * 2))
    assert values_of(platform, "press-7") == list(range(number))
    ledger = platform.json("/api/v1/devices/press-7/ledger")
    assert (ledger["accepted"], ledger["gaps"], ledger["cloned"]) == (number, 0, 0)
    certificates = certificates_of(platform, "press-7")
    used = [each for each in certificates if each["firstSeen"]]
    assert len(used) > RENEWALS
    assert len({each["keyFingerprint"] for each in certificates}) == len(certificates), "each has a key of its own"
    assert {each["source"] for each in certificates} == {"claim", "renewal"}


def test_joining_survives_kills_and_spends_one_claim(platform: Any, tmp_path: Path) -> None:
    claim_of(platform, "press-7", tmp_path)
    kills = 0
    while True:  # each time a little later: it is killed everywhere on its way
        joining = join(platform, "press-7", tmp_path, "--cafile", str(platform.certificate))
        try:
            code = joining.wait(0.15 * 1.2**kills)
        except subprocess.TimeoutExpired:
            kills += 1
            joining.send_signal(signal.SIGKILL)
            joining.communicate()
            continue
        assert code == 0, joining.communicate()
        break
    assert kills > 2
    identity = Identity(tmp_path / "press-7", DeviceId("press-7"))
    assert identity.state is State.SETTLED
    identity.close()
    assert len(certificates_of(platform, "press-7")) == 1, "the same key was answered the same"


@pytest.mark.parametrize("date", ["1970-01-02 00:00:00", "2019-06-01 00:00:00"])
def test_a_clock_that_is_years_behind_keeps_nobody_out(platform: Any, tmp_path: Path, date: str) -> None:
    faketime = shutil.which("faketime")
    if faketime is None:
        pytest.fail("faketime is not installed: tests/install_services.sh does it")
    prefix = ("env", "FAKETIME_DONT_FAKE_MONOTONIC=1", faketime, "-f", f"@{date}")
    claim_of(platform, "press-7", tmp_path)
    joining = join(platform, "press-7", tmp_path, "--cafile", str(platform.certificate), prefix=prefix)
    out, err = joining.communicate(timeout=60)
    assert joining.returncode == 0, (out, err)
    running = run(platform, "press-7", tmp_path, prefix=prefix)
    out, err = running.communicate('{"n": 1}\n', timeout=60)
    assert running.returncode == 0, (out, err)
    assert values_of(platform, "press-7") == [1]
    identity = Identity(tmp_path / "press-7", DeviceId("press-7"))
    assert abs(identity.kept.time / 1e9 - time.time()) < 600, "it knows from the platform how late it is"
    identity.close()


def test_two_programs_do_not_share_an_identity(tmp_path: Path) -> None:
    identity = Identity(tmp_path / "press-7", DeviceId("press-7"))

    async def second() -> None:
        async with Device("press-7", identity=tmp_path / "press-7", spool=tmp_path / "spool"):
            pass

    with pytest.raises(RejectedError, match="is in use by process"):
        asyncio.run(second())
    identity.close()


def test_another_root_reaches_a_device(platform: Any, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    claim_of(platform, "press-7", tmp_path)
    old = root_of(platform)
    device = run(
        platform, "press-7", tmp_path, "--claim-file", str(tmp_path / "press-7.claim"), "--cafile",
        str(platform.certificate),
    )  # fmt: skip
    assert device.stdin is not None
    device.stdin.write('{"n": 1}\n')
    device.stdin.flush()
    eventually(lambda: values_of(platform, "press-7") == [1], within_s=20)
    eventually(lambda: [each["state"] for each in certificates_of(platform, "press-7")] == ["active"])
    campaign = platform.post("/api/v1/rollovers", {"kind": "root"})
    where = f"/api/v1/rollovers/{campaign['campaignId']}"
    eventually(lambda: platform.json(where)["devices"].get("renewed") == 1, within_s=90)
    eventually(lambda: platform.json(where)["state"] == "finished", within_s=30)
    platform.kill()
    platform.start()
    device.stdin.write('{"n": 2}\n')
    _, err = device.communicate(timeout=60)
    assert device.returncode == 0, err
    assert values_of(platform, "press-7") == [1, 2]
    identity = Identity(tmp_path / "press-7", DeviceId("press-7"))
    trusted = {fingerprint(each) for each in identity.kept.trusted}
    identity.close()
    assert root_of(platform) != old
    assert root_of(platform) in trusted
