"""Refusals in the audit log: who was not let in, or not let do something.

The first of a kind is written at once; how often it happened again, once a minute.
"""

import threading
from time import monotonic
from typing import NamedTuple

from godwit.server.storage import audit
from godwit.server.storage.database import Database
from godwit.server.storage.repeats import Repeats


class Refused(NamedTuple):
    """One refusal. Never give it a secret."""

    who: str
    what: str
    about: str
    code: str
    address: str = ""
    tenant: str = ""


class Refusals:
    """Thread-safe; `note`, `write` and `flush` block."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._repeats: Repeats[Refused] = Repeats()

    def is_new(self, refused: Refused) -> bool:
        """Whether this one is to be written now; else it is counted."""
        with self._lock:
            return self._repeats.is_new(refused, refused, monotonic())

    def note(self, who: str, what: str, about: str, *, code: str, address: str = "", tenant: str = "") -> None:
        """Write that `who` was refused with `code`; never give it a secret."""
        refused = Refused(who, what, about, code, address, tenant)
        if self.is_new(refused):
            self.write(refused)

    def write(self, refused: Refused, times: int = 1) -> None:
        """Write it whatever was written before: for who has asked `is_new` where he must not wait."""
        after = {"code": refused.code} | ({"times": times} if times > 1 else {})
        with self._database.write() as connection:
            audit.record(
                connection, refused.who, refused.what, refused.about, after=after, tenant=refused.tenant,
                address=refused.address,
            )  # fmt: skip

    def flush(self) -> None:
        """Write how often what was refused before was refused again."""
        with self._lock:
            due = self._repeats.due(monotonic())
        for each in due:
            self.write(each.what or Refused("many", "others.refuse", "", "many"), each.times)
