"""Do the commands of the seed's page work as they stand there, but for the port?"""

import re
import select
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real

TELEMETRY = """mosquitto_pub -h localhost -t "devices/sensor001/telemetry" -m '{
  "deviceId": "sensor001",
  "timestamp": "2024-01-15T10:30:00Z",
  "sensors": {
    "temperature": 23.5,
    "humidity": 65.2,
    "pressure": 1013.25,
    "battery": 87.3
  },
  "location": {
    "latitude": 37.7749,
    "longitude": -122.4194
  }
}'"""
STATUS = """mosquitto_pub -h localhost -t "devices/sensor001/status" -m '{
  "deviceId": "sensor001",
  "status": "online",
  "health": {
    "cpu": 45.2,
    "memory": 67.8,
    "disk": 23.1,
    "uptime": 86400
  },
  "lastSeen": "2024-01-15T10:30:00Z"
}'"""
LISTEN = """mosquitto_sub -h localhost -t "devices/+/commands\""""


def words(command: str, port: int) -> list[str]:
    program, *rest = shlex.split(command)
    return [program, "-p", str(port), *rest]


def test_these_are_the_commands_of_the_seed(shared: Path) -> None:
    page = (shared / "seeds" / "mqtt-device-management-example.md").read_text()
    assert all(command in page for command in (TELEMETRY, STATUS, LISTEN))
    assert len(re.findall(r"^mosquitto_(?:pub|sub) ", page, re.MULTILINE)) == 3


def test_both_publish_commands_appear_in_the_api_within_a_second(platform: Any, eventually: Callable[..., Any]) -> None:
    subprocess.run(words(TELEMETRY, platform.mqtt), check=True, timeout=10)
    subprocess.run(words(STATUS, platform.mqtt), check=True, timeout=10)

    def latest() -> dict[str, float]:
        readings = platform.json("/api/v1/devices/sensor001/telemetry/latest")["readings"]
        return {name: reading["value"] for name, reading in readings.items()}

    expected = {"temperature": 23.5, "humidity": 65.2, "pressure": 1013.25, "battery": 87.3}
    assert eventually(lambda: latest() == expected and latest(), within_s=1.0) == expected

    def status() -> dict[str, Any]:
        return platform.json("/api/v1/devices/sensor001")["presence"]["status"]

    found = eventually(status, within_s=1.0)
    assert found["health"] == {"cpu": 45.2, "memory": 67.8, "disk": 23.1, "uptime": 86400}
    points = platform.json(
        "/api/v1/devices/sensor001/telemetry?readings=temperature&from=2024-01-15T10:00:00Z&to=2024-01-15T11:00:00Z"
    )
    assert points["columns"]["value"] == [23.5]
    assert points["columns"]["time"][0].startswith("2024-01-15T10:30:00")


def test_the_listen_command_receives_commands(platform: Any) -> None:
    listener = subprocess.Popen(words(LISTEN, platform.mqtt), stdout=subprocess.PIPE, text=True)
    try:
        assert listener.stdout is not None
        command = ["mosquitto_pub", "-p", str(platform.mqtt), "-q", "1", "-t", "devices/sensor001/commands"]
        end = time.monotonic() + 10
        # the subscription takes a moment: repeat until something came through
        while time.monotonic() < end:
            subprocess.run([*command, "-m", "reboot"], check=True, timeout=10)
            if select.select([listener.stdout], [], [], 0.2)[0]:
                break
        assert listener.stdout.readline() == "reboot\n"
    finally:
        listener.terminate()
        listener.wait(5)
        listener.stdout.close()
