"""Telemetry in Protobuf, by the shipped `telemetry.proto`. The library is imported when the first such message comes.

The compiled descriptor stands beside the source as `telemetry.binpb`
(`protoc --descriptor_set_out=telemetry.binpb telemetry.proto`), so that no generated code ties us to one release.
"""

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, Final, TypeVar

import msgspec

from godwit.contract import codes
from godwit.contract.errors import MalformedError
from godwit.contract.gaps import UNKNOWN, WireGap, records_of
from godwit.contract.limits import SAMPLES_PER_MESSAGE_MAX
from godwit.contract.samples import (
    Location,
    Metadata,
    Reading,
    Sample,
    Telemetry,
    check_extras,
    check_identity,
    require_something,
    sift,
    timing_of,
)
from godwit.contract.times import ImplausibleTimeError, parse_time, parse_uptime
from godwit.contract.versions import check_version

Extra = TypeVar("Extra", Location, Metadata)
Reader = Callable[[object], tuple[int, bool]]
_QUALITIES: Final = ("good", "uncertain", "bad")


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
    check_version(said.schema_version)
    if len(said.samples) > SAMPLES_PER_MESSAGE_MAX:
        raise MalformedError(f"{len(said.samples)} samples", code=codes.TOO_MANY_READINGS)
    read = parse_uptime if said.clock == "uptime" else parse_time
    samples = [_sample(each, read) for each in said.samples]
    gaps = [_gap(each) for each in said.gaps]
    if samples or not gaps:
        require_something(samples)
    seq = said.seq if said.HasField("seq") else None
    check_identity(said.stream, said.epoch, seq, said.message_id)
    location, metadata = _location(said), _metadata(said)
    check_extras(location, metadata)
    return Telemetry(
        said.device_id or None,
        samples,
        said.stream,
        said.epoch or None,
        seq,
        said.message_id or None,
        _sent_at(said, read) if said.sent_at else None,
        location,
        metadata,
        gaps=records_of(gaps, said.stream, said.epoch or None) if gaps else None,
        timing=timing_of(said.clock, said.boot_id, list(said.sync) or None),
    )


def _gap(said: Any) -> WireGap:
    stream = said.stream if said.HasField("stream") else None
    return WireGap(said.first, said.last, said.reason or UNKNOWN, stream, said.epoch or None)


def _sent_at(said: Any, read: Reader) -> int:
    try:
        return read(said.sent_at)[0]
    except ImplausibleTimeError as error:
        if not said.HasField("seq"):
            raise
        return error.time


def _location(said: Any) -> Location | None:
    if not said.HasField("location"):
        return None
    where = said.location
    altitude = where.altitude if where.HasField("altitude") else None
    return _built(Location, {"latitude": where.latitude, "longitude": where.longitude, "altitude": altitude})


def _metadata(said: Any) -> Metadata | None:
    if not said.HasField("metadata"):
        return None
    about = said.metadata
    fields: dict[str, Any] = {
        camel: getattr(about, name)
        for name, camel in (
            ("battery_level", "batteryLevel"), ("signal_strength", "signalStrength"), ("uptime", "uptime")
        )
        if about.HasField(name)
    }  # fmt: skip
    return _built(Metadata, {**fields, "firmwareVersion": about.firmware_version or None})


def _built(kind: type[Extra], fields: dict[str, Any]) -> Extra:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise MalformedError(str(error)[:200], code=codes.WRONG_TYPE) from None


def _sample(said: Any, read: Reader) -> Sample:
    readings: dict[str, Reading] = {}
    for name, reading in said.readings.items():
        which, quality = reading.WhichOneof("value"), reading.quality
        readings[name] = Reading(
            getattr(reading, which) if which else None,
            reading.unit or None,
            (_QUALITIES[quality] if 0 <= quality < 3 else str(quality)) if quality else None,
        )
    try:
        time = read(said.time)[0] if said.time else None
    except ImplausibleTimeError as error:
        sample = sift(error.time, readings)
        if not sample.code:
            sample.code, sample.detail = error.code, str(error)
        return sample
    except MalformedError as error:
        return Sample(None, {}, code=error.code, detail=str(error))
    return sift(time, readings)
