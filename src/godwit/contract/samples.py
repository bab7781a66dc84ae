"""What every accepted telemetry message becomes, and the checks that readings of every encoding pass.

What is wrong with one sample is told by that sample's `code`, so that it goes to quarantine alone.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Final

import msgspec

from godwit.contract import codes
from godwit.contract.errors import MalformedError
from godwit.contract.gaps import GapRecord
from godwit.contract.limits import (
    BOOT_ID_CHARACTERS_MAX,
    EPOCH_CHARACTERS_MAX,
    FIRMWARE_VERSION_CHARACTERS_MAX,
    INTEGER_MAX,
    INTEGER_MIN,
    MESSAGE_ID_CHARACTERS_MAX,
    READING_NAME_CHARACTERS_MAX,
    READINGS_PER_SAMPLE_MAX,
    SEQUENCE_MAX,
    STREAM_CHARACTERS_MAX,
    TEXT_VALUE_BYTES_MAX,
    UNIT_CHARACTERS_MAX,
)

Value = float | int | bool | str
QUALITIES: Final = {"good": 0, "uncertain": 1, "bad": 2}
_NAMES_KEPT_MAX: Final = 8_192
_names: set[str] = set()
"""Names that were found good. Devices send the same ones for ever."""


class Location(msgspec.Struct, frozen=True, gc=False):
    """WGS 84 degrees, altitude in metres."""

    latitude: Annotated[float, msgspec.Meta(ge=-90, le=90)]
    longitude: Annotated[float, msgspec.Meta(ge=-180, le=180)]
    altitude: float | None = None


class Metadata(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What a device says of itself beside its readings. Battery in percent, signal in dBm, uptime in seconds."""

    firmware_version: Annotated[str, msgspec.Meta(max_length=FIRMWARE_VERSION_CHARACTERS_MAX)] | None = None
    battery_level: float | None = None
    signal_strength: float | None = None
    uptime: float | None = None


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One value with its unit (SenML or UCUM code) and quality: good, uncertain or bad. Null: nothing was measured."""

    value: Value | None = None
    unit: str | None = None
    quality: str | None = None


class Sample(msgspec.Struct, array_like=True, gc=False):
    """Readings at one instant. `time` None: not given. A sample with a `code` is bad and is quarantined alone."""

    time: int | None
    values: dict[str, Value]
    units: dict[str, str] | None = None
    qualities: dict[str, int] | None = None
    code: str = ""
    detail: str = ""
    is_floats: bool = False
    """Whether all values are known to be floats, and finite."""
    offset: int = 0
    """What was taken from the device's own time to get `time`, ns."""

    @property
    def own_time(self) -> int | None:
        """What the device said."""
        return None if self.time is None else self.time + self.offset

    @property
    def is_clock_wrong(self) -> bool:
        """Whether nothing is wrong with it but its time, which who knows the device's clock may put right."""
        return self.code == codes.TIME_IMPLAUSIBLE and self.time is not None


class Timing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a message says of the clock that its times are of, where that is not simply UTC, or was compared."""

    is_uptime: bool = False
    """Times of samples and `sent_at` are ns since the boot `boot_id`."""
    boot_id: str = ""
    sync: tuple[int, ...] | None = None
    """The four timestamps of an exchange; empty: only an answer is asked for."""
    is_set: bool = False
    """The clock was set, or may have been, since it was compared last."""


class Telemetry(msgspec.Struct, array_like=True, gc=False):
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
    gaps: list[GapRecord] | None = None
    """What the device has lost, of this or another stream."""
    timing: Timing | None = None


def timing_of(clock: object, boot_id: object, sync: object) -> Timing | None:
    """Return what a message says of its clock, None where that is nothing we know. What is odd is passed over."""
    is_uptime, is_set = clock == "uptime", clock == "set"
    boot = str(boot_id) if is_uptime and isinstance(boot_id, str | int) else ""
    if len(boot) > BOOT_ID_CHARACTERS_MAX or not boot.isprintable():
        raise MalformedError(
            f"bootId has at most {BOOT_ID_CHARACTERS_MAX} printable characters", code=codes.INVALID_NAME
        )
    told: tuple[int, ...] | None = None
    if isinstance(sync, list):
        is_four = len(sync) == 4 and all(INTEGER_MIN <= each <= INTEGER_MAX for each in sync)
        told = tuple(sync) if is_four else ()
    return Timing(is_uptime, boot, told, is_set) if is_uptime or is_set or told is not None else None


def sample_of(time: int | None, readings: Mapping[str, object]) -> Sample:
    """Return the checked readings of one instant, on the short way where all are numbers under names known as good."""
    if _names.issuperset(readings) and 0 < len(readings) <= READINGS_PER_SAMPLE_MAX:
        is_floats = True
        for value in readings.values():
            kind = type(value)
            if kind is float:
                if not -1.8e308 < value < 1.8e308:  # type: ignore[operator]  # NaN and infinity; isfinite() costs twice
                    break
            elif kind is int and INTEGER_MIN <= value <= INTEGER_MAX:  # type: ignore[operator]
                is_floats = False
            else:
                break
        else:
            # The loop has seen that none is null.
            return Sample(time, readings, is_floats=is_floats)  # type: ignore[arg-type]
    return sift(time, readings)


def sift(time: int | None, readings: Mapping[str, object]) -> Sample:
    """Take readings apart that are not all plain numbers: objects with unit and quality, null, texts, faults."""
    values: dict[str, Value] = {}
    units: dict[str, str] = {}
    qualities: dict[str, int] = {}
    sample = Sample(time, values)
    try:
        if len(readings) > READINGS_PER_SAMPLE_MAX:
            raise MalformedError(
                f"{len(readings)} readings at once, at most {READINGS_PER_SAMPLE_MAX}", code=codes.TOO_MANY_READINGS
            )
        for name, said in readings.items():
            if name not in _names:
                check_name(name)
            value = said
            if type(said) is Reading:
                value = said.value
                if said.unit:
                    units[name] = check_unit(name, said.unit)
                if said.quality is not None:
                    qualities[name] = _quality(name, said.quality)
            if value is not None:  # null: a sensor that had nothing to say
                values[name] = check_value(name, value)
        if not values:
            raise MalformedError("no reading has a value", code=codes.NO_READINGS)
    except MalformedError as error:
        sample.code, sample.detail = error.code, str(error)
    sample.units = units or None
    sample.qualities = qualities or None
    return sample


def require_something(samples: list[Sample]) -> None:
    """Refuse a message as a whole when nothing of it could be stored."""
    if not samples:
        raise MalformedError("the message holds no sample", code=codes.NO_READINGS)
    only = samples[0]
    if len(samples) == 1 and only.code and not only.is_clock_wrong:
        raise MalformedError(only.detail, code=only.code)


def _quality(name: str, quality: str) -> int:
    code = QUALITIES.get(quality)
    if code is None:
        raise MalformedError(f"{name}: quality is good, uncertain or bad", code=codes.WRONG_TYPE)
    return code


def check_name(name: str) -> None:
    """Raise MalformedError unless `name` can name a reading."""
    if not 0 < len(name) <= READING_NAME_CHARACTERS_MAX or not name.isprintable():
        raise MalformedError(
            f"{name[:64]!r} names no reading: 1 to {READING_NAME_CHARACTERS_MAX} printable characters",
            code=codes.INVALID_NAME,
        )
    if len(_names) >= _NAMES_KEPT_MAX:
        _names.clear()
    _names.add(name)


def check_unit(name: str, unit: str) -> str:
    """Return the unit of a reading. Raises MalformedError for what can be none."""
    if len(unit) > UNIT_CHARACTERS_MAX or not unit.isprintable():
        raise MalformedError(
            f"{name}: a unit has at most {UNIT_CHARACTERS_MAX} printable characters", code=codes.INVALID_NAME
        )
    return unit


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
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise MalformedError(f"{name} holds half a character", code=codes.INVALID_UTF8) from None
        if size > TEXT_VALUE_BYTES_MAX:
            raise MalformedError(f"{name} is longer than {TEXT_VALUE_BYTES_MAX} bytes", code=codes.TEXT_TOO_LONG)
        return value
    raise MalformedError(f"{name} is no number, text or boolean", code=codes.WRONG_TYPE)


def check_identity(stream: str | None, epoch: str | None, seq: int | None, message_id: str | None) -> None:
    """Raise MalformedError for a name of a stream, epoch or message, or a number, that cannot be kept."""
    if seq is not None and not 0 <= seq < SEQUENCE_MAX:
        raise MalformedError(f"seq is not between 0 and {SEQUENCE_MAX}", code=codes.WRONG_TYPE)
    for what, text, longest in (
        ("stream", stream, STREAM_CHARACTERS_MAX),
        ("epoch", epoch, EPOCH_CHARACTERS_MAX),
        ("messageId", message_id, MESSAGE_ID_CHARACTERS_MAX),
    ):
        if text and (len(text) > longest or not text.isprintable()):
            raise MalformedError(f"{what} has at most {longest} printable characters", code=codes.INVALID_NAME)


def check_extras(location: Location | None, metadata: Metadata | None) -> None:
    """Raise MalformedError for NaN and infinity beside the readings. JSON has none; CBOR and Protobuf do."""
    for extra in (location, metadata):
        for value in msgspec.structs.astuple(extra) if extra is not None else ():
            if isinstance(value, float) and not isfinite(value):
                raise MalformedError("location and metadata hold finite numbers", code=codes.NOT_FINITE)
