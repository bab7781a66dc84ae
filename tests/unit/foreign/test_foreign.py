"""Behind a foreign broker: what is subscribed, what is a repetition, who is there, and how refusals read."""

import ssl

import pytest

from godwit.contract.errors import RejectedError, UnavailableError
from godwit.contract.topics import Channel, topics_for
from godwit.mqtt import reasons
from godwit.mqtt.packets import Publish
from godwit.mqtt.reasons import ReasonError
from godwit.mqtt.topics import matches
from godwit.server.foreign.memory import RetainedMemory
from godwit.server.foreign.presence import StatedPresence
from godwit.server.foreign.terms import Terms, terms_of
from godwit.server.registry.presence import LINGER_NS, NS, PresenceBoard
from godwit.server.settings import Settings


@pytest.mark.parametrize("layout", ["native", "placed"])
def test_filters_match_each_topic_of_the_contract_once(layout):
    filters = topics_for(layout).filters([Channel.TELEMETRY, Channel.STATUS, Channel.COMMAND_RESULTS])
    topics = ["devices/a/telemetry", "device/a/telemetry", "devices/a/status", "devices/a/command-results/c-1"]
    if layout == "placed":
        topics += ["t/hall/pump/a/readings", "t/hall/pump/a/telemetry", "t/hall/pump/a/status"]
    for topic in topics:
        assert sum(matches(each, topic) for each in filters) == 1, topic
    for topic in ("devices/a/commands", "devices/a/telemetry/stored", "devices/a/command-results", "alerts/high"):
        assert not any(matches(each, topic) for each in filters), topic


def test_a_retained_message_is_repeated_once_after_subscribing_anew(tmp_path):
    memory = RetainedMemory(tmp_path / "foreign.sqlite")
    first = Publish("devices/a/status", b"1", 1, retain=True)
    memory.expect_all()
    assert not memory.is_repeated(first)
    memory.put(first)
    assert not memory.is_repeated(first), "said again in the same words, without subscribing anew"
    work = memory.seal()
    assert memory.seal() is None
    memory.write(work)
    memory.close()

    memory = RetainedMemory(tmp_path / "foreign.sqlite")
    memory.expect_all()
    assert memory.is_repeated(first)
    assert not memory.is_repeated(first)
    memory.expect_all()
    assert not memory.is_repeated(Publish("devices/a/status", b"2", 1, retain=True))
    memory.close()


def test_presence_is_what_devices_say():
    board = PresenceBoard([], 0)
    presence = StatedPresence(board)
    presence.status("a", {"status": "online"}, NS)
    presence.seen("b", NS)
    assert {(row.device_id, row.online) for row in board.due(NS)} == {("a", True), ("b", True)}
    assert len(presence) == 1
    later = NS + LINGER_NS + NS
    assert [(row.device_id, row.online, row.reason) for row in board.due(later)] == [("b", False, "silence")]
    presence.status("a", {"status": "offline"}, later)
    assert [(row.device_id, row.online, row.reason) for row in board.due(later)] == [("a", False, "status offline")]
    assert len(presence) == 0


def untrusted():
    error = ssl.SSLCertVerificationError("x")
    error.verify_message = "self-signed certificate"
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ReasonError(reasons.NOT_AUTHORIZED), "MQTT_USERNAME and MQTT_PASSWORD"),
        (ReasonError(reasons.BAD_USER_NAME_OR_PASSWORD), "MQTT_USERNAME and MQTT_PASSWORD"),
        (ReasonError(reasons.CLIENT_IDENTIFIER_NOT_VALID), "MQTT_CLIENT_ID"),
        (ReasonError(reasons.UNSUPPORTED_PROTOCOL_VERSION), "does not speak MQTT 5"),
        (ReasonError(reasons.BANNED, "go away"), "banned: go away"),
        (ConnectionRefusedError(111, "refused"), "nothing listens there"),
        (OSError(113, "No route to host"), "No route to host"),
        (untrusted(), "not trusted: self-signed certificate (MQTT_CA_FILE)"),
        (UnavailableError("silence"), "is away: silence"),
        (RejectedError("we may not subscribe"), "does not serve us: we may not subscribe"),
    ],
)
def test_refusals_name_the_broker_and_what_to_look_at(error, said):
    sentence = Terms(host="mqtt.example.com", port=1883, client_id="godwit").explain(error)
    assert "mqtt.example.com:1883" in sentence
    assert said in sentence


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mqtt_password": "x"}, "MQTT_PASSWORD without MQTT_USERNAME"),
        ({"mqtt_keep_alive": 70_000}, "MQTT_KEEP_ALIVE"),
        ({"mqtt_ca_file": "/no/such"}, "MQTT_CA_FILE=/no/such"),
        ({"mqtt_cert_file": "/no/such"}, "MQTT_CERT_FILE and MQTT_KEY_FILE"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, said):
    with pytest.raises(RejectedError) as refusal:
        terms_of(Settings(mqtt_broker="external", **wrong))
    assert said in str(refusal.value)
    assert refusal.value.code == "invalid-setting"


def test_terms_follow_the_settings():
    terms = terms_of(Settings(mqtt_broker="external", mqtt_clean_session=False, mqtt_tls=True, mqtt_keep_alive=30))
    assert terms.tls is not None
    connect = terms.connect()
    assert (connect.clean_start, connect.keep_alive, connect.session_expiry_interval) == (False, 30, 0xFFFF_FFFF)
