"""Does every accepted shape become the same samples, and is everything else refused with its own code?"""

import json
from typing import Any

import pytest

from godwit.contract import codes
from godwit.contract.errors import MalformedError
from godwit.contract.samples import Location, Metadata, Timing
from godwit.contract.telemetry import SCHEMA_VERSION, UPCASTERS, decode

SECOND = 1_000_000_000
T = 1_705_314_600 * SECOND  # 2024-01-15T10:30:00Z
SEED = b"""{
  "deviceId": "sensor001",
  "timestamp": "2024-01-15T10:30:00Z",
  "sensors": {"temperature": 23.5, "humidity": 65.2, "pressure": 1013.25, "battery": 87.3},
  "location": {"latitude": 37.7749, "longitude": -122.4194}
}"""


def said(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def refusal(payload: bytes, content_type: str | None = None, codec: str | None = None) -> str:
    with pytest.raises(MalformedError) as caught:
        decode(payload, content_type, codec)
    return caught.value.code


def test_the_message_of_the_seed() -> None:
    message = decode(SEED)
    assert message.device_id == "sensor001"
    assert message.location == Location(37.7749, -122.4194)
    [sample] = message.samples
    assert (sample.time, sample.code) == (T, "")
    assert sample.values == {"temperature": 23.5, "humidity": 65.2, "pressure": 1013.25, "battery": 87.3}
    assert not message.is_zoneless


def test_flat_with_sensor_id() -> None:
    message = decode(b'{"sensor_id": "s1", "temperature": 20.5, "humidity": 40, "open": true, "timestamp": 1705314600}')
    assert message.device_id == "s1"
    assert message.samples[0].time == T
    assert message.samples[0].values == {"temperature": 20.5, "humidity": 40, "open": True}


def test_data_and_a_time_without_zone_as_python_writes_it() -> None:
    message = decode(said(timestamp="2024-01-15T10:30:00.250000", device_id="d1", data={"rpm": 900, "mode": "eco"}))
    assert message.device_id == "d1"
    assert message.samples[0].time == T + SECOND // 4
    assert message.samples[0].values == {"rpm": 900, "mode": "eco"}
    assert message.is_zoneless


def test_the_aggregate() -> None:
    message = decode(said(min=1.0, max=3.0, avg=2.0, count=17, timestamp="2024-01-15T10:30:00Z"))
    assert message.samples[0].values == {"min": 1.0, "max": 3.0, "avg": 2.0, "count": 17}
    assert message.device_id is None


def test_native_with_one_instant() -> None:
    message = decode(
        said(
            deviceId="m", schemaVersion=1, stream="main", epoch="9f3c", seq=7, messageId="a-1",
            timestamp="2024-01-15T10:30:00Z", sentAt="2024-01-15T10:30:05Z",
            readings={
                "temperature": {"value": 74.9, "unit": "Cel", "quality": "uncertain"},
                "load": 12, "ok": False, "mode": {"value": "auto", "quality": "good"}, "broken": None,
                "dead": {"value": None, "quality": "bad"},
            },
            metadata={"firmwareVersion": "1.2", "batteryLevel": 80, "signalStrength": -70.5, "uptime": 10},
        )
    )  # fmt: skip
    assert (message.stream, message.epoch, message.seq, message.message_id) == ("main", "9f3c", 7, "a-1")
    assert message.sent_at == T + 5 * SECOND
    assert message.metadata == Metadata("1.2", 80, -70.5, 10)
    [sample] = message.samples
    assert sample.values == {"temperature": 74.9, "load": 12, "ok": False, "mode": "auto"}
    assert sample.units == {"temperature": "Cel"}
    assert sample.qualities == {"temperature": 1, "mode": 0, "dead": 2}


def test_samples_keep_their_places_and_a_bad_one_spoils_no_other() -> None:
    message = decode(
        said(
            epoch="e", seq=100, timestamp=T,
            samples=[
                {"timestamp": "2024-01-15T10:30:01Z", "readings": {"t": 1.0}},
                {"timestamp": "yesterday", "readings": {"t": 2.0}},
                {"timestamp": 12, "readings": {"t": 3.0}},
                {"readings": {"t": 4}},
                {"timestamp": T, "readings": {}},
                {"timestamp": T, "readings": {"": 1}},
                {"timestamp": T, "readings": {"t": {"value": 1, "quality": "splendid"}}},
                {"timestamp": T, "readings": {"t": "x" * 5000}},
                {"timestamp": T, "readings": {"t": 2**63}},
            ],
        )
    )  # fmt: skip
    assert [sample.code for sample in message.samples] == [
        "", codes.TIME_MALFORMED, codes.TIME_IMPLAUSIBLE, "", codes.NO_READINGS, codes.INVALID_NAME, codes.WRONG_TYPE,
        codes.TEXT_TOO_LONG, codes.WRONG_TYPE,
    ]  # fmt: skip
    assert message.samples[3].time == T
    assert message.samples[3].values == {"t": 4}
    assert all(sample.detail for sample in message.samples if sample.code)


@pytest.mark.parametrize(
    "misfit", [{"readings": [1]}, {"timestamp": True}, 5, None, {"readings": {"t": {"value": []}}}]
)
def test_a_sample_of_the_wrong_type_spoils_no_other(misfit: object) -> None:
    good = {"timestamp": T, "readings": {"t": 1.5}}
    message = decode(said(epoch="e", seq=1, samples=[good, misfit, good]))
    assert [sample.code for sample in message.samples] == ["", codes.WRONG_TYPE, ""]
    assert message.samples[2].values == {"t": 1.5}
    assert message.seq == 1


def test_integers_stay_integers_and_the_ends_of_64_bits_are_kept() -> None:
    values = {"low": -(2**63), "high": 2**63 - 1, "zero": 0}
    assert decode(said(readings=values)).samples[0].values == values


def test_the_given_dictionary_never_holds_null() -> None:
    assert decode(b'{"sensors": {"a": null, "b": 2}}').samples[0].values == {"b": 2}


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", codes.MALFORMED_JSON),
        (b"{", codes.MALFORMED_JSON),
        (b"hello", codes.MALFORMED_CBOR),
        (b"true", codes.UNKNOWN_SHAPE),
        (b"null", codes.UNKNOWN_SHAPE),
        (b"17.5", codes.UNKNOWN_SHAPE),
        (b"{}", codes.UNKNOWN_SHAPE),
        (b'{"deviceId": "a", "note": "none"}', codes.UNKNOWN_SHAPE),
        (b'{"sensors": {}}', codes.NO_READINGS),
        (b'{"samples": []}', codes.NO_READINGS),
        (b'{"readings": {"a": null}}', codes.NO_READINGS),
        (b'{"sensors": {"a": "warm"}}', codes.WRONG_TYPE),
        (b'{"sensors": [1]}', codes.WRONG_TYPE),
        (b'{"deviceId": 5, "sensors": {"a": 1}}', codes.WRONG_TYPE),
        (b'{"sensors": {"a": NaN}}', codes.NOT_FINITE),
        (b'{"sensors": {"a": -Infinity}}', codes.NOT_FINITE),
        (b'{"a": NaN}', codes.NOT_FINITE),
        (b'{"sensors": {"a": 1e999}}', codes.NOT_FINITE),
        (b'{"a": 1e999}', codes.NOT_FINITE),
        (b'{"sensors": {"a": 9223372036854775808}}', codes.WRONG_TYPE),
        (b'{"sensors": {"a": %s}}' % (b"9" * 400), codes.WRONG_TYPE),
        (b'{"sensors": {"a": 1, "a": 2}}', codes.DUPLICATE_KEY),
        (b'{"sensors": {"a": 1}, "note": {"b": 1, "\\u0062": 2}}', codes.DUPLICATE_KEY),
        (b'{"sensors": {"\xff": 1}}', codes.INVALID_UTF8),
        (b'{"sensors": {"a": 1}, "note": "\xff"}', codes.INVALID_UTF8),
        (b'{"readings": {"a": "\\ud800"}}', codes.MALFORMED_JSON),
        (b'{"sensors": {"a\\u0000": 1}}', codes.INVALID_NAME),
        (b'{"sensors": {"%s": 1}}' % (b"n" * 129), codes.INVALID_NAME),
        (b'{"readings": {"a": {"value": 1, "unit": "%s"}}}' % (b"u" * 65), codes.INVALID_NAME),
        (b'{"stream": "%s", "sensors": {"a": 1}}' % (b"s" * 65), codes.INVALID_NAME),
        (b'{"epoch": "%s", "sensors": {"a": 1}}' % (b"e" * 65), codes.INVALID_NAME),
        (b'{"epoch": 1%s, "sensors": {"a": 1}}' % (b"0" * 40), codes.INVALID_NAME),
        (b'{"messageId": "%s", "sensors": {"a": 1}}' % (b"m" * 129), codes.INVALID_NAME),
        (b'{"messageId": "a\\u0000", "sensors": {"a": 1}}', codes.INVALID_NAME),
        (b'{"seq": -1, "sensors": {"a": 1}}', codes.WRONG_TYPE),
        (b'{"seq": 1%s, "sensors": {"a": 1}}' % (b"0" * 400), codes.WRONG_TYPE),
        (b'{"timestamp": "soon", "sensors": {"a": 1}}', codes.TIME_MALFORMED),
        (b'{"timestamp": 0, "sensors": {"a": 1}}', codes.TIME_IMPLAUSIBLE),
        (b'{"timestamp": 1%s, "sensors": {"a": 1}}' % (b"0" * 400), codes.TIME_IMPLAUSIBLE),
        (b'{"sentAt": "1970-01-01T00:00:00Z", "sensors": {"a": 1}}', codes.TIME_IMPLAUSIBLE),
        (b'{"seq": 1%s, "sensors": {"a": 1}}' % (b"0" * 5000), codes.MALFORMED_JSON),
        (b'{"location": {"latitude": 91, "longitude": 0}, "sensors": {"a": 1}}', codes.WRONG_TYPE),
        (b'{"sensors": {"a": 1}, "x": %s}' % (b"[" * 40 + b"]" * 40), codes.NESTING_TOO_DEEP),
        (b'{"a": 1, "x": %s}' % (b"[" * 40 + b"]" * 40), codes.NESTING_TOO_DEEP),
        (b'{"a":' * 100_000, codes.NESTING_TOO_DEEP),
        (b"[" * 1_000_000, codes.NESTING_TOO_DEEP),
        (b'{"a": 1}' + b" " * 1_048_576, codes.PAYLOAD_TOO_LARGE),
        (b'{"schemaVersion": 2, "sensors": {"a": 1}}', codes.UNKNOWN_SCHEMA_VERSION),
        (b'{"schemaVersion": 2, "sensors": [1]}', codes.UNKNOWN_SCHEMA_VERSION),
        (b'{"schemaVersion": 2, "a": 1}', codes.UNKNOWN_SCHEMA_VERSION),
        (b'{"schemaVersion": -1, "a": 1}', codes.UNKNOWN_SCHEMA_VERSION),
        (b'{"schemaVersion": "1", "a": 1}', codes.WRONG_TYPE),
    ],
)  # fmt: skip
def test_refusals(payload: bytes, code: str) -> None:
    assert refusal(payload) == code
    assert refusal(payload) == code, "the second time, when caches are warm"


def test_too_many() -> None:
    many = {f"r{number}": 1 for number in range(257)}
    assert refusal(said(readings=many)) == codes.TOO_MANY_READINGS
    assert refusal(said(sensors=many)) == codes.TOO_MANY_READINGS
    assert refusal(said(**many)) == codes.TOO_MANY_READINGS
    samples = [{"readings": {"a": 1}}] * 10_001
    assert refusal(said(samples=samples)) == codes.TOO_MANY_READINGS
    assert len(decode(said(samples=samples[1:])).samples) == 10_000


def test_every_older_version_has_what_lifts_it() -> None:
    assert sorted(UPCASTERS) == list(range(SCHEMA_VERSION))
    assert decode(b'{"schemaVersion": 0, "sensor_id": "s", "t": 1.5}').device_id == "s"


def test_content_types_and_codecs() -> None:
    assert decode(SEED, "application/json; charset=utf-8").device_id == "sensor001"
    assert decode(SEED, "Application/JSON", "cbor").device_id == "sensor001"
    assert refusal(SEED, "image/png") == codes.UNKNOWN_CONTENT_TYPE
    assert refusal(SEED, None, "morse") == codes.UNKNOWN_CONTENT_TYPE
    assert refusal(SEED, None, "cbor") == codes.MALFORMED_CBOR
    assert refusal(SEED, "application/protobuf") == codes.MALFORMED_PROTOBUF
    assert refusal(SEED, "application/senml+json") == codes.MALFORMED_SENML


def test_an_uptime_is_nanoseconds_since_a_boot() -> None:
    message = decode(
        said(
            epoch="e", seq=0, clock="uptime", bootId="b1", sentAt=9_000_000_000, timestamp=5,
            samples=[{"timestamp": 7, "readings": {"t": 1.0}}, {"readings": {"t": 2.0}}, {"timestamp": "1970-01-01"}],
        )
    )  # fmt: skip
    assert message.timing == Timing(is_uptime=True, boot_id="b1")
    assert message.sent_at == 9_000_000_000
    assert [(each.time, each.code) for each in message.samples] == [(7, ""), (5, ""), (None, codes.TIME_MALFORMED)]


@pytest.mark.parametrize(
    ("sync", "told"),
    [
        ([1, 2, 3, 4], (1, 2, 3, 4)), ([], ()), ([1, 2], ()), ([1, 2, 3, 2**63], ()), ("soon", None), (5, None),
        (True, None),
    ],
)  # fmt: skip
def test_what_is_odd_about_an_exchange_is_passed_over_and_costs_no_reading(sync: object, told: object) -> None:
    message = decode(said(epoch="e", seq=0, sync=sync, readings={"t": 1}))
    assert (message.timing.sync if message.timing else None) == told
    assert message.samples[0].values == {"t": 1}


def test_names_that_have_a_meaning_now_are_still_readings_of_flat_devices() -> None:
    flat = b'{"sensor_id": "s", "clock": 1200, "sync": 1, "bootId": 3, "timestamp": 1705314600}'
    assert decode(flat).samples[0].values == {"clock": 1200, "sync": 1, "bootId": 3}
    assert decode(b'{"sensors": {"t": 1}, "clock": "ok"}').timing is None


def test_a_numbered_sample_with_an_impossible_time_waits_for_who_knows_the_clock() -> None:
    message = decode(said(epoch="e", seq=0, timestamp="1970-01-01T00:00:09Z", sentAt=5, readings={"t": 1}))
    (sample,) = message.samples
    assert (sample.time, sample.code, sample.is_clock_wrong) == (9 * 10**9, codes.TIME_IMPLAUSIBLE, True)
    assert message.sent_at == 5 * 10**9
    listed = decode(
        said(
            epoch="e", seq=0, timestamp="2150-01-01T00:00:00Z",
            samples=[{"readings": {"t": 1}}, {"timestamp": T, "readings": {"t": 1}}, {"timestamp": 4, "readings": {}}],
        )
    )  # fmt: skip
    assert [each.code for each in listed.samples] == [codes.TIME_IMPLAUSIBLE, "", codes.NO_READINGS]
    assert [each.is_clock_wrong for each in listed.samples] == [True, False, False]
