"""Telemetry in Protobuf, by the shipped `telemetry.proto`. The library is imported when the first such message comes.

The compiled descriptor stands beside the source as `telemetry.binpb`
(`protoc --descriptor_set_out=telemetry.binpb telemetry.proto`), so that no generated code ties us to one release.
"""

from functools import cache
from importlib.resources import files
from typing import Any

from godwit.contract import codes
from godwit.contract.errors import MalformedError
from godwit.contract.limits import SAMPLES_PER_MESSAGE_MAX
from godwit.contract.telemetry import (
    Location,
    Metadata,
    Sample,
    Telemetry,
    TelemetryData,
    Value,
    check_name,
    check_value,
    lift,
)
from godwit.contract.times import parse_time


@cache
def message_class() -> Any:
    """Return the class of `godwit.v1.Telemetry`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: PLC0415

    described = descriptor_pb2.FileDescriptorSet.FromString(
        files("godwit.contract").joinpath("telemetry.binpb").read_bytes()
    )
    pool = descriptor_pool.DescriptorPool()
    for each in described.file:
        pool.Add(each)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("godwit.v1.Telemetry"))


def decode_protobuf(payload: bytes) -> Telemetry:
    """Decode a `godwit.v1.Telemetry`. Raises MalformedError only."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415

    try:
        said = message_class().FromString(payload)
    except (DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedError(f"not Protobuf: {error}"[:200], code=codes.MALFORMED_PROTOBUF) from None
    lift(TelemetryData(schema_version=said.schema_version or None))
    if not said.samples:
        raise MalformedError("the message holds no sample", code=codes.NO_READINGS)
    if len(said.samples) > SAMPLES_PER_MESSAGE_MAX:
        raise MalformedError(f"{len(said.samples)} samples", code=codes.TOO_MANY_READINGS)
    samples = [_sample(each) for each in said.samples]
    if len(samples) == 1 and samples[0].code:
        raise MalformedError(samples[0].detail, code=samples[0].code)
    return Telemetry(
        said.device_id or None,
        samples,
        said.stream[:64],
        said.epoch[:64] or None,
        said.seq if said.HasField("seq") else None,
        said.message_id[:128] or None,
        parse_time(said.sent_at)[0] if said.sent_at else None,
        _location(said),
        _metadata(said),
    )


def _location(said: Any) -> Location | None:
    if not said.HasField("location"):
        return None
    where = said.location
    return Location(where.latitude, where.longitude, where.altitude if where.HasField("altitude") else None)


def _metadata(said: Any) -> Metadata | None:
    if not said.HasField("metadata"):
        return None
    about = said.metadata
    numbers = [
        getattr(about, name) if about.HasField(name) else None
        for name in ("battery_level", "signal_strength", "uptime")
    ]
    return Metadata(about.firmware_version or None, *numbers)


def _sample(said: Any) -> Sample:
    values: dict[str, Value] = {}
    sample = Sample(None, values)
    units: dict[str, str] = {}
    qualities: dict[str, int] = {}
    try:
        sample.time = parse_time(said.time)[0] if said.time else None
        for name, reading in said.readings.items():
            check_name(name)
            which = reading.WhichOneof("value")
            if which is None:
                continue
            values[name] = check_value(name, getattr(reading, which))
            if reading.unit:
                units[name] = reading.unit[:64]
            if reading.quality:
                qualities[name] = min(reading.quality, 2)
        if not values:
            raise MalformedError("no reading has a value", code=codes.NO_READINGS)
    except MalformedError as error:
        sample.code, sample.detail = error.code, str(error)
    sample.units, sample.qualities = units or None, qualities or None
    return sample
