"""The one process that owns the database file: its connection, its transactions, and opening it anew after trouble.

A COMMIT that raises may be durable all the same (seen on a full disk), and leaves an instance that refuses everything.
So after trouble the file is opened anew, which needs every cursor on the old instance gone: DuckDB hands a second
opener the instance that is already there, broken as it is.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb

from godwit.contract.errors import UnavailableError
from godwit.server.telemetry import schema

log = logging.getLogger(__name__)

TROUBLE: Final = (
    duckdb.IOException,
    duckdb.OutOfMemoryException,
    duckdb.FatalException,
    duckdb.InternalException,
    duckdb.TransactionException,
    duckdb.ConnectionException,
    duckdb.InterruptException,
)
"""What may pass: disk, memory, an instance that has to be opened anew. Anything else is a bug and ends loudly."""

_BROKEN: Final = (duckdb.FatalException, duckdb.InternalException, duckdb.ConnectionException)
_LEAVE_S_MAX: Final = 2.0
_CHECKPOINT_BYTES: Final = 128 * 1_048_576


class Owner:
    """The database file. `opened` is called with every new connection, before anybody else has it."""

    def __init__(self, directory: Path, memory: str, opened: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
        self.path = directory / "telemetry.duckdb"
        self.lock = threading.RLock()
        self._memory, self._temp, self._opened = memory, directory / "tmp", opened
        self._cursors: set[duckdb.DuckDBPyConnection] = set()
        self._left = threading.Condition()
        self._con: duckdb.DuckDBPyConnection | None = self._open()

    @property
    def con(self) -> duckdb.DuckDBPyConnection:
        """Return the connection. Raises UnavailableError once it is closed: who comes late does not open it anew."""
        if self._con is None:
            raise UnavailableError("the telemetry store is closed", code="store-unavailable")
        return self._con

    def _open(self) -> duckdb.DuckDBPyConnection:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": self._memory,
            "threads": "1",  # small transactions: a second thread costs 40 % more CPU and saves no time
            "temp_directory": str(self._temp),
        }
        con = None
        try:
            con = duckdb.connect(str(self.path), config=config)
            con.execute(f"SET checkpoint_threshold='{_CHECKPOINT_BYTES}B'")
            con.execute("SET preserve_insertion_order=false")
            schema.prepare(con)
            self._opened(con)
        except TROUBLE as error:
            if con is not None:
                con.close()
            raise UnavailableError(
                f"the telemetry store cannot be opened: {error}", code="store-unavailable"
            ) from error
        return con

    def transact(self, work: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
        """Do `work` in one transaction.

        Raises UnavailableError with the file opened anew: whether the transaction is durable has to be looked up.
        """
        with self.lock:
            try:
                self.con.execute("BEGIN")
                work(self.con)
                self.con.execute("COMMIT")
            except TROUBLE as error:
                log.warning("a transaction failed, opening the store anew: %s", error)
                self._reopen()
                raise UnavailableError(
                    f"the telemetry store refuses to write: {error}", code="store-unavailable"
                ) from error

    def _reopen(self) -> None:
        with self._left:
            for cursor in self._cursors:
                cursor.interrupt()
            if not self._left.wait_for(lambda: not self._cursors, _LEAVE_S_MAX):
                raise UnavailableError("the telemetry store waits for a reader to leave", code="store-unavailable")
        self.con.close()
        self._con = self._open()

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a connection of one's own on the owner's instance, for as short as may be."""
        with self.lock:
            try:
                con = self.con.cursor()
            except _BROKEN:
                self._reopen()
                con = self.con.cursor()
            with self._left:
                self._cursors.add(con)
        try:
            yield con
        except TROUBLE as error:
            raise UnavailableError(f"the telemetry store cannot be read: {error}", code="store-unavailable") from error
        finally:
            con.close()
            with self._left:
                self._cursors.discard(con)
                self._left.notify_all()

    def checkpoint(self, bytes_min: int = _CHECKPOINT_BYTES // 4) -> bool:
        """Move the write-ahead log into the file where it is large; otherwise some later commit would have to.

        True if the file holds all that was committed before: nothing of it can be lost with the log any more.
        """
        log_file = self.path.with_name(self.path.name + ".wal")
        with self.lock:
            size = log_file.stat().st_size if log_file.exists() else 0
            if size and size >= bytes_min:
                try:
                    self.con.execute("CHECKPOINT")
                except duckdb.TransactionException as error:
                    log.info("no checkpoint now: %s", error)  # a reader holds an older snapshot; the log stays
                    return False
                except TROUBLE as error:
                    self._reopen()
                    raise UnavailableError(f"the checkpoint failed: {error}", code="store-unavailable") from error
                return True
            return not size

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            if self._con is not None:
                self._con.close()
                self._con = None
