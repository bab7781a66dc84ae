"""A platform that was restored from a backup, and two devices under one name: is all there, apart, and counted?

Real processes, a real store, a plain MQTT client that plays a device with a spool.
"""

import json
import shutil
import threading
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
import pytest

pytestmark = pytest.mark.real

T0 = 1_700_000_000
EPOCH = "9f3c2a7be1d04c55"


class Device:
    """Sends numbered samples and hears what it is told."""

    def __init__(self, port: int, client_id: str = "d-1") -> None:
        self.stored = -1
        self.notices: list[dict[str, Any]] = []
        self._is_subscribed = threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5)
        self.client.on_message = self._on_message
        self.client.on_subscribe = lambda *_: self._is_subscribed.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.client.subscribe([("devices/d-1/telemetry/stored", 1), ("devices/d-1/notices", 1)])
        assert self._is_subscribed.wait(5)

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        said = json.loads(message.payload)
        if message.topic.endswith("notices"):
            self.notices.append(said)
        else:
            self.stored = said["seq"]

    def say(self, channel: str, document: dict[str, Any], qos: int) -> None:
        self.client.publish(f"devices/d-1/{channel}", json.dumps(document), qos).wait_for_publish(10)

    def send(self, first: int, last: int, *, value: float = 0.0, at: int = T0, qos: int = 0) -> None:
        for start in range(first, last + 1, 25):
            numbers = range(start, min(start + 25, last + 1))
            samples = [{"timestamp": at + n, "readings": {"v": n + value}} for n in numbers]
            self.say("telemetry", {"stream": "s", "epoch": EPOCH, "seq": start, "samples": samples}, qos)

    def lose(self, first: int, last: int, reason: str) -> None:
        gap = {"first": first, "last": last, "reason": reason}
        self.say("telemetry", {"stream": "s", "epoch": EPOCH, "gaps": [gap]}, 0)

    def heard(self, code: str) -> list[Any]:
        return [each["details"] for each in self.notices if each["code"] == code]

    def leave(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def values_of(platform: Any) -> list[int]:
    answer = platform.json(
        "/api/v1/devices/d-1/telemetry?readings=v&from=2013-01-01T00:00:00Z&to=2090-01-01T00:00:00Z&limit=100000"
    )
    return sorted(answer["columns"]["value"])


def test_a_platform_restored_from_a_backup_gets_what_there_still_is_and_knows_what_is_gone(
    platform_in: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    platform = platform_in().start()
    device = Device(platform.mqtt)
    device.send(0, 99)
    eventually(lambda: device.stored == 99)
    device.leave()
    platform.stop()
    backup = platform.data_dir.with_name("backup")
    shutil.copytree(platform.data_dir, backup)
    platform.start()
    device = Device(platform.mqtt)
    device.send(100, 299)
    eventually(lambda: device.stored == 299)  # it deletes what is stored, all but the last fifty
    device.leave()
    platform.kill()
    shutil.rmtree(platform.data_dir)
    shutil.copytree(backup, platform.data_dir)

    platform.start()
    device = Device(platform.mqtt)
    device.say("status", {"status": "online"}, 1)
    device.send(300, 320)
    eventually(lambda: device.stored == 99)
    eventually(lambda: device.heard("gap-wanted"))
    assert device.heard("gap-wanted") == [{"stream": "s", "epoch": EPOCH, "ranges": [[100, 299]]}]
    assert platform.json("/api/v1/devices/d-1/ledger")["gaps"] == 200
    device.send(250, 299)
    device.lose(100, 249, "deleted")
    eventually(lambda: device.stored == 320)
    device.leave()
    platform.kill()
    platform.start()
    ledger = platform.json("/api/v1/devices/d-1/ledger")
    assert (ledger["gaps"], ledger["lost"], ledger["accepted"]) == (0, {"deleted": 150}, 171)
    (gap,) = platform.json("/api/v1/devices/d-1/gaps")["items"]
    assert (gap["first"], gap["last"], gap["state"], gap["reason"]) == (100, 249, "lost", "deleted")
    assert values_of(platform) == [*range(100), *range(250, 321)]
    device = Device(platform.mqtt)
    device.say("status", {"status": "online"}, 1)
    eventually(lambda: device.stored == 320)  # it says so at once
    device.leave()


def test_two_devices_under_one_name_are_told_apart_and_told(
    platform_in: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    platform = platform_in().start()
    first, copy = Device(platform.mqtt, "d-1"), Device(platform.mqtt, "copy-of-d-1")
    first.send(0, 199, qos=1)
    for n in range(200, 230):
        first.send(n, n, qos=1)
        copy.send(n, n, value=0.5, qos=1)
        copy.send(n - 2, n, value=0.5, qos=1) if n > 205 else None  # again, as nothing was heard
    for each in (first, copy):
        eventually(lambda each=each: each.heard("clone-detected"))
        assert each.heard("clone-detected") == [{"stream": "s", "epoch": EPOCH, "first": 200, "keptAs": f"{EPOCH}~2"}]
    everything = sorted([*range(230), *(n + 0.5 for n in range(200, 230))])
    for each in (first, copy):
        each.leave()
    platform.kill()
    platform.start()
    ledger = platform.json("/api/v1/devices/d-1/ledger")
    assert (ledger["accepted"], ledger["cloned"], ledger["duplicate"]) == (260, 30, 72)
    assert values_of(platform) == everything
    (event,) = platform.json("/api/v1/devices/d-1/events")["items"]
    assert json.loads(event["payload"])["event"] == "clone-detected"
    copy = Device(platform.mqtt, "copy-of-d-1")  # it is still known for what it is
    copy.send(228, 235, value=0.5, qos=1)
    eventually(lambda: len(copy.heard("clone-detected")) == 1)
    assert values_of(platform) == sorted([*everything, *(n + 0.5 for n in range(230, 236))])
    copy.leave()
