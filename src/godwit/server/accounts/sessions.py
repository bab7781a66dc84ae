"""Sessions of browsers. Only hashes are kept; a session's secret is changed now and then, and a thief is known by it.

Whoever shows a secret that was replaced, or shows it from another kind of browser, has it from somebody else's cookie:
then the session ends for both, and the owner signs in again.
"""

import secrets
from time import time_ns
from typing import Any, Final

import sqlalchemy as sa

from godwit.contract.errors import RejectedError
from godwit.server.accounts.agents import family as family_of
from godwit.server.accounts.digests import digest_of, new_secret
from godwit.server.accounts.model import Session
from godwit.server.accounts.principal import Principal
from godwit.server.storage.account_tables import sessions, users
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

SECOND: Final = 1_000_000_000
IDLE_S: Final = 2 * 3_600
LONGEST_S: Final = 12 * 3_600
REPLACE_S: Final = 900
"""A secret is replaced when it is older, and a page is asked for."""
OVERLAP_S: Final = 60
"""A replaced secret is good for as long: requests were under way, or the answer with the new one was lost."""
OF_USER_MAX: Final = 100
SEEN_EVERY_S: Final = 60
_former = sessions.alias()
_WITH_USER: Final = sa.select(
    sessions,
    sa.select(sa.func.coalesce(sa.func.max(_former.c.replaced), 0))
    .where(_former.c.family == sessions.c.family)
    .scalar_subquery()
    .label("secret_since"),
    users.c.grants,
    users.c.must_change,
).select_from(sessions.outerjoin(users, sa.and_(users.c.name == sessions.c.user, sa.not_(users.c.is_disabled))))
"""A session; when its secret was last replaced, 0: never; what its user may, None where he may not come in."""
# made once: to build it costs more than to run it
_BY_SECRET: Final = _WITH_USER.where(sessions.c.digest == sa.bindparam("digest"))
_BY_ID: Final = _WITH_USER.where(sessions.c.family == sa.bindparam("family"), sessions.c.replaced == 0)


class Sessions:
    """Thread-safe; every method blocks."""

    def __init__(self, database: Database, *, idle_s: int = IDLE_S, longest_s: int = LONGEST_S) -> None:
        self._write, self._read = database.write, database.read
        self._idle, self._longest = idle_s * SECOND, longest_s * SECOND

    def begin(self, user: str, *, address: str = "", agent: str = "", longest_s: int | None = None) -> str:
        """Begin a session; returns its secret. `longest_s`: it ends sooner than others, however busy it is."""
        secret, now = new_secret(), time_ns()
        longest = self._longest if longest_s is None else min(self._longest, longest_s * SECOND)
        c = sessions.c
        with self._write() as connection:
            connection.execute(sessions.delete().where(self._is_over(now)))
            kept = sa.select(c.family).where(c.user == user, c.replaced == 0).order_by(c.created.desc())
            surplus = [row[0] for row in connection.execute(kept.offset(OF_USER_MAX - 1))]
            if surplus:
                connection.execute(sessions.delete().where(c.family.in_(surplus)))
            row = {
                "digest": digest_of(secret), "user": user, "created": now, "seen": now, "expires": now + longest,
                "address": address[:64], "agent": family_of(agent), "family": secrets.token_hex(8), "replaced": 0,
            }  # fmt: skip
            connection.execute(sessions.insert(), row)
        return secret

    def find(self, secret: str, *, agent: str | None, now: int) -> Any:
        """Return a session that is not over, see `_WITH_USER`; None otherwise.

        Raises RejectedError (`session-stolen`).
        """
        with self._read() as connection:
            row = connection.execute(_BY_SECRET, {"digest": digest_of(secret)}).one_or_none()
        if row is None or self.ends(row) <= now:
            return None
        if is_stolen(row, agent, now):
            raise RejectedError("this session was used by somebody else too; sign in again", code="session-stolen")
        return row

    def by_id(self, session_id: str, now: int) -> Any:
        """Return a session that is not over, see `_WITH_USER`; None otherwise."""
        with self._read() as connection:
            row = connection.execute(_BY_ID, {"family": session_id}).one_or_none()
        return None if row is None or self.ends(row) <= now else row

    def ends(self, row: Any) -> int:
        """Return when a session ends if nothing more is heard of it, ns UTC."""
        return int(min(row.expires, row.seen + self._idle))

    def touch(self, family: str, now: int) -> None:
        """Note that somebody is there."""
        with self._write() as connection:
            connection.execute(sessions.update().where(sessions.c.family == family), {"seen": now})

    def replace(self, secret: str, *, at_once: bool = False) -> str:
        """Return a new secret of the same session. `at_once`: its former ones are unknown from now on."""
        new, now, c = new_secret(), time_ns(), sessions.c
        with self._write() as connection:
            row = connection.execute(sa.select(sessions).where(c.digest == digest_of(secret))).one_or_none()
            if row is None or row.replaced:
                return secret  # another request was quicker
            if at_once:
                connection.execute(sessions.delete().where(c.family == row.family))
            else:
                connection.execute(sessions.update().where(c.digest == row.digest), {"replaced": now})
            connection.execute(sessions.insert(), {**row._mapping, "digest": digest_of(new), "replaced": 0})  # noqa: SLF001
        return new

    def sessions(self, user: str) -> list[Session]:
        """Return a user's sessions, the newest first."""
        c, now = sessions.c, time_ns()
        statement = (
            sa.select(sessions)
            .where(c.user == user, c.replaced == 0, sa.not_(self._is_over(now)))
            .order_by(c.created.desc())
        )
        with self._read() as connection:
            return [
                Session(
                    session_id=row.family, user=row.user, created=row.created, seen=row.seen, expires=self.ends(row),
                    address=row.address, agent=row.agent,
                )
                for row in connection.execute(statement)
            ]  # fmt: skip

    def end(self, who: Principal, user: str, session_id: str) -> None:
        """End one of a user's sessions. Raises RejectedError (`not-found`)."""
        where = sa.and_(sessions.c.user == user, sessions.c.family == session_id)
        with self._write() as connection:
            if not connection.execute(sessions.delete().where(where)).rowcount:
                raise RejectedError(f"no session {session_id[:32]!r}", code="not-found")
            record(connection, who.name, "session.end", user, before={"session": session_id}, address=who.address)

    def end_all(self, who: Principal, user: str) -> None:
        """End all sessions of a user."""
        of_user = sessions.c.user == user
        with self._write() as connection:
            ended = connection.execute(sa.select(sa.func.count(sessions.c.family.distinct())).where(of_user)).scalar()
            if ended:
                connection.execute(sessions.delete().where(of_user))
                record(connection, who.name, "session.end", user, before={"sessions": ended}, address=who.address)

    def end_by_secret(self, secret: str) -> str | None:
        """End the session with this secret; returns whose it was."""
        with self._write() as connection:
            statement = sa.select(sessions).where(sessions.c.digest == digest_of(secret))
            row = connection.execute(statement).one_or_none()
            if row is None:
                return None
            connection.execute(sessions.delete().where(sessions.c.family == row.family))
            return str(row.user)

    def _is_over(self, now: int) -> "sa.ColumnElement[bool]":
        return sa.or_(sessions.c.expires <= now, sessions.c.seen <= now - self._idle)


def is_stolen(row: Any, agent: str | None, now: int) -> bool:
    """Whether this use of a session's secret is somebody else's."""
    if row.replaced and now - row.replaced > OVERLAP_S * SECOND:
        return True
    return agent is not None and family_of(agent) != row.agent
