"""The manifest of sealed files: what stands in it is data, other files are orphans of a crash.

A file that leaves the manifest is unlinked once the database file itself says so (a log that is cut must not take back
what is unlinked already), and no query that may have its name is running.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import msgspec

from godwit.runtime.files import sync_directory


class SealedFile(msgspec.Struct, frozen=True):
    """A row of the manifest. Times in ns, both ends inclusive."""

    name: str
    tenant: str
    device_type: str
    is_late: bool
    time_min: int
    time_max: int
    series_min: int
    series_max: int
    rows: int
    size: int


class Manifest:
    """The folder of sealed files and who reads there. The rows stand in the owner's database."""

    def __init__(self, directory: Path) -> None:
        self.folder = directory / "sealed"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._next = 1
        self._readers = 0
        self._departed: list[Path] = []
        self._leaving: list[Path] = []
        self._guard = threading.Lock()

    def sweep_orphans(self, con: duckdb.DuckDBPyConnection) -> None:
        """Remove what a crash left. Only at start: later, a file may be on its way into the manifest."""
        known = {name for (name,) in con.execute("SELECT name FROM files").fetchall()}
        self._next = max((int(name.split("-", 1)[0]) for name in known), default=0) + 1
        for path in self.folder.iterdir():
            if path.name not in known:
                path.unlink()
        sync_directory(self.folder)

    def new_path(self, tenant: str, device_type: str, *, is_late: bool) -> Path:
        """Return the path of a file to be written."""
        with self._guard:
            number, self._next = self._next, self._next + 1
        late = "-late" if is_late else ""
        return self.folder / f"{number:08d}-{_safe(tenant)}-{_safe(device_type)}{late}.parquet"

    @staticmethod
    def all(con: duckdb.DuckDBPyConnection) -> list[SealedFile]:
        """Return the whole manifest, oldest first."""
        return [SealedFile(*row) for row in con.execute("SELECT * FROM files ORDER BY time_min, name").fetchall()]

    def overlapping(
        self, con: duckdb.DuckDBPyConnection, series: Sequence[int] | None, start: int, end: int
    ) -> list[str]:
        """Return the paths of files that may hold points of `series` with start <= time < end."""
        low, high = (min(series), max(series)) if series else (-(2**31), 2**31 - 1)
        rows = con.execute(
            "SELECT name FROM files WHERE time_max >= ? AND time_min < ? AND series_max >= ? AND series_min <= ?",
            [start, end, low, high],
        ).fetchall()
        return [str(self.folder / name) for (name,) in rows]

    @staticmethod
    def change(
        con: duckdb.DuckDBPyConnection, arriving: Sequence[SealedFile], leaving: Sequence[SealedFile] = ()
    ) -> None:
        """Put files into the manifest and take others out. Inside a transaction."""
        for each in leaving:
            con.execute("DELETE FROM files WHERE name = ?", [each.name])
        for each in arriving:
            con.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", list(msgspec.structs.astuple(each)))

    @staticmethod
    def holds(con: duckdb.DuckDBPyConnection, files: Sequence[SealedFile]) -> bool:
        """Whether `files` stand in the manifest: they all do, or none, because they came in one transaction."""
        return not files or bool(con.execute("SELECT 1 FROM files WHERE name = ?", [files[0].name]).fetchone())

    @property
    def has_departed(self) -> bool:
        """Whether files left the manifest that only wait for a checkpoint."""
        return bool(self._departed)

    def depart(self, leaving: Sequence[SealedFile]) -> None:
        """Note that files left the manifest; they stay on disk until `settle`."""
        with self._guard:
            self._departed += [self.folder / each.name for each in leaving]

    def settle(self) -> None:
        """Remove what has departed, once nobody reads: the checkpoint is done."""
        with self._guard:
            self._leaving += self._departed
            self._departed = []
        self._sweep()

    def unlink(self, files: Sequence[SealedFile]) -> None:
        """Remove files that never got into the manifest."""
        for each in files:
            (self.folder / each.name).unlink(missing_ok=True)
        sync_directory(self.folder)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep files of the manifest in place while a query reads them. Entered before the manifest is looked at."""
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
    return "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in text)[:40]
