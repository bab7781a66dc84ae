"""Is everybody who cannot come in told why and when to come back; and is no handshake spent where there is no room?

With one process and with two workers.
"""

import contextlib
import resource
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from godwit.mqtt import packets as p
from godwit.mqtt.codec import Decoder, encode
from godwit.server.broker.gate import ROOM_TO_REFUSE

pytestmark = pytest.mark.real

CONNECTIONS_MAX = 3
CONNECTS_PER_S = 4
WAIT_S = 5.0


@pytest.fixture(scope="module", params=["", "2"], ids=["one process", "two workers"])
def platform(request: Any, platform_class: Any, tmp_path_factory: Any) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("admission") / "data"
    settings = {"CONNECTIONS_MAX": str(CONNECTIONS_MAX), "CONNECTS_PER_S": str(CONNECTS_PER_S)}
    platform = platform_class(directory, WORKERS=request.param, **settings).start()
    yield platform
    platform.kill()


def connack(port: int, client_id: str, version: int = 5) -> tuple[socket.socket, p.ConnAck]:
    """Connect; return the socket, left open, and the answer."""
    wire = socket.create_connection(("127.0.0.1", port), WAIT_S)
    wire.sendall(encode(p.Connect(client_id, version=version), version))
    decoder = Decoder("client", version=version)
    while True:
        found = decoder.feed(wire.recv(4_096))
        if found:
            assert isinstance(found[0], p.ConnAck)
            return wire, found[0]


def limited(platform: Any, name: str) -> int:
    lines = platform.get("/metrics").decode().splitlines()
    (line,) = (each for each in lines if each.startswith(f"godwit_mqtt_limited_{name}_total "))
    return int(float(line.split()[1]))


def test_who_is_one_too_many_hears_the_limit_and_when_to_come_back(platform: Any) -> None:
    with contextlib.ExitStack() as opened:
        for number in range(CONNECTIONS_MAX):
            wire, answer = connack(platform.mqtt, f"in-{number}")
            opened.enter_context(wire)
            assert answer.reason_code == 0
        wire, answer = connack(platform.mqtt, "out")
        wire.close()
        assert answer.reason_code == 0x97
        assert answer.reason_string == f"at most {CONNECTIONS_MAX} connections; try again in 30 s or more"
        wire, answer = connack(platform.mqtt, "out", version=4)
        wire.close()
        assert answer.reason_code == 3


def test_who_comes_in_a_storm_hears_the_rate_and_when_it_is_his_turn(platform: Any, eventually: Callable) -> None:
    def storm() -> p.ConnAck | None:
        for number in range(10 * CONNECTS_PER_S):
            wire, answer = connack(platform.mqtt, f"storm-{number}")
            wire.close()
            if answer.reason_code == 0x9F:
                return answer
        return None

    answer = eventually(storm, within_s=WAIT_S)
    assert answer.reason_string.startswith(f"at most {CONNECTS_PER_S} connects/s of all clients together; try again in")
    assert limited(platform, "connects") >= 1


def test_a_mosquitto_client_shows_the_refusal(platform: Any) -> None:
    with contextlib.ExitStack() as opened:
        while (held := connack(platform.mqtt, f"held-{time.monotonic_ns()}"))[1].reason_code != 0x97:
            opened.enter_context(held[0])
        held[0].close()
        command = ["mosquitto_pub", "-V", "5", "-p", str(platform.mqtt), "-t", "x", "-m", "y"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    assert "quota exceeded" in (said.stdout + said.stderr).lower()


def test_everybody_is_sent_to_another_server_and_let_in_again(platform: Any, eventually: Callable) -> None:
    def let_in() -> socket.socket | None:
        wire, answer = connack(platform.mqtt, "fleet")
        if answer.reason_code == 0:
            return wire
        wire.close()
        return None

    with eventually(let_in, within_s=WAIT_S) as wire:
        platform.post("/api/v1/broker/redirect", {"serverReference": "mqtt2.example.com:8883"})
        (goodbye,) = Decoder("client", version=5).feed(wire.recv(4_096))
    assert isinstance(goodbye, p.Disconnect)
    assert (goodbye.reason_code, goodbye.server_reference) == (0x9C, "mqtt2.example.com:8883")
    wire, answer = connack(platform.mqtt, "fleet")
    wire.close()
    assert (answer.reason_code, answer.server_reference) == (0x9C, "mqtt2.example.com:8883")
    platform.ask("DELETE", "/api/v1/broker/redirect", None, {})
    eventually(let_in, within_s=WAIT_S).close()


def test_no_handshake_is_spent_where_there_is_no_room(platform: Any, eventually: Callable) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4_096)), hard))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    before = limited(platform, "connections")
    with contextlib.ExitStack() as opened:
        for _ in range(CONNECTIONS_MAX + ROOM_TO_REFUSE + 10):
            opened.enter_context(socket.create_connection(("127.0.0.1", platform.mqtt), WAIT_S))

        def closes_before_its_hello() -> bool:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            half = context.wrap_bio(incoming, outgoing)
            with contextlib.suppress(ssl.SSLWantReadError):
                half.do_handshake()
            with socket.create_connection(("127.0.0.1", platform.mqtts), WAIT_S) as wire:
                try:
                    wire.sendall(outgoing.read())
                    return not wire.recv(1)
                except ConnectionError:
                    return True

        assert eventually(closes_before_its_hello, within_s=WAIT_S)
        eventually(lambda: limited(platform, "connections") > before, within_s=WAIT_S)
    eventually(lambda: not closes_before_its_hello(), within_s=WAIT_S)
