"""Does the TLS listener serve clients that we did not write, and refuse those without the right name or trust?"""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.real

READING = '{"readings": {"temperature": 21.5}}'


@pytest.fixture
def guarded(platform_in: Callable[..., Any]) -> Any:
    return platform_in("tls", MQTT_USERNAME="fleet", MQTT_PASSWORD="kestrel-7").start()


def publish(platform: Any, *arguments: str, device: str = "tls-1") -> subprocess.CompletedProcess[str]:
    command = [
        "mosquitto_pub", "-h", "localhost", "-p", str(platform.mqtts), "-q", "1", "-V", "mqttv5", *arguments,
        "-t", f"devices/{device}/telemetry", "-m", READING,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


@pytest.fixture
def trust(guarded: Any) -> tuple[str, str]:
    return "--cafile", str(guarded.data_dir / "tls" / "ca.crt")


def test_mosquitto_pub_is_served_over_tls_1_2_and_1_3(guarded: Any, trust: tuple[str, str]) -> None:
    guarded.post("/api/v1/devices", {"deviceId": "tls-1"})
    for version in ("tlsv1.2", "tlsv1.3"):
        told = publish(guarded, *trust, "--tls-version", version, "-u", "fleet", "-P", "kestrel-7")
        assert told.returncode == 0, told.stderr
    latest = guarded.json("/api/v1/devices/tls-1/telemetry/latest")["readings"]["temperature"]
    assert latest["value"] == 21.5
    assert guarded.json("/api/v1/devices/tls-1/ledger")["messages"] == 2


def test_strangers_are_refused(guarded: Any, trust: tuple[str, str]) -> None:
    for wrong in (["-u", "fleet", "-P", "merlin-8"], ["-u", "fleet"], []):
        told = publish(guarded, *trust, *wrong)
        assert told.returncode == 135, told  # MQTT 5 reason 0x87
        assert "ot authorized" in told.stderr
    # No trust, no connection: the server has not signed itself into the system's store.
    assert publish(guarded, "--tls-use-os-certs", "-u", "fleet", "-P", "kestrel-7").returncode != 0
    # Nobody registers by itself from outside.
    told = publish(guarded, *trust, "-u", "fleet", "-P", "kestrel-7", device="stranger")
    assert "ot authorized" in told.stderr
    (kept,) = guarded.json("/api/v1/quarantine")["items"]
    assert (kept["deviceId"], kept["code"]) == ("stranger", "unknown-device")
