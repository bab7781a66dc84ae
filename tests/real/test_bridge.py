"""Bridges to a real Mosquitto, both ways: a remote that is away, a killed platform; nothing lost, order kept."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

pytestmark = pytest.mark.real

FILE = """
[[bridge]]
name = "office"
host = "127.0.0.1"
port = {port}
username = "godwit"
password_file = "{password_file}"

[[bridge.rule]]
direction = "out"
filter = "devices/+/telemetry"
remote_prefix = "site-1/"

[[bridge.rule]]
direction = "out"
filter = "both/#"

[[bridge.rule]]
direction = "in"
filter = "both/#"

[[bridge.rule]]
direction = "in"
filter = "devices/+/telemetry"
remote_prefix = "away/"
"""


class Client(paho.Client):
    """Publishes numbers in order, and keeps what it hears."""

    def __init__(self, port: int, name: str, *, has_password: bool = False) -> None:
        super().__init__(paho.CallbackAPIVersion.VERSION2, name, clean_session=False)
        self.heard: list[tuple[str, int]] = []
        if has_password:
            self.username_pw_set("device", "secret")
        self.max_queued_messages_set(0)
        self.on_message = lambda _c, _d, message: self.heard.append((message.topic, number_of(message)))
        self.connect("127.0.0.1", port)
        self.loop_start()

    def say(self, topic: str, numbers: range) -> None:
        sent = [self.publish(topic, json.dumps({"readings": {"number": number}}), 1) for number in numbers]
        for each in sent:
            each.wait_for_publish(20)

    def numbers(self, topic: str) -> list[int]:
        return [number for at, number in self.heard if at == topic]

    def stop(self) -> None:
        self.disconnect()
        self.loop_stop()


def number_of(message: paho.MQTTMessage) -> int:
    return int(json.loads(message.payload)["readings"]["number"])


def first_seen(numbers: list[int]) -> list[int]:
    return list(dict.fromkeys(numbers))


def test_both_ways_across_outages(
    platform_in: Callable[..., Any],
    mosquitto_in: Callable[..., Any],
    tmp_path: Path,
    password_file: Path,
    eventually: Callable[..., Any],
) -> None:
    remote = mosquitto_in(
        lines=f"allow_anonymous false\npassword_file {password_file}\nmax_inflight_messages 0"
    ).start()
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    file = tmp_path / "bridges.toml"
    file.write_text(FILE.format(port=remote.port, password_file=secret))
    platform = platform_in(BRIDGES=str(file)).start()

    def bridge() -> str:
        return str(platform.json("/api/v1/stats")["broker"]["bridges"]["office"])

    eventually(lambda: bridge() == "connected")
    there = Client(remote.port, "office", has_password=True)
    there.subscribe("#", 1)
    here = Client(platform.mqtt, "m-1")
    here.subscribe("both/#", 1)
    time.sleep(0.3)
    here.say("devices/m-1/telemetry", range(200))
    eventually(lambda: len(there.numbers("site-1/devices/m-1/telemetry")) == 200)
    there.say("away/devices/far-1/telemetry", range(50))  # not registered, so it is seen in quarantine
    there.say("both/x", range(20))
    eventually(lambda: here.numbers("both/x") == list(range(20)))
    eventually(lambda: platform.json("/api/v1/stats")["ingest"]["quarantined"] == 50)

    # the remote goes away: what happens here meanwhile waits on disk, also across a kill of the platform
    remote.stop()
    eventually(lambda: "127.0.0.1" in bridge())
    here.say("devices/m-1/telemetry", range(200, 500))
    platform.kill()
    platform.start()
    eventually(here.is_connected)
    here.say("devices/m-1/telemetry", range(500, 700))
    remote.start()
    eventually(lambda: len(first_seen(there.numbers("site-1/devices/m-1/telemetry"))) == 700, within_s=40)
    assert first_seen(there.numbers("site-1/devices/m-1/telemetry")) == list(range(700))

    # the platform is away: what happens there waits at the remote
    platform.kill()
    there.say("both/x", range(20, 300))
    platform.start()
    eventually(lambda: len(first_seen(here.numbers("both/x"))) == 300, within_s=40)
    assert first_seen(here.numbers("both/x")) == list(range(300))

    # what crossed does not come back (the first 20 Mosquitto may send again to its own client, after its restart)
    time.sleep(0.5)
    assert [number for number in there.numbers("both/x") if number >= 20] == list(range(20, 300))
    here.stop()
    there.stop()


def test_two_platforms_that_bridge_each_other_do_not_loop(
    platform_in: Callable[..., Any], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    first, second = platform_in("one"), platform_in("two")
    for platform, other in ((first, second), (second, first)):
        file = tmp_path / f"{platform.data_dir.name}.toml"
        file.write_text(
            f'[[bridge]]\nname = "other"\nhost = "127.0.0.1"\nport = {other.mqtt}\n'
            '[[bridge.rule]]\ndirection = "out"\nfilter = "news/#"\n'
            '[[bridge.rule]]\ndirection = "in"\nfilter = "news/#"\n'
        )
        platform.environment["BRIDGES"] = str(file)
        platform.start()
    for platform in (first, second):
        eventually(lambda p=platform: p.json("/api/v1/stats")["broker"]["bridges"]["other"] == "connected")
    clients = [Client(platform.mqtt, "reader") for platform in (first, second)]
    for each in clients:
        each.subscribe("news/#", 1)
    time.sleep(0.3)
    clients[0].say("news/x", range(5))
    eventually(lambda: set(clients[1].numbers("news/x")) == set(range(5)))
    time.sleep(1)
    counts = [len(each.heard) for each in clients]
    time.sleep(1)
    assert [len(each.heard) for each in clients] == counts, "it goes round and round"
    assert max(counts) <= 15
    for each in clients:
        each.stop()


def test_a_bridge_beside_workers(
    platform_in: Callable[..., Any],
    mosquitto_in: Callable[..., Any],
    tmp_path: Path,
    password_file: Path,
    eventually: Callable[..., Any],
) -> None:
    """Clients come in by worker processes, the bridge inside of the owner; both ways, and after a kill of all."""
    remote = mosquitto_in(
        lines=f"allow_anonymous false\npassword_file {password_file}\nmax_inflight_messages 0"
    ).start()
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    file = tmp_path / "bridges.toml"
    file.write_text(FILE.format(port=remote.port, password_file=secret))
    platform = platform_in(BRIDGES=str(file), WORKERS="2").start()

    def is_connected() -> bool:
        return bool(platform.json("/api/v1/stats")["broker"]["bridges"]["office"] == "connected")

    eventually(is_connected)
    there = Client(remote.port, "office", has_password=True)
    there.subscribe("#", 1)
    here = Client(platform.mqtt, "m-1")
    here.subscribe("both/#", 1)
    eventually(lambda: platform.json("/api/v1/broker/subscriptions?search=both")["total"] == 2)
    here.say("devices/m-1/telemetry", range(200))
    there.say("both/x", range(100))
    eventually(lambda: len(there.numbers("site-1/devices/m-1/telemetry")) == 200)
    eventually(lambda: here.numbers("both/x") == list(range(100)))

    platform.kill()
    there.say("both/x", range(100, 200))
    platform.start()
    eventually(is_connected)
    eventually(here.is_connected)
    here.say("devices/m-1/telemetry", range(200, 300))
    eventually(lambda: first_seen(here.numbers("both/x")) == list(range(200)), within_s=20)
    eventually(lambda: first_seen(there.numbers("site-1/devices/m-1/telemetry")) == list(range(300)), within_s=20)
    here.stop()
    there.stop()
