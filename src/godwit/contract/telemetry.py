"""Telemetry: what a device measured. All accepted shapes become one, whatever the encoding.

Shapes: native (`readings` or `samples` with stream, epoch, seq), `sensors{}`, `data{}`, the aggregate
`{min, max, avg, count}`, and flat numbers beside an id. This is the hot path: one pass of a compiled decoder for all
shapes with a body of their own, a second one into a dictionary for the flat shape only.
"""

from math import isfinite
from typing import Any, Final

import msgspec

from godwit.contract import codes
from godwit.contract.duplicate_keys import check_duplicate_keys
from godwit.contract.errors import MalformedError
from godwit.contract.limits import (
    INTEGER_MAX,
    INTEGER_MIN,
    MESSAGE_ID_CHARACTERS_MAX,
    READING_NAME_CHARACTERS_MAX,
    READINGS_PER_SAMPLE_MAX,
    SAMPLES_PER_MESSAGE_MAX,
    SEQUENCE_MAX,
    STREAM_CHARACTERS_MAX,
    TEXT_VALUE_BYTES_MAX,
)
from godwit.contract.payloads import Encoding, encoding_of, load
from godwit.contract.times import parse_time

Value = float | int | bool | str
SCHEMA_VERSION: Final = 1
QUALITIES: Final = {"good": 0, "uncertain": 1, "bad": 2}


class Location(msgspec.Struct, frozen=True, gc=False):
    """WGS 84 degrees, altitude in metres."""

    latitude: float
    longitude: float
    altitude: float | None = None


class Metadata(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What a device says of itself beside its readings. Battery in percent, signal in dBm, uptime in seconds."""

    firmware_version: str | None = None
    battery_level: float | None = None
    signal_strength: float | None = None
    uptime: float | None = None


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One value with its unit (SenML or UCUM code) and quality: good, uncertain or bad."""

    value: Value
    unit: str | None = None
    quality: str | None = None


class Sample(msgspec.Struct, gc=False):
    """Readings at one instant. `time` None: not given. A sample with a `code` is bad and is quarantined alone."""

    time: int | None
    values: dict[str, Value]
    units: dict[str, str] | None = None
    qualities: dict[str, int] | None = None
    code: str = ""
    detail: str = ""


class Telemetry(msgspec.Struct, gc=False):
    """A telemetry message, decoded. Sample i has the number `seq` + i in its `(stream, epoch)`."""

    device_id: str | None
    samples: list[Sample]
    stream: str = ""
    epoch: str | None = None
    seq: int | None = None
    message_id: str | None = None
    sent_at: int | None = None
    location: Location | None = None
    metadata: Metadata | None = None
    is_zoneless: bool = False


class WireSample(msgspec.Struct, gc=False, rename="camel"):
    """A sample on the wire: its time, and readings as numbers or objects."""

    timestamp: str | float | int | None = None
    readings: dict[str, Reading | Value | None] | None = None


class TelemetryData(msgspec.Struct, gc=False, rename="camel"):
    """A telemetry message on the wire: the union of all shapes that have a body."""

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
    older_device_id: str | None = msgspec.field(name="device_id", default=None)
    sensor_id: str | None = msgspec.field(name="sensor_id", default=None)


_decoder = msgspec.json.Decoder(TelemetryData)
GOOD_NAMES_MAX: Final = 10_000
_good_names: set[str] = set()
"""Names that were checked: a fleet has few. Bounded, whatever names peers make up."""
_BODY: Final = frozenset(("readings", "samples", "sensors", "data"))
_NOT_READINGS: Final = frozenset(field.encode_name for field in msgspec.structs.fields(TelemetryData))


def decode(payload: bytes, content_type: str | None = None, codec: str | None = None, *, now: int = 0) -> Telemetry:
    """Decode a telemetry payload in any accepted encoding and shape.

    `now` (ns UTC) is the time of arrival, to which relative SenML times refer. Raises MalformedError only.
    """
    encoding = encoding_of(payload, content_type, codec)
    if encoding is Encoding.JSON:
        return _decode_json(payload)
    if encoding is Encoding.SENML_JSON or encoding is Encoding.SENML_CBOR:
        from godwit.contract.senml import decode_senml  # noqa: PLC0415 - rare, and it needs this module's types

        return decode_senml(load(payload, encoding), now)
    if encoding is Encoding.PROTOBUF:
        from godwit.contract.protobuf import decode_protobuf  # noqa: PLC0415 - protobuf is imported when used

        return decode_protobuf(payload)
    return _from_tree(load(payload, encoding))


def _decode_json(payload: bytes) -> Telemetry:
    try:
        wire = _decoder.decode(payload)
    except msgspec.ValidationError as error:
        return _decode_second(payload, error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        load(payload, Encoding.JSON)  # says exactly what is wrong
        raise MalformedError("this is no JSON that can be read", code=codes.MALFORMED_JSON) from None
    check_duplicate_keys(payload)
    if wire.sensors is None and wire.readings is None and wire.samples is None and wire.data is None:
        return _from_flat(wire, load(payload, Encoding.JSON))
    return _from_wire(wire)


def _decode_second(payload: bytes, error: msgspec.ValidationError) -> Telemetry:
    """Tell why a first decoding did not fit: SenML without a content type, or a wrong type, which is named."""
    tree = load(payload, Encoding.JSON)
    if isinstance(tree, list):
        from godwit.contract.senml import decode_senml  # noqa: PLC0415

        return decode_senml(tree, 0)
    if not isinstance(tree, dict):
        raise MalformedError("a telemetry message is an object", code=codes.UNKNOWN_SHAPE) from None
    is_number = "out of range" in str(error)
    raise MalformedError(str(error), code=codes.NOT_FINITE if is_number else codes.WRONG_TYPE) from None


def _from_tree(tree: object) -> Telemetry:
    """Take telemetry from a decoded CBOR document."""
    if isinstance(tree, list):
        from godwit.contract.senml import decode_senml  # noqa: PLC0415

        return decode_senml(tree, 0)
    if not isinstance(tree, dict):
        raise MalformedError("a telemetry message is a map", code=codes.UNKNOWN_SHAPE)
    try:
        wire = msgspec.convert(tree, TelemetryData, strict=True)
    except (msgspec.ValidationError, TypeError, OverflowError) as error:
        raise MalformedError(str(error)[:200], code=codes.WRONG_TYPE) from None
    if not _BODY & tree.keys():
        return _from_flat(wire, tree)
    return _from_wire(wire)


def _from_wire(wire: TelemetryData) -> Telemetry:
    lift(wire)
    is_zoneless = False
    samples: list[Sample] = []
    time: int | None = None
    if wire.timestamp is not None:
        time, is_zoneless = parse_time(wire.timestamp)
    if wire.sensors is not None:
        samples.append(_sample(time, wire.sensors))
    if wire.readings is not None:
        samples.append(_sample(time, wire.readings))
    if wire.data is not None:
        samples.append(_sample(time, wire.data))
    if wire.samples is not None:
        if len(wire.samples) > SAMPLES_PER_MESSAGE_MAX:
            raise MalformedError(
                f"{len(wire.samples)} samples, at most {SAMPLES_PER_MESSAGE_MAX}", code=codes.TOO_MANY_READINGS
            )
        for each in wire.samples:
            sample, is_local = _wire_sample(each, time)
            samples.append(sample)
            is_zoneless |= is_local
    _require_something(samples)
    return _telemetry(wire, samples, is_zoneless)


def _require_something(samples: list[Sample]) -> None:
    """Refuse a message as a whole when nothing of it could be stored."""
    if not samples:
        raise MalformedError("the message holds no sample", code=codes.NO_READINGS)
    only = samples[0]
    if len(samples) == 1 and only.code:
        raise MalformedError(only.detail, code=only.code)


def lift(wire: TelemetryData) -> None:
    """Bring a message of an older schema version up to this one; refuse versions that are not known yet."""
    version = wire.schema_version
    if version is not None and not 0 <= version <= SCHEMA_VERSION:
        raise MalformedError(
            f"schema version {version}, known are 0 to {SCHEMA_VERSION}", code=codes.UNKNOWN_SCHEMA_VERSION
        )


def _telemetry(wire: TelemetryData, samples: list[Sample], is_zoneless: bool) -> Telemetry:  # noqa: FBT001
    epoch = wire.epoch
    if wire.seq is not None and not 0 <= wire.seq < SEQUENCE_MAX:
        raise MalformedError(f"seq {wire.seq} is out of range", code=codes.WRONG_TYPE)
    if wire.stream is not None and len(wire.stream) > STREAM_CHARACTERS_MAX:
        raise MalformedError("the stream's name is too long", code=codes.INVALID_NAME)
    if wire.message_id is not None and len(wire.message_id) > MESSAGE_ID_CHARACTERS_MAX:
        raise MalformedError("the message id is too long", code=codes.INVALID_NAME)
    device_id = wire.device_id or wire.older_device_id or wire.sensor_id
    return Telemetry(
        device_id,
        samples,
        wire.stream or "",
        str(epoch)[:64] if epoch is not None else None,
        wire.seq,
        wire.message_id,
        parse_time(wire.sent_at)[0] if wire.sent_at is not None else None,
        wire.location,
        wire.metadata,
        is_zoneless,
    )


def _wire_sample(wire: WireSample, time: int | None) -> tuple[Sample, bool]:
    is_zoneless = False
    if wire.timestamp is not None:
        try:
            time, is_zoneless = parse_time(wire.timestamp)
        except MalformedError as error:
            return Sample(None, {}, code=error.code, detail=str(error)), False
    return _sample(time, wire.readings or {}), is_zoneless


def _sample(time: int | None, readings: dict[str, Any]) -> Sample:
    """Check the readings of one instant; what is wrong is told by the sample's code."""
    sample = Sample(time, readings)
    for value in readings.values():
        if type(value) is not float or not isfinite(value):
            return _sift(sample, readings)
    if not readings or len(readings) > READINGS_PER_SAMPLE_MAX or not readings.keys() <= _good_names:
        return _sift(sample, readings)
    return sample


def _sift(sample: Sample, readings: dict[str, Any]) -> Sample:
    """Take readings apart that are not all plain floats: objects with unit and quality, null, integers, texts."""
    values: dict[str, Value] = {}
    units: dict[str, str] = {}
    qualities: dict[str, int] = {}
    sample.values = values
    try:
        if len(readings) > READINGS_PER_SAMPLE_MAX:
            raise MalformedError(
                f"{len(readings)} readings at once, at most {READINGS_PER_SAMPLE_MAX}", code=codes.TOO_MANY_READINGS
            )
        for name, said in readings.items():
            check_name(name)
            if said is None:  # a sensor that had nothing to say
                continue
            if type(said) is Reading:
                values[name] = check_value(name, said.value)
                if said.unit:
                    units[name] = said.unit[:64]
                if said.quality is not None:
                    qualities[name] = _quality(name, said.quality)
            else:
                values[name] = check_value(name, said)
        if not values:
            raise MalformedError("no reading has a value", code=codes.NO_READINGS)
    except MalformedError as error:
        sample.code, sample.detail = error.code, str(error)
    sample.units = units or None
    sample.qualities = qualities or None
    return sample


def _quality(name: str, quality: str) -> int:
    code = QUALITIES.get(quality)
    if code is None:
        raise MalformedError(f"{name}: quality is good, uncertain or bad", code=codes.WRONG_TYPE)
    return code


def check_name(name: str) -> None:
    """Raise MalformedError unless `name` can name a reading."""
    if name in _good_names:
        return
    if not 0 < len(name) <= READING_NAME_CHARACTERS_MAX or not name.isprintable():
        raise MalformedError(
            f"{name[:64]!r} names no reading: 1 to {READING_NAME_CHARACTERS_MAX} printable characters",
            code=codes.INVALID_NAME,
        )
    if len(_good_names) >= GOOD_NAMES_MAX:
        _good_names.clear()
    _good_names.add(name)


def check_value(name: str, value: object) -> Value:
    """Return `value` as it is stored. Raises MalformedError for what cannot be stored."""
    if type(value) is float:
        if not isfinite(value):
            raise MalformedError(f"{name} is not a finite number", code=codes.NOT_FINITE)
        return value
    if type(value) is bool:
        return value
    if type(value) is int:
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            raise MalformedError(f"{name} does not fit 64 bits", code=codes.WRONG_TYPE)
        return value
    if type(value) is str:
        if len(value.encode("utf-8", "surrogatepass")) > TEXT_VALUE_BYTES_MAX:
            raise MalformedError(f"{name} is longer than {TEXT_VALUE_BYTES_MAX} bytes", code=codes.TEXT_TOO_LONG)
        return value
    raise MalformedError(f"{name} is no number, text or boolean", code=codes.WRONG_TYPE)


def _from_flat(wire: TelemetryData, tree: object) -> Telemetry:
    """Numbers beside an id; the aggregate's min, max, avg and count are such numbers too."""
    lift(wire)
    if not isinstance(tree, dict):
        raise MalformedError("a telemetry message is an object", code=codes.UNKNOWN_SHAPE)
    readings = {
        name: value for name, value in tree.items() if name not in _NOT_READINGS and type(value) in (int, float, bool)
    }
    if not readings:
        raise MalformedError("no readings, samples, sensors, data or numbers were found", code=codes.UNKNOWN_SHAPE)
    time, is_zoneless = parse_time(wire.timestamp) if wire.timestamp is not None else (None, False)
    sample = _sample(time, readings)
    if sample.code:
        raise MalformedError(sample.detail, code=sample.code)
    return _telemetry(wire, [sample], is_zoneless)
