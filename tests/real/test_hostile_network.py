"""Does everybody else go on, in bounded memory, while somebody misbehaves?

One platform; a calm client measures round trips all the while. Each story is some seconds of one kind of attack.
"""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench import hostile

pytestmark = pytest.mark.real
STORY_S = 3.0
ROUND_TRIP_S_MAX = 2.0
GROWTH_BYTES_MAX = 200 * 1_048_576


class Calm:
    """A well-behaved client; each of its messages has to be acknowledged in time."""

    def __init__(self, port: int) -> None:
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, "calm", protocol=paho.MQTTv5)
        self.client.connect("127.0.0.1", port, keepalive=5)
        self.client.loop_start()
        self.slowest = 0.0

    def round_trip(self) -> None:
        began = time.monotonic()
        self.client.publish("devices/calm/telemetry", b'{"readings": {"t": 1.5}}', 1).wait_for_publish(10)
        self.slowest = max(self.slowest, time.monotonic() - began)

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture(scope="module", params=["", "2"], ids=["one process", "two workers"])
def platform(request: Any, platform_class: Any, tmp_path_factory: Any) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("hostile") / "data"
    platform = platform_class(directory, MQTT_USERNAME="fleet", MQTT_PASSWORD="kestrel", WORKERS=request.param).start()
    yield platform
    platform.kill()


def name_of(kind: type[hostile.Hostile]) -> str:
    return (kind.__doc__ or kind.__name__).splitlines()[0].rstrip(".")


def resident(platform: Any) -> int:
    status = Path(f"/proc/{platform.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1_024


def endure(platform: Any, attacker: hostile.Hostile) -> int:
    """Let `attacker` go on for a while, over and over; the calm client is served, and memory does not run away.

    Returns how many connections it held at the end.
    """
    calm, stopping = Calm(platform.mqtt), threading.Event()
    calm.round_trip()
    calm.slowest = 0.0
    before = resident(platform)
    broken: list[AssertionError] = []

    def go_on() -> None:
        while not stopping.is_set():
            try:
                attacker.once()
            except OSError:
                continue
            except AssertionError as error:
                broken.append(error)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        end = time.monotonic() + STORY_S
        while time.monotonic() < end:
            calm.round_trip()
            time.sleep(0.02)
        grown = resident(platform) - before
    finally:
        stopping.set()
        thread.join()
        calm.stop()
        held = len(attacker.held)
        attacker.close()
    assert not broken
    assert calm.slowest < ROUND_TRIP_S_MAX
    assert grown < GROWTH_BYTES_MAX
    return held


def place_of(platform: Any) -> hostile.Place:
    return hostile.Place(platform.mqtt, platform.mqtts)


def test_connections_that_say_nothing_or_little(platform: Any) -> None:
    assert endure(platform, hostile.SlowLoris(place_of(platform))) > 100


@pytest.mark.parametrize("kind", [kind for kind in hostile.ALL if kind is not hostile.SlowLoris], ids=name_of)
def test_everybody_else_goes_on(platform: Any, kind: type[hostile.Hostile]) -> None:
    endure(platform, kind(place_of(platform)))


@pytest.mark.parametrize("door", ["websocket", "http"])
def test_websockets_that_ping_and_do_not_listen(platform: Any, door: str) -> None:
    assert endure(platform, hostile.DeafWebSockets(hostile.Place(getattr(platform, door), 0))) > 3
