"""Do CBOR and Protobuf say the same as JSON, and no more?"""

import json
import re
from importlib.resources import files
from typing import Any

import cbor2
import pytest

from godwit.contract import codes
from godwit.contract.errors import MalformedError
from godwit.contract.protobuf import message_class
from godwit.contract.samples import Location, Metadata, Timing
from godwit.contract.telemetry import decode

SECOND = 1_000_000_000
T = 1_705_314_600 * SECOND
PROTOBUF = "application/protobuf"
SHAPES: list[dict[str, Any]] = [
    {"deviceId": "s", "timestamp": "2024-01-15T10:30:00Z", "sensors": {"t": 23.5, "h": 40}},
    {"sensor_id": "s", "timestamp": 1705314600, "t": 1.25},
    {"timestamp": 1705314600.5, "device_id": "s", "data": {"a": 1, "b": "x", "c": True}},
    {"min": 1.0, "max": 2.0, "avg": 1.5, "count": 3, "timestamp": 1705314600},
    {
        "deviceId": "s", "stream": "m", "epoch": "e", "seq": 5, "location": {"latitude": 1, "longitude": 2},
        "samples": [
            {"timestamp": T, "readings": {"t": {"value": 1.5, "unit": "Cel", "quality": "bad"}}},
            {"timestamp": "never", "readings": {"t": 1}},
        ],
    },
]  # fmt: skip


def refusal(payload: bytes, content_type: str | None = None) -> str:
    with pytest.raises(MalformedError) as caught:
        decode(payload, content_type)
    return caught.value.code


@pytest.mark.parametrize("shape", SHAPES)
def test_cbor_says_the_same_as_json(shape: dict[str, Any]) -> None:
    expected = decode(json.dumps(shape).encode())
    assert decode(cbor2.dumps(shape)) == expected
    assert decode(cbor2.dumps(shape), "application/cbor") == expected
    assert decode(cbor2.dumps(shape), None, "cbor") == expected
    assert decode(cbor2.dumps(cbor2.CBORTag(55799, shape))) == expected


def test_cbor_times_with_their_tags() -> None:
    for tagged in (
        cbor2.CBORTag(0, "2024-01-15T10:30:00Z"),
        cbor2.CBORTag(1, 1705314600),
        cbor2.CBORTag(1, 1705314600.0),
    ):
        assert decode(cbor2.dumps({"timestamp": tagged, "data": {"a": 1}})).samples[0].time == T


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (cbor2.dumps({"sensors": {"a": float("nan")}}), codes.NOT_FINITE),
        (cbor2.dumps({"a": float("inf")}), codes.NOT_FINITE),
        (
            cbor2.dumps({"a": 1, "location": {"latitude": 0.0, "longitude": 0.0, "altitude": float("nan")}}),
            codes.NOT_FINITE,
        ),
        (cbor2.dumps({"a": 1, "metadata": {"uptime": float("inf")}}), codes.NOT_FINITE),
        (cbor2.dumps({"timestamp": float("nan"), "a": 1}), codes.TIME_MALFORMED),
        (cbor2.dumps({1: 2}), codes.MALFORMED_CBOR),
        (cbor2.dumps({"a": 1, "b": cbor2.undefined}), codes.MALFORMED_CBOR),
        (cbor2.dumps({"a": 2**64}), codes.MALFORMED_CBOR),
        (cbor2.dumps({"a": 1}) + b"\x00", codes.MALFORMED_CBOR),
        (cbor2.dumps({"a": 1})[:-1], codes.MALFORMED_CBOR),
        (b"\xa2\x61a\x01\x61a\x02", codes.DUPLICATE_KEY),
        (b"\xa1\x61\xff\x01", codes.INVALID_UTF8),
        (b"\x81" * 100_000, codes.NESTING_TOO_DEEP),
        (b"\xa1\x61a" * 40 + b"\x01", codes.NESTING_TOO_DEEP),
        (b"\x9b\x7f" + b"\xff" * 7, codes.MALFORMED_CBOR),
        (b"\xd8\x1c\x81\xd8\x1d\x00", codes.MALFORMED_CBOR),  # a list that holds itself
        (b"\xa1\x61a\xd8\x23\x61(", codes.MALFORMED_CBOR),  # a regular expression
    ],
)
def test_cbor_refusals(payload: bytes, code: str) -> None:
    assert refusal(payload) == code


def test_shared_references_do_not_explode() -> None:
    """Thirty lists, each twice its predecessor: 2**30 leaves, were it followed."""
    payload = b"\xd8\x1c\x81\x01"
    for number in range(30):
        payload = b"\xd8\x1c\x82" + payload + b"\xd8\x1d" + bytes([number + 1] if number < 23 else [0x18, number + 1])
    assert refusal(payload) in (codes.MALFORMED_CBOR, codes.NESTING_TOO_DEEP)


def protobuf(**fields: Any) -> Any:
    message = message_class()(**fields)
    sample = message.samples.add(time=T)
    sample.readings["t"].number = 23.5
    sample.readings["t"].unit = "Cel"
    sample.readings["t"].quality = 1
    return message


def test_protobuf() -> None:
    said = protobuf(device_id="s", schema_version=1, stream="m", epoch="e", seq=0, message_id="i", sent_at=T + 1)
    said.location.latitude, said.location.longitude = 1.0, 2.0
    said.metadata.firmware_version, said.metadata.uptime = "1.0", 0
    second = said.samples.add()
    second.readings["n"].integer = -(2**63)
    second.readings["b"].boolean = False
    second.readings["x"].text = "on"
    second.readings["nothing"].unit = "V"
    said.samples.add(time=1).readings["t"].number = 1
    said.samples.add(time=T).readings["t"].number = float("nan")
    said.samples.add(time=T).readings["t"].quality = 7
    message = decode(said.SerializeToString(), PROTOBUF)
    assert (message.device_id, message.stream, message.epoch, message.seq) == ("s", "m", "e", 0)
    assert (message.message_id, message.sent_at) == ("i", T + 1)
    assert (message.location, message.metadata) == (Location(1.0, 2.0), Metadata("1.0", None, None, 0))
    first, second, *bad = message.samples
    assert (first.time, first.values, first.units, first.qualities) == (T, {"t": 23.5}, {"t": "Cel"}, {"t": 1})
    assert (second.time, second.values) == (None, {"n": -(2**63), "b": False, "x": "on"})
    assert [sample.code for sample in bad] == [codes.TIME_IMPLAUSIBLE, codes.NOT_FINITE, codes.WRONG_TYPE]


def test_protobuf_that_counts_from_boot() -> None:
    said = message_class()(
        seq=0, epoch="e", clock="uptime", boot_id="b", sent_at=9, sync=[1, 2, 3, 4], samples=[{"time": 7}]
    )
    said.samples[0].readings["t"].number = 1
    message = decode(said.SerializeToString(), PROTOBUF)
    assert message.timing == Timing(is_uptime=True, boot_id="b", sync=(1, 2, 3, 4))
    assert (message.sent_at, message.samples[0].time, message.samples[0].code) == (9, 7, "")
    said.clock = ""
    message = decode(said.SerializeToString(), PROTOBUF)
    assert message.samples[0].is_clock_wrong
    assert message.sent_at == 9 * 10**9


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"schema_version": 2}, codes.UNKNOWN_SCHEMA_VERSION),
        ({"seq": 2**62}, codes.WRONG_TYPE),
        ({"stream": "s" * 65}, codes.INVALID_NAME),
        ({"epoch": "e" * 65}, codes.INVALID_NAME),
        ({"sent_at": 5}, codes.TIME_IMPLAUSIBLE),
        ({"location": {"latitude": 100}}, codes.WRONG_TYPE),
        ({"location": {"altitude": float("nan")}}, codes.NOT_FINITE),
    ],
)
def test_protobuf_refusals(fields: dict[str, Any], code: str) -> None:
    assert refusal(protobuf(**fields).SerializeToString(), PROTOBUF) == code


def test_protobuf_without_samples_and_no_protobuf() -> None:
    assert refusal(b"", PROTOBUF) == codes.NO_READINGS
    assert refusal(b"\x0a\xff", PROTOBUF) == codes.MALFORMED_PROTOBUF
    assert refusal(b'{"a": 1}', PROTOBUF) == codes.MALFORMED_PROTOBUF


def test_the_compiled_descriptor_is_that_of_the_proto_file() -> None:
    text = re.sub(r"//.*", "", files("godwit.contract").joinpath("telemetry.proto").read_text())
    pool = message_class().DESCRIPTOR.file
    for name, body in re.findall(r"message (\w+) \{((?:[^{}]|\{[^{}]*\})*)\}", text):
        written = {(field, int(number)) for field, number in re.findall(r"(\w+) = (\d+);", body)}
        assert written == {(field.name, field.number) for field in pool.message_types_by_name[name].fields}, name
    assert len(pool.message_types_by_name) == len(re.findall(r"^message ", text, re.MULTILINE))
