"""After `kill -9` of the platform: is all that was acknowledged in the store, and once where it carried an id?"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

pytestmark = pytest.mark.real

CLIENTS = 20
ROWS = 20_000


def count_of(platform: Any, device: str, reading: str) -> int:
    answer = platform.json(
        f"/api/v1/devices/{device}/telemetry?readings={reading}&from=2013-01-01T00:00:00Z&to=2090-01-01T00:00:00Z"
        "&every=3650d&aggregate=count"
    )
    return int(sum(answer["columns"]["count"]))


def test_a_replay_survives_kill_9_and_a_restart(
    platform_in: Callable[..., Any], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    file = tmp_path / "long.csv"
    lines = [f"2014-01-{1 + n // 1440:02d} {n // 60 % 24:02d}:{n % 60:02d}:00,{n}" for n in range(ROWS)]
    file.write_text("timestamp,value\n" + "\n".join(lines))
    platform = platform_in().start()
    command = [sys.executable, "-m", "godwit.cli.main", "simulate", "--port", str(platform.mqtt), "--replay", str(file)]
    command += ["--device", "m-1", "--reading", "value", "--speed", "0", "--batch", "4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as replay:
        for part in (0.15, 0.5):
            eventually(lambda part=part: count_of(platform, "m-1", "value") > ROWS * part, within_s=60, every_s=0.01)
            platform.kill()
            time.sleep(0.3)
            assert replay.poll() is None, "killed too late to be in the middle of it"
            platform.start()
        out, _ = replay.communicate(timeout=120)
    assert replay.returncode == 0
    assert f"{ROWS:,} of {ROWS:,} samples stored" in out
    assert "sent again" in out
    assert count_of(platform, "m-1", "value") == ROWS
    ledger = platform.json("/api/v1/devices/m-1/ledger")
    assert (ledger["accepted"], ledger["gaps"], ledger["quarantined"]) == (ROWS, 0, {})


class Publisher:
    """A plain paho client that publishes numbered messages and remembers which were acknowledged."""

    def __init__(self, number: int, port: int) -> None:
        self.device = f"plain-{number}"
        self.has_ids = number % 2 == 0
        self._numbers: dict[int, int] = {}
        self._acknowledged: set[int] = set()
        self._next = 0
        version = paho.MQTTv5 if number % 3 else paho.MQTTv311
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=self.device, protocol=version)
        self.client.on_publish = self._on_publish
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _on_publish(self, _client: Any, _data: Any, packet: int, reason: Any, _properties: Any) -> None:
        # paho holds its lock here, and ours could wait for it: only one atomic step
        if not reason.is_failure:
            self._acknowledged.add(packet)

    @property
    def waiting(self) -> int:
        """How many messages are not acknowledged yet."""
        return len(self._numbers) - len(self._acknowledged)

    @property
    def acknowledged(self) -> set[int]:
        """The numbers that got a PUBACK. Packet ids do not come again below 65,535 messages."""
        return {self._numbers[packet] for packet in self._acknowledged}

    def publish(self) -> None:
        if self.waiting > 50 or not self.client.is_connected():
            return
        number, self._next = self._next, self._next + 1
        message: dict[str, Any] = {"deviceId": self.device, "readings": {"number": number}}
        if self.has_ids:
            message["messageId"] = f"{self.device}/{number}"
        info = self.client.publish(f"devices/{self.device}/telemetry", json.dumps(message), qos=1)
        self._numbers[info.mid] = number

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def numbers_of(platform: Any, device: str) -> list[int]:
    answer = platform.json(
        f"/api/v1/devices/{device}/telemetry?readings=number&from=2013-01-01T00:00:00Z&to=2090-01-01T00:00:00Z"
        "&limit=1000000"
    )
    return [int(value) for value in answer["columns"]["value"]]


def test_what_got_a_puback_is_in_the_store_once_where_it_carried_an_id(platform_in: Callable[..., Any]) -> None:
    platform = platform_in().start()
    publishers = [Publisher(number, platform.mqtt) for number in range(CLIENTS)]
    try:
        for downtime in (0.2, 0.0):  # one kill with the clients waiting for the restart, one with hardly a pause
            publish_for(4, publishers)
            platform.kill()
            time.sleep(downtime)
            platform.start()
        await_acknowledgements(publishers)
    finally:
        for publisher in publishers:
            publisher.stop()
    check_stored(platform, publishers)


def test_a_killed_worker_costs_its_connections_a_reconnect_and_no_data(platform_in: Callable[..., Any]) -> None:
    platform = platform_in(WORKERS="2").start()
    publishers = [Publisher(number, platform.mqtt) for number in range(CLIENTS)]
    try:
        for _ in range(3):
            publish_for(1.5, publishers)
            workers = children(platform.process.pid)
            assert len(workers) == 2
            os.kill(workers[0], signal.SIGKILL)
        publish_for(1.5, publishers)
        assert workers[0] not in children(platform.process.pid)
        await_acknowledgements(publishers)
    finally:
        for publisher in publishers:
            publisher.stop()
    check_stored(platform, publishers)
    left = children(platform.process.pid)
    platform.kill()
    end = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in left):
        assert time.monotonic() < end, "workers outlive their owner"
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    """Return the processes that `pid` started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def publish_for(seconds: float, publishers: list[Publisher]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for publisher in publishers:
            publisher.publish()
        time.sleep(0.002)


def await_acknowledgements(publishers: list[Publisher]) -> None:
    """Wait while the clients reconnect by themselves and send again what was not acknowledged."""
    end = time.monotonic() + 30
    while time.monotonic() < end and any(publisher.waiting for publisher in publishers):
        time.sleep(0.1)


def check_stored(platform: Any, publishers: list[Publisher]) -> None:
    for publisher in publishers:
        stored = numbers_of(platform, publisher.device)
        assert len(publisher.acknowledged) > 100, f"{publisher.device} hardly published"
        assert publisher.acknowledged <= set(stored), f"{publisher.device}: acknowledged, but not stored"
        if publisher.has_ids:
            assert len(stored) == len(set(stored)), f"{publisher.device}: stored twice"


def test_a_second_platform_on_the_same_data_refuses_with_one_sentence(platform_in: Callable[..., Any]) -> None:
    first = platform_in().start()
    second = platform_in()  # the same directory, other ports
    done = subprocess.run(
        [sys.executable, "-m", "godwit.cli.main", "up"],
        check=False,
        env=second.environment,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(first.data_dir) in done.stderr
    assert "Traceback" not in done.stderr
    assert first.json("/api/v1/devices")
