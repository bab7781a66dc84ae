"""Columns as JSON, CSV, Arrow or Parquet, in pieces. Imports no framework: the encoder process runs it too."""

import csv
from collections.abc import Iterator
from io import StringIO
from math import isnan
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from godwit.server.api.tables import Coded, Table

JSON: Final = "application/json"
CSV: Final = "text/csv"
ARROW: Final = "application/vnd.apache.arrow.stream"
PARQUET: Final = "application/vnd.apache.parquet"
_UNITS: Final[tuple[tuple[Literal["s", "ms", "us"], int], ...]] = (
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
)
_ROWS_A_PIECE: Final = 2_000


def encode(table: Table, media_type: str, about: dict[str, Any]) -> Iterator[bytes]:
    """Yield the document in pieces. In JSON, `about` stands beside the columns."""
    if media_type == JSON:
        return _json(table, about)
    if media_type == CSV:
        return _csv(table)
    return iter([_arrow(table, media_type)])


def _json(table: Table, about: dict[str, Any]) -> Iterator[bytes]:
    head = msgspec.json.encode({**about, "count": len(table)})
    yield head[:-1] + b',"columns":{'
    for at, (name, column) in enumerate(table.columns.items()):
        yield (b"," if at else b"") + msgspec.json.encode(name) + b":["
        for start in range(0, len(table), _ROWS_A_PIECE):
            piece = msgspec.json.encode(_json_column(name, column[start : start + _ROWS_A_PIECE]))
            yield (b"," if start else b"") + piece[1:-1]
        yield b"]"
    yield b"}}"


def _json_column(name: str, column: Any) -> list[Any]:
    if name == "time":
        return times_of(column)
    if isinstance(column, Coded):
        return column.texts()
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


def _csv(table: Table) -> Iterator[bytes]:
    yield (",".join(table.columns) + "\r\n").encode()
    for start in range(0, len(table), _ROWS_A_PIECE):
        part = slice(start, start + _ROWS_A_PIECE)
        columns = [_json_column(name, column[part]) for name, column in table.columns.items()]
        out = StringIO()
        csv.writer(out).writerows(zip(*columns, strict=True))
        yield out.getvalue().encode()


def _arrow(table: Table, media_type: str) -> bytes:
    import pyarrow as pa  # noqa: PLC0415 - 25 MB that only the encoder process needs

    arrays = {}
    for name, column in table.columns.items():
        if name == "time":
            arrays[name] = pa.array(column).cast(pa.timestamp("ns", tz="UTC"))
        elif isinstance(column, Coded):
            arrays[name] = pa.DictionaryArray.from_arrays(column.codes, column.names).cast(pa.string())
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
