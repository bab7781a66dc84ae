"""The codec: what is written can be read, in pieces and in bulk; what is wrong is refused for the right reason."""

import mqtt5
import pytest

from godwit.mqtt import hot, packets, reading, reasons
from godwit.mqtt import packets as p
from godwit.mqtt.codec import Decoder, encode, puback_success

PROPERTIES = p.PublishProperties(
    payload_format_indicator=0, message_expiry_interval=300, content_type="application/json",
    response_topic="answers/ü", correlation_data=b"\x00\xff", user_properties=(("a", "b"), ("a", "")),
)  # fmt: skip
WILL = p.Will("gone", b"\x00", 1, True)
USER = (("key", "value"),)

FROM_CLIENT = [
    p.Connect("c", clean_start=False, keep_alive=9, username="u", password=b"\xff", will=WILL),
    p.Publish("a/b", b"payload"),
    p.Publish("a/b", b"", 1, True, True, 7),
    p.Publish("ü/温度", b"x" * 200, 2, False, False, 65_535),
    p.Publish("a", b"x" * 20_000, 1, packet_id=1),
    p.PubAck(1), p.PubRec(2), p.PubRel(3), p.PubComp(65_535),
    p.Subscribe(9, (p.Subscription("a/+/#", 1), p.Subscription("$share/g/b", 2))),
    p.Unsubscribe(9, ("a/+/#", "b")),
    p.PingReq(), p.Disconnect(),
]  # fmt: skip
FROM_CLIENT_5 = [
    p.Connect(
        "", username="", session_expiry_interval=0xFFFFFFFF, receive_maximum=3, maximum_packet_size=99,
        topic_alias_maximum=4, request_response_information=True, request_problem_information=False,
        authentication_method="m", authentication_data=b"d", user_properties=USER,
        will=p.Will("w", b"p", 2, False, 10, p.PublishProperties(content_type="t", user_properties=USER)),
    ),
    p.Publish("a", b"", properties=PROPERTIES),
    p.Publish("", b"p", 1, packet_id=3, topic_alias=5),
    p.PubAck(1, 0x10, "none", USER), p.PubRec(2, 0x97), p.PubRel(3, 0x92), p.PubComp(3, 0x92, "gone"),
    p.Subscribe(1, (p.Subscription("a", 2, True, True, 2),), 268_435_455, USER),
    p.Unsubscribe(1, ("a",), USER),
    p.Disconnect(0x04, 60, "bye", None, USER), p.Auth(0x18, "m", b"d", "why", USER),
]  # fmt: skip
FROM_SERVER = [
    p.ConnAck(True), p.Publish("a", b"p", 1, packet_id=4), p.PubAck(1), p.PubRec(2), p.PubRel(3),
    p.PubComp(4), p.SubAck(5, (0, 1, 2, 128)), p.UnsubAck(6), p.PingResp(),
]  # fmt: skip
FROM_SERVER_5 = [
    p.ConnAck(
        False, 0, 10, 20, 1, False, 30, "auto-1", 40, "why", False, False, False, 50, "info", "other:1883", "m", b"d",
        USER,
    ),
    p.Publish("a", b"p", 2, packet_id=4, properties=p.PublishProperties(subscription_ids=(1, 200, 268_435_455))),
    p.SubAck(5, (0, 0x87, 0x9E), "no", USER), p.UnsubAck(6, (0, 0x11), None, USER),
    p.Disconnect(0x8B, None, "later", "other", USER), p.Auth(0x19),
]  # fmt: skip
ALL = [
    *((each, version, "server") for each in FROM_CLIENT for version in (4, 5)),
    *((each, 5, "server") for each in FROM_CLIENT_5),
    *((each, version, "client") for each in FROM_SERVER for version in (4, 5)),
    *((each, 5, "client") for each in FROM_SERVER_5),
    (p.ConnAck(False, 5), 4, "client"),
    (p.ConnAck(False, reasons.NOT_AUTHORIZED), 5, "client"),
]


def written(packet, version):
    if type(packet) is p.Connect:
        packet = p.Connect(**{name: getattr(packet, name) for name in packet.__struct_fields__} | {"version": version})
    return packet, encode(packet, version)


def decoder_for(packet, version, role):
    return Decoder(role, version=None if type(packet) is p.Connect else version)


@pytest.fixture(autouse=True)
def _nothing_known():
    reading.known_topics.clear()
    reading.known_topics[b""] = ""
    reading.known_properties.clear()


@pytest.mark.parametrize(("packet", "version", "role"), ALL)
def test_what_is_written_is_read_whole_twice_and_in_every_two_pieces(packet, version, role):
    packet, data = written(packet, version)
    for _known in range(2):
        decoder = decoder_for(packet, version, role)
        assert decoder.feed(data) == [packet]
        assert decoder.error is None
    if type(packet) is not p.Connect:
        assert decoder_for(packet, version, role).feed(data * 3) == [packet] * 3
    for cut in [*range(1, min(len(data), 400)), *range(400, len(data), 999)]:
        decoder = decoder_for(packet, version, role)
        assert decoder.feed(data[:cut]) == []
        assert decoder.error is None
        assert decoder.waiting_bytes == cut
        assert decoder.feed(data[cut:]) == [packet]
        assert decoder.waiting_bytes == 0


@pytest.mark.parametrize(("packet", "version", "role"), ALL)
def test_a_body_cut_short_is_refused_and_never_an_exception(packet, version, role):
    packet, data = written(packet, version)
    if len(data) > 1_000:
        return
    body = data[2:] if data[1] < 128 else data[3:]
    for cut in range(len(body)):
        decoder = decoder_for(packet, version, role)
        found = decoder.feed(bytes((data[0], cut)) + body[:cut] if cut < 128 else b"")
        assert not found or type(found[0]) is type(packet)
        assert decoder.error is None or decoder.error.reason_code >= 0x80


@pytest.mark.parametrize("packet", [each for each, version, _role in ALL if version == 5])
def test_another_library_reads_what_we_write(packet):
    packet, data = written(packet, 5)
    theirs, size = mqtt5.read(memoryview(data))
    assert size == len(data)
    assert type(theirs).__name__ == f"{type(packet).__name__}Packet"
    if type(packet) is p.Publish:
        assert (theirs.topic, theirs.payload, theirs.qos) == (packet.topic, packet.payload, packet.qos)
        assert theirs.content_type == packet.properties.content_type
        assert theirs.subscription_ids == list(packet.properties.subscription_ids)
        assert theirs.topic_alias == packet.topic_alias
    assert not hasattr(theirs, "user_properties") or tuple(theirs.user_properties) == (
        packet.properties.user_properties if type(packet) is p.Publish else packet.user_properties
    )


def test_many_packets_in_pieces_of_every_size():
    stream = [p.Publish(f"t/{n}", b"x" * n, n % 3, packet_id=n if n % 3 else 0) for n in range(1, 300)]
    data = b"".join(encode(each, 5) for each in stream)
    for size in (1, 2, 3, 7, 64, 1000, len(data)):
        decoder = Decoder("server", version=5)
        found = [each for at in range(0, len(data), size) for each in decoder.feed(data[at : at + size])]
        assert found == stream


def test_puback_success_is_the_same_in_both_versions():
    assert puback_success(513) == encode(p.PubAck(513), 4) == encode(p.PubAck(513), 5) == b"\x40\x02\x02\x01"


def test_the_payload_format_indicator_is_passed_on_said_or_unsaid():
    for said in (None, 0, 1):
        data = encode(p.Publish("a", properties=p.PublishProperties(payload_format_indicator=said)), 5)
        (read,) = Decoder("server", version=5).feed(data)
        assert read.properties.payload_format_indicator == said


# Each line: version, what is sent, the reason.
WRONG = [
    (5, "30 ff ff ff ff 01", reasons.MALFORMED_PACKET),  # five length bytes
    (5, "30 85 00 00 01 61 00 61", reasons.MALFORMED_PACKET),  # a length longer than needed
    (5, "00", reasons.PROTOCOL_ERROR),
    (5, "36 06 00 01 61 00 01 00", reasons.MALFORMED_PACKET),  # QoS 3
    (5, "38 05 00 01 61 00 70", reasons.MALFORMED_PACKET),  # DUP at QoS 0
    (5, "32 06 00 01 61 00 00 00", reasons.PROTOCOL_ERROR),  # packet id 0
    (5, "30 03 00 00 00", reasons.MALFORMED_PACKET),  # no topic
    (5, "30 05 00 01 2b 00 70", reasons.MALFORMED_PACKET),  # a wildcard
    (5, "30 05 00 01 00 00 70", reasons.MALFORMED_PACKET),  # U+0000
    (5, "30 05 00 01 1f 00 70", reasons.MALFORMED_PACKET),  # a control character
    (5, "30 06 00 03 ed a0 80 00", reasons.MALFORMED_PACKET),  # a surrogate
    (5, "30 06 00 02 c3 28 00 70", reasons.MALFORMED_PACKET),  # not UTF-8
    (4, "30 05 00 02 c3 28 70", reasons.MALFORMED_PACKET),
    (5, "30 08 00 01 61 04 01 00 01 00", reasons.PROTOCOL_ERROR),  # a property twice
    (5, "30 06 00 01 61 02 0b 01", reasons.PROTOCOL_ERROR),  # only servers send subscription ids
    (5, "30 06 00 01 61 02 24 01", reasons.PROTOCOL_ERROR),  # of another packet
    (5, "30 06 00 01 61 02 7f 01", reasons.MALFORMED_PACKET),  # of none
    (5, "30 07 00 01 61 03 23 00 00", reasons.TOPIC_ALIAS_INVALID),
    (5, "30 06 00 01 61 02 01 02", reasons.PROTOCOL_ERROR),  # neither bytes nor text
    (5, "30 06 00 01 61 7f 01 00", reasons.MALFORMED_PACKET),  # properties longer than the packet
    (5, "20 03 00 00 00", reasons.PROTOCOL_ERROR),  # a client sends no CONNACK
    (5, "91 04 00 01 00 00", reasons.MALFORMED_PACKET),
    (5, "82 05 00 01 00 00 01", reasons.MALFORMED_PACKET),
    (5, "82 03 00 01 00", reasons.MALFORMED_PACKET),  # no filter
    (4, "82 02 00 01", reasons.PROTOCOL_ERROR),
    (5, "82 07 00 01 00 00 01 61 03", reasons.MALFORMED_PACKET),  # QoS 3
    (5, "82 10 00 01 00 00 0a 24 73 68 61 72 65 2f 67 2f 61 04", reasons.PROTOCOL_ERROR),  # no-local, shared
    (5, "40 03 00 01 92", reasons.PROTOCOL_ERROR),  # a reason that PUBACK does not know
    (5, "c1 00", reasons.MALFORMED_PACKET),
    (5, "e1 00", reasons.PROTOCOL_ERROR),
    (4, "f0 00", reasons.PROTOCOL_ERROR),
    (None, "30 05 00 01 61 00 70", reasons.PROTOCOL_ERROR),  # CONNECT has to be first
    (None, "10 0f 00 06 4d 51 49 73 64 70 03 02 00 0a 00 01 61", reasons.UNSUPPORTED_PROTOCOL_VERSION),
    (None, "10 0d 00 04 4d 51 54 54 06 02 00 0a 00 01 61", reasons.UNSUPPORTED_PROTOCOL_VERSION),
    (None, "10 0c 00 04 48 54 54 50 04 02 00 0a 00 00", reasons.UNSUPPORTED_PROTOCOL_VERSION),
    (None, "10 0d 00 04 4d 51 54 54 04 03 00 0a 00 01 61", reasons.MALFORMED_PACKET),  # the reserved flag
    (None, "10 0f 00 04 4d 51 54 54 05 02 00 0a 00 00 02 61 01", reasons.CLIENT_IDENTIFIER_NOT_VALID),
]


@pytest.mark.parametrize(("version", "said", "reason"), WRONG)
def test_what_is_wrong_is_refused_with_its_reason(version, said, reason):
    decoder = Decoder("server", version=version)
    assert decoder.feed(bytes.fromhex(said) + b"\0" * 32) == []
    assert decoder.error.reason_code == reason
    assert decoder.error.text


def test_the_packets_before_a_violation_are_handed_out_and_nothing_after_it():
    good = encode(p.PingReq(), 5)
    decoder = Decoder("server", version=5)
    assert decoder.feed(good + good + b"\x00\x00" + good) == [p.PingReq(), p.PingReq()]
    assert decoder.error.reason_code == reasons.PROTOCOL_ERROR
    assert decoder.feed(good) == []


@pytest.mark.parametrize(
    ("said", "reason"),
    [("30 e5 01", reasons.PACKET_TOO_LARGE), ("30 be 00", reasons.MALFORMED_PACKET), ("30 80 80 80 80", 0x81)],
)
def test_a_length_that_is_refused_is_refused_at_once_also_byte_by_byte(said, reason):
    for size in (1, 2, 5):
        data = bytes.fromhex(said)
        decoder = Decoder("server", version=5, packet_bytes_max=100)
        for at in range(0, len(data), size):
            assert decoder.feed(data[at : at + size]) == []
        assert decoder.error.reason_code == reason


def test_a_packet_too_large_is_refused_at_its_first_bytes():
    decoder = Decoder("server", version=5, packet_bytes_max=100)
    assert decoder.feed(encode(p.Publish("t", b"x" * 90), 5)[:4]) == []
    assert decoder.error is None
    decoder = Decoder("server", version=5, packet_bytes_max=100)
    assert decoder.feed(encode(p.Publish("t", b"x" * 200), 5)[:4]) == []
    assert decoder.error.reason_code == reasons.PACKET_TOO_LARGE


def test_a_first_byte_that_cannot_be_is_refused_at_once():
    for version, byte in ((None, b"\x30"), (5, b"\x00")):
        decoder = Decoder("server", version=version)
        decoder.feed(byte)
        assert decoder.error.reason_code == reasons.PROTOCOL_ERROR


def test_a_filter_of_too_many_levels_is_refused():
    decoder = Decoder("server", version=5)
    decoder.feed(encode(p.Subscribe(1, (p.Subscription("a/" * 200),)), 5))
    assert decoder.error.reason_code == reasons.TOPIC_FILTER_INVALID


def test_what_is_known_is_bounded(monkeypatch):
    monkeypatch.setattr(reading, "TOPICS_MAX", 50)
    monkeypatch.setattr(reading, "PROPERTIES_MAX", 50)
    decoder = Decoder("server", version=5)
    for n in range(500):
        said = p.PublishProperties(content_type=f"text/{n}")
        decoder.feed(encode(p.Publish(f"t/{n}", properties=said), 5))
        decoder.feed(encode(p.Publish("long/" * 60 + str(n), properties=p.PublishProperties(content_type="x" * 99)), 5))
    assert len(reading.known_topics) <= 50
    assert len(reading.known_properties) <= 50
    assert max(map(len, reading.known_topics)) <= reading.TOPIC_BYTES_MAX
    assert decoder.feed(encode(p.Publish("", topic_alias=1), 5)) == [p.Publish("", topic_alias=1)]


def test_usual_packets_do_not_need_the_long_way(monkeypatch):
    said = p.PublishProperties(content_type="application/json")
    stream = [
        p.Publish("a/b", b"x" * 190, 1, packet_id=5), p.Publish("a/b", b"x" * 190, properties=said), p.PubAck(9),
        p.Publish("", b"12345", 1, packet_id=6, topic_alias=3),
    ]  # fmt: skip
    data = b"".join(encode(each, 5) for each in stream)
    decoder = Decoder("server", version=5)
    assert decoder.feed(data) == stream
    monkeypatch.setattr("godwit.mqtt.codec.read_packet", None)
    assert decoder.feed(data) == stream
    assert hot.read_hot(data, 0, [], 5, 10) == 0


def test_a_message_larger_than_mqtt_can_say_is_not_written(monkeypatch):
    monkeypatch.setattr("godwit.mqtt.writing._REMAINING_MAX", 20_000)
    with pytest.raises(ValueError, match="larger"):
        encode(p.Publish("t", b"x" * 20_000), 5)


def test_every_packet_type_is_covered():
    types = {type(each) for each, _version, _role in ALL}
    assert types == set(packets.Packet.__args__)


@pytest.mark.parametrize(
    "said",
    [
        "32 09 00 01 61 00 00 00 70 70 70",  # packet id 0, not as the first of its topic
        "36 09 00 01 61 00 01 00 70 70 70",  # QoS 3
        "38 06 00 01 61 00 70 70",  # DUP at QoS 0
        "30 06 00 01 61 03 23 00",  # properties that go beyond the packet, into a place where they would be known
        "30 03 00 00 00",
    ],
)
def test_a_known_topic_does_not_excuse_a_flaw(said):
    known = p.Publish("a", b"", properties=p.PublishProperties(payload_format_indicator=1))
    decoder = Decoder("server", version=5)
    decoder.feed(encode(known, 5) + encode(p.Publish("a", topic_alias=3), 5))
    assert decoder.feed(bytes.fromhex(said) + b"\x03" + b"\0" * 8) == []
    assert decoder.error.reason_code in (reasons.MALFORMED_PACKET, reasons.PROTOCOL_ERROR)
