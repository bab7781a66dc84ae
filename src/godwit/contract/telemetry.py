"""Telemetry: what a device measured. All accepted shapes become one, whatever the encoding.

Shapes: native (`readings` or `samples` with stream, epoch, seq), `sensors{}`, `data{}`, the aggregate
`{min, max, avg, count}`, and flat numbers beside an id. This is the hot path: one pass of a compiled decoder for all
shapes with a body of their own, a second one into a dictionary for the flat shape only.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from godwit.contract import codes
from godwit.contract.duplicate_keys import check_duplicate_keys
from godwit.contract.errors import MalformedError
from godwit.contract.gaps import WireGap, records_of
from godwit.contract.limits import PAYLOAD_BYTES_MAX, SAMPLES_PER_MESSAGE_MAX
from godwit.contract.payloads import Encoding, check_utf8, encoding_of, fault_of, load, unpacked
from godwit.contract.samples import (
    Location,
    Metadata,
    Reading,
    Sample,
    Telemetry,
    Timing,
    Value,
    check_extras,
    check_identity,
    require_something,
    sample_of,
    timing_of,
)
from godwit.contract.senml import decode_senml
from godwit.contract.times import ImplausibleTimeError, parse_time, parse_uptime
from godwit.contract.versions import SCHEMA_VERSION, check_version

__all__ = ["Location", "Metadata", "Reading", "Sample", "Telemetry", "TelemetryData", "Value", "WireSample", "decode"]


class WireSample(msgspec.Struct, gc=False, rename="camel"):
    """A sample on the wire: its time, and readings as plain values or objects."""

    timestamp: str | float | int | None = None
    readings: dict[str, Reading | Value | None] | None = None


class TelemetryData(msgspec.Struct, gc=False, rename="camel"):
    """Readings of a device, in any of the accepted shapes: the union of all that have a body.

    Native are `readings` (one instant) and `samples` (many); `sensors`, `data` and flat numbers beside an id are those
    of older devices. `seq` numbers samples within `(stream, epoch)`; a message carries the number of its first. `gaps`
    are samples that the device had to give up; they may come without any others.
    With `clock` "uptime" all times are nanoseconds since the boot `bootId`; with "set" they are UTC of a clock that was
    set since it was compared. `sync` echoes the four timestamps of a `telemetry/stored`, an empty one asks for it.
    """

    device_id: str | None = None
    schema_version: int | None = None
    stream: str | None = None
    epoch: str | int | None = None
    seq: int | None = None
    message_id: str | None = None
    timestamp: str | float | int | None = None
    sent_at: str | float | int | None = None
    readings: dict[str, Reading | Value | None] | None = None
    samples: list[WireSample] | None = None
    sensors: dict[str, float | int | None] | None = None
    data: dict[str, Value | None] | None = None
    location: Location | None = None
    metadata: Metadata | None = None
    gaps: list[WireGap] | None = None
    # Numbers under these names are readings in the flat shape, as they were before the names had a meaning.
    clock: str | float | int | bool | None = None
    boot_id: str | float | int | bool | None = None
    sync: list[int] | str | float | int | bool | None = None
    older_device_id: str | None = msgspec.field(name="device_id", default=None)
    sensor_id: str | None = msgspec.field(name="sensor_id", default=None)


_decoder = msgspec.json.Decoder(TelemetryData)
_BODY: Final = frozenset(("readings", "samples", "sensors", "data", "gaps"))
_CLOCK: Final = ("clock", "bootId", "sync")
_NOT_READINGS: Final = frozenset(
    field.encode_name for field in msgspec.structs.fields(TelemetryData) if field.encode_name not in _CLOCK
)
Reader = Callable[[object], tuple[int, bool]]
_READERS: Final[dict[object, Reader]] = {"uptime": parse_uptime}
"""What reads the times of a message, by its `clock`; else they are UTC."""


def decode(payload: bytes, content_type: str | None = None, codec: str | None = None, *, now: int = 0) -> Telemetry:
    """Decode a telemetry payload in any accepted encoding and shape.

    `now` (ns UTC) is the time of arrival, to which relative SenML times refer. Raises MalformedError only.
    """
    if payload[:1] == b"{" and not content_type and not codec and len(payload) <= PAYLOAD_BYTES_MAX:
        return _decode_json(payload, now)  # by far the most common
    payload = unpacked(payload, content_type, codec)
    encoding = encoding_of(payload, content_type, codec)
    if encoding is Encoding.JSON:
        return _decode_json(payload, now)
    if encoding is Encoding.SENML_JSON or encoding is Encoding.SENML_CBOR:
        return decode_senml(load(payload, encoding), now)
    if encoding is Encoding.PROTOBUF:
        from godwit.contract.protobuf import decode_protobuf  # noqa: PLC0415 - protobuf is imported when used

        return decode_protobuf(payload)
    return _from_tree(load(payload, encoding), now)


def _decode_json(payload: bytes, now: int) -> Telemetry:
    try:
        wire = _decoder.decode(payload)
    except msgspec.ValidationError:
        return _from_tree(load(payload, Encoding.JSON), now)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise fault_of(payload, error) from None
    if not payload.isascii():
        check_utf8(payload)  # the decoder skips what stands in fields that it does not know
    check_duplicate_keys(payload)
    if wire.sensors is None and wire.readings is None and wire.samples is None and wire.data is None and not wire.gaps:
        try:
            tree = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:  # a number like 1e999 where no number was expected
            raise fault_of(payload, error) from None
        return _from_flat(wire, tree)
    return _from_wire(wire)


def _from_tree(tree: object, now: int) -> Telemetry:
    """Take telemetry from a decoded document: CBOR, or JSON that did not fit at once."""
    if isinstance(tree, list):
        return decode_senml(tree, now)
    if not isinstance(tree, dict):
        raise MalformedError("a telemetry message is an object", code=codes.UNKNOWN_SHAPE)
    try:
        wire = msgspec.convert(tree, TelemetryData)
    except msgspec.ValidationError as error:
        return _from_misfit(tree, error)
    check_extras(wire.location, wire.metadata)
    if not _BODY & tree.keys():
        return _from_flat(wire, tree)
    return _from_wire(wire)


def _from_misfit(tree: dict[str, Any], error: msgspec.ValidationError) -> Telemetry:
    """Take what can be taken from a document that does not fit: the good ones among its samples, else the reason."""
    check_version(tree.get("schemaVersion"))  # a newer contract may have other types
    listed = tree.get("samples")
    if not isinstance(listed, list):
        raise MalformedError(str(error)[:200], code=codes.WRONG_TYPE) from None
    samples: list[WireSample | Sample] = []
    for each in listed[: SAMPLES_PER_MESSAGE_MAX + 1]:
        try:
            samples.append(msgspec.convert(each, WireSample))
        except msgspec.ValidationError as fault:
            samples.append(Sample(None, {}, code=codes.WRONG_TYPE, detail=str(fault)[:200]))
    try:
        wire = msgspec.convert({**tree, "samples": None}, TelemetryData)
    except msgspec.ValidationError as fault:
        raise MalformedError(str(fault)[:200], code=codes.WRONG_TYPE) from None
    check_extras(wire.location, wire.metadata)
    return _from_wire(wire, samples)


def _from_wire(wire: TelemetryData, listed: Sequence[WireSample | Sample] | None = None) -> Telemetry:
    if wire.schema_version is not None:
        wire = lift(wire)
    is_zoneless = False
    samples: list[Sample] = []
    time: int | None = None
    read = _READERS.get(wire.clock, parse_time)
    if wire.timestamp is not None:
        try:
            time, is_zoneless = read(wire.timestamp)
        except ImplausibleTimeError as error:
            return _from_wrong_clock(wire, listed, error)
    if wire.sensors is not None:
        samples.append(sample_of(time, wire.sensors))
    if wire.readings is not None:
        samples.append(sample_of(time, wire.readings))
    if wire.data is not None:
        samples.append(sample_of(time, wire.data))
    listed = wire.samples if listed is None else listed
    if listed is not None:
        is_zoneless |= _take_listed(listed, time, samples, read)
    if (len(samples) != 1 or samples[0].code) and (samples or not wire.gaps):
        require_something(samples)
    return _telemetry(wire, samples, is_zoneless)


def _from_wrong_clock(
    wire: TelemetryData, listed: Sequence[WireSample | Sample] | None, fault: ImplausibleTimeError
) -> Telemetry:
    """Take a numbered message with an impossible time: who knows the device's clock may put it right."""
    if wire.seq is None:
        raise fault
    message = _from_wire(msgspec.structs.replace(wire, timestamp=None), listed)
    for each in message.samples:
        if each.time is None and not each.code:
            each.time, each.code, each.detail = fault.time, fault.code, str(fault)
    return message


def _take_listed(listed: Sequence[WireSample | Sample], time: int | None, samples: list[Sample], read: Reader) -> bool:
    """Append to `samples`; a sample without a time has the message's. Returns whether a time had no zone."""
    if len(listed) > SAMPLES_PER_MESSAGE_MAX:
        raise MalformedError(
            f"more than {SAMPLES_PER_MESSAGE_MAX} samples in one message", code=codes.TOO_MANY_READINGS
        )
    has_zoneless = False
    for each in listed:
        if type(each) is WireSample:
            sample, is_zoneless = _wire_sample(each, time, read)
            has_zoneless |= is_zoneless
            samples.append(sample)
        elif type(each) is Sample:  # a bad one already
            samples.append(each)
    return has_zoneless


def _wire_sample(wire: WireSample, time: int | None, read: Reader) -> tuple[Sample, bool]:
    is_zoneless = False
    if wire.timestamp is not None:
        try:
            time, is_zoneless = read(wire.timestamp)
        except ImplausibleTimeError as error:
            sample = sample_of(error.time, wire.readings or {})
            if not sample.code:
                sample.code, sample.detail = error.code, str(error)
            return sample, False
        except MalformedError as error:
            return Sample(None, {}, code=error.code, detail=str(error)), False
    return sample_of(time, wire.readings or {}), is_zoneless


def _from_flat(wire: TelemetryData, tree: dict[str, Any]) -> Telemetry:
    """Numbers beside an id; the aggregate's min, max, avg and count are such numbers too."""
    if wire.schema_version is not None:
        wire = lift(wire)
    readings = {
        name: value for name, value in tree.items() if name not in _NOT_READINGS and type(value) in (float, int, bool)
    }
    if not readings:
        raise MalformedError("no readings, samples, sensors, data or numbers were found", code=codes.UNKNOWN_SHAPE)
    read = _READERS.get(wire.clock, parse_time)
    time, is_zoneless = read(wire.timestamp) if wire.timestamp is not None else (None, False)
    sample = sample_of(time, readings)
    if sample.code:
        raise MalformedError(sample.detail, code=sample.code)
    return _telemetry(wire, [sample], is_zoneless)


def _telemetry(wire: TelemetryData, samples: list[Sample], is_zoneless: bool) -> Telemetry:  # noqa: FBT001
    device_id = wire.device_id or wire.older_device_id or wire.sensor_id
    is_plain = wire.seq is None and wire.message_id is None and wire.stream is None and wire.epoch is None
    timing: Timing | None = None
    if wire.clock is not None or wire.sync is not None:
        timing = timing_of(wire.clock, wire.boot_id, wire.sync)
    sent_at = _sent_at(wire, timing) if wire.sent_at is not None else None
    if is_plain and wire.gaps is None:
        return Telemetry(
            device_id, samples, "", None, None, None, sent_at, wire.location, wire.metadata, is_zoneless, None, timing
        )  # fmt: skip
    epoch = wire.epoch
    if epoch is not None and not isinstance(epoch, str):
        if epoch.bit_length() > 64:
            raise MalformedError("an epoch that is a number has 64 bits", code=codes.INVALID_NAME)
        epoch = str(epoch)
    check_identity(wire.stream, epoch, wire.seq, wire.message_id)
    return Telemetry(
        device_id,
        samples,
        wire.stream or "",
        epoch,
        wire.seq,
        wire.message_id,
        sent_at,
        wire.location,
        wire.metadata,
        is_zoneless,
        records_of(wire.gaps, wire.stream, epoch) if wire.gaps else None,
        timing,
    )


def _sent_at(wire: TelemetryData, timing: Timing | None) -> int:
    try:
        return (parse_uptime if timing is not None and timing.is_uptime else parse_time)(wire.sent_at)[0]
    except ImplausibleTimeError as error:
        if wire.seq is None:
            raise
        return error.time  # how wrong the clock is will be told by the answer


def _name_device(wire: TelemetryData) -> TelemetryData:
    """Version 0 is what was sent before this contract: the device was `device_id` or `sensor_id`."""
    return msgspec.structs.replace(wire, device_id=wire.device_id or wire.older_device_id or wire.sensor_id)


UPCASTERS: Final[dict[int, Callable[[TelemetryData], TelemetryData]]] = {0: _name_device}
"""Version -> what lifts a message of it to the next one. Pure."""


def lift(wire: TelemetryData) -> TelemetryData:
    """Bring a message of an older schema version up to this one; refuse versions that are not known yet."""
    version = wire.schema_version
    check_version(version)
    while version is not None and version < SCHEMA_VERSION:
        wire = UPCASTERS[version](wire)
        version += 1
    return wire
