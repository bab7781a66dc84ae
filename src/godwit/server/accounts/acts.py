"""What somebody did that changes no row of the registry, and belongs into the audit log all the same."""

from typing import Any

from godwit.server.accounts.principal import Principal
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database


def record_act(
    database: Database, who: Principal, what: str, about: str, *, after: Any = None, tenant: str = ""
) -> None:
    """Write that `who` did something. Blocks."""
    with database.write() as connection:
        record(connection, who.name, what, about, after=after, tenant=tenant, address=who.address)
