"""Rows between Python, numpy and DuckDB: structs in, columns out."""

from collections.abc import Iterable, Sequence
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from godwit.server.telemetry.model import Points

FEW = 8
"""Rows up to which one statement a row is cheaper than columns."""


def insert(con: duckdb.DuckDBPyConnection, table: str, structs: Sequence[Any]) -> None:
    """Insert structs whose fields are the columns of `table`."""
    rows = [values_of(each) for each in structs]
    if len(rows) <= FEW:
        for row in rows:
            con.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        return
    columns: dict[str, NDArray[Any]] = {}
    for at, values in enumerate(zip(*rows, strict=True)):
        is_number = isinstance(values[0], int)
        columns[f"c{at}"] = np.array(values, dtype=np.int64) if is_number else objects(values)
    con.execute(f"INSERT INTO {table} SELECT * FROM columns")


def values_of(row: Any) -> tuple[Any, ...]:
    """Return the fields of a struct."""
    return tuple(getattr(row, name) for name in row.__struct_fields__)


def objects(values: Iterable[Any]) -> NDArray[Any]:
    """Return values as an array of objects."""
    listed = list(values)
    array = np.empty(len(listed), dtype=object)
    array[:] = listed
    return array


def points_of(columns: dict[str, NDArray[Any]]) -> Points:
    """Return numpy columns, as DuckDB hands them out, as points."""
    integer = columns["integer"]
    text = columns["text"]
    kind = columns["kind"].astype(np.uint8)
    has_integer = not (np.ma.isMaskedArray(integer) and bool(np.ma.getmaskarray(integer).all())) and len(kind) > 0
    has_text = bool((kind == 3).any())
    return Points(
        series=columns["series"].astype(np.int32),
        time=columns["time"].astype(np.int64),
        value=np.ma.filled(columns["value"], np.nan).astype(np.float64),
        kind=kind,
        quality=columns["quality"].astype(np.uint8),
        seq=columns["seq"].astype(np.int64),
        track=columns["track"].astype(np.int32),
        offset=columns["offset"].astype(np.int64),
        received=columns["received"].astype(np.int64),
        integer=np.ma.filled(integer, 0).astype(np.int64) if has_integer and (kind == 1).any() else None,
        text=[None if each is np.ma.masked else each for each in text.tolist()] if has_text else None,
    )
