"""Refusals of the port in the audit log: the first of each kind from each address, then how many there were."""

import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final, NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from godwit.contract.errors import UnavailableError
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database
from godwit.server.storage.repeats import Repeats

log = logging.getLogger(__name__)

SILENCE_S: Final = 60.0
KINDS_MAX: Final = 1_200
"""Kinds and addresses in a minute that have lines of their own."""


class _Refused(NamedTuple):
    code: str
    detail: str
    address: str
    about: str = ""
    tenant: str = ""


class Refusals:
    """Thread-safe; `refused` and `flush` block."""

    def __init__(self, database: Database, clock: Callable[[], float] = monotonic) -> None:
        self._database, self._clock = database, clock
        self._repeats: Repeats[_Refused] = Repeats(SILENCE_S, KINDS_MAX)
        self._lock = threading.Lock()

    def refused(self, code: str, detail: str, address: str, about: str = "", tenant: str = "") -> None:
        """Write down that somebody was refused, or count it."""
        refused = _Refused(code, detail, address, about, tenant)
        with self._lock:
            is_new = self._repeats.is_new((code, address), refused, self._clock())
        if is_new:
            self._write(refused, 1)

    def flush(self) -> None:
        """Write how often what was refused before was refused again."""
        with self._lock:
            due = self._repeats.due(self._clock())
        for each in due:
            self._write(each.what or _Refused("many", "of many kinds, from many addresses", ""), each.times)

    def _write(self, refused: _Refused, times: int) -> None:
        after = {"code": refused.code, "detail": refused.detail[:512]} | ({"times": times} if times > 1 else {})
        try:
            with self._database.write() as connection:
                record(connection, "unknown", "device-port.refuse", refused.about or refused.code,
                       tenant=refused.tenant, address=refused.address, after=after)  # fmt: skip
        except (SQLAlchemyError, UnavailableError) as error:
            log.warning("a refusal could not be written to the audit log: %s", error)
