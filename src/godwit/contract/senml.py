"""SenML, RFC 8428: packs of records with base fields, in JSON and (with integer labels) in CBOR.

A pack is resolved (RFC 8428, 4.6): base name, time, unit, value and sum are applied to each record; records of one time
become one sample. The device is known from the topic, so a reading is called by what follows the last `/` or `:` of the
base name; where that is nothing, by the last part of the name. A sum is a reading of its own, `{name}.sum`: it counts
in another unit than the value (4.2).
"""

from base64 import urlsafe_b64encode
from math import isfinite
from typing import Any, Final

from godwit.contract import codes
from godwit.contract.errors import MalformedError
from godwit.contract.limits import INTEGER_MAX, INTEGER_MIN, SAMPLES_PER_MESSAGE_MAX
from godwit.contract.samples import Sample, Telemetry, Value, check_name, check_unit, check_value
from godwit.contract.times import EARLIEST_NS, LATEST_NS, nanoseconds

_LABELS: Final[dict[int, str]] = {
    -1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs",
    0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}  # fmt: skip
"""CBOR labels (RFC 8428, 6, table 4)."""
_BASE: Final = ("bn", "bt", "bu", "bv", "bs")
_ABSOLUTE_NS: Final = 2**28 * 1_000_000_000
"""Times below are relative to now (RFC 8428, 4.5.3)."""
_VERSION: Final = 10
_VALUES: Final = ("v", "vs", "vb", "vd")


def _refuse(text: str) -> MalformedError:
    return MalformedError(text, code=codes.MALFORMED_SENML)


def _number(record: dict[str, Any], label: str) -> float | int:
    value = record.get(label, 0)
    if type(value) is float and isfinite(value):
        return value
    if type(value) is int and INTEGER_MIN <= value <= INTEGER_MAX:
        return value
    if type(value) is float:
        raise MalformedError(f"{label} is not a finite number", code=codes.NOT_FINITE)
    raise _refuse(f"{label} is a number")


def _text(record: dict[str, Any], label: str) -> str:
    value = record.get(label, "")
    if type(value) is not str:
        raise _refuse(f"{label} is a text")
    return value


def decode_senml(pack: object, now: int) -> Telemetry:
    """Resolve a pack. `now` in ns UTC; 0 where it is not known (then relative times mean: at arrival)."""
    if not isinstance(pack, list) or not pack:
        raise _refuse("a SenML pack is an array of records")
    if len(pack) > SAMPLES_PER_MESSAGE_MAX:
        raise MalformedError(f"{len(pack)} records", code=codes.TOO_MANY_READINGS)
    base: dict[str, Any] = {}
    samples = _Samples()
    for each in pack:
        if not isinstance(each, dict):
            raise _refuse("a SenML record is an object")
        record = {_LABELS.get(label, "") if type(label) is int else label: value for label, value in each.items()}
        _check_record(record)
        base.update({label: record[label] for label in _BASE if label in record})
        if "s" in record or any(label in record for label in _VALUES):
            _resolve(record, base, now, samples)
    if not samples.all:
        raise MalformedError("no record has a value", code=codes.NO_READINGS)
    return Telemetry(None, samples.all)


class _Samples:
    """Gathers readings of one time in one sample; a second reading of one name begins another one: both are kept."""

    def __init__(self) -> None:
        self.all: list[Sample] = []
        self._open: dict[int | None, Sample] = {}

    def put(self, time: int | None, name: str, value: Value, unit: str) -> None:
        sample = self._open.get(time)
        if sample is None or name in sample.values:
            sample = self._open[time] = Sample(time, {})
            self.all.append(sample)
        sample.values[name] = value
        if unit:
            if sample.units is None:
                sample.units = {}
            sample.units[name] = unit


def _check_record(record: dict[Any, Any]) -> None:
    for label in record:
        # 4.4: a label that ends in an underscore must be understood, and none is.
        if label.endswith("_"):
            raise _refuse(f"the field {label[:32]!r} is not understood")
    if "bver" in record and _number(record, "bver") > _VERSION:
        raise MalformedError("a newer SenML version", code=codes.UNKNOWN_SCHEMA_VERSION)


def _resolve(record: dict[str, Any], base: dict[str, Any], now: int, samples: _Samples) -> None:
    name = _name(_text(base, "bn"), _text(record, "n"))
    check_name(name)
    time = _time(nanoseconds(_number(base, "bt")) + nanoseconds(_number(record, "t")), now)
    if any(label in record for label in _VALUES):
        unit = check_unit(name, _text(record, "u") or _text(base, "bu"))
        samples.put(time, name, check_value(name, _value(record, base)), unit)
    if "s" in record:
        name = f"{name}.sum"
        check_name(name)
        samples.put(time, name, check_value(name, _number(record, "s") + _number(base, "bs")), "")


def _name(base: str, own: str) -> str:
    prefix = max(base.rfind("/"), base.rfind(":")) + 1
    name = (base + own)[prefix:]
    if not name or (not base and name.startswith("urn:")):
        name = (base + own).rstrip("/:").replace(":", "/").rpartition("/")[2]
    return name


def _value(record: dict[str, Any], base: dict[str, Any]) -> Value:
    if sum(label in record for label in _VALUES) > 1:
        raise _refuse("a record has one value")
    if "v" in record:
        return _number(record, "v") + _number(base, "bv")
    if "vb" in record:
        if type(record["vb"]) is not bool:
            raise _refuse("vb is true or false")
        return record["vb"]
    data = record.get("vd")
    if type(data) is bytes:  # in JSON it is this text already (RFC 8428, 5)
        return urlsafe_b64encode(data).rstrip(b"=").decode()
    return _text(record, "vs" if "vs" in record else "vd")


def _time(time: int, now: int) -> int | None:
    if time >= _ABSOLUTE_NS:
        if not EARLIEST_NS <= time < LATEST_NS:
            raise MalformedError("a time that is not between 2000 and 2100", code=codes.TIME_IMPLAUSIBLE)
        return time
    if time <= -_ABSOLUTE_NS:
        raise MalformedError("a relative time of more than 2**28 seconds", code=codes.TIME_IMPLAUSIBLE)
    return now + time if time and now else None
