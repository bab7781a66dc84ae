"""Refusals of the port in the audit log. They never stand in the way of the answer: a full disk is told in the log."""

import logging

from sqlalchemy.exc import SQLAlchemyError

from godwit.server.accounts.refusals import Refusals as Notes

log = logging.getLogger(__name__)


class Refusals:
    """Thread-safe; `refused` blocks."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def refused(self, code: str, detail: str, address: str, about: str = "", tenant: str = "") -> None:
        """Write down that somebody was refused."""
        try:
            self._notes.note(
                "unknown", "device-port.refuse", about or code, code=code, address=address, tenant=tenant, detail=detail
            )
        except SQLAlchemyError as error:
            log.warning("a refusal could not be written to the audit log: %s", error)
