"""Refusals of the port in the audit log. They never stand in the way of the answer: a full disk is told in the log."""

import logging

from sqlalchemy.exc import SQLAlchemyError

from godwit.contract.errors import UnavailableError
from godwit.server.accounts.refusal_tally import Refusal
from godwit.server.accounts.refusals import Refusals as Notes

log = logging.getLogger(__name__)


class Refusals:
    """Thread-safe; all but `is_new` block."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def is_new(self, refusal: Refusal) -> bool:
        """Whether this one is to be written; if not, it is counted."""
        return self._notes.is_new(refusal)

    def write(self, refusal: Refusal) -> None:
        """Write it, if that can be done."""
        try:
            self._notes.write(refusal)
        except (UnavailableError, SQLAlchemyError) as error:
            log.warning("a refusal could not be written to the audit log: %s", error)

    def refused(self, code: str, detail: str, address: str, about: str = "", tenant: str = "") -> None:
        """Write down that somebody was refused, unless it is one of many."""
        refusal = refusal_of(code, detail, address, about, tenant)
        if self.is_new(refusal):
            self.write(refusal)


def refusal_of(code: str, detail: str, address: str, about: str = "", tenant: str = "") -> Refusal:
    """Return a refusal of the port."""
    return Refusal("unknown", "device-port.refuse", about or code, code, address, tenant, detail)
