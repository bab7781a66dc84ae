"""Are gap records read alike in every encoding, and do notices about gaps and clones come back as they were said?"""

import cbor2
import msgspec
import pytest

from godwit.contract import notices
from godwit.contract.errors import MalformedError
from godwit.contract.gaps import GapRecord
from godwit.contract.notices import CloneDetected, GapWanted
from godwit.contract.protobuf import message_class
from godwit.contract.telemetry import Telemetry, decode

SAID = {
    "stream": "main",
    "epoch": "e1",
    "gaps": [
        {"first": 3, "last": 9, "reason": "evicted"},
        {"first": 0, "last": 0, "stream": "alarms", "epoch": "e0"},
        {"first": 2**61, "last": 2**61, "stream": ""},
    ],
}
READ = [
    GapRecord("main", "e1", 3, 9, "evicted"),
    GapRecord("alarms", "e0", 0, 0, "unknown"),
    GapRecord("", "e1", 2**61, 2**61, "unknown"),
]


def as_protobuf() -> bytes:
    said = message_class()(stream="main", epoch="e1")
    said.gaps.add(first=3, last=9, reason="evicted")
    said.gaps.add(first=0, last=0, stream="alarms", epoch="e0")
    said.gaps.add(first=2**61, last=2**61, stream="")
    payload: bytes = said.SerializeToString()
    return payload


@pytest.mark.parametrize(
    ("payload", "content_type"),
    [
        (msgspec.json.encode(SAID), None),
        (cbor2.dumps(SAID), "application/cbor"),
        (as_protobuf(), "application/protobuf"),
    ],
)
def test_records_are_read_alike(payload: bytes, content_type: str | None) -> None:
    read = decode(payload, content_type)
    assert (read.gaps, read.samples) == (READ, [])


def test_a_number_is_an_epoch_of_records_too() -> None:
    read = decode(b'{"epoch": 7, "gaps": [{"first": 0, "last": 1}, {"first": 0, "last": 1, "epoch": 8}]}')
    assert read.gaps is not None
    assert [each.epoch for each in read.gaps] == ["7", "8"]


def test_a_message_without_samples_and_records_is_refused() -> None:
    for payload in (b'{"stream": "s", "epoch": "e", "seq": 1}', b'{"samples": [], "gaps": []}'):
        with pytest.raises(MalformedError):
            decode(payload)


def test_notices_come_back_as_they_were_said() -> None:
    wanted = GapWanted("main", "e1", [(5, 7), (10, 10)])
    cloned = CloneDetected("main", "e1", 50, "e1~2")
    for payload, details in (
        (notices.encode_gap_wanted(wanted), wanted),
        (notices.encode_clone_detected(cloned), cloned),
    ):
        assert notices.details_of(notices.decode(payload)) == details
    assert notices.details_of(notices.decode(b'{"code": "time-in-future"}')) is None
    with pytest.raises(MalformedError):
        notices.details_of(notices.decode(b'{"code": "gap-wanted"}'))


def test_what_a_worker_has_read_crosses_to_the_owner() -> None:
    read = decode(msgspec.json.encode(SAID))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(read), type=Telemetry) == read
