"""Do clients that speak MQTT over WebSocket find the same broker at every door, and pages of others a closed one?

The doors: the loopback listener (in one process, and owned by workers), and `/mqtt` of the console's port, plaintext on
loopback and over TLS. Two platforms have them all.
"""

import contextlib
import functools
import itertools
import queue
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from playwright.sync_api import sync_playwright
from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from godwit.mqtt import packets as p
from godwit.mqtt import reasons
from godwit.mqtt.codec import Decoder, encode

pytestmark = pytest.mark.real

WAIT_S = 10
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP elsewhere.example 127.0.0.1"]
USERNAME, PASSWORD = "fleet", "kestrel-7"
PING = encode(p.PingReq(), 5)
numbers = itertools.count()


class Line:
    """A WebSocket client that says what it is told, frame by frame, in one thread."""

    def __init__(self, url: str, trust: ssl.SSLContext | None, subprotocols: Any, origin: Any, headers: Any) -> None:
        uri = parse_uri(url)
        self.socket = socket.create_connection((uri.host, uri.port), timeout=WAIT_S)
        if trust is not None:
            self.socket = trust.wrap_socket(self.socket, server_hostname=uri.host)
        self.protocol = ClientProtocol(uri, subprotocols=subprotocols, origin=origin)
        self.frames: deque[Frame] = deque()
        self.response: Response | None = None
        request = self.protocol.connect()
        for name, value in headers.items():
            request.headers.pop(name, None)
            request.headers[name] = value
        self.protocol.send_request(request)
        self.flush()
        while self.response is None:
            self.read()

    def flush(self) -> None:
        for piece in self.protocol.data_to_send():
            if piece:
                self.socket.sendall(piece)

    def read(self) -> bool:
        data = self.socket.recv(65_536)
        if data:
            self.protocol.receive_data(data)
        else:
            self.protocol.receive_eof()
        for event in self.protocol.events_received():
            if isinstance(event, Response):
                self.response = event
            else:
                self.frames.append(event)
        return bool(data)

    def send(self, *pieces: bytes) -> None:
        """Send one message, in as many frames as there are pieces."""
        for number, piece in enumerate(pieces):
            is_last = number == len(pieces) - 1
            (self.protocol.send_continuation if number else self.protocol.send_binary)(piece, fin=is_last)
            self.flush()

    def recv(self) -> bytes:
        """Return what the next binary frame holds; nothing, if a closing frame or the end comes first."""
        while True:
            while self.frames:
                frame = self.frames.popleft()
                if frame.opcode in (Opcode.BINARY, Opcode.CLOSE):
                    return bytes(frame.data) if frame.opcode is Opcode.BINARY else b""
            if not self.read():
                return b""

    def closing_code(self) -> int:
        """Return the code of the closing frame that comes after whatever else comes."""
        while self.recv():
            pass
        assert self.protocol.close_rcvd is not None
        return self.protocol.close_rcvd.code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


class Door(NamedTuple):
    """A way in. `is_open`: without user name and password."""

    platform: Any
    port: int
    listener: str
    is_open: bool
    own_origin: str

    @property
    def trust(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.platform.certificate) if not self.is_open else None

    @property
    def url(self) -> str:
        return f"{'ws' if self.is_open else 'wss'}://127.0.0.1:{self.port}/mqtt"

    def connect(self, *, subprotocols: Any = ("mqtt",), origin: Any = None, headers: Any = ()) -> Line:
        return Line(self.url, self.trust, subprotocols, origin, dict(headers))

    def hello(self, client_id: str = "", **more: Any) -> bytes:
        if not self.is_open:
            more = {"username": USERNAME, "password": PASSWORD.encode()} | more
        return encode(p.Connect(client_id or f"web-{next(numbers)}", version=5, keep_alive=60, **more), 5)

    def listener_of(self, client_id: str) -> str | None:
        found = self.platform.json(f"/api/v1/broker/connections?search={client_id}")["items"]
        return found[0]["listener"] if found else None


@pytest.fixture(scope="module")
def platforms(platform_class: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("websocket")
    credentials = {"MQTT_USERNAME": USERNAME, "MQTT_PASSWORD": PASSWORD}
    plain = platform_class(directory / "plain", **credentials).start()
    try:
        tls = platform_class(directory / "tls", SERVER_HOST="0.0.0.0", WORKERS="2", **credentials).start()
        yield plain, tls
        tls.kill()
    finally:
        plain.kill()


@pytest.fixture(params=["loopback", "workers", "console", "console-tls"])
def door(request: pytest.FixtureRequest, platforms: tuple[Any, Any]) -> Door:
    plain, tls = platforms
    match request.param:
        case "loopback":
            return Door(plain, plain.websocket, "websocket", True, "http://localhost:3000")
        case "workers":
            return Door(tls, tls.websocket, "websocket", True, "http://localhost:3000")
        case "console":
            return Door(plain, plain.http, "websocket", True, f"http://127.0.0.1:{plain.http}")
        case _:
            return Door(tls, tls.http, "websocket-tls", False, f"https://127.0.0.1:{tls.http}")


@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5])
def test_paho(door: Door, version: Any, eventually: Callable[..., Any]) -> None:
    inbox: queue.Queue[Any] = queue.Queue()
    acks: queue.Queue[Any] = queue.Queue()
    name = f"paho-{next(numbers)}"
    client = paho.Client(CallbackAPIVersion.VERSION2, name, protocol=version, transport="websockets")
    client.on_message = lambda _client, _data, message: inbox.put(message)
    client.on_subscribe = lambda *arguments: acks.put(arguments)
    if not door.is_open:
        client.tls_set(str(door.platform.certificate))
        client.username_pw_set(USERNAME, PASSWORD)
    client.connect("127.0.0.1", door.port)
    client.loop_start()
    client.subscribe(f"{name}/#", 2)
    acks.get(timeout=WAIT_S)
    large = b"x" * 300_000  # needs the long form of a frame's length
    for qos in (0, 1, 2):
        client.publish(f"{name}/t", large, qos)
    assert [(each.qos, each.payload == large) for each in (inbox.get(timeout=WAIT_S) for _ in range(3))] == [
        (0, True), (1, True), (2, True),
    ]  # fmt: skip
    eventually(lambda: door.listener_of(name) == door.listener)
    client.disconnect()
    client.loop_stop()


def test_frames_need_not_be_packets(door: Door) -> None:
    """MQTT 5, 6.0.0-2, at every boundary there is; WebSocket's own ping comes between."""
    with door.connect() as line:
        assert line.protocol.subprotocol == "mqtt"
        hello = door.hello("bits")
        for at in range(len(hello)):
            line.send(hello[at : at + 1])
        assert line.recv()[:1] == b"\x20"
        line.send(PING + PING)  # two packets in a frame
        line.send(PING[:1], b"", PING[1:] + PING[:1], PING[1:])  # two in the fragments of a message
        line.protocol.send_binary(PING[:1], fin=False)
        line.protocol.send_ping(b"are you there")
        line.protocol.send_continuation(PING[1:], fin=True)
        large = encode(p.Publish("bits/t", b"x" * 900_000, 1, packet_id=7), 5)
        line.send(*(large[at : at + 300_000] for at in range(0, len(large), 300_000)))
        line.send(large[:500_000], *(large[at : at + 1] for at in range(500_000, 500_100)), large[500_100:])
        assert kinds(line, 7) == [p.PingResp] * 5 + [p.PubAck] * 2


def kinds(line: Line, count: int) -> list[type]:
    """Return the types of the next packets."""
    decoder, packets = Decoder("client", version=5), []
    while len(packets) < count:
        packets += decoder.feed(line.recv())
    return [type(each) for each in packets]


def test_a_message_may_be_longer_than_any_packet(door: Door) -> None:
    """What is bounded is a packet and a frame: a client may pour its whole stream into one message."""
    with door.connect() as line:
        line.send(door.hello())
        line.recv()
        packets = 3
        publish = [encode(p.Publish("long/t", b"x" * 900_000, 1, packet_id=number + 1), 5) for number in range(packets)]
        line.send(*publish, PING)
        assert sorted(each.__name__ for each in kinds(line, packets + 1)) == ["PingResp"] + ["PubAck"] * packets


def test_what_comes_together_with_the_goodbye_is_heard(door: Door) -> None:
    with door.connect() as reader, door.connect() as writer:
        topic = f"last/{next(numbers)}"
        for line in (reader, writer):
            line.send(door.hello())
            line.recv()
        reader.send(encode(p.Subscribe(1, (p.Subscription(topic, 0),)), 5))
        assert kinds(reader, 1) == [p.SubAck]
        last = encode(p.Publish(topic, b"word", 0), 5), encode(p.Disconnect(), 5)
        frames = [*(Frame(Opcode.BINARY, each) for each in last), Frame(Opcode.CLOSE, Close(1000, "").serialize())]
        writer.socket.sendall(b"".join(each.serialize(mask=True) for each in frames))
        assert writer.closing_code() == 1000
        assert kinds(reader, 1) == [p.Publish]


def test_text_ends_the_connection(door: Door) -> None:
    with door.connect() as line:
        line.send(door.hello("texts"))
        line.recv()
        line.protocol.send_text(b"text")
        line.flush()
        assert line.closing_code() == 1003


def test_a_frame_too_large_is_refused_at_its_announcement(door: Door) -> None:
    with door.connect() as line:
        line.send(door.hello())
        line.recv()
        line.socket.sendall(b"\x82\xff" + struct.pack(">Q", 1 << 40) + b"mask")
        assert line.closing_code() == 1009


@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        ({"origin": "https://evil.example"}, 403, "https://evil.example"),
        ({"origin": "null"}, 403, "null"),
        ({"subprotocols": ["chat"]}, 400, "the subprotocol mqtt has to be offered"),
        ({"subprotocols": None}, 400, "the subprotocol mqtt has to be offered"),
        ({"subprotocols": ["mqttv3.1"]}, 400, "MQTT 3.1 is not spoken here"),
    ],
)
def test_foreign_pages_and_other_protocols_are_refused(
    door: Door, options: dict[str, Any], status: int, sentence: str
) -> None:
    with door.connect(**options) as line:
        assert line.response is not None
        assert line.response.status_code == status
        assert sentence in line.response.body.decode()


def test_own_pages_and_older_clients_come_in(door: Door) -> None:
    with door.connect(origin=door.own_origin, subprotocols=["mqttv3.1", "mqtt"]) as line:
        assert line.protocol.subprotocol == "mqtt"
        line.send(door.hello())
        assert line.recv()[:1] == b"\x20"


def test_tls_asks_for_name_and_password_and_so_does_whoever_comes_through_a_proxy(platforms: tuple[Any, Any]) -> None:
    plain, tls = platforms
    hello = encode(p.Connect("nobody", version=5), 5)
    over_tls = Door(tls, tls.http, "websocket-tls", False, "")
    trusted = Door(plain, plain.http, "websocket", True, "")
    for door, headers in (
        (over_tls, {}),
        (trusted, {"X-Forwarded-For": "192.0.2.1"}),
        (trusted, {"Host": "iot.example"}),
    ):
        with door.connect(headers=headers) as line:
            line.send(hello)
            (refused,) = Decoder("client", version=5).feed(line.recv())
            assert refused.reason_code == reasons.NOT_AUTHORIZED
            assert line.closing_code() == 1000


HELLO_OF_A_PAGE = """async ([url, hello]) => await new Promise(say => {
    const socket = new WebSocket(url, "mqtt");
    socket.binaryType = "arraybuffer";
    socket.onopen = () => socket.send(new Uint8Array(hello));
    socket.onmessage = event => { socket.close(); say(new Uint8Array(event.data)[0]); };
    socket.onerror = () => say("refused");
})"""
CONNACK = 0x20


@pytest.fixture
def other_site(tmp_path: Path) -> Iterator[int]:
    """Serve a page of somebody else; returns the port."""
    (tmp_path / "index.html").write_text("<!doctype html><title>another page</title>")
    serving = functools.partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), serving) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and says nothing."""

    def log_message(self, *_: Any) -> None:
        pass


def test_a_browser_lets_pages_in_that_may_and_no_others(platforms: tuple[Any, Any], other_site: int) -> None:
    """The page of the console itself, under its own policy; one of another port of this machine; one of elsewhere."""
    plain, tls = platforms
    loopback, console = f"ws://127.0.0.1:{plain.websocket}/mqtt", f"ws://127.0.0.1:{plain.http}/mqtt"
    over_tls = Door(tls, tls.http, "websocket-tls", False, "")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_context(ignore_https_errors=True).new_page()

        def hears(url: str, hello: bytes) -> Any:
            return page.evaluate(HELLO_OF_A_PAGE, [url, list(hello)])

        hello = encode(p.Connect("page", version=5), 5)
        page.goto(f"{plain.url}/sign-in")
        assert hears(console, hello) == CONNACK
        page.goto(f"{tls.url}/sign-in")
        assert hears(over_tls.url, over_tls.hello()) == CONNACK
        page.goto(f"http://localhost:{other_site}/")
        assert [hears(loopback, hello), hears(console, hello)] == [CONNACK, "refused"]
        page.goto(f"http://elsewhere.example:{other_site}/")
        assert [hears(loopback, hello), hears(console, hello)] == ["refused", "refused"]
        browser.close()


def test_both_sides_hear_of_an_end(door: Door, eventually: Callable[..., Any]) -> None:
    with contextlib.ExitStack() as open_lines:
        first = open_lines.enter_context(door.connect())
        first.send(door.hello("twice"))
        first.recv()
        second = open_lines.enter_context(door.connect())
        second.send(door.hello("twice"))
        assert second.recv()[:1] == b"\x20"
        (last_word,) = Decoder("client", version=5).feed(first.recv())
        assert last_word.reason_code == reasons.SESSION_TAKEN_OVER
        assert first.closing_code() == 1000
        eventually(lambda: door.listener_of("twice") == door.listener)
    eventually(lambda: door.listener_of("twice") is None)


def test_the_platform_says_goodbye(platform_in: Callable[..., Any]) -> None:
    platform = platform_in().start()
    with contextlib.ExitStack() as open_lines:
        lines = []
        for port in (platform.websocket, platform.http):
            door = Door(platform, port, "websocket", True, "")
            lines.append(open_lines.enter_context(door.connect()))
            lines[-1].send(door.hello())
            lines[-1].recv()
        assert platform.stop() == 0
        (last_word,) = Decoder("client", version=5).feed(lines[0].recv())
        assert last_word.reason_code == reasons.SERVER_SHUTTING_DOWN
        assert [each.closing_code() for each in lines] == [1000, 1001]
