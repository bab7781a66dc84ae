"""Does whoever tries it with the client he has find nothing missing? Other people's clients, as they are published.

Clients of other languages and libraries are installed by the tests into `~/.cache/godwit-tests`, outside of the
repository. Each publishes telemetry at each QoS, reads it back, and everything is in the store.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from ports import free_port

pytestmark = pytest.mark.real

CACHE = Path.home() / ".cache" / "godwit-tests"
CLIENTS = Path(__file__).parents[1] / "clients"
ALL = [10 * qos + number for qos in (0, 1, 2) for number in range(5)]
MOSQUITTO_VERSIONS = {"311": "mqttv311", "5": "mqttv5"}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, platform_class: Callable[..., Any]) -> Iterator[Any]:
    running = platform_class(tmp_path_factory.mktemp("clients") / "data").start()
    yield running
    running.kill()


@pytest.fixture(scope="module")
def tls_platform(tmp_path_factory: pytest.TempPathFactory, platform_class: Callable[..., Any]) -> Iterator[Any]:
    """Run a platform whose console is on all addresses: over TLS, and MQTT there with a password."""
    settings = {"SERVER_HOST": "0.0.0.0", "MQTT_USERNAME": "fleet", "MQTT_PASSWORD": "kestrel-7"}
    running = platform_class(tmp_path_factory.mktemp("clients-tls") / "data", **settings).start()
    yield running
    running.kill()


def node_package(name: str, version: str) -> Path:
    """Return a directory in which an npm package is installed."""
    directory = CACHE / name
    if not (directory / "node_modules" / name).exists():
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "package.json").write_text('{"private": true}')
        command = ["npm", "install", "--no-audit", "--no-fund", "--silent", f"{name}@{version}"]
        subprocess.run(command, cwd=directory, check=True, timeout=600)
    return directory


@pytest.fixture(scope="module")
def python_clients() -> Path:
    """Return a directory with the Python clients that are none of our requirements."""
    directory = CACHE / "python"
    if not all((directory / each).exists() for each in ("aiomqtt", "gmqtt")):
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(directory)]
        subprocess.run([*command, "aiomqtt==2.*", "gmqtt==0.7.*"], check=True, timeout=300)
    return directory


def run(*command: str, **more: Any) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, **more)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def stored(platform: Any, device: str) -> int:
    count: int = platform.json(f"/api/v1/devices/{device}/ledger")["accepted"]
    return count


@pytest.mark.parametrize("version", ["311", "5"])
@pytest.mark.parametrize("library", ["aiomqtt", "gmqtt", "paho"])
def test_python_clients(library: str, version: str, platform: Any, python_clients: Path) -> None:
    device = f"{library}-{version}"
    script = str(CLIENTS / f"with_{library}.py")
    environment = os.environ | {"PYTHONPATH": str(python_clients)}
    out = run(sys.executable, "-W", "ignore", script, str(platform.mqtt), device, version, env=environment)
    assert json.loads(out) == ALL
    assert stored(platform, device) == len(ALL)


@pytest.mark.parametrize("version", ["311", "5"])
def test_mqttjs(version: str, platform: Any) -> None:
    directory, device = node_package("mqtt", "5"), f"mqttjs-{version}"
    assert js(directory, f"mqtt://127.0.0.1:{platform.mqtt}", device, version) == ALL
    assert stored(platform, device) == len(ALL)


@pytest.mark.parametrize("version", ["311", "5"])
@pytest.mark.parametrize("door", ["loopback", "console", "console-tls"])
def test_mqttjs_over_websocket(door: str, version: str, platform: Any, tls_platform: Any) -> None:
    directory, device = node_package("mqtt", "5"), f"websocket-{door}-{version}"
    if door == "console-tls":
        platform = tls_platform
        platform.post("/api/v1/devices", {"deviceId": device})  # nobody registers by himself from outside
        address = f"wss://fleet:kestrel-7@localhost:{platform.http}/mqtt"
    else:
        address = f"ws://127.0.0.1:{platform.websocket if door == 'loopback' else platform.http}/mqtt"
    trust = {"NODE_EXTRA_CA_CERTS": str(platform.certificate)}
    assert js(directory, address, device, version, **trust) == ALL
    assert stored(platform, device) == len(ALL)


def js(directory: Path, address: str, device: str, version: str, **more: str) -> list[int]:
    environment = os.environ | {"NODE_PATH": str(directory / "node_modules")} | more
    found: list[int] = json.loads(
        run("node", str(CLIENTS / "with_mqttjs.js"), address, device, version, env=environment)
    )
    return found


@pytest.mark.parametrize("version", ["311", "5"])
def test_mosquitto_pub_and_sub(version: str, platform: Any, eventually: Callable[..., Any]) -> None:
    device = f"mosquitto-{version}"
    where = ["-h", "127.0.0.1", "-p", str(platform.mqtt), "-V", MOSQUITTO_VERSIONS[version]]
    topic = f"devices/{device}/telemetry"
    with listening(
        "mosquitto_sub",
        *where,
        "-i",
        f"reader-{version}",
        "-q",
        "2",
        "-t",
        f"devices/{device}/#",
        "-C",
        "15",
        "-W",
        "20",
    ) as reader:
        eventually(lambda: is_subscribed(platform, f"reader-{version}"))
        for qos in (0, 1, 2):
            lines = "".join(json.dumps({"sensors": {"n": 10 * qos + number}}) + "\n" for number in range(5))
            run("mosquitto_pub", *where, "-q", str(qos), "-t", topic, "-l", input=lines)
        out, _ = reader.communicate(timeout=30)
    assert sorted(json.loads(line)["sensors"]["n"] for line in out.splitlines()) == ALL
    assert stored(platform, device) == len(ALL)


def response_information(platform: Any, client_id: str) -> str:
    """Ask the broker for a topic to have responses sent to (MQTT 5, 3.2.2.3.15)."""
    said: list[Any] = []
    client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTv5)
    client.on_connect = lambda *arguments: said.append(arguments[4])
    asks = Properties(PacketTypes.CONNECT)
    asks.RequestResponseInformation = 1
    client.connect("127.0.0.1", platform.mqtt, properties=asks)
    while not said:
        client.loop()
    client.disconnect()
    topic: str = said[0].ResponseInformation
    return topic


def test_mosquitto_rr(platform: Any) -> None:
    """Request and response (MQTT 5, 4.10): the answer comes on the topic and with the data of the request."""
    service = Client(CallbackAPIVersion.VERSION2, "service", protocol=MQTTv5)

    def answer(client: Client, _data: object, request: Any) -> None:
        topic, mark = request.properties.ResponseTopic, request.properties.CorrelationData
        client.publish(topic, request.payload.upper() + mark, qos=1)

    service.on_message = answer
    service.connect("127.0.0.1", platform.mqtt)
    service.subscribe("service/upper", 1)
    service.loop_start()
    try:
        words = ["-V", "mqttv5", "-q", "1", "-i", "asker", "-t", "service/upper", "-m", "loud", "-W", "10"]
        more = ["-D", "connect", "request-response-information", "1", "-D", "publish", "correlation-data", "-7"]
        for topic in ("answers/1", response_information(platform, "asker") + "1"):
            assert run("mosquitto_rr", "-p", str(platform.mqtt), *words, "-e", topic, *more) == "LOUD-7\n"
    finally:
        service.disconnect()
        service.loop_stop()


@pytest.mark.skipif(shutil.which("paho_c_pub") is None, reason="paho.mqtt.c-examples is not installed")
@pytest.mark.parametrize("version", ["311", "5"])
@pytest.mark.parametrize("kind", ["c", "cs"])
def test_paho_c_samples(kind: str, version: str, platform: Any, eventually: Callable[..., Any]) -> None:
    """The asynchronous (c) and the synchronous (cs) client."""
    device, few = f"paho-{kind}-{version}", [0, 10, 20, 21]  # each is a process of its own
    where = ["-h", "127.0.0.1", "-p", str(platform.mqtt), "-V", version]
    with listening(
        f"paho_{kind}_sub", *where, "-i", f"reader-{device}", "-q", "2", "-t", f"devices/{device}/telemetry"
    ) as reader:
        eventually(lambda: is_subscribed(platform, f"reader-{device}"))
        for number in few:
            message = ["-m", json.dumps({"sensors": {"n": number}}), "-q", str(number // 10)]
            run(f"paho_{kind}_pub", *where, "-i", device, "-t", f"devices/{device}/telemetry", *message)
        assert reader.stdout is not None
        found = [int(re.findall(r'"n": (\d+)', reader.stdout.readline())[0]) for _ in few]
    assert sorted(found) == few
    assert stored(platform, device) == len(few)


def test_a_flow_of_node_red_reads_telemetry_and_writes_a_topic(
    platform: Any, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    directory = node_package("node-red", "4.1")
    port = free_port()
    (tmp_path / "flows.json").write_text((CLIENTS / "node-red-flow.json").read_text())
    (tmp_path / "settings.js").write_text(
        'module.exports = {flowFile: "flows.json", uiHost: "127.0.0.1", telemetry: {enabled: false}, '
        'diagnostics: {enabled: false}, httpAdminRoot: false, logging: {console: {level: "info"}}}'
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["node", str(directory / "node_modules" / "node-red" / "red.js"), "-u", str(tmp_path), "-p", str(port)],
            env=os.environ | {"MQTT_PORT": str(platform.mqtt)}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        eventually(lambda: is_subscribed(platform, "node-red") or process.poll() is not None, within_s=40)
        assert process.poll() is None, (tmp_path / "log").read_text()
        where = ["-h", "127.0.0.1", "-p", str(platform.mqtt)]
        for room, temperature in (("kitchen", 27.5), ("cellar", 12)):
            message = json.dumps({"sensors": {"temperature": temperature}})
            run("mosquitto_pub", *where, "-q", "1", "-t", f"devices/{room}/telemetry", "-m", message)
        written = run("mosquitto_sub", *where, "-t", "rooms/+/fan", "-C", "2", "-W", "10", "-v")
        assert sorted(written.splitlines()) == ["rooms/cellar/fan off", "rooms/kitchen/fan on"]
    finally:
        process.terminate()
        process.wait(20)


def is_subscribed(platform: Any, client_id: str) -> bool:
    return bool(platform.json(f"/api/v1/broker/subscriptions?search={client_id}")["items"])


class listening:  # noqa: N801 - used as `with listening(...)`
    """A client that runs while the test does something."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def __enter__(self) -> subprocess.Popen[str]:
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=10)
