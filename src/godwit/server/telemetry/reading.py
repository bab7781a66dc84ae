"""Reading points: files and hot rows of one moment, on threads that step back where commits want the processor."""

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from godwit.contract.errors import RejectedError
from godwit.server.telemetry.hot import HotTables
from godwit.server.telemetry.manifest import Manifest
from godwit.server.telemetry.model import Points
from godwit.server.telemetry.owner import Owner
from godwit.server.telemetry.query import COLUMNS, QueryEngine, Source, columns_for
from godwit.server.telemetry.rows import points_of
from godwit.server.telemetry.store import Aggregate, Buckets

QUICK: Final = 2
"""Small queries (a page, a chart) that run at a time; others wait for their turn."""
BULK: Final = 1
"""The same of large ones: exports must not take the processor from commits, nor from pages."""
BULK_ROWS: Final = 2_000
HOT_COPY_BYTES_MAX: Final = 512 * 1_048_576
"""What a query may copy out of the hot tables, about: beyond, it is refused."""
_POINT_BYTES: Final = 8
_NICE: Final = 10
LATEST_DEVICES: Final = "SELECT * FROM devices QUALIFY row_number() OVER (PARTITION BY device ORDER BY rowid DESC) = 1"
LATEST_SERIES: Final = "SELECT * FROM series QUALIFY row_number() OVER (PARTITION BY series ORDER BY rowid DESC) = 1"


class Reader:
    """The reading half of the store."""

    def __init__(self, owner: Owner, hot: HotTables, manifest: Manifest, query: QueryEngine) -> None:
        self._owner, self._hot, self._manifest, self._query = owner, hot, manifest, query
        self._quick = ThreadPoolExecutor(QUICK, thread_name_prefix="query", initializer=_step_back)
        self._bulk = ThreadPoolExecutor(BULK, thread_name_prefix="bulk", initializer=_step_back)

    def close(self) -> None:
        """Let queries end."""
        self._quick.shutdown()
        self._bulk.shutdown()
        self._query.close()

    @contextmanager
    def snapshot(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, tuple[str, ...]]]:
        """Yield a read transaction of its own on the owner, and the hot tables there are at that moment."""
        with ExitStack() as stack:
            # One hold: a reader that has a cursor and waits for the lock would keep its owner from opening anew.
            with self._owner.lock:
                con = stack.enter_context(self._owner.cursor())
                con.execute("BEGIN")
                con.execute("SELECT count(*) FROM files").fetchone()  # the snapshot is taken by the first statement
                tables = self._hot.tables
            yield con, tables

    @contextmanager
    def _source(
        self,
        series: Sequence[int] | None,
        start: int,
        end: int,
        columns: Sequence[str] = COLUMNS,
        *,
        is_numeric: bool = False,
        ending: str = "",
    ) -> Iterator[Source]:
        """Yield files and hot rows of one moment: a row is in one of them, never in both, never in none."""
        with self._manifest.reading():
            with self.snapshot() as (con, tables):
                files = self._manifest.overlapping(con, series, start, end)
                source = Source(files, {}, series, start, end, columns, is_numeric)
                hot = _hot_rows(con, tables, source, ending)
            yield Source(files, hot, series, start, end, columns, is_numeric)

    def range(
        self, series: Sequence[int], start: int, end: int, *, limit: int | None = None, newest_first: bool = False
    ) -> Points:
        """Return points; see `TelemetryStore.range`."""
        way = "DESC" if newest_first else "ASC"
        order = f"ORDER BY time {way}, seq {way}, series"
        ending = f"{order} LIMIT {int(limit)}" if limit is not None else ""

        def look() -> Points:
            with self._source(series, start, end, ending=ending) as source:
                return points_of(self._query.range(source, ending or order))

        lane = self._bulk if limit is None or limit > BULK_ROWS else self._quick
        return lane.submit(look).result()

    def buckets(
        self, series: Sequence[int] | None, start: int, end: int, every_ns: int, aggregates: Sequence[Aggregate]
    ) -> Buckets:
        """Aggregate per series and bucket."""

        def look() -> Buckets:
            with self._source(series, start, end, columns_for(aggregates), is_numeric=True) as source:
                return self._query.buckets(source, every_ns, aggregates, by_series=True)

        return self._quick.submit(look).result()

    def fleet_buckets(
        self, series: Sequence[int] | None, start: int, end: int, every_ns: int, aggregates: Sequence[Aggregate]
    ) -> Buckets:
        """Aggregate over all series per bucket."""
        columns = [each for each in columns_for(aggregates) if each != "series"]

        def look() -> Buckets:
            with self._source(series, start, end, columns, is_numeric=True) as source:
                return self._query.buckets(source, every_ns, aggregates, by_series=False)

        return self._quick.submit(look).result()

    def chart(
        self, series: int, start: int, end: int, points_max: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return at most `points_max` points that show the curve."""

        def look() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
            with self._source([series], start, end, ("time", "value", "seq"), is_numeric=True) as source:
                return self._query.chart(source, points_max)

        return self._quick.submit(look).result()

    def export(self, series: Sequence[int], start: int, end: int, path: Path) -> int:
        """Write points to a Parquet file; returns the rows."""

        def look() -> int:
            columns = ("series", "time", "value", "integer", "text", "quality", "seq")
            with self._source(series, start, end, columns) as source:
                with self.snapshot() as (con, _tables):
                    names = con.execute(
                        "SELECT s.series, coalesce(d.device_id, '') AS device, s.name AS reading "
                        f"FROM ({LATEST_SERIES}) s LEFT JOIN ({LATEST_DEVICES}) d USING (device)"
                    ).fetchnumpy()
                return self._query.export(source, names, path)

        return self._bulk.submit(look).result()


def _step_back() -> None:
    """Give this thread, and those that DuckDB starts from it, less of a busy machine than commits have."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def union_of(tables: Sequence[str], where: str = "", columns: str = "*") -> str:
    """Return a query over all of some tables."""
    return " UNION ALL ".join(f"SELECT {columns} FROM {table}{where}" for table in tables)


def _hot_rows(
    con: duckdb.DuckDBPyConnection, tables: Sequence[str], source: Source, ending: str
) -> dict[str, NDArray[Any]]:
    """Return the bounded copy of hot rows that a query needs."""
    where = f" WHERE time >= {int(source.start)} AND time < {int(source.end)}"
    wanted = {"series": np.array(source.series if source.series is not None else [], np.int32)}  # read by name below
    if source.series is not None:
        is_one = len(source.series) == 1
        where += f" AND series = {int(source.series[0])}" if is_one else " AND series IN (SELECT series FROM wanted)"
    if source.is_numeric:
        where += " AND quality < 2 AND kind < 3"
    rows_max = HOT_COPY_BYTES_MAX // (_POINT_BYTES * len(source.columns))
    columns = ", ".join(f'"{each}"' for each in source.columns)
    union = union_of(tables, where, columns if not ending else "*")
    found = con.execute(f"SELECT {columns} FROM ({union}) {ending or f'LIMIT {rows_max + 1}'}").fetchnumpy()
    del wanted
    if len(found["time"]) > rows_max:
        raise RejectedError(
            "the query reads too many points that are not sealed yet: ask for a shorter range or fewer readings",
            code="query-too-large",
        )
    return found
