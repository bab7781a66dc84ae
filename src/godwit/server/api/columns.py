"""Telemetry columns as JSON, CSV, Arrow or Parquet. Columns stay columns up to the socket."""

from collections.abc import Iterator
from math import isnan
from typing import Any, Final, Literal

import msgspec
import numpy as np
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from numpy.typing import NDArray

from godwit.contract.errors import RejectedError
from godwit.server.telemetry.model import Kind, Points

JSON: Final = "application/json"
CSV: Final = "text/csv"
ARROW: Final = "application/vnd.apache.arrow.stream"
PARQUET: Final = "application/vnd.apache.parquet"
FORMATS: Final = {"json": JSON, "csv": CSV, "arrow": ARROW, "parquet": PARQUET}
QUALITIES: Final = ("good", "uncertain", "bad")
_UNITS: Final[tuple[tuple[Literal["s", "ms", "us"], int], ...]] = (
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
)
_ROWS_A_CHUNK: Final = 2_000


def chosen_format(request: Request, asked: str | None) -> str:
    """Return the media type by `format`, else by Accept. Raises RejectedError (`not-acceptable`)."""
    if asked is not None:
        return FORMATS[asked]
    accepted = [each.partition(";")[0].strip() for each in request.headers.get("accept", "*/*").split(",")]
    for each in accepted:
        if each in FORMATS.values():
            return each
        if each in ("*/*", "application/*", ""):
            return JSON
        if each == "text/*":
            return CSV
    raise RejectedError(f"Accept one of {', '.join(FORMATS.values())}", code="not-acceptable")


def values_of(points: Points) -> list[float | int | bool | str | None]:
    """Return the values with their kinds: integers exact, no NaN."""
    values: list[Any] = points.value.tolist()
    for at in np.flatnonzero(points.kind != Kind.FLOAT).tolist():
        kind = points.kind[at]
        if kind == Kind.TEXT:
            values[at] = points.text[at] if points.text is not None else None
        elif kind == Kind.BOOLEAN:
            values[at] = bool(values[at])
        else:
            is_exact = points.integer is not None and float(points.integer[at]) == values[at]
            values[at] = int(points.integer[at]) if is_exact and points.integer is not None else int(values[at])
    return values


class Table(msgspec.Struct):
    """Named columns of one length. `time` in ns; other columns are lists or arrays."""

    columns: dict[str, Any]

    def __len__(self) -> int:
        return len(self.columns["time"])


def points_table(points: Points, names: dict[int, str]) -> Table:
    """Return points as rows of time, reading, value, quality, seq."""
    return Table(
        {
            "time": points.time,
            "reading": [names[each] for each in points.series.tolist()],
            "value": points.value if not points.kind.any() else values_of(points),
            "quality": [QUALITIES[each] for each in points.quality.tolist()],
            "seq": points.seq,
        }
    )


def respond(table: Table, media_type: str, about: dict[str, Any]) -> Response:
    """Return a table in the format asked for. In JSON, `about` stands beside the columns."""
    if media_type == JSON:
        return StreamingResponse(_json(table, about), media_type=JSON)
    if media_type == CSV:
        return StreamingResponse(_csv(table), media_type="text/csv; charset=utf-8")
    return Response(_arrow(table, media_type), media_type=media_type)


def _json(table: Table, about: dict[str, Any]) -> Iterator[bytes]:
    """Yield the document in pieces: no piece keeps the interpreter from the broker's loop for long."""
    head = msgspec.json.encode({**about, "count": len(table)})
    yield head[:-1] + b',"columns":{'
    for at, (name, column) in enumerate(table.columns.items()):
        yield (b"," if at else b"") + msgspec.json.encode(name) + b":["
        for start in range(0, len(table), _ROWS_A_CHUNK):
            piece = msgspec.json.encode(_json_column(name, column[start : start + _ROWS_A_CHUNK]))
            yield (b"," if start else b"") + piece[1:-1]
        yield b"]"
    yield b"}}"


def _json_column(name: str, column: Any) -> list[Any]:
    if name == "time":
        return times_of(column)
    if isinstance(column, np.ndarray):
        listed: list[Any] = column.tolist()
        return [None if isnan(each) else each for each in listed] if column.dtype.kind == "f" else listed
    return column  # type: ignore[no-any-return]


def times_of(times: NDArray[np.int64]) -> list[str]:
    """Return times in ns as RFC 3339, all with as many digits as the finest of them needs."""
    unit: Literal["s", "ms", "us", "ns"] = "ns"
    for coarser, width in _UNITS:
        if (times % width).any():
            break
        unit = coarser
    listed: list[str] = np.datetime_as_string(times.view("datetime64[ns]"), unit=unit).tolist()
    return [each + "Z" for each in listed]


def _csv(table: Table) -> Iterator[str]:
    import csv  # noqa: PLC0415
    from io import StringIO  # noqa: PLC0415

    yield ",".join(table.columns) + "\r\n"
    for start in range(0, len(table), _ROWS_A_CHUNK):
        part = slice(start, start + _ROWS_A_CHUNK)
        columns = [_json_column(name, column[part]) for name, column in table.columns.items()]
        out = StringIO()
        csv.writer(out).writerows(zip(*columns, strict=True))
        yield out.getvalue()


def _arrow(table: Table, media_type: str) -> bytes:
    import pyarrow as pa  # noqa: PLC0415 - 25 MB that an idle platform does without

    arrays = {}
    for name, column in table.columns.items():
        if name == "time":
            arrays[name] = pa.array(column).cast(pa.timestamp("ns", tz="UTC"))
        elif name == "value" and isinstance(column, list):
            is_number = all(isinstance(each, int | float) and not isinstance(each, bool) for each in column)
            arrays[name] = pa.array([float(each) for each in column]) if is_number else pa.array(map(_text, column))
        else:
            arrays[name] = pa.array(column)
    batch = pa.table(arrays)
    sink = pa.BufferOutputStream()
    if media_type == PARQUET:
        import pyarrow.parquet as pq  # noqa: PLC0415

        pq.write_table(batch, sink, compression="zstd")
    else:
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_table(batch)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _text(value: object) -> str | None:
    return None if value is None else str(value)
