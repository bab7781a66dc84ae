"""Queries over sealed files and a copy of hot rows, in a DuckDB instance of their own with its own memory limit."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec
import numpy as np
from numpy.typing import NDArray

from godwit.contract.errors import RejectedError, UnavailableError
from godwit.server.telemetry.lttb import largest_triangles
from godwit.server.telemetry.store import Aggregate, Buckets

CHART_EXACT_MAX: Final = 40_000
"""Points up to which LTTB sees every point; beyond, extremes per bucket stand for them."""

COLUMNS: Final = ("series", "time", "value", "kind", "quality", "seq", "track", "offset", "received", "integer", "text")
_SEALED: Final = {
    "time": "epoch_ns(time) AS time",
    "received": "epoch_ns(time) + delay_s::BIGINT * 1000000000 AS received",
}
_AGGREGATES: Final[dict[str, str]] = {
    "avg": "avg(value)",
    "min": "min(value)",
    "max": "max(value)",
    "sum": "sum(value)",
    "count": "count(value)::DOUBLE",
    "first": "arg_min(value, (time, seq))",
    "last": "arg_max(value, (time, seq))",
    "p50": "quantile_cont(value, 0.5)",
    "p95": "quantile_cont(value, 0.95)",
}


class Source(msgspec.Struct, frozen=True):
    """What a query reads: files, a copy of hot rows, and its bounds. `series` None: all."""

    files: list[str]
    hot: dict[str, Any]
    series: Sequence[int] | None
    start: int
    end: int
    columns: Sequence[str] = COLUMNS
    is_numeric: bool = False
    """Only points that aggregates count: neither text nor of bad quality."""


def columns_for(aggregates: Sequence[Aggregate]) -> list[str]:
    """Return the columns that `aggregates` read."""
    return ["series", "time", "value", *(["seq"] if {"first", "last"} & set(aggregates) else [])]


class QueryEngine:
    """A second DuckDB instance: a query that asks too much fails alone."""

    def __init__(self, memory: str, temp: Path) -> None:
        self._memory, self._temp = memory, temp
        self._con: duckdb.DuckDBPyConnection | None = None
        self._lock = threading.Lock()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            if self._con is None:  # made at the first query: an idle platform does not pay for it
                config: dict[str, str | bool | int | float | list[str]] = {
                    "memory_limit": self._memory,
                    "threads": "1",
                    "temp_directory": str(self._temp),
                }
                self._con = duckdb.connect(":memory:", config=config)
                self._con.execute("SET parquet_metadata_cache=true")
            return self._con.cursor()

    def _run(self, source: Source, select: str, parameters: Sequence[Any] = ()) -> dict[str, NDArray[Any]]:
        con = self._cursor()
        try:
            return con.execute(f"WITH points AS ({self._points(con, source)}) {select}", parameters).fetchnumpy()
        except duckdb.OutOfMemoryException as error:
            raise RejectedError(
                "the query needs more memory than QUERY_MEMORY allows: ask for a shorter range or fewer readings",
                code="query-too-large",
            ) from error
        except (duckdb.IOException, duckdb.FatalException, duckdb.InternalException) as error:
            raise UnavailableError(f"the query failed: {error}", code="store-unavailable") from error
        finally:
            con.close()

    def _points(self, con: duckdb.DuckDBPyConnection, source: Source) -> str:
        con.register("hot_rows", source.hot)
        union = f"SELECT {', '.join(_quoted(each) for each in source.columns)} FROM hot_rows"
        if not source.files:
            return union
        where = f"time >= make_timestamp_ns({int(source.start)}) AND time < make_timestamp_ns({int(source.end)})"
        if source.is_numeric:
            where += " AND quality < 2 AND kind < 3"
        if source.series is not None:
            numbers = [int(each) for each in source.series]
            if len(numbers) <= 64:  # written out, the numbers are pushed down to the files' statistics
                where += f" AND series IN ({', '.join(map(str, numbers))})"
            else:
                con.register("wanted", {"series": np.array(numbers, np.int32)})
                where += " AND series IN (SELECT series FROM wanted)"
        files = ", ".join("'" + name.replace("'", "''") + "'" for name in source.files)
        columns = ", ".join(_SEALED.get(each, _quoted(each)) for each in source.columns)
        return f"{union} UNION ALL SELECT {columns} FROM read_parquet([{files}]) WHERE {where}"

    def range(self, source: Source, ending: str) -> dict[str, NDArray[Any]]:
        """Return points in the order, and up to the limit, that `ending` says."""
        return self._run(source, f"SELECT * FROM points {ending}")

    def buckets(self, source: Source, every_ns: int, aggregates: Sequence[Aggregate], *, by_series: bool) -> Buckets:
        """Aggregate per bucket, and per series where wanted."""
        asked = ", ".join(f"{_AGGREGATES[each]} AS {each}" for each in aggregates)
        key = "series" if by_series else "-1"
        found = self._run(
            source,
            f"SELECT {key} AS series, time - time % {int(every_ns)} AS bucket, {asked} FROM points "
            "GROUP BY ALL ORDER BY 1, 2",
        )
        return Buckets(
            found["series"].astype(np.int32),
            found["bucket"].astype(np.int64),
            {each: np.ma.filled(found[each], np.nan).astype(np.float64) for each in aggregates},
        )

    def chart(self, source: Source, points_max: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return at most `points_max` points that show the curve."""
        about = self._run(source, "SELECT count(*) AS n, min(time) AS first, max(time) AS last FROM points")
        if int(about["n"][0]) > CHART_EXACT_MAX:
            # by where there are points: the range asked for may be far wider
            width = max(1, (int(about["last"][0]) - int(about["first"][0])) // (4 * points_max))
            select = (
                "SELECT unnest([min(time), arg_min(time, value), arg_max(time, value), max(time)]) AS time, "
                "unnest([arg_min(value, (time, seq)), min(value), max(value), arg_max(value, (time, seq))]) AS value "
                f"FROM points GROUP BY (time - {int(about['first'][0])}) // {width}"
            )
            found = self._run(source, f"SELECT DISTINCT time, value FROM ({select}) ORDER BY time")
        else:
            found = self._run(source, "SELECT time, value FROM points ORDER BY time, seq")
        return largest_triangles(found["time"].astype(np.int64), found["value"].astype(np.float64), points_max)

    def export(self, source: Source, names: dict[str, NDArray[Any]], path: Path) -> int:
        """Write points with their names to a Parquet file, in bounded memory."""
        con = self._cursor()
        quoted = str(path).replace("'", "''")
        try:
            con.register("names", names)
            row = con.execute(
                f"COPY (WITH points AS ({self._points(con, source)}) SELECT device, reading, "
                'make_timestamp_ns(time) AS time, value, "integer", text, quality, seq FROM points '
                f"JOIN names USING (series) ORDER BY device, reading, time, seq) TO '{quoted}' "
                "(FORMAT parquet, COMPRESSION zstd)"
            ).fetchone()
        except duckdb.OutOfMemoryException as error:
            raise RejectedError(
                "the export needs more memory than QUERY_MEMORY allows", code="query-too-large"
            ) from error
        except (duckdb.IOException, duckdb.FatalException, duckdb.InternalException) as error:
            raise UnavailableError(f"the export failed: {error}", code="store-unavailable") from error
        finally:
            con.close()
        return int(row[0]) if row else 0

    def close(self) -> None:
        """Close the instance."""
        with self._lock:
            if self._con is not None:
                self._con.close()
                self._con = None


def _quoted(column: str) -> str:
    return f'"{column}"'
