"""Do the options of `godwit mqtt` mean what users of mosquitto expect, and is a message printed as they asked?"""

import argparse
import json
import ssl
from pathlib import Path

import pytest

from godwit.cli import mqtt_connection
from godwit.cli.main import run
from godwit.cli.mqtt_connection import address_of, connect_packet
from godwit.cli.mqtt_format import as_json, formatter
from godwit.contract.errors import RejectedError
from godwit.mqtt.packets import Publish, PublishProperties
from godwit.server.settings import Settings

NOW = 1_700_000_000_123_456_789


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False)
    mqtt_connection.add_options(parser)
    return parser.parse_args(words)


def test_what_is_not_said_comes_from_the_settings(tmp_path: Path) -> None:
    settings = Settings(mqtt_port=1900, mqtt_username="me", mqtt_password="secret", data_dir=tmp_path)
    assert address_of(options(), settings) == ("127.0.0.1", 1900, None)
    packet = connect_packet(options(), settings)
    assert (packet.username, packet.password, packet.version, packet.clean_start) == ("me", b"secret", 5, True)


def test_options_win_over_settings(tmp_path: Path) -> None:
    word = tmp_path / "word"
    word.write_text("other\n")
    settings = Settings(mqtt_username="me", mqtt_password="secret")
    asked = options("-h", "broker", "-p", "77", "-u", "you", "--password-file", str(word), "-V", "311", "-i", "x", "-c")
    assert address_of(asked, settings) == ("broker", 77, None)
    packet = connect_packet(asked, settings)
    assert (packet.username, packet.password, packet.version) == ("you", b"other", 4)
    assert (packet.client_id, packet.clean_start) == ("x", False)


def test_port_8883_and_tls_files_mean_tls() -> None:
    host, port, tls = address_of(options("-h", "broker", "--tls"), Settings())
    assert (host, port) == ("broker", 8883)
    assert isinstance(tls, ssl.SSLContext)
    assert tls.check_hostname
    assert address_of(options("-h", "broker", "-p", "8883"), Settings()).tls is not None


def test_without_the_plaintext_listener_the_tls_one_is_taken() -> None:
    host, port, tls = address_of(options(), Settings(local_listener=False, mqtts_port=9883))
    assert (host, port) == ("localhost", 9883)
    assert tls is not None


def test_a_foreign_broker_is_where_the_settings_say() -> None:
    settings = Settings(mqtt_broker="external", mqtt_host="emqx", local_listener=False)
    assert address_of(options(), settings) == ("emqx", 1883, None)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sub"], "say what to subscribe to"),
        (["sub", "a/#/b"], "no topic filter"),
        (["sub", "a", "-F", "%y"], "%y is no field"),
        (["sub", "a", "-c"], "say which with -i"),
        (["sub", "a", "--cafile", "/nowhere"], "/nowhere"),
        (["pub"], "say where to publish"),
        (["pub", "a"], "say what to publish"),
        (["pub", "a", "b", "-m", "c"], "say what to publish, once"),
        (["pub", "a/+", "b"], "wildcards"),
        (["pub", "a", "-f", "/nowhere"], "cannot be read"),
        (["pub", "a", "b", "--user-property", "c"], "NAME=VALUE"),
        (["pub", "a", "b", "-V", "311", "--content-type", "c"], "3.1.1 has no properties"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["mqtt", *words]) == 1
    assert told in capsys.readouterr().err


def test_h_alone_helps(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["mqtt", "sub", "-h"])
    assert "Examples:" in capsys.readouterr().out


def test_formats() -> None:
    publish = Publish("a/b", b"\x01hi", 1, retain=True, packet_id=7)
    assert formatter(r"%t %q %r %l %m %x 100%%\t%p\n")(publish, NOW) == b"a/b 1 1 3 7 016869 100%\t\x01hi\n"
    assert formatter("%U")(publish, NOW) == b"1700000000.123457"
    assert formatter("no field\\")(publish, NOW) == b"no field\\"
    with pytest.raises(RejectedError):
        formatter("%?")


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b'{"t": 1.5}', {"payload": {"t": 1.5}}),
        (b"on", {"payload": "on"}),
        (b"", {"payload": ""}),
        (b"NaN", {"payload": "NaN"}),
        (b"\xff\x00", {"payloadBase64": "/wA="}),
    ],
)
def test_json_output_is_json_whatever_the_payload(payload: bytes, shown: dict[str, object]) -> None:
    document = json.loads(as_json(Publish("t", payload), NOW))
    assert document == {"time": "2023-11-14T22:13:20.123456789Z", "topic": "t", "qos": 0, "retained": False} | shown


def test_json_output_has_the_properties_that_were_said() -> None:
    properties = PublishProperties(content_type="text/plain", user_properties=(("a", "1"), ("a", "2")))
    document = json.loads(as_json(Publish("t", b"x", properties=properties), NOW))
    assert document["contentType"] == "text/plain"
    assert document["userProperties"] == [["a", "1"], ["a", "2"]]
