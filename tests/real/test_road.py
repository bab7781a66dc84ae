"""The conformance suite of the road: publish, stored, told, presence, command out, twin retained.

One suite for every broker: the embedded one, and a real Mosquitto in front of the platform, plain, and with TLS, client
certificates and a password.
"""

import asyncio
import json
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from ports import free_port

from godwit.contract.topics import Channel
from godwit.server.main import Server
from godwit.server.settings import Settings

pytestmark = pytest.mark.real

WAIT_S = 10
KINDS = ("embedded", "mosquitto", "mosquitto, TLS")


class Road:
    """A platform in this process, and how a device reaches it."""

    def __init__(self, settings: Settings, port: int, prepare: Callable[[paho.Client], None]) -> None:
        self.server = Server(settings)
        self.server.start()
        self.platform = self.server._platform
        self.port = port
        self._prepare = prepare
        self._clients: list[paho.Client] = []

    def device(self, client_id: str, *, will: tuple[str, str] | None = None) -> "Device":
        device = Device(client_id)
        self._prepare(device)
        if will is not None:
            device.will_set(*will, qos=1, retain=True)
        device.connect("127.0.0.1", self.port, 5)
        device.loop_start()
        device.flags.get(timeout=WAIT_S)
        self._clients.append(device)
        return device

    def publish(self, topic: str, payload: str, **options: Any) -> None:
        asyncio.run(self.platform.broker.publish(topic, payload.encode(), **options))

    def stop(self) -> None:
        for each in self._clients:
            each.disconnect()
            each.loop_stop()
        self.server.stop()


class Device(paho.Client):
    """A plain client whose messages gather in a queue."""

    def __init__(self, client_id: str) -> None:
        super().__init__(paho.CallbackAPIVersion.VERSION2, client_id)
        self.inbox: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self.flags: queue.Queue[object] = queue.Queue()
        self._granted: queue.Queue[object] = queue.Queue()
        self.on_message = lambda _client, _data, message: self.inbox.put(message)
        self.on_connect = lambda _client, _data, flags, _reason, _properties: self.flags.put(flags)
        self.on_subscribe = lambda *arguments: self._granted.put(arguments)

    def hear(self, topic: str, qos: int = 1) -> None:
        self.subscribe(topic, qos)
        self._granted.get(timeout=WAIT_S)

    def say(self, topic: str, document: object, qos: int = 1, *, retain: bool = False) -> None:
        payload = document if isinstance(document, str) else json.dumps(document)
        self.publish(topic, payload, qos, retain).wait_for_publish(WAIT_S)

    def take(self) -> paho.MQTTMessage:
        return self.inbox.get(timeout=WAIT_S)


@pytest.fixture(params=KINDS)
def road(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    mosquitto_in: Callable[..., Any],
    certificates: Any,
    password_file: Path,
) -> Iterator[Road]:
    common: dict[str, Any] = {
        "data_dir": tmp_path / "data",
        "server_port": free_port(),
        "device_port": 0,
        "log_level": "warning",
    }
    (tmp_path / "data").mkdir()

    def plain(_client: paho.Client) -> None:
        """Need nothing."""

    def with_tls(client: paho.Client) -> None:
        client.tls_set(str(certificates.authority), str(certificates.client), str(certificates.client_key))
        client.username_pw_set("device", "secret")

    if request.param == "embedded":
        port = free_port()
        road = Road(Settings(**common, mqtt_port=port, mqtts_port=free_port(), mqtt_ws_port=0), port, plain)
    elif request.param == "mosquitto":
        broker = mosquitto_in().start()
        road = Road(
            Settings(
                **common,
                mqtt_broker="external",
                mqtt_port=broker.port,
                mqtt_clean_session=False,
                mqtt_register_devices=True,
            ),
            broker.port,
            plain,
        )
    else:
        broker = mosquitto_in(
            lines=f"cafile {certificates.authority}\n"
            f"certfile {certificates.server}\nkeyfile {certificates.server_key}\n"
            f"require_certificate true\nallow_anonymous false\npassword_file {password_file}"
        ).start()
        road = Road(
            Settings(
                **common,
                mqtt_broker="external",
                mqtt_port=broker.port,
                mqtt_clean_session=False,
                mqtt_register_devices=True,
                mqtt_username="godwit",
                mqtt_password="secret",
                mqtt_ca_file=str(certificates.authority),
                mqtt_cert_file=str(certificates.client),
                mqtt_key_file=str(certificates.client_key),
            ),
            broker.port,
            with_tls,
        )
    yield road
    road.stop()


def test_the_road(road: Road, eventually: Callable[..., Any]) -> None:
    """One walk, so that three platforms are started and not eighteen."""
    platform = road.platform
    assert platform.trouble() == []
    device = road.device("m-1", will=("devices/m-1/status", '{"status": "offline"}'))
    device.hear("devices/m-1/#")

    # publish, at both QoS: stored, and told up to which number
    for seq, qos in enumerate((0, 1, 0, 1)):
        device.say(
            "devices/m-1/telemetry",
            {"stream": "s", "epoch": "e", "seq": seq, "readings": {"temperature": 20.5 + seq}},
            qos,
        )
    eventually(lambda: (ledger := platform.ingest.ledger("m-1")) is not None and ledger.accepted == 4)
    assert [each.value for each in platform.ingest.latest("m-1")] == [23.5]
    device.say("devices/m-1/status", {"status": "online"}, retain=True)

    def stored_up_to() -> int:
        message = device.take()
        if message.topic != "devices/m-1/telemetry/stored":
            return -1
        assert not message.retain
        assert message.qos == 1
        return int(json.loads(message.payload)["seq"])

    eventually(lambda: stored_up_to() == 3)

    # what cannot be stored is quarantined and holds nobody up
    device.say("devices/m-1/telemetry", "{no json")
    device.say("devices/!!/telemetry", {"readings": {"x": 1}})
    device.say("devices/m-1/telemetry", {"stream": "s", "epoch": "e", "seq": 3, "readings": {"temperature": 23.5}})
    eventually(lambda: platform.ingest.stats().quarantined == 2)
    eventually(lambda: platform.ingest.ledger("m-1").duplicate == 1)

    # a command out, and a retained twin, for who is there and for who comes later
    road.publish("devices/m-1/commands", '{"name": "open"}')
    eventually(lambda: device.take().topic == "devices/m-1/commands")
    road.publish("devices/m-1/twin/desired", '{"interval": 5}', retain=True)
    later = road.device("m-1-service")
    later.hear("devices/m-1/twin/desired")
    message = later.take()
    assert (message.payload, message.retain) == (b'{"interval": 5}', True)
    later.hear("system/heartbeat")
    message = later.take()
    assert (message.topic, message.retain) == ("system/heartbeat", True)

    # a reading that came over HTTP is heard by subscribers
    later.hear("devices/m-2/telemetry")
    asyncio.run(platform.ingest.submit("m-1", Channel.TELEMETRY, b'{"readings": {"temperature": 1}}'))
    eventually(lambda: device.take().topic == "devices/m-1/telemetry")

    # presence: there, then gone by its will
    eventually(lambda: _presence(platform, "m-1") is True)
    device.loop_stop()
    device._sock_close()  # as a lost network would
    eventually(lambda: _presence(platform, "m-1") is False, within_s=WAIT_S)


def _presence(platform: Any, device_id: str) -> bool:
    registry = platform.registry
    return next(bool(each.online) for each in registry.load_presence() if each.device_id == device_id)
