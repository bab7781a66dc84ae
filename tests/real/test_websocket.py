"""Do clients that speak MQTT over WebSocket find the same broker, and pages of other machines a closed door?"""

import queue
import subprocess
import sys
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

pytestmark = pytest.mark.real

WAIT_S = 10
CONNECT = bytes.fromhex("101000044d5154540502003c032100140000")
"""MQTT 5, clean start, receive maximum 20, no client id."""


@pytest.fixture
def port(tmp_path):
    script = Path(__file__).with_name("broker_process.py")
    command = [sys.executable, str(script), str(tmp_path), "0", "--websocket"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield int(process.stdout.readline())
        process.kill()


@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5])
def test_paho_over_websocket(port, version):
    inbox, acks = queue.Queue(), queue.Queue()
    client = paho.Client(CallbackAPIVersion.VERSION2, "web", protocol=version, transport="websockets")
    client.on_message = lambda _client, _data, message: inbox.put(message)
    client.on_subscribe = lambda *arguments: acks.put(arguments)
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.subscribe("web/#", 2)
    acks.get(timeout=WAIT_S)
    large = b"x" * 300_000  # needs the long form of a frame's length
    for qos in (0, 1, 2):
        client.publish("web/t", large, qos)
    assert [(each.qos, each.payload == large) for each in (inbox.get(timeout=WAIT_S) for _ in range(3))] == [
        (0, True), (1, True), (2, True),
    ]  # fmt: skip
    client.disconnect()
    client.loop_stop()


def test_packets_may_lie_across_frames_and_text_ends_the_connection(port):
    with connect(f"ws://127.0.0.1:{port}/mqtt", subprotocols=["mqtt"], origin="http://localhost:3000") as line:
        assert line.subprotocol == "mqtt"
        for at in range(len(CONNECT)):
            line.send(CONNECT[at : at + 1])
        assert line.recv(WAIT_S)[:1] == b"\x20"
        line.send(b"\xc0\x00\xc0\x00")  # two PINGREQ in one frame
        answers = b""
        while len(answers) < 4:
            answers += line.recv(WAIT_S)
        assert answers == b"\xd0\x00\xd0\x00"
        line.send("text")
        with pytest.raises(ConnectionClosed) as caught:
            line.recv(WAIT_S)
        assert caught.value.rcvd.code == 1003


@pytest.mark.parametrize(
    "options", [{"origin": "https://evil.example", "subprotocols": ["mqtt"]}, {"subprotocols": ["chat"]}, {}]
)
def test_foreign_pages_and_other_protocols_are_refused(port, options):
    with pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{port}/mqtt", **options)
