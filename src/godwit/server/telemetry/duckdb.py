"""The embedded store: DuckDB for hot rows and the server's state, sealed by time into Parquet.

One connection writes, in one transaction a commit; its COMMIT is the point of acknowledgement. Reading takes a snapshot
of the manifest and the hot rows it needs, and works on it in a second DuckDB instance (`query`), so that no query,
however
greedy, can hurt a commit.
"""

import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from godwit.contract.errors import UnavailableError
from godwit.server.telemetry import schema
from godwit.server.telemetry.model import (
    Commit,
    DeviceRow,
    Document,
    Points,
    Quarantined,
    Recovered,
    Retention,
    SeriesRow,
    StateRow,
    TrackRow,
)
from godwit.server.telemetry.query import QueryEngine, Source
from godwit.server.telemetry.sealing import Sealing
from godwit.server.telemetry.store import Aggregate, Buckets, StoreStats

log = logging.getLogger(__name__)

FOLDED: Final = "folded"
_TROUBLE: Final = (
    duckdb.IOException,
    duckdb.OutOfMemoryException,
    duckdb.FatalException,
    duckdb.InternalException,
    duckdb.TransactionException,
    duckdb.ConnectionException,
)
"""What may pass: disk, memory, an instance that has to be opened anew. Anything else is a bug and ends loudly."""

NUMPY_COLUMNS: Final = ("series", "time", "value", "kind", "quality", "seq", "track", "offset", "received")


class DuckDBStore:
    """See `TelemetryStore`."""

    def __init__(
        self,
        directory: Path,
        *,
        memory: str = "512MB",
        query_memory: str = "512MB",
        hot_rows_max: int = 5_000_000,
        seal_after_s: int = 3_600,
        disk_free_bytes_min: int = 0,
    ) -> None:
        self._directory = directory
        self._memory = memory
        self._disk_free_bytes_min = disk_free_bytes_min
        self._lock = threading.RLock()
        directory.mkdir(parents=True, exist_ok=True)
        self._con = self._open()
        self._number = self._last_number()
        self._commits = 0
        self._query = QueryEngine(query_memory, directory / "query-tmp")
        self.sealing = Sealing(directory, hot_rows_max, seal_after_s)
        with self._lock:
            self.sealing.recover(self._con)

    # --- opening ------------------------------------------------------------------------------------------------

    def _open(self) -> duckdb.DuckDBPyConnection:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": self._memory,
            "threads": "1",  # small transactions: a second thread costs 40 % more CPU and saves no time
            "temp_directory": str(self._directory / "tmp"),
        }
        try:
            con = duckdb.connect(str(self._directory / "telemetry.duckdb"), config=config)
            con.execute("SET checkpoint_threshold='128MB'")
            con.execute("SET preserve_insertion_order=false")
            for table in schema.TABLES:
                con.execute(table)
        except _TROUBLE as error:
            raise UnavailableError(
                f"the telemetry store cannot be opened: {error}", code="store-unavailable"
            ) from error
        return con

    def _last_number(self) -> int:
        row = self._con.execute(
            "SELECT greatest((SELECT coalesce(max(number), 0) FROM journal), "
            "(SELECT coalesce(max(value), 0) FROM meta WHERE key = ?))",
            [FOLDED],
        ).fetchone()
        return int(row[0]) if row else 0

    def recover(self) -> Recovered:
        """Return the state as of the last commit."""
        con = self._con
        latest_devices = "SELECT * FROM devices QUALIFY row_number() OVER (PARTITION BY device ORDER BY rowid DESC) = 1"
        latest_series = "SELECT * FROM series QUALIFY row_number() OVER (PARTITION BY series ORDER BY rowid DESC) = 1"
        row = con.execute("SELECT coalesce(max(number), 0), coalesce(sum(octet_length(payload)), 0) FROM quarantine")
        number, size = row.fetchone() or (0, 0)
        given = con.execute("SELECT coalesce(max(value), 0) FROM meta WHERE key = 'quarantine'").fetchone() or (0,)
        return Recovered(
            number=self._number,
            devices=[DeviceRow(*each) for each in con.execute(latest_devices + " ORDER BY device").fetchall()],
            series=[SeriesRow(*each) for each in con.execute(latest_series + " ORDER BY series").fetchall()],
            tracks=[TrackRow(*each) for each in con.execute("SELECT * FROM tracks ORDER BY track").fetchall()],
            state=[StateRow(*each) for each in con.execute("SELECT kind, key, data FROM state").fetchall()],
            deltas=con.execute("SELECT number, delta FROM journal ORDER BY number").fetchall(),
            quarantine_number=max(int(number), int(given[0])),
            quarantine_bytes=int(size),
        )

    def newest(self) -> Points:
        """Return the newest point of each series among those not sealed yet."""
        with self._snapshot() as (con, tables):
            union = " UNION ALL ".join(f"SELECT * FROM {table}" for table in tables)
            found = con.execute(
                f"SELECT * FROM ({union}) "
                "QUALIFY row_number() OVER (PARTITION BY series ORDER BY time DESC, seq DESC) = 1"
            ).fetchnumpy()
        return points_of(found)

    # --- writing ------------------------------------------------------------------------------------------------

    def commit(self, commit: Commit) -> None:
        """Make `commit` durable; see `TelemetryStore.commit`."""
        self._guard_disk()
        with self._lock:
            if commit.number <= self._number:
                return  # an earlier try got through after all
            try:
                self._con.execute("BEGIN")
                self._write(commit)
                self._con.execute("COMMIT")
            except _TROUBLE as error:
                self._after_trouble(commit.number, error)
            else:
                self._number = commit.number
            self._commits += 1
            if commit.points is not None:
                self.sealing.note(len(commit.points))

    def _write(self, commit: Commit) -> None:
        con = self._con
        if commit.points is not None:
            self._insert_points(commit.points)
        for table, rows in (("devices", commit.devices), ("series", commit.series), ("tracks", commit.tracks)):
            if rows:
                self._insert(table, [_values(row) for row in rows])
        if commit.documents:
            self._insert("documents", [_values(row) for row in commit.documents])
        if commit.quarantined:
            self._insert("quarantine", [_values(row) for row in commit.quarantined])
        if commit.released:
            # The highest number ever given has to outlive what leaves.
            con.execute(
                "INSERT INTO meta SELECT 'quarantine', coalesce(max(number), 0) FROM quarantine"
                " HAVING max(number) > (SELECT coalesce(max(value), 0) FROM meta WHERE key = 'quarantine')"
            )
            con.execute("DELETE FROM quarantine WHERE number IN (SELECT unnest(?::BIGINT[]))", [commit.released])
        con.execute("INSERT INTO journal VALUES (?, ?)", [commit.number, commit.delta])

    def _insert_points(self, points: Points) -> None:
        batch = {name: getattr(points, name) for name in NUMPY_COLUMNS}
        columns = ", ".join(f'"{name}"' for name in batch)
        if points.integer is None and points.text is None:  # nearly always; without SELECT there is less to plan
            self._con.execute(f"INSERT INTO {self.sealing.active} ({columns}) FROM batch")
            return
        integer = text = "NULL"
        if points.integer is not None:
            batch["integer"], integer = points.integer, 'CASE WHEN kind = 1 THEN "integer" END'
        if points.text is not None:
            batch["text"], text = np.array(points.text, dtype=object), "text"
        self._con.execute(
            f'INSERT INTO {self.sealing.active} ({columns}, "integer", "text") '
            f"SELECT {columns}, {integer}, {text} FROM batch"
        )

    def _insert(self, table: str, rows: list[tuple[Any, ...]]) -> None:
        if len(rows) <= 8:
            marks = ", ".join("?" * len(rows[0]))
            for row in rows:
                self._con.execute(f"INSERT INTO {table} VALUES ({marks})", row)
            return
        columns: dict[str, NDArray[Any]] = {}
        for at, values in enumerate(zip(*rows, strict=True)):
            is_number = isinstance(values[0], int)
            columns[f"c{at}"] = np.array(values, dtype=np.int64) if is_number else _objects(values)
        self._con.execute(f"INSERT INTO {table} SELECT * FROM columns")

    def _after_trouble(self, number: int, error: duckdb.Error) -> None:
        """Open anew, look whether the failed COMMIT is durable all the same, and tell."""
        log.warning("commit %d failed, opening the store anew: %s", number, error)
        try:
            self._con.close()
        except duckdb.Error as second:
            log.warning("closing failed too: %s", second)
        self._con = self._open()
        self._number = self._last_number()
        if self._number < number:
            raise UnavailableError(
                f"the telemetry store refuses to write: {error}", code="store-unavailable"
            ) from error

    def _guard_disk(self) -> None:
        free = shutil.disk_usage(self._directory).free
        if free < self._disk_free_bytes_min:
            raise UnavailableError(
                f"the disk is nearly full: {free // 1_048_576} MB free under {self._directory}, "
                f"{self._disk_free_bytes_min // 1_048_576} MB are kept free (DISK_FREE_BYTES_MIN)",
                code="disk-full",
            )

    def fold(self, number: int, rows: Iterable[StateRow]) -> None:
        """Replace state rows by key and forget the deltas up to `number`."""
        with self._lock:
            self._transact(lambda: self._fold(number, list(rows)))

    def _fold(self, number: int, rows: list[StateRow]) -> None:
        con = self._con
        if rows:
            kind = _objects([row.kind for row in rows])
            key = np.array([row.key for row in rows], np.int64)
            data = _objects([row.data for row in rows])
            fresh = {"kind": kind, "key": key, "data": data}
            con.execute("DELETE FROM state USING fresh WHERE state.kind = fresh.kind AND state.key = fresh.key")
            con.execute("INSERT INTO state SELECT kind, key, data FROM fresh")
            del fresh
        con.execute("DELETE FROM journal WHERE number <= ?", [number])
        con.execute("DELETE FROM meta WHERE key = ?", [FOLDED])
        con.execute("INSERT INTO meta VALUES (?, ?)", [FOLDED, number])

    def _transact(self, work: Callable[[], None]) -> None:
        try:
            self._con.execute("BEGIN")
            work()
            self._con.execute("COMMIT")
        except _TROUBLE as error:
            self._con.close()
            self._con = self._open()
            raise UnavailableError(
                f"the telemetry store refuses to write: {error}", code="store-unavailable"
            ) from error

    # --- reading ------------------------------------------------------------------------------------------------

    @contextmanager
    def _snapshot(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, tuple[str, ...]]]:
        """Yield a read transaction of its own on the owner, and the hot tables there are at that moment."""
        with self._lock:
            con = self._con.cursor()
            con.execute("BEGIN")
            con.execute("SELECT count(*) FROM files").fetchone()  # the snapshot is taken by the first statement
            tables = tuple(self.sealing.tables)
        try:
            yield con, tables
        except _TROUBLE as error:
            raise UnavailableError(f"the telemetry store cannot be read: {error}", code="store-unavailable") from error
        finally:
            con.close()

    @contextmanager
    def _source(self, series: Sequence[int] | None, start: int, end: int) -> Iterator[Source]:
        with self.sealing.reading():
            with self._snapshot() as (con, tables):
                files = [
                    str(self.sealing.folder / name)
                    for (name,) in con.execute(
                        "SELECT name FROM files WHERE time_max >= ? AND time_min < ?", [start, end]
                    ).fetchall()
                ]
                hot = _hot_rows(con, tables, series, start, end)
            yield Source(files, hot, series, start, end)

    def range(
        self, series: Sequence[int], start: int, end: int, *, limit: int | None = None, newest_first: bool = False
    ) -> Points:
        """Return points; see `TelemetryStore.range`."""
        with self._source(series, start, end) as source:
            return points_of(self._query.range(source, limit, newest_first))

    def buckets(
        self, series: Sequence[int] | None, start: int, end: int, every_ns: int, aggregates: Sequence[Aggregate]
    ) -> Buckets:
        """Aggregate per series and bucket."""
        with self._source(series, start, end) as source:
            return self._query.buckets(source, every_ns, aggregates, by_series=True)

    def fleet_buckets(
        self, series: Sequence[int] | None, start: int, end: int, every_ns: int, aggregates: Sequence[Aggregate]
    ) -> Buckets:
        """Aggregate over all series per bucket."""
        with self._source(series, start, end) as source:
            return self._query.buckets(source, every_ns, aggregates, by_series=False)

    def chart(
        self, series: int, start: int, end: int, points_max: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return at most `points_max` points that show the curve."""
        with self._source([series], start, end) as source:
            return self._query.chart(source, points_max)

    def export(self, series: Sequence[int], start: int, end: int, path: Path) -> int:
        """Write points to a Parquet file; returns the rows."""
        with self._source(series, start, end) as source:
            with self._snapshot() as (con, _tables):
                names = con.execute(
                    "SELECT s.series, d.device_id AS device, s.name AS reading FROM series s "
                    "JOIN devices d USING (device) "
                    "QUALIFY row_number() OVER (PARTITION BY s.series ORDER BY s.rowid DESC, d.rowid DESC) = 1"
                ).fetchnumpy()
            return self._query.export(source, names, path)

    def documents(self, device_no: int, channels: Sequence[str], limit: int) -> list[Document]:
        """Return the newest documents of a device."""
        with self._snapshot() as (con, _tables):
            rows = con.execute(
                "SELECT device, channel, time, received, payload FROM documents WHERE device = ? "
                "AND channel IN (SELECT unnest(?::VARCHAR[])) ORDER BY received DESC LIMIT ?",
                [device_no, list(channels), limit],
            ).fetchall()
        return [Document(*row) for row in rows]

    def quarantine(
        self,
        *,
        tenant: str | None = None,
        device_id: str | None = None,
        code: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[Quarantined]:
        """List quarantined messages, newest first."""
        wanted = {"tenant = ?": tenant, "device_id = ?": device_id, "code = ?": code, "number < ?": before}
        chosen = {clause: value for clause, value in wanted.items() if value is not None}
        where = f"WHERE {' AND '.join(chosen)}" if chosen else ""
        with self._snapshot() as (con, _tables):
            rows = con.execute(
                f"SELECT * FROM quarantine {where} ORDER BY number DESC LIMIT ?",
                [*chosen.values(), limit],
            ).fetchall()
        return [Quarantined(*row) for row in rows]

    def quarantined(self, number: int) -> Quarantined | None:
        """Return one quarantined message."""
        with self._snapshot() as (con, _tables):
            row = con.execute("SELECT * FROM quarantine WHERE number = ?", [number]).fetchone()
        return Quarantined(*row) if row else None

    # --- upkeep -------------------------------------------------------------------------------------------------

    def is_seal_due(self, now: int) -> bool:
        """Whether `seal` would find something to move."""
        return self.sealing.is_due(now)

    def seal(self, now: int, *, force: bool = False) -> int:
        """Move hot rows into Parquet; returns the points moved."""
        if not force and not self.sealing.is_due(now):
            return 0
        with self._lock:
            retired = self.sealing.rotate(self._con, now)
            con = self._con.cursor()
        try:
            written = self.sealing.write(con, retired)
        except _TROUBLE as error:
            raise UnavailableError(f"sealing failed: {error}", code="store-unavailable") from error
        finally:
            con.close()
        with self._lock:
            self._transact(lambda: self.sealing.enlist(self._con, written, retired))
            self.sealing.forget(retired)
        return sum(each.rows for each in written)

    def retain(self, now: int, rules: Sequence[Retention]) -> int:
        """Unlink what is older than its type's retention."""
        removed = 0
        for rule in rules:
            if rule.age_s_max is not None:
                oldest = now - rule.age_s_max * 1_000_000_000
                with self._lock:
                    leaving = self.sealing.older(self._con, rule, oldest)
                    self._transact(lambda gone=leaving: self.sealing.strike(self._con, gone))  # type: ignore[misc]
                removed += sum(each.rows for each in leaving)
                self.sealing.unlink(leaving)
        return removed

    def erase(self, device_no: int) -> int:
        """Remove every trace of a device."""
        self.seal(0, force=True)
        with self._lock:
            series = [
                row[0]
                for row in self._con.execute("SELECT series FROM series WHERE device = ?", [device_no]).fetchall()
            ]
            name = self._con.execute(
                "SELECT device_id, tenant, type FROM devices WHERE device = ?", [device_no]
            ).fetchall()
            replaced, removed = self.sealing.rewrite_without(self._con, set(series), name)

            def strike() -> None:
                self.sealing.strike(self._con, [old for old, _new in replaced])
                self.sealing.enlist(self._con, [new for _old, new in replaced if new is not None], None)
                for table in self.sealing.tables:
                    self._con.execute(f"DELETE FROM {table} WHERE series IN (SELECT unnest(?::INTEGER[]))", [series])
                for table in ("documents", "tracks", "series"):
                    self._con.execute(f"DELETE FROM {table} WHERE device = ?", [device_no])
                self._con.execute("UPDATE devices SET device_id = '' WHERE device = ?", [device_no])
                for device_id, _tenant, _type in name:
                    self._con.execute("DELETE FROM quarantine WHERE device_id = ?", [device_id])
                self._con.execute("DELETE FROM state WHERE kind IN ('ids', 'prints') AND key = ?", [device_no])

            self._transact(strike)
        self.sealing.unlink([old for old, _new in replaced])
        return removed

    def stats(self) -> StoreStats:
        """Return sizes."""
        with self._snapshot() as (con, _tables):
            row = con.execute("SELECT coalesce(sum(rows), 0), coalesce(sum(bytes), 0), count(*) FROM files").fetchone()
        rows, size, files = row or (0, 0, 0)
        hot_bytes = sum(path.stat().st_size for path in self._directory.glob("telemetry.duckdb*") if path.exists())
        return StoreStats(self.sealing.hot_rows, int(rows), hot_bytes, int(size), int(files), self._commits)

    def close(self) -> None:
        """Close."""
        with self._lock:
            self._query.close()
            self._con.close()


def _hot_rows(
    con: duckdb.DuckDBPyConnection, tables: tuple[str, ...], series: Sequence[int] | None, start: int, end: int
) -> dict[str, NDArray[Any]]:
    """Return the bounded copy of hot rows that a query needs."""
    chosen = ""
    wanted = {"series": np.array(series if series is not None else [], np.int32)}  # read by name below
    if series is not None:
        is_one = len(series) == 1
        chosen = f" AND series = {int(series[0])}" if is_one else " AND series IN (SELECT series FROM wanted)"
    union = " UNION ALL ".join(
        f"SELECT * FROM {table} WHERE time >= {int(start)} AND time < {int(end)}{chosen}" for table in tables
    )
    found = con.execute(union).fetchnumpy()
    del wanted
    return found


def _values(row: Any) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in row.__struct_fields__)


def _objects(values: Iterable[Any]) -> NDArray[Any]:
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
