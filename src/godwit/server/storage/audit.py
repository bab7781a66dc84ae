"""The audit log: who changed what, from where, before and after. Written in the change's own transaction."""

from time import time_ns
from typing import Any

import msgspec
import sqlalchemy as sa

from godwit.server.storage.tables import audit


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

    `tenant`: whose change it is, "" for the installation's; its people may read it. `at` in ns UTC, now unless given.
    """
    connection.execute(
        audit.insert(),
        {
            "at": time_ns() if at is None else at,
            "who": who[:128],
            "what": what,
            "about": about[:256],
            "before": msgspec.to_builtins(before),
            "after": msgspec.to_builtins(after),
            "tenant": tenant,
            "address": address[:64],
        },
    )
