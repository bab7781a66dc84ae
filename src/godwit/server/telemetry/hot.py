"""Hot tables: where rows wait in DuckDB until they are sealed.

Rows that came long after they were measured go to tables of their own, because their times would spoil the ranges of
everybody else's files. Tables are rotated, so that a seal moves whole ones. All but the newest of a kind are retired.
"""

from typing import Final

import duckdb
import numpy as np

from godwit.server.telemetry import schema
from godwit.server.telemetry.model import Points

NS: Final = 1_000_000_000
LATE_NS: Final = 24 * 3_600 * NS
"""Older than this on arrival is late: an outbox after a long time alone, or a replay."""
LATE_SEAL_NS: Final = 24 * 3_600 * NS

HOT: Final = "hot_"
LATE: Final = "late_"
_NUMPY: Final = ("series", "time", "value", "kind", "quality", "seq", "track", "offset", "received")


class HotTables:
    """The names of hot tables, their rows, and when they are due. Called under the owner's lock."""

    def __init__(self, rows_max: int, seal_after_s: int) -> None:
        self._rows_max = {HOT: rows_max, LATE: min(rows_max, 1_000_000)}
        self._age_ns_max = {HOT: seal_after_s * NS, LATE: max(seal_after_s * NS, LATE_SEAL_NS)}
        self._rows: dict[str, int] = {}
        self._since: dict[str, int] = {}
        self._next = 1

    @property
    def tables(self) -> tuple[str, ...]:
        """All tables that hold hot rows."""
        return tuple(self._rows)

    @property
    def rows(self) -> int:
        """How many rows are not sealed."""
        return sum(self._rows.values())

    def load(self, con: duckdb.DuckDBPyConnection) -> None:
        """Take up the tables there are, as the database has them; make the first ones."""
        names = [name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        mine = sorted((name for name in names if name.startswith((HOT, LATE))), key=_number)
        self._next = max((_number(name) for name in mine), default=self._next - 1) + 1
        for prefix in (HOT, LATE):
            if not any(name.startswith(prefix) for name in mine):
                mine.append(self._create(con, prefix))
        self._rows = {name: _count(con, name) for name in mine}
        self._since = {name: since for name, since in self._since.items() if name in self._rows}

    def _create(self, con: duckdb.DuckDBPyConnection, prefix: str) -> str:
        name = f"{prefix}{self._next}"
        self._next += 1
        con.execute(f"CREATE TABLE {name}({schema.HOT_COLUMNS})")
        return name

    def insert(self, con: duckdb.DuckDBPyConnection, points: Points) -> list[tuple[str, int]]:
        """Insert into the newest tables; returns how many rows went where, for `note` after the commit."""
        is_late = points.received - points.time > LATE_NS
        if not is_late.any():
            return [self._insert(con, HOT, points)]
        if is_late.all():
            return [self._insert(con, LATE, points)]
        return [
            self._insert(con, LATE, points_at(points, np.flatnonzero(is_late))),
            self._insert(con, HOT, points_at(points, np.flatnonzero(~is_late))),
        ]

    def _insert(self, con: duckdb.DuckDBPyConnection, prefix: str, points: Points) -> tuple[str, int]:
        table = self._active(prefix)
        batch = {name: getattr(points, name) for name in _NUMPY}
        columns = ", ".join(f'"{name}"' for name in batch)
        if points.integer is None and points.text is None:  # nearly always; without SELECT there is less to plan
            con.execute(f"INSERT INTO {table} ({columns}) FROM batch")
            return table, len(points)
        integer = text = "NULL"
        if points.integer is not None:
            batch["integer"], integer = points.integer, 'CASE WHEN kind = 1 THEN "integer" END'
        if points.text is not None:
            batch["text"], text = np.array(points.text, dtype=object), "text"
        con.execute(
            f'INSERT INTO {table} ({columns}, "integer", "text") SELECT {columns}, {integer}, {text} FROM batch'
        )
        return table, len(points)

    def note(self, written: list[tuple[str, int]]) -> None:
        """Count rows that were committed."""
        for table, rows in written:
            if table in self._rows:
                self._rows[table] += rows

    def _of(self, prefix: str) -> list[str]:
        return [name for name in self._rows if name.startswith(prefix)]

    def _active(self, prefix: str) -> str:
        return self._of(prefix)[-1]

    def is_due(self, now: int) -> bool:
        """Whether a newest table is full or old, or a retired one is left from a seal that failed."""
        return any(self._is_due(prefix, now) or len(self._of(prefix)) > 1 for prefix in (HOT, LATE))

    def _is_due(self, prefix: str, now: int) -> bool:
        table = self._active(prefix)
        if not self._rows[table]:
            self._since.pop(table, None)
            return False
        since = self._since.setdefault(table, now)
        return self._rows[table] >= self._rows_max[prefix] or now - since >= self._age_ns_max[prefix]

    def retire(self, con: duckdb.DuckDBPyConnection, now: int, *, force: bool) -> None:
        """Make new tables where the newest are due (all that hold rows, when forced). In a transaction; then `load`."""
        for prefix in (HOT, LATE):
            if self._is_due(prefix, now) or (force and self._rows[self._active(prefix)]):
                self._create(con, prefix)

    def retired(self, prefix: str) -> list[str]:
        """Return the tables of a kind that take no more rows."""
        return self._of(prefix)[:-1]


def points_at(points: Points, rows: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Points:
    """Return the points at `rows`."""
    columns = {name: getattr(points, name)[rows] for name in _NUMPY}
    integer = points.integer[rows] if points.integer is not None else None
    text = [points.text[at] for at in rows.tolist()] if points.text is not None else None
    return Points(**columns, integer=integer, text=text)


def _number(name: str) -> int:
    return int(name.rsplit("_", 1)[1])


def _count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    row = con.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(row[0]) if row else 0
