"""Are the packs of RFC 8428 resolved as it says?"""

import json
from typing import Any

import cbor2
import pytest

from godwit.contract import codes
from godwit.contract.errors import MalformedError
from godwit.contract.samples import Telemetry
from godwit.contract.telemetry import decode

SECOND = 1_000_000_000
NOW = 1_705_314_600 * SECOND
JSON, CBOR = "application/senml+json", "application/senml+cbor"
LABELS = {
    "bver": -1, "bn": -2, "bt": -3, "bu": -4, "bv": -5, "bs": -6,
    "n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4, "s": 5, "t": 6, "ut": 7, "vd": 8,
}  # fmt: skip


def resolve(pack: list[dict[str, Any]]) -> Telemetry:
    """Read the pack in all ways it can be sent, which must agree."""
    labelled = [{LABELS.get(label, label): value for label, value in record.items()} for record in pack]
    read = [
        decode(json.dumps(pack).encode(), JSON, now=NOW),
        decode(json.dumps(pack).encode(), now=NOW),
        decode(cbor2.dumps(labelled), CBOR, now=NOW),
        decode(cbor2.dumps(labelled), now=NOW),
        decode(cbor2.dumps(labelled), None, "senml+cbor", now=NOW),
    ]
    assert all(each == read[0] for each in read)
    return read[0]


def values(message: Telemetry) -> list[tuple[int | None, dict[str, Any]]]:
    return [(sample.time, sample.values) for sample in message.samples]


def test_single_datapoint() -> None:  # 5.1.1
    message = resolve([{"n": "urn:dev:ow:10e2073a01080063", "u": "Cel", "v": 23.1}])
    assert values(message) == [(None, {"10e2073a01080063": 23.1})]
    assert message.samples[0].units == {"10e2073a01080063": "Cel"}


def test_multiple_datapoints() -> None:  # 5.1.2
    message = resolve(
        [
            {"bn": "urn:dev:ow:10e2073a01080063:", "n": "voltage", "u": "V", "v": 120.1},
            {"n": "current", "u": "A", "v": 1.2},
        ]
    )
    assert values(message) == [(None, {"voltage": 120.1, "current": 1.2})]
    assert message.samples[0].units == {"voltage": "V", "current": "A"}


def test_base_time_and_relative_times_within_the_pack() -> None:  # 5.1.2, the second example
    message = resolve(
        [
            {"bn": "urn:dev:ow:10e2073a0108006:", "bt": 1.276020076001e9, "bu": "A", "bver": 5,
             "n": "voltage", "u": "V", "v": 120.1},
            {"n": "current", "t": -5, "v": 1.2},
            {"n": "current", "t": -4, "v": 1.3},
            {"n": "current", "v": 1.7},
        ]
    )  # fmt: skip
    base = 1_276_020_076_001_000_000
    assert values(message) == [
        (base, {"voltage": 120.1, "current": 1.7}),
        (base - 5 * SECOND, {"current": 1.2}),
        (base - 4 * SECOND, {"current": 1.3}),
    ]
    assert message.samples[1].units == {"current": "A"}


def test_different_kinds_of_values() -> None:  # 5.1.4
    message = resolve(
        [
            {"bn": "urn:dev:ow:10e2073a01080063:", "n": "temp", "u": "Cel", "v": 23.1},
            {"n": "label", "vs": "Machine Room"},
            {"n": "open", "vb": False},
            {"n": "nfc-reader", "vd": "aGkgCg"},
        ]
    )
    assert values(message) == [(None, {"temp": 23.1, "label": "Machine Room", "open": False, "nfc-reader": "aGkgCg"})]


def test_data_in_cbor_becomes_the_text_it_is_in_json() -> None:
    assert decode(cbor2.dumps([{0: "d", 8: b"hi \n"}]), CBOR).samples[0].values == {"d": "aGkgCg"}


def test_base_value_and_sum() -> None:
    message = resolve([{"bn": "m/", "bv": 20, "bs": 100, "n": "t", "u": "W", "v": 1.5, "s": 7}, {"n": "e", "s": 1}])
    assert values(message) == [(None, {"t": 21.5, "t.sum": 107, "e.sum": 101})]
    assert message.samples[0].units == {"t": "W"}


def test_times_below_two_to_the_28th_are_relative_to_arrival() -> None:
    message = resolve([{"n": "a", "t": -10.5, "v": 1}, {"n": "a", "v": 2}, {"n": "a", "bt": -60, "t": 1, "v": 3}])
    assert [sample.time for sample in message.samples] == [NOW - 10_500_000_000, None, NOW - 59 * SECOND]


def test_two_readings_of_one_name_and_time_are_both_kept() -> None:
    assert values(resolve([{"n": "a", "v": 1}, {"n": "a", "v": 2}, {"n": "b", "v": 3}])) == [
        (None, {"a": 1}), (None, {"a": 2, "b": 3})
    ]  # fmt: skip


def test_names_keep_what_the_device_says_of_its_parts() -> None:
    message = resolve([{"bn": "urn:dev:mac:0024befffe804ff1/", "n": "room1/temp", "v": 1}, {"n": "room2/temp", "v": 2}])
    assert values(message) == [(None, {"room1/temp": 1, "room2/temp": 2})]


@pytest.mark.parametrize(
    ("pack", "code"),
    [
        ([], codes.MALFORMED_SENML),
        ({"n": "a", "v": 1}, codes.MALFORMED_SENML),
        ([1], codes.MALFORMED_SENML),
        ([{"n": "a", "v": "1"}], codes.MALFORMED_SENML),
        ([{"n": "a", "v": True}], codes.MALFORMED_SENML),
        ([{"n": "a", "vb": 1}], codes.MALFORMED_SENML),
        ([{"n": "a", "v": 1, "vs": "x"}], codes.MALFORMED_SENML),
        ([{"n": "a", "v": 1, "new_": 1}], codes.MALFORMED_SENML),
        ([{"n": "a", "v": 10**400}], codes.MALFORMED_SENML),
        ([{"n": "a", "t": 10**400, "v": 1}], codes.MALFORMED_SENML),
        ([{"n": 5, "v": 1}], codes.MALFORMED_SENML),
        ([{"bver": 11, "n": "a", "v": 1}], codes.UNKNOWN_SCHEMA_VERSION),
        ([{"bn": "a"}], codes.NO_READINGS),
        ([{"v": 1}], codes.INVALID_NAME),
        ([{"n": "a", "u": "x" * 65, "v": 1}], codes.INVALID_NAME),
        ([{"n": "a", "t": 2**28, "v": 1}], codes.TIME_IMPLAUSIBLE),
        ([{"n": "a", "t": -(2**28), "v": 1}], codes.TIME_IMPLAUSIBLE),
        ([{"n": "a", "t": 1_705_314_600_000, "v": 1}], codes.TIME_IMPLAUSIBLE),
        ([{"n": "a", "v": 1}] * 10_001, codes.TOO_MANY_READINGS),
        ([{"n": "a", "vs": "x" * 4097}], codes.TEXT_TOO_LONG),
    ],
)  # fmt: skip
def test_refusals(pack: Any, code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        decode(json.dumps(pack).encode(), JSON, now=NOW)
    assert caught.value.code == code


def test_not_finite_in_cbor() -> None:
    for record in ({0: "a", 2: float("nan")}, {0: "a", 2: 1, 6: float("inf")}, {0: "a", 2: 1e308, -5: 1e308}):
        with pytest.raises(MalformedError) as caught:
            decode(cbor2.dumps([record]), CBOR)
        assert caught.value.code == codes.NOT_FINITE


def test_a_label_is_an_integer_and_not_something_equal_to_one() -> None:
    for pack in ([{True: "Cel", 0: "a", 2: 1}], [{0.0: "a", 2: 1}]):
        with pytest.raises(MalformedError):
            decode(cbor2.dumps(pack), CBOR)
