"""Does the SDK get in by a device token and by a JWT, and does it say why when one is revoked, keeping its samples?"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.real.device_programs import values_of

from godwit.contract.errors import UnavailableError
from godwit.device import Device

pytestmark = pytest.mark.real

DEVICE = "meter-3"
V1 = f"/api/v1/devices/{DEVICE}"


def token_of(platform: Any) -> tuple[dict[str, Any], str]:
    """Make a token; returns what the device says, and where it is revoked."""
    made = platform.post(f"{V1}/tokens", {"name": "hall"})
    return {"token": made["token"]}, f"{V1}/tokens/{made['tokenId']}/revoke"


def jwt_key_of(platform: Any, directory: Path) -> tuple[dict[str, Any], str]:
    """Register a key; returns what the device says, and where it is retired."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (directory / "jwt.key").write_bytes(key.private_bytes(*private))
    public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    made = platform.post(f"{V1}/keys", {"public": key.public_key().public_bytes(*public).decode()})
    return {"jwt_key": directory / "jwt.key", "jwt_audience": "plant-north"}, f"{V1}/keys/{made['keyId']}/retire"


@pytest.mark.parametrize("road", ["token", "jwt"])
def test_a_credential_that_is_revoked_costs_no_sample(
    platform_in: Callable[..., Any], tmp_path: Path, road: str, eventually: Callable[..., Any]
) -> None:
    platform = platform_in(JWT_AUDIENCE="elsewhere, plant-north").start()
    platform.post("/api/v1/devices", {"deviceId": DEVICE})

    def credential() -> tuple[dict[str, Any], str]:
        return token_of(platform) if road == "token" else jwt_key_of(platform, tmp_path)

    def device(said: dict[str, Any]) -> Device:
        return Device(
            DEVICE, port=platform.mqtts, ca=platform.certificate, spool=tmp_path / "spool", chance=lambda: 0.0, **said
        )

    async def revoked(said: dict[str, Any], revoke: str) -> None:
        async with device(said) as one:
            await one.send(n=1, wait="stored")
            await asyncio.to_thread(platform.post, revoke, {})
            async with asyncio.timeout(20):
                while not one.is_stuck:
                    await one.send(n=2)
                    await asyncio.sleep(0.05)
            assert "refuses us: not authorized" in one.trouble
            assert "the server does not let this device in" in one.trouble
            await one.send(n=3)
            with pytest.raises(UnavailableError, match=r"not stored yet: .*refuses us: not authorized"):
                await one.flush(0.1)
            assert one.depth.items

    async def again(said: dict[str, Any]) -> None:
        async with device(said) as one:
            assert one.depth.items, "what was not stored is there"
            await one.flush(20)

    asyncio.run(revoked(*credential()))
    said, _ = credential()
    asyncio.run(again(said))
    values = values_of(platform, DEVICE)
    assert values == sorted(values)
    assert set(values) == {1, 2, 3}
    ledger = platform.json(f"{V1}/ledger")
    assert (ledger["gaps"], ledger["quarantined"]) == (0, {})
