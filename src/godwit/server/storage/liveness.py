"""Connections to PostgreSQL that are dead are found before they are used, without asking the server each time.

A server that stops, restarts or ends a connection says so on its socket, or the kernel does: there is something to read
where nothing should be. Only then, and after a long rest (in which a firewall may have forgotten the connection), the
server is asked. `pool_pre_ping` asks each time, a round trip before every transaction.
"""

import select
from time import monotonic
from typing import Any, Final

import sqlalchemy as sa

REST_S: Final = 30.0
"""After so long at rest a connection is asked whether it is there."""
_SINCE: Final = "at-rest-since"


def watch(engine: sa.Engine) -> None:
    """Have the connections of a pool looked at; dead ones are replaced, and whoever asked notices nothing."""

    def look(connection: Any, record: Any, _proxy: object) -> None:
        since = record.info.get(_SINCE)
        if since is None or (monotonic() - since < REST_S and _is_silent(connection)):
            return  # None: it has just been opened
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise sa.exc.InvalidatePoolError from error  # the others are older than this moment, and go with it

    sa.event.listen(engine, "checkout", look)
    sa.event.listen(engine, "checkin", _rest)


def _rest(_connection: object, record: Any) -> None:
    record.info[_SINCE] = monotonic()


def _is_silent(connection: Any) -> bool:
    """Whether there is nothing to read: no answer is under way, so that it could only be bad news."""
    if connection.closed:
        return False
    poll = select.poll()  # not select(): there may be more than 1,024 files
    poll.register(connection.fileno(), select.POLLIN | select.POLLPRI)
    return not poll.poll(0)
