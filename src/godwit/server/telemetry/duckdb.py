"""The embedded store: DuckDB for hot rows and the server's state, sealed by time into Parquet.

One connection writes, in one transaction a commit; its COMMIT is the point of acknowledgement. Reading takes a snapshot
of the manifest and the hot rows it needs, and works on it in a second DuckDB instance (`query`), so that no query,
however greedy, can hurt a commit. Upkeep (sealing, merging, retention, erasing) is done one at a time, beside commits;
only its last step, a short transaction, makes them wait.
"""

import logging
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from godwit.contract.errors import UnavailableError
from godwit.server.telemetry import merging, sealing
from godwit.server.telemetry.hot import HOT, LATE, HotTables
from godwit.server.telemetry.manifest import Manifest, SealedFile
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
from godwit.server.telemetry.owner import Owner
from godwit.server.telemetry.query import QueryEngine
from godwit.server.telemetry.reading import LATEST_DEVICES, LATEST_SERIES, Reader, union_of
from godwit.server.telemetry.rows import insert, objects, points_of
from godwit.server.telemetry.store import Aggregate, Buckets, StoreStats

log = logging.getLogger(__name__)

FOLDED: Final = "folded"
DOCUMENTS_KEPT: Final = 1_000
"""Status documents, events and the like: so many of each channel of a device."""


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
        self._disk_free_bytes_min = disk_free_bytes_min
        directory.mkdir(parents=True, exist_ok=True)
        self._number = 0
        self._commits = 0
        self._hot = HotTables(hot_rows_max, seal_after_s)
        self._manifest = Manifest(directory)
        self._owner = Owner(directory, memory, self._opened)
        if self._owner.checkpoint(0):
            self._manifest.sweep_orphans(self._owner.con)
        query = QueryEngine(query_memory, directory / "query-tmp")
        self._reader = Reader(self._owner, self._hot, self._manifest, query)
        self._rewriter = sealing.Rewriter(self._manifest, "256MB", directory / "query-tmp")
        self._upkeep = threading.Lock()

    # --- opening ------------------------------------------------------------------------------------------------

    def _opened(self, con: duckdb.DuckDBPyConnection) -> None:
        """Take up what the database says: at start, and after trouble, when memory may be ahead of it or behind."""
        self._hot.load(con)
        row = con.execute(
            "SELECT greatest((SELECT coalesce(max(number), 0) FROM journal), "
            "(SELECT coalesce(max(value), 0) FROM meta WHERE key = ?))",
            [FOLDED],
        ).fetchone()
        self._number = int(row[0]) if row else 0

    def recover(self) -> Recovered:
        """Return the state as of the last commit."""
        with self._reader.snapshot() as (con, _tables):
            row = con.execute(
                "SELECT coalesce(max(number), 0), coalesce(sum(octet_length(payload)), 0) FROM quarantine"
            )
            number, size = row.fetchone() or (0, 0)
            given = con.execute("SELECT coalesce(max(value), 0) FROM meta WHERE key = 'quarantine'").fetchone() or (0,)
            return Recovered(
                number=self._number,
                devices=[DeviceRow(*each) for each in con.execute(LATEST_DEVICES + " ORDER BY device").fetchall()],
                series=[SeriesRow(*each) for each in con.execute(LATEST_SERIES + " ORDER BY series").fetchall()],
                tracks=[TrackRow(*each) for each in con.execute("SELECT * FROM tracks ORDER BY track").fetchall()],
                state=[StateRow(*each) for each in con.execute("SELECT kind, key, data FROM state").fetchall()],
                deltas=con.execute("SELECT number, delta FROM journal ORDER BY number").fetchall(),
                quarantine_number=max(int(number), int(given[0])),
                quarantine_bytes=int(size),
            )

    def newest(self) -> Points:
        """Return the newest point of each series among those not sealed yet."""
        with self._reader.snapshot() as (con, tables):
            found = con.execute(
                f"SELECT * FROM ({union_of(tables)}) "
                "QUALIFY row_number() OVER (PARTITION BY series ORDER BY time DESC, seq DESC) = 1"
            ).fetchnumpy()
        return points_of(found)

    def last_samples(self, count: int) -> Points:
        """Return the points of the last `count` sample numbers of each track, among those not sealed yet."""
        with self._reader.snapshot() as (con, tables):
            found = con.execute(
                f"WITH hot AS ({union_of(tables)}), last AS (SELECT track, max(seq) AS seq FROM hot WHERE track > 0 "
                "GROUP BY track) SELECT hot.* FROM hot JOIN last USING (track) WHERE hot.seq > last.seq - ? "
                "ORDER BY hot.track, hot.seq",
                [count],
            ).fetchnumpy()
        return points_of(found)

    # --- writing ------------------------------------------------------------------------------------------------

    def commit(self, commit: Commit) -> None:
        """Make `commit` durable; see `TelemetryStore.commit`."""
        self._guard_disk()
        with self._owner.lock:
            if commit.number <= self._number:
                return  # an earlier try got through after all
            written: list[tuple[str, int]] = []
            try:
                self._owner.transact(lambda con: self._write(con, commit, written))
            except UnavailableError:
                if self._number < commit.number:
                    raise
                log.warning("commit %d is stored although COMMIT failed", commit.number)
            else:
                self._number = commit.number
                self._hot.note(written)
            self._commits += 1

    def _write(self, con: duckdb.DuckDBPyConnection, commit: Commit, written: list[tuple[str, int]]) -> None:
        if commit.points is not None and len(commit.points):
            written += self._hot.insert(con, commit.points)
        for table in ("devices", "series", "tracks", "documents"):
            insert(con, table, getattr(commit, table))
        insert(con, "quarantine", commit.quarantined)
        if commit.released:
            # The highest number ever given has to outlive what leaves.
            con.execute(
                "INSERT INTO meta SELECT 'quarantine', coalesce(max(number), 0) FROM quarantine"
                " HAVING max(number) > (SELECT coalesce(max(value), 0) FROM meta WHERE key = 'quarantine')"
            )
            con.execute("DELETE FROM quarantine WHERE number IN (SELECT unnest(?::BIGINT[]))", [commit.released])
        con.execute("INSERT INTO journal VALUES (?, ?)", [commit.number, commit.delta])

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
        listed = list(rows)
        self._owner.transact(lambda con: _fold(con, number, listed))

    # --- reading ------------------------------------------------------------------------------------------------

    def range(
        self, series: Sequence[int], start: int, end: int, *, limit: int | None = None, newest_first: bool = False
    ) -> Points:
        """Return points; see `TelemetryStore.range`."""
        return self._reader.range(series, start, end, limit=limit, newest_first=newest_first)

    def buckets(
        self, series: Sequence[int] | None, start: int, end: int, every_ns: int, aggregates: Sequence[Aggregate]
    ) -> Buckets:
        """Aggregate per series and bucket."""
        return self._reader.buckets(series, start, end, every_ns, aggregates)

    def fleet_buckets(
        self, series: Sequence[int] | None, start: int, end: int, every_ns: int, aggregates: Sequence[Aggregate]
    ) -> Buckets:
        """Aggregate over all series per bucket."""
        return self._reader.fleet_buckets(series, start, end, every_ns, aggregates)

    def chart(
        self, series: int, start: int, end: int, points_max: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return at most `points_max` points that show the curve."""
        return self._reader.chart(series, start, end, points_max)

    def export(self, series: Sequence[int], start: int, end: int, path: Path) -> int:
        """Write points to a Parquet file; returns the rows."""
        return self._reader.export(series, start, end, path)

    def documents(self, device_no: int | None, channels: Sequence[str], limit: int) -> list[Document]:
        """Return the newest documents of a device, or of all."""
        with self._reader.snapshot() as (con, _tables):
            rows = con.execute(
                "SELECT device, channel, time, received, payload FROM documents WHERE (?1 IS NULL OR device = ?1) "
                "AND channel IN (SELECT unnest(?2::VARCHAR[])) ORDER BY received DESC LIMIT ?3",
                [device_no, list(channels), limit],
            ).fetchall()
        return [Document(*row) for row in rows]

    def quarantine(
        self,
        *,
        tenants: Collection[str] | None = None,
        device_id: str | None = None,
        code: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[Quarantined]:
        """List quarantined messages, newest first."""
        wanted = {
            "tenant IN (SELECT unnest(?::VARCHAR[]))": None if tenants is None else list(tenants),
            "device_id = ?": device_id,
            "code = ?": code,
            "number < ?": before,
        }
        chosen = {clause: value for clause, value in wanted.items() if value is not None}
        where = f"WHERE {' AND '.join(chosen)}" if chosen else ""
        with self._reader.snapshot() as (con, _tables):
            rows = con.execute(
                f"SELECT * FROM quarantine {where} ORDER BY number DESC LIMIT ?",
                [*chosen.values(), limit],
            ).fetchall()
        return [Quarantined(*row) for row in rows]

    def quarantine_sizes(self) -> dict[tuple[str, str], int]:
        """Return the bytes in quarantine by (tenant, device id)."""
        with self._reader.snapshot() as (con, _tables):
            rows = con.execute(
                "SELECT tenant, device_id, sum(octet_length(payload)) FROM quarantine GROUP BY ALL"
            ).fetchall()
        return {(tenant, device_id): int(size) for tenant, device_id, size in rows}

    def quarantined(self, number: int) -> Quarantined | None:
        """Return one quarantined message."""
        with self._reader.snapshot() as (con, _tables):
            row = con.execute("SELECT * FROM quarantine WHERE number = ?", [number]).fetchone()
        return Quarantined(*row) if row else None

    # --- upkeep -------------------------------------------------------------------------------------------------

    def is_seal_due(self, now: int) -> bool:
        """Whether `seal` would find something to move."""
        return self._hot.is_due(now)

    def seal(self, now: int, *, force: bool = False) -> int:
        """Move hot rows into Parquet, merge what has become many files; returns the points moved."""
        with self._upkeep:
            moved = self._seal(now, force=force)
            self._merge(now)
            self._settle()
            return moved

    def _settle(self) -> None:
        """Bring the file up to date; what left the manifest may go then."""
        if self._owner.checkpoint(0) if self._manifest.has_departed else self._owner.checkpoint():
            self._manifest.settle()

    def _seal(self, now: int, *, force: bool) -> int:
        with self._owner.lock:
            if not force and not self._hot.is_due(now):
                return 0
            self._owner.transact(lambda con: self._hot.retire(con, now, force=force))
            self._hot.load(self._owner.con)
            retired = {prefix: self._hot.retired(prefix) for prefix in (HOT, LATE)}
        moved = 0
        for prefix, tables in retired.items():
            if tables:
                with self._owner.cursor() as con:
                    written = sealing.write(con, self._manifest, tables, is_late=prefix == LATE)
                self._replace(written, (), also=partial(_drop, tables))
                moved += sum(each.rows for each in written)
        return moved

    def _replace(
        self,
        arriving: Sequence[SealedFile],
        leaving: Sequence[SealedFile],
        also: Callable[[duckdb.DuckDBPyConnection], None] = lambda _con: None,
    ) -> None:
        """Let files take the place of others, and of what `also` removes, in one transaction."""

        def work(con: duckdb.DuckDBPyConnection) -> None:
            Manifest.change(con, arriving, leaving)
            also(con)

        with self._owner.lock:
            try:
                self._owner.transact(work)
            except UnavailableError:
                if not arriving or not Manifest.holds(self._owner.con, arriving):
                    self._manifest.unlink(arriving)
                    raise
            self._hot.load(self._owner.con)
        self._manifest.depart(leaving)

    def _merge(self, now: int) -> None:
        with self._reader.snapshot() as (con, _tables):
            files = Manifest.all(con)
        for group in merging.due(files, now):
            self._replace([self._rewrite(group)], group)

    def _rewrite(self, group: Sequence[SealedFile]) -> SealedFile:
        try:
            return self._rewriter.merge(group)
        except duckdb.Error as error:
            raise UnavailableError(f"merging sealed files failed: {error}", code="store-unavailable") from error

    def retain(self, now: int, rules: Sequence[Retention]) -> int:
        """Unlink what is older than its type's retention."""
        with self._upkeep:
            with self._reader.snapshot() as (con, _tables):
                files = Manifest.all(con)
            ages = {(rule.tenant, rule.device_type): rule.age_s_max for rule in rules}
            leaving = []
            for each in files:
                age_s_max = ages.get((each.tenant, each.device_type))
                if age_s_max is not None and each.time_max < now - age_s_max * 1_000_000_000:
                    leaving.append(each)
            self._owner.transact(_prune_documents)
            if leaving:
                self._replace((), leaving)
                self._settle()
            return sum(each.rows for each in leaving)

    def erase(self, device_no: int) -> int:
        """Remove every trace of a device: sealed first, so that what is hot afterwards came meanwhile."""
        with self._upkeep:
            self._seal(0, force=True)
            with self._reader.snapshot() as (con, _tables):
                found = con.execute("SELECT DISTINCT series FROM series WHERE device = ?", [device_no]).fetchall()
                files = Manifest.all(con)
            series = sorted(number for (number,) in found)
            removed, kept, leaving = self._without(files, series)
            counted = [0]
            self._replace(kept, leaving, also=lambda con: self._strike(con, device_no, series, counted))
            self._settle()
            return removed + counted[0]

    def _without(
        self, files: Sequence[SealedFile], series: Sequence[int]
    ) -> tuple[int, list[SealedFile], list[SealedFile]]:
        """Rewrite files without `series`; returns the points left out, the new files and the old ones."""
        removed = 0
        kept: list[SealedFile] = []
        leaving: list[SealedFile] = []
        for file in files if series else ():
            if file.series_min <= series[-1] and file.series_max >= series[0]:
                try:
                    count, rest = self._rewriter.without(file, series)
                except duckdb.Error as error:
                    self._manifest.unlink(kept)
                    raise UnavailableError(f"rewriting failed: {error}", code="store-unavailable") from error
                removed += count
                kept += [rest] if rest else []
                leaving += [file] if count else []
        return removed, kept, leaving

    def _strike(
        self, con: duckdb.DuckDBPyConnection, device_no: int, series: Sequence[int], counted: list[int]
    ) -> None:
        for table in self._hot.tables:
            row = con.execute(f"DELETE FROM {table} WHERE series IN (SELECT unnest(?::INTEGER[]))", [series]).fetchone()
            counted[0] += int(row[0]) if row else 0
        names = con.execute("SELECT DISTINCT device_id FROM devices WHERE device = ?", [device_no]).fetchall()
        for (device_id,) in names:
            con.execute("DELETE FROM quarantine WHERE device_id = ?", [device_id])
        con.execute("DELETE FROM documents WHERE device = ?", [device_no])
        # The numbers stay taken: another device would inherit what the log and folded state say of them.
        con.execute("UPDATE tracks SET stream = '', epoch = '' WHERE device = ?", [device_no])
        con.execute("UPDATE series SET name = '', unit = '' WHERE device = ?", [device_no])
        con.execute("UPDATE devices SET device_id = '' WHERE device = ?", [device_no])
        con.execute("DELETE FROM state WHERE kind IN ('ids', 'prints', 'clock') AND key = ?", [device_no])

    def stats(self) -> StoreStats:
        """Return sizes."""
        with self._reader.snapshot() as (con, _tables):
            row = con.execute("SELECT coalesce(sum(rows), 0), coalesce(sum(bytes), 0), count(*) FROM files").fetchone()
            hot_rows = self._hot.rows
        rows, size, files = row or (0, 0, 0)
        hot_bytes = sum(path.stat().st_size for path in self._directory.glob("telemetry.duckdb*") if path.exists())
        return StoreStats(hot_rows, int(rows), hot_bytes, int(size), int(files), self._commits)

    def close(self) -> None:
        """Close."""
        with self._upkeep:
            self._reader.close()
            self._owner.close()


def _drop(tables: Sequence[str], con: duckdb.DuckDBPyConnection) -> None:
    for table in tables:
        con.execute(f"DROP TABLE {table}")


def _prune_documents(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(
        "DELETE FROM documents WHERE rowid IN (SELECT rowid FROM documents QUALIFY "
        "row_number() OVER (PARTITION BY device, channel ORDER BY received DESC, rowid DESC) > ?)",
        [DOCUMENTS_KEPT],
    )


def _fold(con: duckdb.DuckDBPyConnection, number: int, rows: list[StateRow]) -> None:
    if rows:
        kind = objects([row.kind for row in rows])
        key = np.array([row.key for row in rows], np.int64)
        data = objects([row.data for row in rows])
        fresh = {"kind": kind, "key": key, "data": data}
        con.execute("DELETE FROM state USING fresh WHERE state.kind = fresh.kind AND state.key = fresh.key")
        con.execute("INSERT INTO state SELECT kind, key, data FROM fresh")
        del fresh
    con.execute("DELETE FROM journal WHERE number <= ?", [number])
    con.execute("DELETE FROM meta WHERE key = ?", [FOLDED])
    con.execute("INSERT INTO meta VALUES (?, ?)", [FOLDED, number])
