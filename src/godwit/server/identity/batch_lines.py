"""The lines of a batch: CSV with a header, each line a device to enroll. Pure."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from godwit.contract.errors import MalformedError, RejectedError
from godwit.contract.ids import parse_device_id
from godwit.contract.spreadsheets import cell

_COLUMNS: Final = {
    "device_id": "deviceId", "deviceid": "deviceId", "id": "deviceId", "name": "name", "type": "deviceType",
    "device_type": "deviceType", "devicetype": "deviceType", "tenant": "tenant", "tags": "tags", "groups": "groups",
    "group": "groups",
}  # fmt: skip


class Line(NamedTuple):
    """A line of the batch: its number, and the device as the API takes it."""

    number: int
    document: dict[str, Any]

    @property
    def device_id(self) -> str:
        """Return whose it is."""
        return str(self.document.get("deviceId", ""))


class Refused(NamedTuple):
    """A line that came to nothing."""

    number: int
    device_id: str
    code: str
    detail: str


def read_lines(text: Iterable[str], defaults: Mapping[str, Any], refused: list[Refused]) -> Iterator[Line]:
    """Yield the lines of a CSV text; those that cannot be are added to `refused`.

    Raises RejectedError (`csv-header`, `csv-malformed`).
    """
    rows = csv.reader(text)
    try:
        header = [each.strip().lower() for each in next(rows, [])]
        unknown = [each for each in header if each not in _COLUMNS]
        if unknown or "deviceId" not in [_COLUMNS[each] for each in header]:
            what = f"no column {unknown[0][:64]!r}" if unknown else "a column device_id is needed"
            raise RejectedError(f"{what}; known are device_id, name, type, tenant, groups, tags", code="csv-header")
        seen: set[str] = set()
        for row in rows:
            if any(row):
                found = _line(rows.line_num, header, row, defaults, seen)
                if isinstance(found, Line):
                    yield found
                else:
                    refused.append(found)
    except csv.Error as error:
        raise RejectedError(f"line {rows.line_num} cannot be read: {error}", code="csv-malformed") from error


def _line(
    number: int, header: list[str], row: list[str], defaults: Mapping[str, Any], seen: set[str]
) -> Line | Refused:
    fields = {_COLUMNS[name]: value.strip() for name, value in zip(header, row, strict=False) if value.strip()}
    device_id = fields.get("deviceId", "")
    if len(row) != len(header):
        return Refused(number, device_id, "csv-columns", f"{len(row)} fields, {len(header)} columns")
    try:
        parse_device_id(device_id)
        document: dict[str, Any] = {**defaults, **fields}
        if "groups" in fields:
            document["groups"] = [each.strip() for each in fields["groups"].split(";") if each.strip()]
        if "tags" in fields:
            document["tags"] = dict(_tag(each) for each in fields["tags"].split(";") if each.strip())
    except (MalformedError, RejectedError) as error:
        return Refused(number, device_id, error.code, str(error))
    if device_id in seen:
        return Refused(number, device_id, "duplicate-device", "a line before it has this id")
    seen.add(device_id)
    return Line(number, document)


def _tag(text: str) -> tuple[str, str]:
    key, equals, value = text.strip().partition("=")
    if not equals or not key:
        raise RejectedError(f"{text!r}: tags are key=value;key=value", code="invalid-tag")
    return key, value


def report(refused: Iterable[Refused]) -> bytes:
    """Return lines that came to nothing as CSV, as spreadsheets may have it."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("line", "device_id", "code", "detail"))
    writer.writerows([cell(each) for each in line] for line in sorted(refused))
    return text.getvalue().encode()
