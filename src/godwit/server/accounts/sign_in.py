"""Signing in by name and password: throttled, in equal time for all, and written down."""

import threading
from collections.abc import Callable
from time import monotonic, time_ns
from typing import Final

from godwit.contract.errors import RejectedError
from godwit.server.accounts.principal import Principal
from godwit.server.accounts.refusals import Refusals
from godwit.server.accounts.sessions import Sessions
from godwit.server.accounts.throttle import Throttle
from godwit.server.accounts.users import Users
from godwit.server.storage.account_tables import users as users_table
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

_NAME_MAX: Final = 128


class SignInDoor:
    """Thread-safe; every method blocks."""

    def __init__(
        self,
        database: Database,
        users: Users,
        sessions: Sessions,
        refusals: Refusals,
        forget: Callable[[], None],
    ) -> None:
        self._write = database.write
        self._users, self._sessions, self._refusals, self._forget = users, sessions, refusals, forget
        self._throttle, self._lock = Throttle(), threading.Lock()

    def with_password(self, name: str, password: str, *, address: str, agent: str = "") -> str:
        """Return the secret of a new session. Raises RejectedError (`too-many-attempts`, `wrong-password`).

        The answers are the same, and take as long, whether there is no such user, he is disabled, or the password is
        wrong.
        """
        name = name.strip().lower()[:_NAME_MAX]
        self.count_guess(name, address)
        user = self._users.check_sign_in(name, password)
        if user is None:
            self._refusals.note("?", "sign-in.refuse", name, code="wrong-password", address=address)
            raise RejectedError("name or password is wrong", code="wrong-password")
        self.was_right(name, address)
        return self.begin(user.name, address=address, agent=agent)

    def begin(
        self, user: str, *, address: str, agent: str = "", how: str = "password", longest_s: int | None = None
    ) -> str:
        """Begin the session of who has shown who he is."""
        secret = self._sessions.begin(user, address=address, agent=agent, longest_s=longest_s)
        with self._write() as connection:
            connection.execute(users_table.update().where(users_table.c.name == user), {"last_sign_in": time_ns()})
            record(connection, user, "sign-in", user, after={"by": how}, address=address)
        return secret

    def end_all(self, who: Principal, user: str) -> None:
        """End all sessions of a user, since his provider says so."""
        self._sessions.end_all(who, user)
        self._forget()

    def count_guess(self, name: str, address: str) -> None:
        """Count a guess at a password. Raises RejectedError (`too-many-attempts`) where it has to wait."""
        with self._lock:
            left = self._throttle.guess(name, address, monotonic())
        if left > 0:
            self._refusals.note("?", "sign-in.refuse", name, code="too-many-attempts", address=address)
            raise TooManyAttemptsError(left)

    def was_right(self, name: str, address: str) -> None:
        """Forget wrong guesses."""
        with self._lock:
            self._throttle.succeed(name, address, monotonic())


class TooManyAttemptsError(RejectedError):
    """Wait before the next guess."""

    code = "too-many-attempts"

    def __init__(self, left_s: float) -> None:
        self.left_s = max(1, round(left_s))
        super().__init__(f"too many wrong attempts; try again in {self.left_s} s")
