"""Refusals in the audit log: who was not let in, or not let do something. The same one is written once a minute."""

import threading
from collections.abc import Callable
from time import monotonic
from typing import Final

from sqlalchemy import Connection

from godwit.server.accounts.refusal_tally import More, Refusal, RefusalTally
from godwit.server.storage import audit
from godwit.server.storage.database import Database

MORE: Final = " more like this"
"""Ends `about` of a line that tells how many refusals were not written one by one."""


class Refusals:
    """Thread-safe; all but `is_new` block when they write. Nobody fills the disk with what he is not allowed."""

    def __init__(self, database: Database, clock: Callable[[], float] = monotonic) -> None:
        self._database, self._clock = database, clock
        self._tally, self._lock = RefusalTally(), threading.Lock()

    def is_new(self, refusal: Refusal) -> bool:
        """Whether this one is to be written; if not, it is counted."""
        with self._lock:
            return self._tally.is_new(refusal, self._clock())

    def note(
        self, who: str, what: str, about: str, *, code: str, address: str = "", tenant: str = "", detail: str = ""
    ) -> None:
        """Write that `who` was refused with `code`; never give it a secret."""
        refusal = Refusal(who, what, about, code, address, tenant, detail)
        if self.is_new(refusal):
            self.write(refusal)

    def write(self, refusal: Refusal) -> None:
        """Write it whatever was written before: for who has asked `is_new` where he must not wait."""
        after = {"code": refusal.code} | ({"detail": refusal.detail[:512]} if refusal.detail else {})
        with self._database.write() as connection:
            audit.record(
                connection, refusal.who, refusal.what, refusal.about, after=after, tenant=refusal.tenant,
                address=refusal.address,
            )  # fmt: skip

    def tell_more(self, *, at_once: bool = False) -> None:
        """Write how many more there were of what was not written one by one. Called again and again, and at the end."""
        with self._lock:
            due = self._tally.due(self._clock(), at_once=at_once)
        if not due:
            return
        with self._database.write() as connection:
            for each in due:
                _record(connection, each)


def _record(connection: Connection, more: More) -> None:
    kind = more.kind
    after: dict[str, object] = {"more": more.number, "codes": more.codes}
    if more.places > 1:
        after["addresses"] = more.places
    audit.record(
        connection, "?", kind.what, f"{more.number}{MORE}", after=after, tenant=kind.tenant,
        address=kind.place,
    )  # fmt: skip
