"""Does the server read what a device writes, and is what it would refuse refused before it is kept?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godwit.contract import codes, events, telemetry
from godwit.contract.errors import MalformedError
from godwit.contract.samples import Reading, Sample
from godwit.device.telemetry import encode_event, encode_message, encode_readings, follow_each_other, number_event

T = 1_790_000_000_000_000_000
values = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.text(max_size=50),
)
names = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=20)


@given(st.lists(st.dictionaries(names, values, min_size=1, max_size=5), min_size=1, max_size=40), st.integers(0, 2**40))
def test_the_server_reads_what_was_sent(samples: list[dict], first: int) -> None:
    items = [(T + at, encode_readings(each)) for at, each in enumerate(samples)]
    said = telemetry.decode(encode_message("main", "e1", first, items, {"sentAt": T}))
    assert (said.stream, said.epoch, said.seq, said.sent_at) == ("main", "e1", first, T)
    assert [each.time for each in said.samples] == [T + at for at in range(len(samples))]
    assert [each.values for each in said.samples] == samples
    assert not any(each.code for each in said.samples)


@pytest.mark.parametrize("count", [1, 23, 24, 255, 256, 3_000])
def test_any_number_of_samples(count: int) -> None:
    item = encode_readings({"t": 1.5})
    said = telemetry.decode(encode_message("s", "e", 0, [(T, item)] * count, {}))
    assert len(said.samples) == count


def test_units_and_qualities() -> None:
    item = encode_readings({"t": Reading(21.5, "Cel", "uncertain"), "u": Reading(1), "none": None})
    (sample,) = telemetry.decode(encode_message("s", "e", 0, [(T, item)], {})).samples
    assert sample == Sample(T, {"t": 21.5, "u": 1}, {"t": "Cel"}, {"t": 1}, is_floats=sample.is_floats)


@pytest.mark.parametrize(
    ("readings", "code"),
    [
        ({}, codes.NO_READINGS),
        ({"t": None}, codes.NO_READINGS),
        ({"t": float("nan")}, codes.NOT_FINITE),
        ({"t": 2**63}, codes.WRONG_TYPE),
        ({"t": b"raw"}, codes.WRONG_TYPE),
        ({"": 1}, codes.INVALID_NAME),
        ({"t": "x" * 5_000}, codes.TEXT_TOO_LONG),
        ({f"r{n}": n for n in range(257)}, codes.TOO_MANY_READINGS),
    ],
)
def test_what_the_server_would_refuse_is_refused_here(readings: dict, code: str) -> None:
    with pytest.raises(MalformedError) as refused:
        encode_readings(readings)
    assert refused.value.code == code


def test_events() -> None:
    item = encode_event("boot", time=T, severity="info", message=None, details={"n": 1})
    said = events.decode(number_event(item, "e9", 7, T))
    assert (said.event, said.event_id, said.timestamp, said.details) == ("boot", "e9-7", T, {"n": 1})
    said = events.decode(number_event(item, "e9", 7, 5_000, "b1"))
    assert (said.timestamp, said.uptime, said.boot_id) == (None, 5_000, "b1")
    with pytest.raises(MalformedError):
        encode_event("boot", time=T, details={"x": object()})


def test_holes() -> None:
    assert [follow_each_other(each) for each in ([5], [5, 6, 7], [5, 7], [1, 2, 4])] == [1, 3, 1, 2]
