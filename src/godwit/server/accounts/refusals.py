"""Refusals in the audit log: who was not let in, or not let do something. The same one is written once a minute."""

import threading
from collections import OrderedDict
from time import monotonic
from typing import Final

from godwit.server.storage import audit
from godwit.server.storage.database import Database

EVERY_S: Final = 60.0
LINES_MAX: Final = 120
"""A minute, whoever refuses and is refused: nobody fills the disk with what he is not allowed."""
KEPT_MAX: Final = 5_000


class Refusals:
    """Thread-safe; `note` blocks when it writes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._noted: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._begun, self._lines = monotonic(), 0

    def is_new(self, who: str, what: str, about: str, address: str) -> bool:
        """Whether this one is to be written."""
        key, now = (who, what, about, address), monotonic()
        with self._lock:
            if now - self._noted.get(key, now - 2 * EVERY_S) < EVERY_S:
                return False
            if now - self._begun > EVERY_S:
                self._begun, self._lines = now, 0
            if self._lines >= LINES_MAX:
                return False
            self._lines += 1
            self._noted[key] = now
            if len(self._noted) > KEPT_MAX:
                self._noted.popitem(last=False)
            return True

    def note(self, who: str, what: str, about: str, *, code: str, address: str = "", tenant: str = "") -> None:
        """Write that `who` was refused with `code`; never give it a secret."""
        if self.is_new(who, what, about, address):
            self.write(who, what, about, code=code, address=address, tenant=tenant)

    def write(self, who: str, what: str, about: str, *, code: str, address: str = "", tenant: str = "") -> None:
        """Write it whatever was written before: for who has asked `is_new` where he must not wait."""
        with self._database.write() as connection:
            audit.record(connection, who, what, about, after={"code": code}, tenant=tenant, address=address)
