"""The audit log: who changed what, from where, before and after. Written in the change's own transaction."""

from collections.abc import Iterator, Sequence
from time import time_ns
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from godwit.server.storage.database import Database
from godwit.server.storage.tables import audit

PAGE: Final = 500
WHO_MAX: Final = 128
ABOUT_MAX: Final = 256


class AuditLine(msgspec.Struct, frozen=True, rename="camel"):
    """One line of the log. `at` in ns UTC; `tenant` "": the installation's."""

    number: int
    at: int
    who: str
    what: str
    about: str
    before: Any
    after: Any
    tenant: str
    address: str


class AuditFilter(msgspec.Struct, frozen=True):
    """Which lines are wanted; empty: all. `what` may end in a dot: all of a room. `who` finds a user's tokens too."""

    tenants: tuple[str, ...] | None = None
    """Whose lines may be seen; None: all, the installation's too."""
    who: str = ""
    what: str = ""
    about: str = ""
    tenant: str | None = None
    begins: int = 0
    ends: int = 2**62


def record(
    connection: sa.Connection,
    who: str,
    what: str,
    about: str,
    *,
    before: Any = None,
    after: Any = None,
    tenant: str = "",
    address: str = "",
    at: int | None = None,
) -> None:
    """Write one line of the log. `what` is room.verb, such as `device.change`; never give it a secret.

    What people or devices say of themselves is written so that it can be read. `tenant`: whose change it is, "" for the
    installation's; its people may read it. `at` in ns UTC, now unless given.
    """
    connection.execute(
        audit.insert(),
        {
            "at": time_ns() if at is None else at,
            "who": _readable(who)[:WHO_MAX],
            "what": what,
            "about": _readable(about)[:ABOUT_MAX],
            "before": msgspec.to_builtins(before),
            "after": msgspec.to_builtins(after),
            "tenant": tenant,
            "address": address[:64],
        },
    )


def _readable(text: str) -> str:
    """Return text without what hides in it: control characters turn a line over, and PostgreSQL takes no zero."""
    return text if text.isprintable() else repr(text[:ABOUT_MAX])


def lines(database: Database, wanted: AuditFilter, *, below: int | None = None, limit: int = PAGE) -> list[AuditLine]:
    """Return lines, the newest first, with numbers `below` one."""
    conditions = _conditions(wanted)
    if below is not None:
        conditions.append(audit.c.id < below)
    statement = sa.select(audit).where(*conditions).order_by(audit.c.id.desc()).limit(limit)
    with database.read() as connection:
        return [
            AuditLine(row.id, row.at, row.who, row.what, row.about, row.before, row.after, row.tenant, row.address)
            for row in connection.execute(statement)
        ]


def pages(database: Database, wanted: AuditFilter) -> Iterator[Sequence[AuditLine]]:
    """Return all lines, a page in memory at a time. What is written meanwhile is not among them."""
    below: int | None = None
    while page := lines(database, wanted, below=below):
        yield page
        below = page[-1].number


def _conditions(wanted: AuditFilter) -> list["sa.ColumnElement[bool]"]:
    c = audit.c
    found: list[sa.ColumnElement[bool]] = []
    if wanted.tenants is not None:
        found.append(c.tenant.in_(wanted.tenants))
    if wanted.tenant is not None:
        found.append(c.tenant == wanted.tenant)
    if wanted.who:
        found.append(sa.or_(c.who == wanted.who, c.who.startswith(wanted.who + "/", autoescape=True)))
    if wanted.what.endswith("."):
        found.append(c.what.startswith(wanted.what, autoescape=True))
    elif wanted.what:
        found.append(c.what == wanted.what)
    if wanted.about:
        found.append(c.about == wanted.about)
    if wanted.begins:
        found.append(c.at >= wanted.begins)
    if wanted.ends < 2**62:
        found.append(c.at < wanted.ends)
    return found
