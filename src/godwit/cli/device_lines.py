"""Lines of text as samples: JSON objects, or CSV with a header. Pure.

A field named `timestamp`, `time` or `ts` is the time; all others are readings. Names are taken as they stand.
"""

import csv
from typing import Final, NamedTuple

import msgspec

from godwit.contract.errors import MalformedError
from godwit.contract.samples import Reading, Value

LINE_BYTES_MAX: Final = 1_048_576
TIMES: Final = ("timestamp", "time", "ts")


class Line(NamedTuple):
    """One sample: its time as it was said (None: now), and its readings."""

    at: str | float | int | None
    readings: dict[str, Value | Reading | None]


class LineSplit:
    """Cuts bytes into lines. What is no UTF-8 stays in the line as half characters, which no reader takes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that are complete now, without their ends; one that does not end is cut."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            lines.append(self._rest)
            self._rest = b""
        return [_text(each) for each in lines]

    def rest(self) -> list[str]:
        """Return the last line, if it has no end."""
        rest, self._rest = self._rest, b""
        return [_text(rest)] if rest else []


def _text(line: bytes) -> str:
    return line.rstrip(b"\r").decode("utf-8", "surrogateescape")


class JsonLines:
    """Reads one JSON object a line; readings may stand in `readings`, with units."""

    def read(self, text: str) -> Line | None:
        """Return the sample of a line, None for an empty one. Raises MalformedError."""
        if not text.strip():
            return None
        try:
            said = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise MalformedError(f"not JSON: {error}") from error
        if not isinstance(said, dict):
            raise MalformedError('a line is a JSON object, such as {"temperature": 21.5}')
        at = next((said.pop(name) for name in TIMES if name in said), None)
        if isinstance(inner := said.get("readings"), dict):
            said = inner
        return Line(at, {name: _reading(value) for name, value in said.items()})


def _reading(value: object) -> Value | Reading | None:
    if isinstance(value, dict):
        try:
            return msgspec.convert(value, Reading)
        except msgspec.ValidationError as error:
            raise MalformedError(f"no reading: {error}") from error
    return value  # type: ignore[return-value]  # checked when it is taken


class CsvLines:
    """Reads CSV; the first line names the columns. Empty fields are no readings."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def read(self, text: str) -> Line | None:
        """Return the sample of a line, None for an empty one and for the header. Raises MalformedError."""
        if not text.strip():
            return None
        try:
            (fields,) = csv.reader([text], strict=True)
        except (csv.Error, ValueError) as error:
            raise MalformedError(f"not CSV: {error}") from error
        if not self._names:
            self._names = [each.strip() for each in fields]
            if len(set(self._names)) < len(self._names) or "" in self._names:
                raise MalformedError("the header must name every column once")
            return None
        if len(fields) != len(self._names):
            raise MalformedError(f"{len(fields)} fields, the header has {len(self._names)}")
        said = {name: value.strip() for name, value in zip(self._names, fields, strict=True) if value.strip()}
        at = next((said.pop(name) for name in TIMES if name in said), None)
        return Line(_number(at) if at is not None else None, {name: _number(value) for name, value in said.items()})


def _number(text: str) -> float | int | str | bool:
    """Return a field as a number or boolean where it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def reader_of(kind: str, first: str) -> JsonLines | CsvLines:
    """Return the reader of a format, `auto` by the first line."""
    if kind == "auto":
        kind = "json" if first.lstrip().startswith("{") else "csv"
    return JsonLines() if kind == "json" else CsvLines()
