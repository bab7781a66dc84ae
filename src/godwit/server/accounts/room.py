"""Accounts as one value: whose token or session something is, and the way in.

What was found is remembered for some seconds, and forgotten as soon as anything changes here: a token that was revoked
opens nothing a moment later. (Another platform on the same database learns of it within `REMEMBER_S`.)
"""

import threading
from collections import OrderedDict
from pathlib import Path
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any, Final

import msgspec

from godwit.contract.errors import RejectedError
from godwit.server.accounts import sessions as session_times
from godwit.server.accounts.agents import family as family_of
from godwit.server.accounts.api_tokens import PREFIX, ApiTokens, owner_grants
from godwit.server.accounts.digests import digest_of
from godwit.server.accounts.first_token import PREFIX as FIRST_PREFIX
from godwit.server.accounts.first_token import FirstToken
from godwit.server.accounts.model import ADMINISTRATOR
from godwit.server.accounts.oidc_settings import OidcSettings
from godwit.server.accounts.passwords import Passwords
from godwit.server.accounts.principal import Principal, lesser, principal_of
from godwit.server.accounts.refusals import Refusals
from godwit.server.accounts.sessions import SECOND, SEEN_EVERY_S, Sessions
from godwit.server.accounts.sign_in import SignInDoor
from godwit.server.accounts.users import Users
from godwit.server.storage.database import Database

if TYPE_CHECKING:
    from godwit.server.accounts.oidc import OidcDoor

REMEMBER_S: Final = 10.0
REMEMBERED_MAX: Final = 10_000
USES_EVERY_S: Final = 30.0
THE_ADMINISTRATOR: Final = Principal(ADMINISTRATOR)


class Known(msgspec.Struct, frozen=True):
    """Whose token or session something is, as it was found."""

    principal: Principal
    session: str = ""
    """Of a browser: its session; "" for a token."""
    agent: str = ""
    must_change: bool = False
    """Signed in with a password that somebody else gave him: he may change it, and nothing else."""
    token_id: str = ""
    until: int = 0
    """ns UTC; 0: for ever."""
    secret_since: int = 0
    """Since when a session has this secret, ns UTC."""


class Accounts:
    """Thread-safe. `recall` never blocks; everything else may."""

    def __init__(
        self,
        database: Database,
        data_dir: Path,
        *,
        passwords: Passwords | None = None,
        session_idle_s: int = session_times.IDLE_S,
        session_longest_s: int = session_times.LONGEST_S,
        oidc: OidcSettings | None = None,
    ) -> None:
        self._database = database
        self._first = FirstToken(data_dir / "admin-token")
        self.sessions = Sessions(database, idle_s=session_idle_s, longest_s=session_longest_s)
        self.refusals = Refusals(database)
        self.passwords = passwords or Passwords()
        self.users = Users(database, self.passwords, self.forget)
        self.tokens = ApiTokens(database, self.forget)
        self.sign_in = SignInDoor(database, self.users, self.sessions, self.refusals, self.forget)
        self.oidc = self._open_oidc(oidc) if oidc is not None else None
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[Known, float]] = OrderedDict()
        self._generation = 0
        self._used: dict[str, int] = {}
        self._uses_written = monotonic()

    def _open_oidc(self, settings: OidcSettings) -> "OidcDoor":
        from godwit.server.accounts.oidc import OidcDoor  # noqa: PLC0415 - libraries that few need

        return OidcDoor(settings, self.users, self.sign_in, self.refusals)

    @property
    def generation(self) -> int:
        """Changes whenever somebody's rights may have."""
        return self._generation

    @property
    def admin_token(self) -> str:
        """The administrator's token."""
        return self._first.token

    # --- whose is it ----------------------------------------------------------------------------------------------

    def principal(self, token: str, *, address: str = "", agent: str | None = None) -> Principal | None:
        """Return whose bearer token or session it is; None for nobody's, and for who must change his password first.

        `agent`: the request's user agent, where there is one. Raises RejectedError (`session-stolen`).
        """
        known = self.known(token, address=address, agent=agent)
        return known.principal if known is not None and not known.must_change else None

    def known(self, token: str, *, address: str = "", agent: str | None = None) -> Known | None:
        """Return what there is to know of a token or session. Raises RejectedError (`session-stolen`)."""
        recalled = self.recall(token, address=address, agent=agent)
        if recalled is not None or not token:
            return recalled
        with self._lock:
            generation = self._generation
        found = self._find(token, address, agent)
        if found is None:
            return None
        with self._lock:
            if generation == self._generation:
                self._known[digest_of(token)] = (found, monotonic() + REMEMBER_S)
                while len(self._known) > REMEMBERED_MAX:
                    self._known.popitem(last=False)
        return _from(found, address)

    def recall(self, token: str, *, address: str = "", agent: str | None = None) -> Known | None:
        """Return what is remembered of a token or session; None where `known` has to look."""
        if token.startswith(FIRST_PREFIX) and self._first.is_it(token):
            return _from(Known(THE_ADMINISTRATOR), address)
        with self._lock:
            found, fresh_until = self._known.get(digest_of(token), (None, 0.0))
        now = time_ns()
        if found is None or monotonic() > fresh_until or (found.until and now >= found.until):
            return None
        if found.session and agent is not None and family_of(agent) != found.agent:
            return None
        if found.token_id:
            self._used[found.token_id] = now
        return _from(found, address)

    def forget(self) -> None:
        """Look everything up anew: something has changed."""
        with self._lock:
            self._generation += 1
            self._known.clear()

    def _find(self, token: str, address: str, agent: str | None) -> Known | None:
        now = time_ns()
        self._write_uses()
        if token.startswith(PREFIX):
            return self._find_token(token, now)
        return self._find_session(token, address, agent, now)

    def _find_token(self, token: str, now: int) -> Known | None:
        row = self.tokens.find(token, now)
        if row is None:
            return None
        grants = lesser(row.grants, owner_grants(row))
        who = principal_of(f"{row.owner}/{row.name}", grants, scopes=tuple(row.scopes))
        self._used[row.token_id] = now
        return None if who is None else Known(who, token_id=row.token_id, until=row.expires)

    def _find_session(self, secret: str, address: str, agent: str | None, now: int) -> Known | None:
        try:
            row = self.sessions.find(secret, agent=agent, now=now)
        except RejectedError as error:
            user = self.sessions.end_by_secret(secret)
            self.forget()
            self.refusals.note(user or "?", "session.refuse", user or "?", code=error.code, address=address)
            raise
        return None if row is None else self._of_session(row, now, is_active=True)

    def _of_session(self, row: Any, now: int, *, is_active: bool) -> Known | None:
        if is_active and now - row.seen > SEEN_EVERY_S * SECOND:
            self.sessions.touch(row.family, now)
        if row.user == ADMINISTRATOR:
            who, must_change = THE_ADMINISTRATOR, False
        else:
            found = principal_of(row.user, row.grants or {})
            if found is None:
                return None
            who, must_change = found, bool(row.must_change)
        return Known(
            who, session=row.family, agent=row.agent, must_change=must_change, until=self.sessions.ends(row),
            secret_since=max(row.created, row.secret_since),
        )  # fmt: skip

    def _write_uses(self) -> None:
        if self._used and monotonic() - self._uses_written > USES_EVERY_S:
            self._write_used()

    def close(self) -> None:
        """Write down what was only counted so far."""
        self._write_used()
        self.refusals.tell_more(at_once=True)

    def _write_used(self) -> None:
        self._uses_written = monotonic()
        used, self._used = self._used, {}
        if used:
            self.tokens.note_use(used)

    # --- sessions of browsers -------------------------------------------------------------------------------------

    def end_session(self, who: Principal, user: str, session_id: str) -> None:
        """End one of a user's sessions. Raises RejectedError (`not-found`)."""
        self.sessions.end(who, user, session_id)
        self.forget()

    def replace_secret(self, secret: str, *, at_once: bool = False) -> str:
        """Return a new secret of the same session; the old one itself where another request was quicker.

        `at_once`: the old one opens nothing any more, not even for requests that are under way.
        """
        new = self.sessions.replace(secret, at_once=at_once)
        self.forget()
        return new

    def session(self, session_id: str, *, is_active: bool = False) -> Known | None:
        """Return what there is to know of a session that is open in a browser; None once it has ended.

        `is_active`: somebody does something there, which keeps it from ending.
        """
        now = time_ns()
        row = self.sessions.by_id(session_id, now)
        return None if row is None else self._of_session(row, now, is_active=is_active)

    def change_own_password(self, who: Principal, old: str, new: str, *, keep_session: str = "") -> None:
        """Change one's own password; guesses at the old one count as at the door.

        Raises RejectedError (`wrong-password`, `weak-password`, `too-many-attempts`, `no-password`).
        """
        if who.account == ADMINISTRATOR:
            raise RejectedError("who has the admin token has no password; add a user for yourself", code="no-password")
        self.sign_in.count_guess(who.account, who.address)
        self.users.change_own_password(who, old, new, keep_session=keep_session)
        self.sign_in.was_right(who.account, who.address)

    def sign_out(self, secret: str) -> None:
        """End a session."""
        self.sessions.end_by_secret(secret)
        self.forget()

    # --- the way in at first start --------------------------------------------------------------------------------

    def issue_sign_in(self) -> str:
        """Return a token that signs in once, as the administrator."""
        return self._first.issue_link()

    def redeem(self, token: str, *, address: str = "", agent: str = "") -> str | None:
        """Exchange a one-time sign-in token, or the administrator's token, for a session; None when it is not valid."""
        if not self._first.use(token):
            self.refusals.note("?", "sign-in.refuse", ADMINISTRATOR, code="wrong-token", address=address)
            return None
        return self.sign_in.begin(ADMINISTRATOR, address=address, agent=agent, how="token")


def _from(known: Known, address: str) -> Known:
    if not address:
        return known
    return msgspec.structs.replace(known, principal=msgspec.structs.replace(known.principal, address=address))
