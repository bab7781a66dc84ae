"""SenML, RFC 8428: packs of records with base fields, in JSON and (with integer labels) in CBOR.

A pack is resolved (RFC 8428, 4.6): base name, time, unit, value and sum are applied to each record; records of one time
become one sample. A name `urn:dev:...:reading` or `device/reading` keeps its last part as the reading's name.
"""

from math import isnan
from typing import Any, Final

from godwit.contract import codes
from godwit.contract.errors import MalformedError
from godwit.contract.limits import SAMPLES_PER_MESSAGE_MAX
from godwit.contract.telemetry import Sample, Telemetry, Value, check_name, check_value
from godwit.contract.times import parse_time

_LABELS: Final[dict[object, str]] = {
    -1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs",
    0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}  # fmt: skip
"""CBOR labels (RFC 8428, 6, table 4)."""
_ABSOLUTE_S: Final = 2**28
"""Times below are relative to now (RFC 8428, 4.5.3)."""
_VERSION: Final = 10
_VALUES: Final = ("v", "vs", "vb", "vd", "s")
NS: Final = 1_000_000_000


def _refuse(text: str) -> MalformedError:
    return MalformedError(text, code=codes.MALFORMED_SENML)


def _number(record: dict[str, Any], label: str) -> float | int:
    value = record.get(label, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or isnan(value):
        raise _refuse(f"{label} is a number")
    return value


def _text(record: dict[str, Any], label: str) -> str:
    value = record.get(label, "")
    if not isinstance(value, str):
        raise _refuse(f"{label} is a text")
    return value


def decode_senml(pack: object, now: int) -> Telemetry:
    """Resolve a pack. `now` in ns UTC; 0 where it is not known (then relative times mean: at arrival)."""
    if not isinstance(pack, list) or not pack:
        raise _refuse("a SenML pack is an array of records")
    if len(pack) > SAMPLES_PER_MESSAGE_MAX:
        raise MalformedError(f"{len(pack)} records", code=codes.TOO_MANY_READINGS)
    base: dict[str, Any] = {}
    samples: dict[int | None, Sample] = {}
    for each in pack:
        if not isinstance(each, dict):
            raise _refuse("a SenML record is an object")
        record: dict[str, Any] = {str(_LABELS.get(label, label)): value for label, value in each.items()}
        _check_record(record)
        base.update({label: record[label] for label in ("bn", "bt", "bu", "bv", "bs") if label in record})
        if any(label in record for label in _VALUES):
            _resolve(record, base, now, samples)
    if not samples:
        raise MalformedError("no record has a value", code=codes.NO_READINGS)
    return Telemetry(None, list(samples.values()))


def _check_record(record: dict[Any, Any]) -> None:
    for label in record:
        # 4.4: a label that ends in an underscore must be understood, and none is.
        if not isinstance(label, str) or label.endswith("_"):
            raise _refuse(f"the field {str(label)[:32]!r} is not understood")
    if _number(record, "bver") > _VERSION:
        raise MalformedError("a newer SenML version", code=codes.UNKNOWN_SCHEMA_VERSION)


def _resolve(record: dict[str, Any], base: dict[str, Any], now: int, samples: dict[int | None, Sample]) -> None:
    name = _text(base, "bn") + _text(record, "n")
    short = name.rstrip("/:").replace(":", "/").rpartition("/")[2]
    check_name(short)
    time = _time(_number(base, "bt") + _number(record, "t"), now)
    sample = samples.get(time)
    if sample is None:
        sample = samples[time] = Sample(time, {})
    sample.values[short] = check_value(short, _value(record, base))
    unit = _text(record, "u") or _text(base, "bu")
    if unit:
        sample.units = {**(sample.units or {}), short: unit[:64]}


def _value(record: dict[str, Any], base: dict[str, Any]) -> Value:
    if "vb" in record:
        if not isinstance(record["vb"], bool):
            raise _refuse("vb is true or false")
        return record["vb"]
    for label in ("vs", "vd"):
        if label in record:
            value = record[label]
            return value.hex() if isinstance(value, bytes) else _text(record, label)
    if "v" in record:
        return _number(record, "v") + _number(base, "bv")
    return _number(record, "s") + _number(base, "bs")


def _time(seconds: float, now: int) -> int | None:
    if seconds >= _ABSOLUTE_S:
        return parse_time(seconds)[0]
    if not seconds or not now:
        return None
    if abs(seconds) > _ABSOLUTE_S:
        raise MalformedError("a relative time of more than 2**28 seconds", code=codes.TIME_IMPLAUSIBLE)
    return now + round(seconds * NS)
