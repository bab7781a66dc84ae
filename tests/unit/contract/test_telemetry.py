"""Is every accepted shape read as it was meant, and every bad input refused with its stable code and nothing else?"""

import json
from contextlib import suppress

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from godwit.contract import codes
from godwit.contract.duplicate_keys import check_duplicate_keys
from godwit.contract.errors import MalformedError
from godwit.contract.limits import PAYLOAD_BYTES_MAX
from godwit.contract.protobuf import message_class
from godwit.contract.telemetry import Sample, decode

T = 1_705_314_600_000_000_000
AGGREGATE = {"min": 1, "max": 3, "avg": 2.0, "count": 4}
SEED = (
    b'{"deviceId": "sensor001", "timestamp": "2024-01-15T10:30:00Z", "sensors": {"temperature": 23.5, "humidity": 65.2, '
    b'"pressure": 1013.25, "battery": 87.3}, "location": {"latitude": 37.7749, "longitude": -122.4194}}'
)
NATIVE = {
    "deviceId": "a", "schemaVersion": 1, "stream": "main", "epoch": "e1", "seq": 7, "messageId": "m",
    "timestamp": "2024-01-15T10:30:00Z", "sentAt": "2024-01-15T10:30:01Z",
    "readings": {"t": {"value": 21.5, "unit": "Cel", "quality": "uncertain"}, "on": True, "n": 7, "s": "text"},
    "metadata": {"firmwareVersion": "1.2", "batteryLevel": 80, "uptime": 5},
}  # fmt: skip


def protobuf() -> bytes:
    message = message_class()(device_id="a", stream="main", epoch="e1", seq=0)
    sample = message.samples.add(time=T)
    sample.readings["t"].number = 21.5
    sample.readings["t"].unit = "Cel"
    sample.readings["n"].integer = -3
    return message.SerializeToString()


SENML = json.dumps(
    [
        {
            "bn": "urn:dev:ow:10e2073a01080063:",
            "bt": 1.276020076e9,
            "bu": "A",
            "bver": 5,
            "n": "voltage",
            "u": "V",
            "v": 120.1,
        },
        {"n": "current", "t": -5, "v": 1.2},
        {"n": "current", "t": -4, "v": 1.3},
    ]
).encode()


def code_of(payload: bytes, content_type: str | None = None) -> str:
    with pytest.raises(MalformedError) as caught:
        decode(payload, content_type)
    return caught.value.code


def test_the_seed_message() -> None:
    said = decode(SEED)
    assert said.device_id == "sensor001"
    assert said.samples == [Sample(T, {"temperature": 23.5, "humidity": 65.2, "pressure": 1013.25, "battery": 87.3})]
    assert said.location is not None
    assert said.location.latitude == 37.7749


@pytest.mark.parametrize("encode", [lambda tree: json.dumps(tree).encode(), cbor2.dumps])
def test_the_native_shape(encode) -> None:
    said = decode(encode(NATIVE))
    assert (said.device_id, said.stream, said.epoch, said.seq, said.message_id) == ("a", "main", "e1", 7, "m")
    assert said.sent_at == T + 1_000_000_000
    (sample,) = said.samples
    assert sample.values == {"t": 21.5, "on": True, "n": 7, "s": "text"}
    assert sample.units == {"t": "Cel"}
    assert sample.qualities == {"t": 1}
    assert said.metadata is not None
    assert said.metadata.battery_level == 80


def test_many_instants_and_a_bad_one_alone() -> None:
    samples = [
        {"timestamp": "2024-01-15T10:30:00Z", "readings": {"t": 1}},
        {"timestamp": 5, "readings": {"t": 2}},
        {"readings": {"t" * 200: 3}},
    ]
    said = decode(json.dumps({"stream": "s", "epoch": 9, "seq": 0, "samples": samples}).encode())
    assert [sample.code for sample in said.samples] == ["", codes.TIME_IMPLAUSIBLE, codes.INVALID_NAME]
    assert said.samples[0].values == {"t": 1}
    assert said.epoch == "9"


@pytest.mark.parametrize(
    ("payload", "device", "values"),
    [
        ({"sensor_id": "s", "t": 1.5, "humidity": 2, "timestamp": 1705314600}, "s", {"t": 1.5, "humidity": 2}),
        ({"device_id": "d", "timestamp": 1705314600000, "x": 1.0, "name": "no number"}, "d", {"x": 1.0}),
        ({"timestamp": "2024-01-15T10:30:00", "device_id": "d", "data": {"a": 1.5, "b": None}}, "d", {"a": 1.5}),
        ({"min": 1, "max": 3, "avg": 2.0, "count": 4, "timestamp": 1705314600.0}, None, AGGREGATE),
    ],
)  # fmt: skip
def test_older_shapes(payload: dict, device: str | None, values: dict) -> None:
    said = decode(json.dumps(payload).encode())
    assert said.device_id == device
    assert said.samples[0].values == values
    assert said.samples[0].time == T


def test_senml_is_resolved() -> None:
    said = decode(SENML, "application/senml+json")
    assert [(each.time, each.values, each.units) for each in said.samples] == [
        (1_276_020_076_000_000_000, {"voltage": 120.1}, {"voltage": "V"}),
        (1_276_020_071_000_000_000, {"current": 1.2}, {"current": "A"}),
        (1_276_020_072_000_000_000, {"current": 1.3}, {"current": "A"}),
    ]
    relative = cbor2.dumps([{-2: "dev/", 0: "t", 2: 5.5, 6: -3}])
    assert decode(relative, "application/senml+cbor", now=T).samples[0].time == T - 3_000_000_000
    assert code_of(b'[{"n":"t","v":1,"x_":2}]', "application/senml+json") == codes.MALFORMED_SENML


def test_protobuf() -> None:
    said = decode(protobuf(), "application/protobuf")
    assert said.seq == 0
    assert said.samples[0].values == {"t": 21.5, "n": -3}
    assert said.samples[0].units == {"t": "Cel"}


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (SEED[:-10], codes.MALFORMED_JSON),
        (b"", codes.MALFORMED_JSON),
        (b'{"sensors": {"t": "warm"}}', codes.WRONG_TYPE),
        (b'{"readings": {"t": [1]}}', codes.WRONG_TYPE),
        (b'{"sensors": {"t": NaN}}', codes.NOT_FINITE),
        (b'{"t": Infinity}', codes.NOT_FINITE),
        (b'{"sensors": {"t": 1e999}}', codes.NOT_FINITE),
        (b'{"timestamp": "yesterday", "t": 1}', codes.TIME_MALFORMED),
        (b'{"timestamp": "2024-02-30T00:00:00Z", "t": 1}', codes.TIME_MALFORMED),
        (b'{"timestamp": 12, "t": 1}', codes.TIME_IMPLAUSIBLE),
        (b'{"sensors": {"t": "\xff"}}', codes.INVALID_UTF8),
        (b'{"sensors": {"t": 1, "t": 2}}', codes.DUPLICATE_KEY),
        (b'{"sensors": {"t": 1}, "sensors": {"t": 1}}', codes.DUPLICATE_KEY),
        (b'{"a":' * 1000 + b"1" + b"}" * 1000, codes.NESTING_TOO_DEEP),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, codes.NESTING_TOO_DEEP),
        (b"[" * 1_000_000, codes.NESTING_TOO_DEEP),
        (b'{"t": 1' + b" " * PAYLOAD_BYTES_MAX + b"}", codes.PAYLOAD_TOO_LARGE),
        (b'{"schemaVersion": 99, "t": 1}', codes.UNKNOWN_SCHEMA_VERSION),
        (b'{"hello": "world"}', codes.UNKNOWN_SHAPE),
        (b'"text"', codes.UNKNOWN_SHAPE),
        (b'{"sensors": {}}', codes.NO_READINGS),
        (b'{"readings": {"t": {"value": 1, "quality": "odd"}}}', codes.WRONG_TYPE),
        (b'{"data": {"t": "' + b"x" * 5000 + b'"}}', codes.TEXT_TOO_LONG),
        (b'{"data": {"\\u0007": 1}}', codes.INVALID_NAME),
        (json.dumps({"data": {f"r{n}": n for n in range(300)}}).encode(), codes.TOO_MANY_READINGS),
        (b'{"data": {"t": 99999999999999999999999}}', codes.NOT_FINITE),
        (cbor2.dumps({"readings": {"t": float("nan")}}), codes.NOT_FINITE),
        (b"\xa1\x61", codes.MALFORMED_CBOR),
    ],
)
def test_bad_input_has_a_stable_code(payload: bytes, code: str) -> None:
    found = code_of(payload)
    assert found == code or (code == codes.NOT_FINITE and b"999" in payload and found == codes.WRONG_TYPE)


def test_unknown_content_types_are_named() -> None:
    assert code_of(SEED, "application/xml") == codes.UNKNOWN_CONTENT_TYPE
    assert decode(SEED, "application/json; charset=utf-8").device_id == "sensor001"


VALID = (
    (SEED, None),
    (json.dumps(NATIVE).encode(), None),
    (cbor2.dumps(NATIVE), None),
    (SENML, "application/senml+json"),
    (protobuf(), "application/protobuf"),
)


@pytest.mark.parametrize(("payload", "content_type"), VALID)
def test_every_prefix_fails_only_as_documented(payload: bytes, content_type: str | None) -> None:
    for end in range(len(payload)):
        with suppress(MalformedError):
            decode(payload[:end], content_type)


TYPES = [
    None,
    "application/json",
    "application/cbor",
    "application/protobuf",
    "application/senml+json",
    "application/senml+cbor",
]


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(TYPES))
@example(b"\xd8\x1c\x80", "application/cbor")
@example(b"\xc1\xf9\x7e\x00", "application/cbor")
def test_arbitrary_bytes_fail_only_as_documented(payload: bytes, content_type: str | None) -> None:
    with suppress(MalformedError):
        decode(payload, content_type)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(VALID), st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
def test_mutations_fail_only_as_documented(valid: tuple[bytes, str | None], at: int, change: bytes) -> None:
    payload, content_type = valid
    at %= len(payload)
    with suppress(MalformedError):
        decode(payload[:at] + change + payload[at + len(change) :], content_type)


trees = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | st.text('ab1.\\"{}:', max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(st.tuples(st.text("ab12", min_size=1, max_size=2), inner), max_size=4)
    ),
    max_leaves=12,
)


def write(tree: object) -> tuple[str, bool]:
    """Return JSON text of a tree in which lists of pairs are objects, and whether a key stands twice in any."""
    if isinstance(tree, list) and tree and all(isinstance(each, tuple) for each in tree):
        parts = [write(value) for _, value in tree]
        keys = [key for key, _ in tree]
        text = ", ".join(f"{json.dumps(key)}: {part}" for key, (part, _) in zip(keys, parts, strict=True))
        return "{" + text + "}", len(keys) != len(set(keys)) or any(found for _, found in parts)
    if isinstance(tree, list):
        parts = [write(each) for each in tree]
        return "[" + ", ".join(part for part, _ in parts) + "]", any(found for _, found in parts)
    return json.dumps(tree), False


@settings(max_examples=500, deadline=None)
@given(st.lists(trees, min_size=1, max_size=4))
def test_a_duplicate_key_is_never_hidden_by_a_remembered_skeleton(documents: list) -> None:
    for tree in documents:
        text, has_duplicate = write(tree)
        if has_duplicate:
            with pytest.raises(MalformedError):
                check_duplicate_keys(text.encode())
        else:
            check_duplicate_keys(text.encode())
