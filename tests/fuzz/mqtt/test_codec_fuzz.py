"""Whatever bytes come: the decoders hand out packets or say what is wrong. They never raise, and never disagree."""

import mqtt5
from hypothesis import given, settings
from hypothesis import strategies as st

from godwit.mqtt import packets as p
from godwit.mqtt import reading
from godwit.mqtt.codec import Decoder, encode
from godwit.mqtt.framing import Framer
from godwit.mqtt.properties import PROPERTIES, Cursor
from godwit.mqtt.reading import read_packet
from godwit.mqtt.reasons import ProtocolViolation
from godwit.mqtt.writing import write_varint

TEXT = st.text(st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc")), max_size=12)
TOPIC = TEXT.filter(lambda text: text and "+" not in text and "#" not in text)
U32 = st.integers(0, 2**32 - 1)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)
SAID = st.builds(
    p.PublishProperties,
    payload_format_indicator=st.sampled_from([None, 0, 1]), message_expiry_interval=st.none() | U32,
    content_type=st.none() | TEXT, response_topic=st.none() | TOPIC,
    correlation_data=st.none() | st.binary(max_size=20), user_properties=PAIRS,
)  # fmt: skip
QOS_AND_ID = st.one_of(st.just((0, 0)), st.tuples(st.sampled_from([1, 2]), st.integers(1, 65_535)))
PUBLISH = st.builds(
    lambda topic, payload, qos, retain, said, alias: p.Publish(
        topic, payload, qos[0], retain, False, qos[1], p.NO_PROPERTIES if said == p.PublishProperties() else said, alias
    ),
    TOPIC, st.binary(max_size=300), QOS_AND_ID, st.booleans(), st.just(p.NO_PROPERTIES) | SAID,
    st.none() | st.integers(1, 65_535),
)  # fmt: skip
FIRST_BYTES = st.sampled_from([0x10, 0x30, 0x32, 0x3C, 0x40, 0x50, 0x62, 0x70, 0x82, 0xA2, 0xC0, 0xE0, 0xF0])
PROPERTY = st.tuples(st.sampled_from([*PROPERTIES, 0, 0x80]), st.binary(max_size=8)).map(
    lambda parts: bytes((parts[0],)) + parts[1]
)
BODY = st.lists(
    st.one_of(
        st.sampled_from([b"\x00\x04MQTT\x05\x02\x00\x0a", b"\x00\x04MQTT\x04\xc6\x00\x0a", b"\0\1", b"\0\1a", b"\0"]),
        st.lists(PROPERTY, max_size=3).map(lambda each: write_varint(len(b"".join(each))) + b"".join(each)),
        st.binary(max_size=10),
    ),
    max_size=5,
).map(b"".join)
PACKETS = st.tuples(st.integers(0, 255) | FIRST_BYTES, BODY).map(
    lambda parts: bytes((parts[0],)) + write_varint(len(parts[1])) + parts[1]
)
STREAMS = st.lists(PACKETS | PUBLISH.map(lambda packet: encode(packet, 5)), max_size=5).map(b"".join)


def slowly(data, version):
    """Read by the complete reader alone, packet by packet; None where it objects."""
    body = 2 if data[1] < 128 else 3
    try:
        return read_packet(data[0], Cursor(data, body, len(data)), version, "server")
    except ProtocolViolation as violation:
        return violation.reason_code


@settings(deadline=None, max_examples=1500)
@given(STREAMS, st.sampled_from([None, 4, 5]), st.sampled_from(["server", "client"]), st.integers(1, 40))
def test_any_stream_in_any_pieces_ends_the_same(stream, version, role, size):
    whole = Decoder(role, version=version)
    found = whole.feed(stream)
    pieces = Decoder(role, version=version)
    again = [each for at in range(0, len(stream), size) for each in pieces.feed(stream[at : at + size])]
    assert again == found
    assert (whole.error is None) == (pieces.error is None)
    if whole.error is not None:
        assert whole.error.reason_code >= 0x80
        assert whole.feed(stream) == []


@settings(deadline=None, max_examples=1500)
@given(PACKETS | PUBLISH.map(lambda packet: encode(packet, 5)), st.sampled_from([4, 5]))
def test_the_fast_reader_agrees_with_the_complete_one(data, version):
    for is_known in (False, True):
        if not is_known:
            reading.known_properties.clear()
        expected = slowly(data, version)
        decoder = Decoder("server", version=version)
        found = decoder.feed(data)
        if isinstance(expected, int):
            assert found == []
            assert decoder.error is not None
        else:
            assert found == [expected]


@settings(deadline=None, max_examples=500)
@given(PUBLISH)
def test_a_publish_is_read_as_it_was_written_and_as_another_library_reads_it(packet):
    data = encode(packet, 5)
    assert Decoder("client", version=5).feed(data) == [packet]
    theirs, size = mqtt5.read(memoryview(data))
    assert (theirs.topic, theirs.payload, size) == (packet.topic, packet.payload, len(data))
    assert theirs.message_expiry_interval == packet.properties.message_expiry_interval
    assert tuple(theirs.user_properties) == packet.properties.user_properties


@settings(deadline=None, max_examples=500)
@given(PUBLISH, st.integers(0, 400), st.integers(0, 255))
def test_a_byte_changed_is_refused_or_read_as_something_else(packet, at, byte):
    data = bytearray(encode(packet, 5))
    data[at % len(data)] = byte
    Decoder("server", version=5).feed(bytes(data))


@settings(deadline=None, max_examples=1500)
@given(STREAMS, st.sampled_from([4, 5]), st.lists(st.integers(1, 40), max_size=8))
def test_what_a_worker_frames_is_read_by_the_owner_as_if_it_had_the_socket(stream, version, cuts):
    data = encode(p.Connect("c", version=version), version) + stream
    direct, behind = Decoder("server", packet_bytes_max=250), Decoder("server", packet_bytes_max=250)
    framer = Framer(250)
    wanted, found = [], []
    for chunk in chunks(data, cuts):
        wanted += direct.feed(chunk)
        for item in framer.feed(chunk):
            if isinstance(item, p.Publish):
                assert not behind.waiting_bytes
                found += [item] if behind.error is None else []  # after a violation the connection is closed
            else:
                found += behind.feed(item)
    assert found == wanted
    assert (behind.error and behind.error.reason_code) == (direct.error and direct.error.reason_code)


def chunks(data, cuts):
    for size in cuts:
        if data:
            yield data[:size]
        data = data[size:]
    if data:
        yield data
