"""Sealing: hot rows leave DuckDB by time, as Parquet files that anyone can open.

The manifest says which files are data. The hot table is rotated, so that a seal moves whole tables: rows go to files
by tenant and device type, backlog apart (its times would spoil the others' ranges). File and directory are synced,
then one transaction puts the manifest rows in and drops the table. What a crash leaves in between is an orphan and is
swept at start.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb
import msgspec

from godwit.runtime.files import sync_directory, sync_file
from godwit.server.telemetry import schema
from godwit.server.telemetry.model import Retention

NS: Final = 1_000_000_000
BACKLOG_NS: Final = 24 * 3_600 * NS
"""Rows that came more than a day after they were measured go to a file of their own."""

_OPTIONS: Final = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 9, PARQUET_VERSION v2, ROW_GROUP_SIZE 122880"


class SealedFile(msgspec.Struct, frozen=True):
    """A row of the manifest. Times in ns."""

    name: str
    tenant: str
    device_type: str
    time_min: int
    time_max: int
    rows: int
    size: int


class Sealing:
    """Hot tables, the sealed folder and its manifest. Called under the store's lock but for `write`."""

    def __init__(self, directory: Path, hot_rows_max: int, seal_after_s: int) -> None:
        self.folder = directory / "sealed"
        self.folder.mkdir(exist_ok=True)
        self.tables: list[str] = []
        self.hot_rows = 0
        self._hot_rows_max, self._seal_after_ns = hot_rows_max, seal_after_s * NS
        self._active_rows = 0
        self._since = 0
        self._next = 1
        self._readers = 0
        self._leaving: list[Path] = []
        self._guard = threading.Lock()

    @property
    def active(self) -> str:
        """The table that takes new rows."""
        return self.tables[-1]

    def recover(self, con: duckdb.DuckDBPyConnection) -> None:
        """Find the hot tables, sweep orphans."""
        names = con.execute(
            "SELECT table_name FROM duckdb_tables() WHERE table_name LIKE 'hot\\_%' ESCAPE '\\'"
        ).fetchall()
        self.tables = sorted((name for (name,) in names), key=lambda name: int(name[4:]))
        known = {name for (name,) in con.execute("SELECT name FROM files").fetchall()}
        numbers = [int(name.split("-", 1)[0]) for name in known] + [int(name[4:]) for name in self.tables]
        self._next = max(numbers, default=0) + 1
        if not self.tables:
            self._create(con)
        for table in self.tables:
            row = con.execute(f"SELECT count(*) FROM {table}").fetchone()
            self._active_rows = int(row[0]) if row else 0
            self.hot_rows += self._active_rows
        for path in self.folder.iterdir():
            if path.name not in known:
                path.unlink()

    def _create(self, con: duckdb.DuckDBPyConnection) -> None:
        name = f"hot_{self._next}"
        self._next += 1
        con.execute(f"CREATE TABLE {name}({schema.HOT_COLUMNS})")
        self.tables.append(name)

    def note(self, rows: int) -> None:
        """Count rows that were committed."""
        self.hot_rows += rows
        self._active_rows += rows

    def is_due(self, now: int) -> bool:
        """Whether the active table is full or old."""
        if self._active_rows == 0:
            self._since = now
            return len(self.tables) > 1
        self._since = self._since or now
        return self._active_rows >= self._hot_rows_max or now - self._since >= self._seal_after_ns

    def rotate(self, con: duckdb.DuckDBPyConnection, now: int) -> list[str]:
        """Open a new hot table; return those that are to be sealed."""
        retired = list(self.tables)
        self._create(con)
        self._active_rows, self._since = 0, now
        return retired

    def write(self, con: duckdb.DuckDBPyConnection, tables: list[str]) -> list[SealedFile]:
        """Write the rows of retired tables to files, synced. Runs beside commits."""
        union = " UNION ALL ".join(f"SELECT * FROM {table}" for table in tables)
        con.execute(
            f"CREATE TEMP VIEW sealing AS SELECT h.*, coalesce(d.tenant, '') AS tenant, "
            "coalesce(d.type, '') AS type, d.device_id AS device, s.name AS reading, "
            f"h.received - h.time > {BACKLOG_NS} AS is_backlog FROM ({union}) h "
            "LEFT JOIN (SELECT * FROM series QUALIFY "
            "row_number() OVER (PARTITION BY series ORDER BY rowid DESC) = 1) s USING (series) "
            "LEFT JOIN (SELECT * FROM devices QUALIFY "
            "row_number() OVER (PARTITION BY device ORDER BY rowid DESC) = 1) d USING (device)"
        )
        groups = con.execute("SELECT DISTINCT tenant, type, is_backlog FROM sealing ORDER BY ALL").fetchall()
        written = [self._write_file(con, *group) for group in groups]
        sync_directory(self.folder)
        return written

    def _write_file(
        self,
        con: duckdb.DuckDBPyConnection,
        tenant: str,
        device_type: str,
        is_backlog: bool,  # noqa: FBT001
    ) -> SealedFile:
        con.execute(
            "CREATE OR REPLACE TEMP TABLE chosen AS SELECT * FROM sealing "
            "WHERE tenant = ? AND type = ? AND is_backlog = ?",
            [tenant, device_type, is_backlog],
        )
        return self._copy(con, tenant, device_type)

    def _copy(self, con: duckdb.DuckDBPyConnection, tenant: str, device_type: str) -> SealedFile:
        """Write the temporary table `chosen` to a file."""
        with self._guard:
            name = f"{self._next:08d}-{_safe(tenant)}-{_safe(device_type)}.parquet"
            self._next += 1
        path = self.folder / name
        quoted = str(path).replace("'", "''")
        con.execute("SET preserve_insertion_order=true")
        # The server's arrival is kept to the second: sealed, it only tells how late a point was.
        con.execute(
            'COPY (SELECT device, reading, series, time, value, kind, quality, seq, track, "offset", '
            'round((received - time) / 1e9)::INTEGER AS delay_s, "integer", text '
            f"FROM chosen ORDER BY series, time, seq) TO '{quoted}' ({_OPTIONS})"
        )
        row = con.execute("SELECT count(*), min(time), max(time) FROM chosen").fetchone() or (0, 0, 0)
        con.execute("DROP TABLE chosen")
        sync_file(path)
        return SealedFile(name, tenant, device_type, row[1] or 0, row[2] or 0, row[0], path.stat().st_size)

    def enlist(self, con: duckdb.DuckDBPyConnection, written: list[SealedFile], retired: list[str] | None) -> None:
        """Put files into the manifest and drop the tables they came from. Inside a transaction."""
        for each in written:
            con.execute(
                "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)",
                [each.name, each.tenant, each.device_type, each.time_min, each.time_max, each.rows, each.size],
            )
        for table in retired or ():
            con.execute(f"DROP TABLE {table}")

    def forget(self, retired: list[str]) -> None:
        """Stop reading tables that were dropped."""
        self.tables = [table for table in self.tables if table not in retired]
        self.hot_rows = self._active_rows

    def older(self, con: duckdb.DuckDBPyConnection, rule: Retention, oldest: int) -> list[SealedFile]:
        """Return the files of a type whose newest point is older than `oldest`."""
        rows = con.execute(
            "SELECT * FROM files WHERE tenant = ? AND type = ? AND time_max < ?",
            [rule.tenant, rule.device_type, oldest],
        ).fetchall()
        return [SealedFile(*row) for row in rows]

    def rewrite_without(
        self, con: duckdb.DuckDBPyConnection, series: set[int], devices: list[tuple[str, str, str]]
    ) -> tuple[list[tuple[SealedFile, SealedFile | None]], int]:
        """Rewrite the files that hold any of `series`; return (old, new) pairs and the points left out."""
        replaced: list[tuple[SealedFile, SealedFile | None]] = []
        removed = 0
        if not series or not devices:
            return replaced, removed
        numbers = ", ".join(str(int(each)) for each in series)
        for each in [SealedFile(*row) for row in con.execute("SELECT * FROM files").fetchall()]:
            quoted = str(self.folder / each.name).replace("'", "''")
            row = con.execute(f"SELECT count(*) FROM '{quoted}' WHERE series IN ({numbers})").fetchone()
            count = int(row[0]) if row else 0
            if not count:
                continue
            removed += count
            if count == each.rows:
                replaced.append((each, None))
                continue
            con.execute(
                f"CREATE OR REPLACE TEMP TABLE chosen AS SELECT *, "
                f"time + delay_s::BIGINT * {NS} AS received FROM '{quoted}' "
                f"WHERE series NOT IN ({numbers})"
            )
            replaced.append((each, self._copy(con, each.tenant, each.device_type)))
        sync_directory(self.folder)
        return replaced, removed

    def strike(self, con: duckdb.DuckDBPyConnection, leaving: list[SealedFile]) -> None:
        """Take files out of the manifest. Inside a transaction."""
        for each in leaving:
            con.execute("DELETE FROM files WHERE name = ?", [each.name])

    def unlink(self, leaving: list[SealedFile]) -> None:
        """Remove files that left the manifest, once nobody reads."""
        with self._guard:
            self._leaving += [self.folder / each.name for each in leaving]
        self._sweep()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep files of the manifest in place while a query reads them."""
        with self._guard:
            self._readers += 1
        try:
            yield
        finally:
            with self._guard:
                self._readers -= 1
            self._sweep()

    def _sweep(self) -> None:
        with self._guard:
            if self._readers or not self._leaving:
                return
            leaving, self._leaving = self._leaving, []
        for path in leaving:
            path.unlink(missing_ok=True)
        sync_directory(self.folder)


def _safe(text: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in text)[:40]
