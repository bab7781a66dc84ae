"""The database as rooms use it: transactions, one writer at a time, errors of ours.

One value for all rooms of a process: they share the lock, and a transaction may span what two rooms keep.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from godwit.contract.errors import UnavailableError


class Database:
    """Opens transactions. Thread-safe."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        # SQLite lets one write at a time; waiting here is fair, its busy handler is not.
        self._writing = threading.RLock()

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction: committed at the end, rolled back on an error.

        Raises UnavailableError (`registry-unavailable`).
        """
        with self._writing:
            try:
                with self.engine.begin() as connection:
                    yield connection
            except sa.exc.OperationalError as error:
                raise UnavailableError(
                    f"the registry cannot be written: {error.orig}", code="registry-unavailable"
                ) from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other writers of this process waiting for longer than one transaction."""
        with self._writing:
            yield

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Yield a connection to read with. Raises UnavailableError (`registry-unavailable`)."""
        try:
            with self.engine.connect() as connection:
                yield connection
        except sa.exc.OperationalError as error:
            raise UnavailableError(f"the registry cannot be read: {error.orig}", code="registry-unavailable") from error
