"""What became of requests: the last enrollments and refusals, as the audit log has them."""

from typing import Any, Final

import msgspec
import sqlalchemy as sa

from godwit.server.accounts.principal import Principal
from godwit.server.registry.access import visible
from godwit.server.storage.database import Database
from godwit.server.storage.tables import audit

_WHAT: Final = ("enrollment.grant", "enrollment.refuse", "certificate.register")


class Outcome(msgspec.Struct, frozen=True, rename="camel"):
    """One request. `code` is the refusal's, None for what was granted; `at` ns UTC."""

    at: int
    device_id: str
    by: str
    tenant: str
    address: str
    code: str | None
    detail: str
    source: str | None
    fingerprint: str | None


def outcomes(database: Database, who: Principal, limit: int) -> list[Outcome]:
    """Return the last requests that `who` may see, the newest first."""
    a = audit.c
    statement = sa.select(audit).where(a.what.in_(_WHAT), visible(who, a.tenant)).order_by(a.id.desc()).limit(limit)
    with database.read() as connection:
        return [_outcome(row) for row in connection.execute(statement)]


def counts(database: Database, who: Principal, since: int) -> tuple[int, int]:
    """Return how many were granted and refused since a time."""
    a = audit.c
    statement = (
        sa.select(a.what, sa.func.count())
        .where(a.what.in_(_WHAT), visible(who, a.tenant), a.at >= since)
        .group_by(a.what)
    )
    with database.read() as connection:
        found = {row[0]: row[1] for row in connection.execute(statement)}
    refused = found.pop("enrollment.refuse", 0)
    return sum(found.values()), refused


def _outcome(row: Any) -> Outcome:
    after = row.after or {}
    is_refused = row.what == "enrollment.refuse"
    return Outcome(
        row.at, row.about, row.who, row.tenant, row.address, str(after.get("code")) if is_refused else None,
        str(after.get("detail") or ""), after.get("source"), after.get("fingerprint"),
    )  # fmt: skip
