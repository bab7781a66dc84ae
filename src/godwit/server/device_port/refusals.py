"""Refusals of the port in the audit log: each kind from each address once in a while, so that nobody fills the disk."""

import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

log = logging.getLogger(__name__)

SILENCE_S: Final = 60.0
KINDS_MAX: Final = 10_000
PER_S_MAX: Final = 20
"""Lines a second of all together, whatever the addresses."""


class Refusals:
    """Thread-safe; `refused` blocks."""

    def __init__(self, database: Database, clock: Callable[[], float] = monotonic) -> None:
        self._database, self._clock = database, clock
        self._told: dict[tuple[str, str], float] = {}
        self._second, self._lines = 0, 0
        self._lock = threading.Lock()

    def refused(self, code: str, detail: str, address: str, about: str = "", tenant: str = "") -> None:
        """Write down that somebody was refused."""
        if not self._is_news(code, address):
            return
        after = {"code": code, "detail": detail[:512]}
        try:
            with self._database.write() as connection:
                record(connection, "unknown", "device-port.refuse", about or code, tenant=tenant, address=address,
                       after=after)  # fmt: skip
        except SQLAlchemyError as error:
            log.warning("a refusal could not be written to the audit log: %s", error)

    def _is_news(self, code: str, address: str) -> bool:
        now = self._clock()
        with self._lock:
            if int(now) != self._second:
                self._second, self._lines = int(now), 0
            last = self._told.get((code, address))
            if self._lines >= PER_S_MAX or (last is not None and now - last < SILENCE_S):
                return False
            if len(self._told) >= KINDS_MAX:
                self._told.clear()
            self._told[code, address] = now
            self._lines += 1
            return True
