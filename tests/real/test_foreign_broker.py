"""Behind a real Mosquitto: what it acknowledged arrives once, across kills and restarts; what is wrong is said."""

import json
import platform as platform_module
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

pytestmark = pytest.mark.real

ROWS = 12_000
PLAIN = 3_000


def behind(broker: Any, **settings: str) -> dict[str, str]:
    return {
        "MQTT_BROKER": "external",
        "MQTT_PORT": str(broker.port),
        "MQTT_CLEAN_SESSION": "false",
        "MQTT_REGISTER_DEVICES": "true",
        **settings,
    }


def trouble_of(platform: Any) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{platform.http}/health/ready", timeout=5) as answer:
            said = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            said = json.loads(error.read())
    return " ".join(said["trouble"])


def accepted(platform: Any, device: str) -> int:
    return int(platform.json(f"/api/v1/devices/{device}/ledger")["accepted"])


class Plain(paho.Client):
    """A client without numbers or ids of its own; it counts what Mosquitto acknowledged."""

    def __init__(self, broker: Any, device: str) -> None:
        super().__init__(paho.CallbackAPIVersion.VERSION2, device)
        self.device = device
        self.acknowledged = 0
        self.on_publish = self._count
        self.max_queued_messages_set(0)
        self.connect("127.0.0.1", broker.port)
        self.loop_start()

    def _count(self, *_arguments: object) -> None:
        self.acknowledged += 1

    def say(self, number: int) -> None:
        self.publish(f"devices/{self.device}/telemetry", json.dumps({"readings": {"number": number}}), 1)

    def stop(self) -> None:
        self.disconnect()
        self.loop_stop()


def numbers_of(platform: Any, device: str) -> list[int]:
    answer = platform.json(
        f"/api/v1/devices/{device}/telemetry?readings=number&from=2013-01-01T00:00:00Z&to=2090-01-01T00:00:00Z"
        "&limit=1000000"
    )
    return sorted(int(value) for value in answer["columns"]["value"])


def test_kill_9_behind_mosquitto_loses_and_doubles_nothing(
    platform_in: Callable[..., Any], mosquitto_in: Callable[..., Any], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    file = tmp_path / "long.csv"
    lines = [f"2014-01-{1 + n // 1440:02d} {n // 60 % 24:02d}:{n % 60:02d}:00,{n}" for n in range(ROWS)]
    file.write_text("timestamp,value\n" + "\n".join(lines))
    broker = mosquitto_in().start()
    platform = platform_in(**behind(broker)).start()
    plain = Plain(broker, "plain-1")
    command = [sys.executable, "-m", "godwit.cli.main", "simulate", "--port", str(broker.port), "--replay", str(file)]
    command += ["--device", "m-1", "--reading", "value", "--speed", "0", "--batch", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as replay:
        for number in range(PLAIN):
            plain.say(number)
            if number % 20 == 0:
                time.sleep(0.005)
            if number in {PLAIN // 3, PLAIN * 2 // 3}:
                platform.kill()
                assert accepted_before_the_end(plain), "killed too late to be in the middle of it"
                platform.start()
        out, _ = replay.communicate(timeout=60)
    assert replay.returncode == 0, out
    eventually(lambda: plain.acknowledged == PLAIN, within_s=20)
    plain.stop()
    eventually(lambda: accepted(platform, "m-1") >= ROWS, within_s=30)
    eventually(lambda: accepted(platform, "plain-1") >= PLAIN, within_s=30)
    ledger = platform.json("/api/v1/devices/m-1/ledger")
    assert (ledger["accepted"], ledger["gaps"], ledger["quarantined"]) == (ROWS, 0, {})
    # without numbers or ids of its own, by the DUP flag: Mosquitto resends under the same packet id
    assert numbers_of(platform, "plain-1") == list(range(PLAIN))


def accepted_before_the_end(plain: Plain) -> bool:
    return plain.acknowledged < PLAIN


def test_a_backlog_that_waited_at_mosquitto_is_taken_in(
    platform_in: Callable[..., Any], mosquitto_in: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    """More than the client holds unread, in front of the answer to SUBSCRIBE."""
    broker = mosquitto_in(lines="allow_anonymous true\nmax_inflight_messages 0").start()
    platform = platform_in(**behind(broker)).start()
    platform.kill()
    plain = Plain(broker, "plain-4")
    for number in range(PLAIN):
        plain.say(number)
    eventually(lambda: plain.acknowledged == PLAIN, within_s=20)
    plain.stop()
    platform.start()
    eventually(lambda: accepted(platform, "plain-4") >= PLAIN, within_s=20)
    assert numbers_of(platform, "plain-4") == list(range(PLAIN))


def test_missing_rights_to_publish_are_said_and_stop_nothing(
    platform_in: Callable[..., Any], mosquitto_in: Callable[..., Any], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    rights = tmp_path / "rights"
    rights.touch(0o600)
    rights.write_text("topic read devices/#\npattern write devices/%c/telemetry\n")
    broker = mosquitto_in(lines=f"allow_anonymous true\nacl_file {rights}").start()
    platform = platform_in(**behind(broker)).start()
    eventually(lambda: "it needs the right to write devices/# and system/heartbeat" in platform.output)
    plain = Plain(broker, "plain-5")
    plain.say(1)
    eventually(lambda: accepted(platform, "plain-5") == 1)
    plain.stop()
    assert trouble_of(platform) == ""


def test_a_restart_of_mosquitto_loses_nothing(
    platform_in: Callable[..., Any], mosquitto_in: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    broker = mosquitto_in().start()
    platform = platform_in(**behind(broker)).start()
    plain = Plain(broker, "plain-2")
    for number in range(600):
        plain.say(number)
        if number == 300:
            eventually(lambda: accepted(platform, "plain-2") > 10)
            broker.stop()
            eventually(lambda: f"127.0.0.1:{broker.port}" in trouble_of(platform))
            broker.start()
    # paho may send again what Mosquitto had taken before it stopped, that is the device's way and not ours: so the
    # numbers are looked at, and not their count
    eventually(lambda: set(numbers_of(platform, "plain-2")) == set(range(600)), within_s=30)
    plain.stop()
    assert trouble_of(platform) == ""


def test_what_is_retained_is_not_taken_in_twice(
    platform_in: Callable[..., Any], mosquitto_in: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    broker = mosquitto_in().start()
    platform = platform_in(**behind(broker, MQTT_CLEAN_SESSION="true"))
    with_retained = Plain(broker, "r-1")
    with_retained.publish("devices/r-1/telemetry", '{"readings": {"level": 1}}', 1, retain=True).wait_for_publish(5)
    with_retained.publish("devices/r-1/status", '{"status": "online"}', 1, retain=True).wait_for_publish(5)
    for _start in range(3):
        platform.start()
        eventually(lambda: platform.json("/api/v1/devices/r-1")["presence"]["online"])
        platform.kill()
    platform.start()
    time.sleep(1.5)  # a start marks everybody as gone; the status that is handed out again corrects it
    eventually(lambda: platform.json("/api/v1/devices/r-1")["presence"]["online"])
    ledger = platform.json("/api/v1/devices/r-1/ledger")
    assert (ledger["messages"], ledger["readings"]) == (1, 1), ledger
    # what is said anew, in the same words, is news
    with_retained.publish("devices/r-1/telemetry", '{"readings": {"level": 1}}', 1, retain=True).wait_for_publish(5)
    eventually(lambda: platform.json("/api/v1/devices/r-1/ledger")["readings"] == 2)
    with_retained.stop()


def test_a_wrong_password_is_said_and_a_right_one_heals(
    platform_in: Callable[..., Any], mosquitto_in: Callable[..., Any], password_file: Path
) -> None:
    broker = mosquitto_in(lines=f"allow_anonymous false\npassword_file {password_file}").start()
    platform = platform_in(**behind(broker, MQTT_USERNAME="godwit", MQTT_PASSWORD="not-the-one"))
    platform.start(look="/health/live")
    said = trouble_of(platform)
    assert "does not let us in" in said
    assert "MQTT_USERNAME and MQTT_PASSWORD" in said
    assert "does not let us in" in platform.output
    assert "not-the-one" not in platform.output
    assert platform.stop() == 0
    platform.environment["MQTT_PASSWORD"] = "secret"
    platform.start()
    assert trouble_of(platform) == ""


def test_a_broker_that_is_absent_at_start_is_waited_for(
    platform_in: Callable[..., Any], mosquitto_in: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    broker = mosquitto_in()
    platform = platform_in(**behind(broker)).start(look="/health/live")
    assert "nothing listens there" in trouble_of(platform)
    assert platform.json("/api/v1/devices")
    broker.start()
    eventually(lambda: trouble_of(platform) == "")
    plain = Plain(broker, "plain-3")
    plain.say(1)
    eventually(lambda: accepted(platform, "plain-3") == 1)
    plain.stop()


def test_a_server_that_is_not_trusted_is_not_spoken_to(
    platform_in: Callable[..., Any], mosquitto_in: Callable[..., Any], certificates: Any
) -> None:
    broker = mosquitto_in(
        lines=f"certfile {certificates.server}\nkeyfile {certificates.server_key}\nallow_anonymous true"
    ).start()
    platform = platform_in(**behind(broker, MQTT_TLS="true")).start(look="/health/live")
    assert "a certificate that is not trusted" in trouble_of(platform)
    assert "MQTT_CA_FILE" in trouble_of(platform)


DYNAMIC_SECURITY = Path("/usr/lib") / f"{platform_module.machine()}-linux-gnu" / "mosquitto_dynamic_security.so"


def rights_file(path: Path, *, may_subscribe: bool) -> Path:
    """Write rights for Mosquitto's dynamic security plugin; its plain ACL file lets everybody subscribe to anything."""
    access = {"publishClientSend": True, "publishClientReceive": True, "unsubscribe": True}
    access["subscribe"] = may_subscribe
    path.write_text(json.dumps({"defaultACLAccess": access, "clients": [], "groups": [], "roles": []}))
    return path


@pytest.mark.skipif(not DYNAMIC_SECURITY.exists(), reason="Mosquitto's dynamic security plugin is not installed")
def test_a_subscription_that_is_refused_is_said_and_a_granted_one_heals(
    platform_in: Callable[..., Any], mosquitto_in: Callable[..., Any], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    rights = rights_file(tmp_path / "rights.json", may_subscribe=False)
    plugin = f"plugin {DYNAMIC_SECURITY}\nplugin_opt_config_file {rights}"
    broker = mosquitto_in(lines=f"allow_anonymous true\n{plugin}").start()
    platform = platform_in(**behind(broker)).start(look="/health/live")
    eventually(lambda: "we may not subscribe: not authorized (wanted: " in trouble_of(platform))
    assert "devices/+/telemetry" in trouble_of(platform)
    plain = Plain(broker, "plain-6")
    plain.say(1)
    eventually(lambda: plain.acknowledged == 1)
    plain.stop()
    broker.stop()
    rights_file(rights, may_subscribe=True)
    broker.start()
    eventually(lambda: trouble_of(platform) == "", within_s=20)
    plain = Plain(broker, "plain-6")
    plain.say(2)
    eventually(lambda: accepted(platform, "plain-6") == 1)
    plain.stop()


def test_two_platforms_share_what_comes_and_each_message_is_taken_in_once(
    platform_in: Callable[..., Any], mosquitto_in: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    """Mosquitto deals a shared subscription out message by message; nothing is lost or doubled by it, but its order."""
    broker = mosquitto_in(lines="allow_anonymous true\nmax_inflight_messages 0").start()
    platforms = [
        platform_in(f"data-{n}", **behind(broker, MQTT_SHARE_GROUP="godwit", MQTT_CLIENT_ID=f"godwit-{n}")).start()
        for n in range(2)
    ]
    plain = Plain(broker, "plain-7")
    for number in range(200):
        plain.say(number)
    eventually(lambda: plain.acknowledged == 200)
    plain.stop()
    eventually(lambda: sum(accepted(each, "plain-7") for each in platforms) == 200)
    shares = [numbers_of(each, "plain-7") for each in platforms]
    assert sorted(shares[0] + shares[1]) == list(range(200))
    assert all(50 <= len(share) <= 150 for share in shares)
    assert [trouble_of(each) for each in platforms] == ["", ""]
