"""Messages end to end through the real broker: signed by OpenSSL and sent by mosquitto_pub, and by the SDK.

The first device is code that we did not write: OpenSSL's key and signature, Mosquitto's client, and CBOR laid by hand
after RFC 9052. What it shares with the platform is the documentation.
"""

import asyncio
import hashlib
import json
import subprocess
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from godwit.contract.cose_keys import pem_of
from godwit.contract.notices import MESSAGE_KEYS, NewMessageKeys, Notice
from godwit.contract.topics import Channel
from godwit.device.client import Device
from godwit.device.sealing import Sealing
from godwit.runtime.clock import SystemClock

pytestmark = pytest.mark.real

V1 = "/api/v1"
POLICY = f"{V1}/tenants/default/policy"


def put(platform: Any, path: str, document: object) -> Any:
    headers = {"Content-Type": "application/json"}
    return json.loads(platform.ask("PUT", path, json.dumps(document).encode(), headers))


def state_of(platform: Any, device: str) -> Any:
    return platform.json(f"{V1}/devices/{device}/message-keys")


def ledger_of(platform: Any, device: str) -> Any:
    return platform.json(f"{V1}/devices/{device}/ledger")


def latest_of(platform: Any, device: str) -> Any:
    return platform.json(f"{V1}/devices/{device}/telemetry/latest")["readings"]["v"]["value"]


# ------------------------------------------------------------------ a device of others' making


def head(kind: int, number: int) -> bytes:
    """Return the head of a CBOR item (RFC 8949, 3)."""
    if number < 24:
        return bytes([kind << 5 | number])
    size = 1 if number < 1 << 8 else 2 if number < 1 << 16 else 4
    return bytes([kind << 5 | {1: 24, 2: 25, 4: 26}[size]]) + number.to_bytes(size, "big")


def data(content: bytes) -> bytes:
    return head(2, len(content)) + content


def text(content: str) -> bytes:
    return head(3, len(content)) + content.encode()


class Foreign:
    """Signs with OpenSSL, sends with mosquitto_pub."""

    def __init__(self, directory: Path, port: int, device: str) -> None:
        self.key, self.file, self.port, self.device = directory / "key.pem", directory / "message", port, device
        self.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(self.key))
        self.public = self.openssl("pkey", "-in", str(self.key), "-pubout").decode()
        der = self.openssl("pkey", "-in", str(self.key), "-pubout", "-outform", "DER")
        self.kid = hashlib.sha256(der).digest()[:8]

    def openssl(self, *arguments: str, given: bytes = b"") -> bytes:
        return subprocess.run(["openssl", *arguments], input=given, check=True, capture_output=True, timeout=10).stdout

    def signed(self, document: Any, *, device: str = "", age_s: int = 0) -> bytes:
        payload = json.dumps(document).encode()
        # of ES256 (-7), the key's id, and claims: issued now
        claims = head(5, 1) + head(0, 6) + head(0, int(time.time()) - age_s)
        protected = head(5, 3) + b"\x01\x26" + b"\x04" + data(self.kid) + b"\x0f" + claims
        about = head(4, 4) + text("godwit.v1") + text("up") + text(device or self.device) + text("telemetry")
        to_sign = head(4, 4) + text("Signature1") + data(protected) + data(about) + data(payload)
        der = self.openssl("dgst", "-sha256", "-sign", str(self.key), given=to_sign)
        r_end = 4 + der[3]
        r, s = der[4:r_end], der[r_end + 2 :]
        signature = r[-32:].rjust(32, b"\0") + s[-32:].rjust(32, b"\0")
        return b"\xd2\x84" + data(protected) + b"\xa0" + data(payload) + data(signature)

    def publish(self, payload: bytes, *, device: str = "") -> None:
        self.file.write_bytes(payload)
        command = ["mosquitto_pub", "-p", str(self.port), "-V", "5", "-q", "1", "-f", str(self.file),
                   "-i", f"c-{self.device}", "-t", f"devices/{device or self.device}/telemetry"]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=10)


def sample(number: int) -> dict[str, Any]:
    return {"stream": "main", "epoch": "e1", "seq": number, "readings": {"v": float(number)}}


def test_openssl_signs_and_mosquitto_sends(platform: Any, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    device, other = Foreign(tmp_path, platform.mqtt, "foreign"), "bystander"
    for name in (device.device, other):
        device.publish(json.dumps(sample(0)).encode(), device=name)  # unclaimed devices register themselves
    eventually(lambda: platform.json(f"{V1}/devices")["total"] == 2)
    platform.post(f"{V1}/devices/foreign/message-keys", {"purpose": "sign", "public": device.public})
    put(platform, POLICY, {"messages": "signed"})

    good = device.signed(sample(1))
    device.publish(good)
    assert latest_of(platform, "foreign") == 1.0
    assert state_of(platform, "foreign")["last"]["signedBy"].startswith(device.kid.hex())
    device.publish(good)  # again, as after a lost acknowledgement
    assert ledger_of(platform, "foreign")["duplicate"] == 1

    altered = bytearray(device.signed(sample(2)))
    altered[-70] ^= 1
    refused = {
        "signature-required": (json.dumps(sample(2)).encode(), "foreign"),
        "signature-invalid": (bytes(altered), "foreign"),
        "key-unknown": (device.signed(sample(2)), other),  # on another device's topic
        "malformed-cose": (b"\xd2\x84\x43", "foreign"),
    }
    for payload, name in refused.values():
        device.publish(payload, device=name)  # acknowledged, since it is kept
    kept = platform.json(f"{V1}/quarantine")["items"]
    assert {each["code"]: each["deviceId"] for each in kept} == {code: name for code, (_, name) in refused.items()}
    assert latest_of(platform, "foreign") == 1.0
    assert ledger_of(platform, "foreign")["accepted"] == 2

    def told() -> Any:
        lines = platform.json(f"{V1}/audit?what=message.refuse")["items"]
        return {each["after"]["code"] for each in lines} == set(refused)

    eventually(told, within_s=15)


def test_what_somebody_captured_stores_nothing(platform: Any, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    """Who may publish sends captured bytes again, alters them, uses keys that were removed: signed, and encrypted."""
    device = Foreign(tmp_path, platform.mqtt, "meter")
    device.publish(json.dumps(sample(0)).encode())
    eventually(lambda: platform.json(f"{V1}/devices")["total"] == 1)
    keys, ours = f"{V1}/devices/meter/message-keys", f"{V1}/tenants/default/message-keys"
    platform.post(keys, {"purpose": "sign", "public": device.public})
    platform.post(ours, {"purpose": "agree"})
    agree = next(each for each in platform.json(ours)["items"] if each["purpose"] == "agree")
    put(platform, POLICY, {"messages": "signed", "replayWindowS": 60})
    pem = device.key.read_bytes()

    class Earlier(SystemClock):
        def now_ns(self) -> int:
            return super().now_ns() - 120 * 1_000_000_000

    def encrypted(number: int, clock: SystemClock) -> bytes:
        sealing = Sealing(sign_key=pem, platform_agree_key=agree["public"], clock=clock)
        return sealing.seal("meter", Channel.TELEMETRY, json.dumps(sample(number)).encode())

    def codes() -> list[str]:
        return sorted(each["code"] for each in platform.json(f"{V1}/quarantine")["items"])

    captured = [device.signed(sample(1), age_s=120), encrypted(2, Earlier())]
    for payload in captured:
        device.publish(payload)
    assert ledger_of(platform, "meter")["accepted"] == 3, "late is not too late, the first time"
    assert codes() == []
    for payload in captured:
        device.publish(payload)
    assert codes() == ["message-replayed"] * 2
    for payload, at in ((device.signed(sample(3)), -70), (encrypted(4, SystemClock()), -20)):
        altered = bytearray(payload)
        altered[at] ^= 1
        device.publish(bytes(altered))
    device.publish(json.dumps(sample(5)).encode())
    assert codes() == ["message-replayed"] * 2 + ["message-undecryptable", "signature-invalid", "signature-required"]

    waiting = [encrypted(6, SystemClock()), device.signed(sample(7))]  # made before their keys were removed
    platform.ask("DELETE", f"{ours}/{agree['keyId']}", None, {})
    device.publish(waiting[0])
    signer = next(each for each in platform.json(keys)["items"] if each["purpose"] == "sign")
    platform.ask("DELETE", f"{keys}/{signer['keyId']}", None, {})
    device.publish(waiting[1])
    refused = ["key-removed"] * 2 + ["message-replayed"] * 2
    refused += ["message-undecryptable", "signature-invalid", "signature-required"]
    assert codes() == refused
    with pytest.raises(urllib.error.HTTPError) as error:
        platform.post(keys, {"purpose": "sign", "public": device.public})
    assert json.loads(error.value.read())["code"] == "key-removed"
    ledger = ledger_of(platform, "meter")
    assert (ledger["accepted"], ledger["cloned"]) == (3, 0)
    path = f"{V1}/devices/meter/telemetry?readings=v&from=2020-01-01T00:00:00Z&to=2099-01-01T00:00:00Z"
    assert sorted(platform.json(path)["columns"]["value"]) == [0.0, 1.0, 2.0], "each once"

    def told() -> Any:
        lines = platform.json(f"{V1}/audit?what=message.refuse")["items"]
        return {each["after"]["code"] for each in lines} == set(refused)

    eventually(told, within_s=15)


# ------------------------------------------------------------------ the SDK


def test_the_sdk_encrypts_and_follows_a_new_key(platform: Any, tmp_path: Path) -> None:
    """Sign and encrypt; the platform rotates its key; the device is told, and uses the new one, losing nothing."""
    path = f"{V1}/tenants/default/message-keys"
    platform.post(path, {"purpose": "agree"})
    ours = {each["purpose"]: each["public"] for each in platform.json(path)["items"]}
    key = ec.generate_private_key(ec.SECP256R1())
    rotated: list[NewMessageKeys] = []
    heard: list[Notice] = []
    sealing = Sealing(
        sign_key=key, platform_agree_key=ours["agree"], platform_sign_key=ours["sign"], on_keys=rotated.append
    )

    async def ask(method: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.to_thread(method, *arguments)

    async def encrypted_to() -> str:
        state = await ask(state_of, platform, "d1")
        return str(state["last"]["encryptedTo"])

    async def run() -> None:
        async with Device("d1", port=platform.mqtt, spool=tmp_path / "before") as device:
            await device.send({"v": -2.0}, wait="stored")  # it registers itself, before anything is wanted of it
        await ask(
            platform.post, f"{V1}/devices/d1/message-keys", {"purpose": "sign", "public": pem_of(key.public_key())}
        )
        await ask(put, platform, POLICY, {"messages": "signed-encrypted"})
        spool = tmp_path / "spool"
        async with Device("d1", port=platform.mqtt, spool=spool, sealing=sealing, on_notice=heard.append) as device:
            for number in range(4):
                await device.send({"v": float(number)}, wait="stored")
            await device.event("sealed", wait="stored")
            first = await encrypted_to()
            new = await ask(platform.post, path, {"purpose": "agree"})
            number = 4.0
            while not rotated:
                await device.send({"v": number}, wait="stored")
                number += 1.0
                await asyncio.sleep(0.05)
            await device.send({"v": -1.0}, wait="stored")
            assert await encrypted_to() == new["keyId"] != first

    asyncio.run(asyncio.wait_for(run(), 30))
    assert [each.code for each in heard if each.code == MESSAGE_KEYS] == [MESSAGE_KEYS]
    ledger = ledger_of(platform, "d1")
    assert (ledger["quarantined"], ledger["gaps"]) == ({}, 0)
    assert rotated[0].since
    (event,) = platform.json(f"{V1}/devices/d1/events")["items"]
    assert json.loads(event["payload"])["event"] == "sealed"
