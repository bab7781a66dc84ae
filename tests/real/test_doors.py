"""Who comes in at the TLS listener, what he may there, and how fast he has to go: asked by clients of others."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fleet_certificates import Bundle, issue

from godwit.server.accounts.principal import Principal
from godwit.server.main import Server
from godwit.server.registry.model import Device
from godwit.server.settings import Settings

pytestmark = pytest.mark.real

ADMIN = Principal("test")
READING = '{"readings": {"temperature": 21.5}}'


class House:
    """A platform in this process, so that a test can do what the API does, and clients beside it."""

    def __init__(self, directory: Path, ports: list[int], **settings: Any) -> None:
        http, mqtt, mqtts, device = ports
        self.directory, self.mqtt, self.mqtts = directory, mqtt, mqtts
        self.server = Server(
            Settings(
                data_dir=directory / "data",
                server_port=http,
                mqtt_port=mqtt,
                mqtts_port=mqtts,
                device_port=device,
                mqtt_ws_port=0,
                log_level="error",
                **settings,
            )
        )
        self.server.start()
        self.registry, self.identity = self.server._registry, self.server._identity

    def device(self, device_id: str, **how: Any) -> Bundle:
        self.registry.create_device(ADMIN, Device(device_id))
        return issue(self.identity, self.directory / device_id, device_id, **how)

    def client(self, program: str, *arguments: str, bundle: Bundle | None = None) -> list[str]:
        trust = ["--cafile", str(self.directory / "data" / "tls" / "ca.crt")]
        own = bundle.mosquitto if bundle else []
        begin = ["stdbuf", "-oL", program, "-h", "localhost", "-p", str(self.mqtts), "-V", "mqttv5"]
        return [*begin, *trust, *own, *arguments]

    def publish(
        self, topic: str, bundle: Bundle | None, *arguments: str, text: str = READING
    ) -> subprocess.CompletedProcess[str]:
        command = self.client("mosquitto_pub", "-q", "1", "-t", topic, "-m", text, *arguments, bundle=bundle)
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    def on_loopback(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [program, "-p", str(self.mqtt), "-V", "mqttv5", "-q", "1", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


@pytest.fixture
def house_in(tmp_path: Path, platform_in: Callable[..., Any]) -> Iterator[Callable[..., House]]:
    made: list[House] = []

    def make(**settings: Any) -> House:
        free = platform_in("ports")  # never started: only its ports
        made.append(House(tmp_path, [free.http, free.mqtt, free.mqtts, free.websocket], **settings))
        return made[-1]

    yield make
    for each in made:
        each.server.stop()


@pytest.fixture
def house(house_in: Callable[..., House]) -> House:
    return house_in()


def test_a_certificate_opens_the_door_to_its_device_and_no_other(house: House) -> None:
    press, other = house.device("press-7"), house.device("press-8")
    for version in ("tlsv1.2", "tlsv1.3"):
        told = house.publish("devices/press-7/telemetry", press, "-i", "press-7", "--tls-version", version)
        assert told.returncode == 0, told.stderr
    for topic in ("devices/press-8/telemetry", "devices/press-7/commands", "elsewhere", "devices/ghost/telemetry"):
        assert "ot authorized" in house.publish(topic, press, "-i", "press-7").stderr, topic
    wrong = house.publish("devices/press-7/telemetry", other, "-i", "press-7")
    assert wrong.returncode == 133, wrong  # 0x85
    nobody = house.publish("devices/press-7/telemetry", None, "-i", "press-7")
    assert nobody.returncode == 135, nobody


def test_revoked_or_suspended_an_open_session_ends_at_once(house: House, eventually: Callable[..., Any]) -> None:
    for case, end in {
        "press-1": lambda bundle: house.identity.revocation.revoke(bundle.fingerprint, "keyCompromise", "test"),
        "press-2": lambda _: house.registry.change_device(ADMIN, "press-2", {"lifecycle": "suspended"}),
        "press-3": lambda _: house.registry.retire_device(ADMIN, "press-3"),
    }.items():
        bundle = house.device(case)
        command = house.client("mosquitto_sub", "-d", "-i", case, "-t", f"devices/{case}/commands", bundle=bundle)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as listening:
            assert listening.stdout is not None
            while "SUBACK" not in listening.stdout.readline():
                pass
            end(bundle)
            began = time.monotonic()
            while (line := listening.stdout.readline()) and "DISCONNECT" not in line:
                pass
            assert "152" in line, line  # 0x98, administrative action
            assert time.monotonic() - began < 1
            listening.terminate()
        again = house.publish(f"devices/{case}/telemetry", bundle, "-i", case)
        assert again.returncode == 135, again


def test_the_loopback_listener_speaks_for_nobodys_devices_only(house: House) -> None:
    press = house.device("press-7")
    assert house.on_loopback("mosquitto_pub", "-t", "devices/free-1/telemetry", "-m", READING).returncode == 0
    told = house.on_loopback("mosquitto_pub", "-t", "devices/press-7/telemetry", "-m", READING)
    assert "ot authorized" in told.stderr
    told = house.on_loopback("mosquitto_pub", "-t", "devices/press-7/commands", "-m", "{}")
    assert "ot authorized" in told.stderr
    command = ["stdbuf", "-oL", "mosquitto_sub", "-p", str(house.mqtt), "-t", "#", "-F", "%t", "-W", "3", "-d"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout is not None
        while "SUBACK" not in listening.stdout.readline():
            pass
        assert house.publish("devices/press-7/telemetry", press, "-i", "press-7").returncode == 0
        house.on_loopback("mosquitto_pub", "-t", "devices/free-1/telemetry", "-m", READING)
        heard = listening.communicate()[0]
    assert "devices/free-1/telemetry" in heard
    assert "press-7" not in heard
