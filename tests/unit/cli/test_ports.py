"""Is a taken port noticed, named, and stepped over?"""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from godwit.cli.ports import Wanted, is_free, next_free, require_free
from godwit.cli.up import wanted_ports
from godwit.contract.errors import RejectedError
from godwit.server.settings import Settings


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_taken_port_is_answered_with_port_setting_and_how_to_look(taken: int) -> None:
    with pytest.raises(RejectedError) as caught:
        require_free([Wanted("SERVER_PORT", "127.0.0.1", 0), Wanted("MQTT_PORT", "127.0.0.1", taken)])
    sentence = str(caught.value)
    assert f"Port {taken} " in sentence
    assert "MQTT_PORT=" in sentence
    assert "--mqtt-port" in sentence
    assert f"ss -ltnp 'sport = :{taken}'" in sentence


def test_the_demo_takes_the_next_free_one(taken: int) -> None:
    chosen = next_free([Wanted("MQTT_PORT", "127.0.0.1", taken)])
    assert taken < chosen["MQTT_PORT"] < taken + 50
    assert is_free("127.0.0.1", chosen["MQTT_PORT"])


def test_two_settings_never_get_the_same_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    chosen = next_free([Wanted("A", "127.0.0.1", port), Wanted("B", "localhost", port)])
    assert chosen["A"] != chosen["B"]
    with pytest.raises(RejectedError, match="B="):
        require_free([Wanted("A", "127.0.0.1", port), Wanted("B", "127.0.0.1", port)])


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, ["SERVER_PORT", "MQTT_PORT", "MQTT_WS_PORT", "MQTTS_PORT", "DEVICE_PORT"]),
        ({"mqtt_ws_port": 0}, ["SERVER_PORT", "MQTT_PORT", "MQTTS_PORT", "DEVICE_PORT"]),
        ({"local_listener": False}, ["SERVER_PORT", "MQTTS_PORT", "DEVICE_PORT"]),
        ({"mqtt_broker": "external"}, ["SERVER_PORT", "DEVICE_PORT"]),
        ({"mqtt_broker": "external", "device_port": 0}, ["SERVER_PORT"]),
    ],
)
def test_only_ports_that_are_opened_are_wanted(given: dict[str, Any], wanted: list[str]) -> None:
    assert [each.setting for each in wanted_ports(Settings(**given))] == wanted


def test_a_host_that_is_none_is_refused() -> None:
    with pytest.raises(RejectedError, match="no address"):
        is_free("no-such-host.invalid", 1)
