"""Does a device live on through short certificates, cuts, kills and clocks that are wrong, without losing a reading?"""

import asyncio
import base64
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.real.device_programs import certificates_of, claim_of, end_all, join, root_of, run, values_of

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId
from godwit.device import Device
from godwit.device.identity import Identity
from godwit.device.identity_file import State, fingerprint
from godwit.sim.proxy import Proxy

pytestmark = pytest.mark.real

LIFETIME_S = int(os.environ.get("GODWIT_CERTIFICATE_S", "16"))
RENEWALS = int(os.environ.get("GODWIT_RENEWALS", "3"))
"""`make chaos` runs ten renewals of a certificate that lives 20 s."""


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """End what a test leaves behind."""
    yield
    end_all()


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
    """And rotations: with each renewal the device has other keys of messages, then the platform."""
    platform = platform_in(DEVICE_CERTIFICATE_S=str(LIFETIME_S)).start()
    policy = json.dumps({"messages": "signed-encrypted", "keyOverlapS": 60}).encode()
    platform.ask("PUT", "/api/v1/tenants/default/policy", policy, {"Content-Type": "application/json"})
    sealed = ("--encrypt", "--message-key-days", str(LIFETIME_S / 86_400))
    claim_of(platform, "press-7", tmp_path)
    joining = join(platform, "press-7", tmp_path, "--cafile", str(platform.certificate), *sealed)
    assert joining.wait(60) == 0, joining.communicate()
    chance, ours = random.Random(5), "/api/v1/tenants/default/message-keys"

    async def live() -> int:
        proxy = Proxy(platform.mqtts, chance)
        port = await proxy.start()
        try:
            return await measure(proxy, port)
        finally:
            await proxy.close()

    async def measure(proxy: Proxy, port: int) -> int:
        number, rotated = 0, 1
        for life in range(3):  # the second one is ended by kill -9, and so is the platform
            process = run(platform, "press-7", tmp_path, "--quiet", *sealed, port=port)
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
                if len(found) > rotated:
                    rotated = len(found)
                    await asyncio.to_thread(platform.post, ours, {"purpose": "agree"})
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
    assert (ledger["accepted"], ledger["gaps"], ledger["cloned"], ledger["quarantined"]) == (number, 0, 0, {})
    theirs = platform.json("/api/v1/devices/press-7/message-keys")["items"]
    assert len({each["keyId"] for each in theirs if each["purpose"] == "sign"}) > RENEWALS, "rotated with each renewal"
    agreed = [each for each in platform.json(ours)["items"] if each["purpose"] == "agree"]
    assert len(agreed) >= RENEWALS
    eventually(
        lambda: [each["devices"] for each in platform.json(ours)["items"] if not each["retired"]].count(1) == 1,
        within_s=25,
    )
    certificates = certificates_of(platform, "press-7")
    used = [each for each in certificates if each["firstSeen"]]
    assert len(used) > RENEWALS
    # one that was asked for again late, and never used, may share its key
    assert len({each["keyFingerprint"] for each in used}) == len(used), "each has a key of its own"
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


def curl(platform: Any, shown: list[str], path: str, *more: str) -> tuple[int, str]:
    """Ask at the port of devices, with a certificate; return the status and the body."""
    url = f"https://localhost:{platform.https}{path}"
    done = subprocess.run(
        ["curl", "-s", "-w", "\n%{http_code}", "--cacert", shown[1], *shown[2:], *more, url],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def test_who_was_away_until_its_certificate_ended_renews_it(
    platform_in: Callable[..., Any], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    """Four months in a warehouse, in short: mosquitto_pub, curl with EST, and the SDK, which needs no claim for it."""
    platform = platform_in(DEVICE_CERTIFICATE_S="4").start()
    for name in ("press-7", "press-8", "press-9"):
        claim_of(platform, name, tmp_path)
        joining = join(platform, name, tmp_path, "--cafile", str(platform.certificate))
        assert joining.wait(60) == 0, joining.communicate()
    eventually(
        lambda: all(certificates_of(platform, each)[0]["firstSeen"] for each in ("press-7", "press-8", "press-9"))
    )
    eventually(lambda: all(certificates_of(platform, each)[0]["expired"] for each in ("press-7", "press-8", "press-9")))
    graced = platform.json("/api/v1/certificates?inGrace=true")["items"]
    assert {each["deviceId"] for each in graced} == {"press-7", "press-8", "press-9"}
    assert all(each["renewableUntil"] for each in graced)
    found = {each["code"]: each for each in platform.json("/api/v1/security/audit")["findings"]}
    assert {each["name"] for each in found["certificate-in-grace"]["affected"]} == {"press-7", "press-8", "press-9"}

    where = next((tmp_path / "press-7").glob("chains/*.pem")), next((tmp_path / "press-7").glob("keys/*.key"))
    shown = ["--cafile", str(platform.certificate), "--cert", str(where[0]), "--key", str(where[1])]

    def says(*more: str) -> str:
        topic = ["-t", "devices/press-7/telemetry", "-m", '{"n": -1}', "-q", "1", "-V", "5"]
        address = ["-h", "localhost", "-p", str(platform.mqtts)]
        done = subprocess.run(
            ["mosquitto_pub", *address, *topic, *shown, *more], capture_output=True, text=True, timeout=20, check=False
        )
        return done.stdout + done.stderr

    assert "Not authorized" in says("-i", "press-7", "-u", "press-7")
    said = says("-u", "renewal", "-d")
    assert "received PUBACK (Mid: 1, RC:135)" in said, said

    status, body = curl(platform, shown, "/v1/devices/press-7/telemetry", "-d", '{"readings": {"n": -1}}')
    assert (status, '"certificate-expired"' in body) == (401, True), body
    csr = tmp_path / "csr.der"
    subprocess.run(
        ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
         str(tmp_path / "other.key"), "-subj", "/CN=press-7", "-outform", "DER", "-out", str(csr)],
        check=True, capture_output=True, timeout=20,
    )  # fmt: skip
    (tmp_path / "csr.b64").write_bytes(base64.b64encode(csr.read_bytes()))
    est = ("-H", "Content-Type: application/pkcs10", "--data-binary", f"@{tmp_path / 'csr.b64'}")
    assert curl(platform, shown, "/.well-known/est/simplereenroll", *est)[0] == 200

    platform.post(f"/api/v1/certificates/{certificates_of(platform, 'press-8')[0]['fingerprint']}/revoke", {})
    platform.ask(
        "PATCH", "/api/v1/devices/press-9", b'{"lifecycle": "suspended"}', {"Content-Type": "application/json"}
    )
    for name in ("press-8", "press-9"):
        out = run(platform, name, tmp_path, "--quiet")
        assert out.stdin is not None
        out.stdin.write('{"n": 1}\n')
        out.stdin.flush()
    running = run(platform, "press-7", tmp_path)
    _, err = running.communicate('{"n": 1}\n{"n": 2}\n', timeout=60)
    assert running.returncode == 0, err
    assert values_of(platform, "press-7") == [1, 2]

    def refused() -> Any:
        lines = platform.json("/api/v1/audit?what=mqtt.refuse&limit=1000")["items"]
        return {(each["after"] or {}).get("code") for each in lines}

    eventually(lambda: {"certificate-expired", "certificate-revoked", "device-suspended"} <= refused(), within_s=20)
    for name in ("press-8", "press-9"):
        assert platform.json(f"/api/v1/devices/{name}/ledger")["accepted"] == 0
        assert len(certificates_of(platform, name)) == 1


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
