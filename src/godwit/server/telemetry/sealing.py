"""Sealing: rows leave DuckDB as Parquet files that anyone can open, and files are merged and rewritten.

Files hold one tenant and device type, sorted by series and time, at most about a million rows when they come from hot
tables: so sorting is done in slices that leave the owner's memory to commits. A file and its directory are synced
before the manifest names it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import duckdb
import msgspec

from godwit.runtime.files import sync_directory, sync_file
from godwit.server.telemetry.manifest import Manifest, SealedFile

SLICE_ROWS: Final = 1_000_000

_OPTIONS: Final = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 9, PARQUET_VERSION v2, ROW_GROUP_SIZE 122880"
# The server's arrival is kept to the second: sealed, it only tells how late a point was.
_SEALED: Final = (
    "device, reading, series, make_timestamp_ns(time) AS time, value, kind, quality, seq, track, "
    '"offset", round((received - time) / 1e9)::INTEGER AS delay_s, "integer", text'
)
_NAMES: Final = (
    "CREATE OR REPLACE TEMP TABLE naming AS SELECT counted.series, counted.rows, coalesce(d.device_id, '') AS device, "
    "coalesce(s.name, '') AS reading, coalesce(d.tenant, '') AS tenant, coalesce(d.type, '') AS type "
    "FROM (SELECT series, count(*) AS rows FROM ({union}) GROUP BY series) counted "
    "LEFT JOIN (SELECT * FROM series QUALIFY row_number() OVER (PARTITION BY series ORDER BY rowid DESC) = 1) s "
    "ON s.series = counted.series "
    "LEFT JOIN (SELECT * FROM devices QUALIFY row_number() OVER (PARTITION BY device ORDER BY rowid DESC) = 1) d "
    "ON d.device = s.device"
)


class Slice(msgspec.Struct, frozen=True):
    """Series from `first` to `last` of one tenant's device type: what becomes a file."""

    tenant: str
    device_type: str
    first: int
    last: int


def slices(counts: Sequence[tuple[str, str, int, int]], rows_max: int = SLICE_ROWS) -> Iterator[Slice]:
    """Cut (tenant, type, series, rows), sorted, into slices of at most `rows_max` rows, or of one series."""
    first, rows = 0, 0
    for at, (tenant, device_type, series, count) in enumerate(counts):
        is_other = counts[first][:2] != (tenant, device_type)
        if at > first and (is_other or rows + count > rows_max):
            yield Slice(*counts[first][:2], counts[first][2], counts[at - 1][2])
            first, rows = at, 0
        rows += count
        if at == len(counts) - 1:
            yield Slice(tenant, device_type, counts[first][2], series)


def write(
    con: duckdb.DuckDBPyConnection, manifest: Manifest, tables: Sequence[str], *, is_late: bool
) -> list[SealedFile]:
    """Write the rows of retired tables to files, synced. Runs beside commits, on a cursor of its own."""
    union = " UNION ALL ".join(f"SELECT * FROM {table}" for table in tables)
    con.execute(_NAMES.format(union=union))
    counts = con.execute("SELECT tenant, type, series, rows FROM naming ORDER BY ALL").fetchall()
    written: list[SealedFile] = []
    try:
        for each in slices(counts):
            path = manifest.new_path(each.tenant, each.device_type, is_late=is_late)
            select = (
                f"SELECT {_SEALED} FROM ({union}) h JOIN naming USING (series) WHERE tenant = ? AND type = ? "
                f"AND series BETWEEN {each.first} AND {each.last}"
            )
            parameters = [each.tenant, each.device_type]
            found = _copy(con, path, select, parameters)
            written.append(SealedFile(path.name, each.tenant, each.device_type, is_late, *found))
        con.execute("DROP TABLE naming")
    except duckdb.Error:
        manifest.unlink(written)
        raise
    sync_directory(manifest.folder)
    return written


def _copy(
    con: duckdb.DuckDBPyConnection, path: Path, select: str, parameters: Sequence[str] = ()
) -> tuple[int, int, int, int, int, int]:
    """Write a file, synced; returns the ends of its times and series, its rows and its bytes."""
    quoted = _quoted(path)
    try:
        con.execute(f"COPY ({select} ORDER BY series, time, seq) TO {quoted} ({_OPTIONS})", parameters)
        sync_file(path)
        row = con.execute(
            f"SELECT epoch_ns(min(time)), epoch_ns(max(time)), min(series), max(series), count(*) FROM {quoted}"
        ).fetchone()
    except duckdb.Error:
        path.unlink(missing_ok=True)
        raise
    assert row is not None
    time_min, time_max, series_min, series_max, rows = row
    return time_min, time_max, series_min, series_max, rows, path.stat().st_size


class Rewriter:
    """Merges files and takes series out of them, in a DuckDB instance that lives as long as the work does."""

    def __init__(self, manifest: Manifest, memory: str, temp: Path) -> None:
        self._manifest, self._memory, self._temp = manifest, memory, temp

    def _connect(self) -> duckdb.DuckDBPyConnection:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": self._memory,
            "threads": "1",
            "temp_directory": str(self._temp),
        }
        return duckdb.connect(":memory:", config=config)

    def merge(self, files: Sequence[SealedFile]) -> SealedFile:
        """Write the rows of files of one tenant and type to one."""
        first = files[0]
        path = self._manifest.new_path(first.tenant, first.device_type, is_late=first.is_late)
        listed = ", ".join(_quoted(self._manifest.folder / each.name) for each in files)
        with self._connect() as con:
            select = f"SELECT * FROM read_parquet([{listed}])"
            found = _copy(con, path, select)
        merged = SealedFile(path.name, first.tenant, first.device_type, first.is_late, *found)
        if merged.rows != sum(each.rows for each in files):
            raise RuntimeError(f"{merged.name} holds {merged.rows} rows, not those of {[each.name for each in files]}")
        sync_directory(self._manifest.folder)
        return merged

    def without(self, file: SealedFile, series: Sequence[int]) -> tuple[int, SealedFile | None]:
        """Write a file anew without `series`; returns the rows left out, and the new file where any are left."""
        numbers = ", ".join(str(int(each)) for each in series)
        source = _quoted(self._manifest.folder / file.name)
        with self._connect() as con:
            row = con.execute(f"SELECT count(*) FROM {source} WHERE series IN ({numbers})").fetchone()
            left_out = int(row[0]) if row else 0
            if left_out in (0, file.rows):
                return left_out, None
            path = self._manifest.new_path(file.tenant, file.device_type, is_late=file.is_late)
            select = f"SELECT * FROM {source} WHERE series NOT IN ({numbers})"
            found = _copy(con, path, select)
        sync_directory(self._manifest.folder)
        return left_out, SealedFile(path.name, file.tenant, file.device_type, file.is_late, *found)


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
