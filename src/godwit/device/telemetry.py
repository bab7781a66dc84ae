"""Samples as bytes: encoded once, when they are taken, and joined into messages without being looked at again.

An item of the spool is the CBOR map (RFC 8949) of a sample's readings. A message is a map of a few fields, and
`samples[]` laid around such items: the native shape of the contract. Pure.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import cbor2

from godwit.contract.errors import MalformedError
from godwit.contract.samples import Reading, Sample, Value, sample_of
from godwit.contract.versions import SCHEMA_VERSION
from godwit.spool import Gap

_TIMESTAMP: Final = b"\xa2" + cbor2.dumps("timestamp") + b"\x1b"
_READINGS: Final = cbor2.dumps("readings")
_SAMPLES: Final = cbor2.dumps("samples")
_TIME: Final = struct.Struct(">Q")
_MAP: Final = 0xA0
_ARRAY: Final = 0x80
_QUALITIES: Final = ("good", "uncertain", "bad")


def encode_readings(readings: Mapping[str, Value | Reading | None]) -> bytes:
    """Return readings as an item. Raises MalformedError where the server would refuse them: the caller can mend it."""
    sample = sample_of(None, readings)
    if sample.code:
        raise MalformedError(sample.detail or sample.code, code=sample.code)
    return cbor2.dumps(_plain(sample))


def _plain(sample: Sample) -> dict[str, Any]:
    """Return plain values, and objects only for those that have a unit or a quality."""
    if not sample.units and not sample.qualities:
        return sample.values
    units, qualities = sample.units or {}, sample.qualities or {}
    said: dict[str, Any] = {}
    for name, value in sample.values.items():
        more = {}
        if name in units:
            more["unit"] = units[name]
        if qualities.get(name):
            more["quality"] = _QUALITIES[qualities[name]]
        said[name] = {"value": value, **more} if more else value
    return said


def encode_message(
    stream: str, epoch: str, first: int, samples: Iterable[tuple[int, bytes]], fields: Mapping[str, object]
) -> bytes:
    """Return a message of samples (time in ns, item), which have the numbers from `first` on.

    `fields` are more fields of the message: `sentAt`, `metadata` ...
    """
    head: dict[str, object] = {"schemaVersion": SCHEMA_VERSION, "stream": stream, "epoch": epoch, "seq": first}
    head.update(fields)
    parts = [_header(_MAP, len(head) + 1)]
    for name, value in head.items():
        parts += (cbor2.dumps(name), cbor2.dumps(value))
    laid = [_TIMESTAMP + _TIME.pack(max(0, time)) + _READINGS + item for time, item in samples]
    parts += (_SAMPLES, _header(_ARRAY, len(laid)))
    return b"".join(parts + laid)


def encode_gaps(gaps: Iterable[Gap]) -> bytes:
    """Return the message that says which samples will never come."""
    said = [each._asdict() for each in gaps]
    return cbor2.dumps({"schemaVersion": SCHEMA_VERSION, "gaps": said})


def _header(kind: int, size: int) -> bytes:
    """Return the head of a map or an array (RFC 8949, 3)."""
    if size < 24:
        return bytes((kind | size,))
    if size < 0x1_00:
        return bytes((kind | 24, size))
    return struct.pack(">BH", kind | 25, size)


def encode_event(
    event: str,
    *,
    time: int,
    severity: str | None = None,
    message: str | None = None,
    details: Mapping[str, object] | None = None,
) -> bytes:
    """Return an event as an item. Raises MalformedError where it cannot be said."""
    said = {"event": event, "timestamp": time, "severity": severity, "message": message, "details": details}
    try:
        return cbor2.dumps({name: value for name, value in said.items() if value is not None})
    except (cbor2.CBOREncodeError, ValueError, TypeError) as error:
        raise MalformedError(f"the event cannot be sent: {error}", code="wrong-type") from None


def number_event(item: bytes, epoch: str, seq: int, time: int, boot_id: str = "") -> bytes:
    """Return an event with the id under which the server knows it again; `time` is UTC, or of a boot."""
    said = {"eventId": f"{epoch}-{seq}", **cbor2.loads(item)}
    if boot_id:
        del said["timestamp"]
        return cbor2.dumps({**said, "uptime": time, "bootId": boot_id})
    return cbor2.dumps({**said, "timestamp": time})


def follow_each_other(numbers: Sequence[int]) -> int:
    """Return how many of ascending `numbers` have no hole between them, from the first."""
    for index, number in enumerate(numbers):
        if number != numbers[0] + index:
            return index
    return len(numbers)
