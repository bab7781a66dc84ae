"""Users: who they are, and what they may where. An administrator manages those who have nothing beyond his tenants."""

import re
from collections.abc import Callable, Mapping, Sequence
from time import time_ns
from typing import Any, Final

import sqlalchemy as sa

from godwit.contract.errors import RejectedError
from godwit.server.accounts.model import ADMINISTRATOR, User
from godwit.server.accounts.passwords import Passwords, check_password
from godwit.server.accounts.principal import EVERYWHERE, Principal, check_grants, covers, grants_of
from godwit.server.storage.account_tables import api_tokens, sessions, users
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,127}")
_CHANGEABLE: Final = frozenset({"display", "email", "grants", "is_disabled"})


def parse_user_name(text: str) -> str:
    """Return a user's name in the form in which it is kept. Raises RejectedError (`invalid-name`)."""
    name = text.strip().lower()
    if _NAME.fullmatch(name) is None:
        raise RejectedError(
            f"{text[:80]!r} is no user name: letters, digits or . _ @ + -, the first one a letter or digit",
            code="invalid-name",
        )
    if name == ADMINISTRATOR:
        raise RejectedError(
            f"{ADMINISTRATOR!r} is whoever has the token in DATA_DIR/admin-token; take another name",
            code="invalid-name",
        )
    return name


class Users:
    """Thread-safe; every method blocks. `forget` is called after each commit that changes who may what."""

    def __init__(self, database: Database, passwords: Passwords, forget: Callable[[], None]) -> None:
        self._write, self._read = database.write, database.read
        self._passwords, self._forget = passwords, forget

    # --- look -----------------------------------------------------------------------------------------------------

    def users(self, who: Principal) -> list[User]:
        """Return the users whom `who` manages, by name."""
        with self._read() as connection:
            rows = connection.execute(sa.select(users).order_by(users.c.name)).all()
        return [user for user in map(user_of, rows) if _manages(who, user.grants)]

    def user(self, who: Principal, name: str) -> User:
        """Return a user. Raises RejectedError (`not-found`): also for one whom `who` does not manage."""
        with self._read() as connection:
            return user_of(_managed(connection, who, name))

    # --- change ---------------------------------------------------------------------------------------------------

    def create(
        self,
        who: Principal,
        name: str,
        grants: Mapping[str, str],
        *,
        password: str | None = None,
        must_change: bool = True,
        display: str = "",
        email: str = "",
        issuer: str | None = None,
        subject: str | None = None,
    ) -> User:
        """Add a user. Raises RejectedError (`exists`, `invalid-name`, `invalid-grants`, `weak-password`, `forbidden`).

        Without a password he signs in elsewhere (OIDC), or gets one later. Whom the provider is to know by an address
        is said by administrators of all tenants: another tenant's administrator could name somebody whom they expect.
        """
        name, checked = parse_user_name(name), check_grants(grants)
        _require_within(who, checked)
        if issuer is not None:  # people of the provider are the installation's: whether one is here is not told others
            who.require_installation()
        kept = None if password is None else self._passwords.hash(check_password(password, name))
        row = {
            "name": name, "display": display, "email": email, "password": kept, "grants": checked,
            "must_change": must_change and kept is not None, "issuer": issuer, "subject": subject,
            "is_disabled": False, "created": time_ns(), "last_sign_in": 0,
        }  # fmt: skip
        with self._write() as connection:
            if _row(connection, name) is not None:
                raise RejectedError(f"the name {name!r} is taken", code="exists")
            if issuer is not None and _has_subject(connection, issuer, str(subject)):
                raise RejectedError("somebody is bound to this subject at this issuer", code="exists")
            connection.execute(users.insert(), row)
            user = user_of(_row(connection, name))
            if _addresses(user):
                _require_expecting(connection, who, user)
            _record(connection, who, "user.create", name, after=user)
        return user

    def change(self, who: Principal, name: str, changes: Mapping[str, Any]) -> User:
        """Change display, email, grants or is_disabled. Sessions end with the rights they were begun with.

        Raises RejectedError (`not-found`, `forbidden`, `invalid-grants`, `invalid-field`).
        """
        if unknown := sorted(set(changes) - _CHANGEABLE):
            raise RejectedError(f"{unknown[0]} cannot be changed", code="invalid-field")
        if "grants" in changes:
            _require_within(who, check_grants(changes["grants"]))
        with self._write() as connection:
            before = user_of(_managed(connection, who, name))
            if changes.get("is_disabled") and before.name == who.account:
                raise RejectedError("nobody disables himself; another administrator can", code="in-use")
            if changes.get("grants", before.grants) != before.grants and before.name == who.account:
                raise RejectedError("nobody changes what he himself may; another administrator can", code="in-use")
            if changes:
                connection.execute(users.update().where(users.c.name == before.name), dict(changes))
            after = user_of(_row(connection, before.name))
            if _addresses(after) - _addresses(before):
                _require_expecting(connection, who, after)
            if after.is_disabled or after.grants != before.grants:
                connection.execute(sessions.delete().where(sessions.c.user == before.name))
            _record(connection, who, "user.change", before.name, before=before, after=after)
        self._forget()
        return after

    def strip(self, who: Principal, name: str) -> None:
        """Take all rights from a user: his sessions end, his tokens open nothing. For a provider that says so.

        He is not disabled: with rights that the provider gives him again he comes in again.
        """
        with self._write() as connection:
            before = user_of(_managed(connection, who, name))
            connection.execute(users.update().where(users.c.name == before.name), {"grants": {}})
            connection.execute(sessions.delete().where(sessions.c.user == before.name))
            _record(connection, who, "user.change", before.name, before=before, after=user_of(_row(connection, name)))
        self._forget()

    def set_password(self, who: Principal, name: str, password: str, *, must_change: bool = True) -> None:
        """Give a user a new password; his sessions end. Raises RejectedError (`not-found`, `weak-password`).

        One who signs in at a provider gets it from an administrator of all tenants only (`forbidden`): what the
        provider lets him do may become more than a tenant's administrator may.
        """
        kept = self._passwords.hash(check_password(password, name))
        with self._write() as connection:
            user = user_of(_managed(connection, who, name))
            if user.issuer is not None:
                who.require_installation()
            self._put_password(connection, user.name, kept, must_change=must_change)
            connection.execute(sessions.delete().where(sessions.c.user == user.name))
            _record(connection, who, "user.password", user.name, after={"mustChange": must_change})
        self._forget()

    def change_own_password(self, who: Principal, old: str, new: str, *, keep_session: str = "") -> None:
        """Change one's own password; all other sessions end. Raises RejectedError (`wrong-password`, `weak-password`).

        Whoever guesses at `old` here has signed in already; the door counts his guesses.
        """
        name = who.account
        with self._read() as connection:
            row = _row(connection, name)
        if row is None or not self._passwords.verify(row.password, old):
            raise RejectedError("that is not your present password", code="wrong-password")
        if new == old:
            raise RejectedError("the new password is the old one", code="weak-password")
        kept = self._passwords.hash(check_password(new, name))
        with self._write() as connection:
            self._put_password(connection, name, kept, must_change=False)
            others = sa.and_(sessions.c.user == name, sessions.c.family != keep_session)
            connection.execute(sessions.delete().where(others))
            _record(connection, who, "user.password", name, after={"mustChange": False})
        self._forget()

    def _put_password(self, connection: sa.Connection, name: str, kept: str, *, must_change: bool) -> None:
        values = {"password": kept, "must_change": must_change}
        connection.execute(users.update().where(users.c.name == name), values)

    def remove(self, who: Principal, name: str) -> None:
        """Remove a user with his sessions and tokens. Raises RejectedError (`not-found`, `in-use`)."""
        with self._write() as connection:
            user = user_of(_managed(connection, who, name))
            if user.name == who.account:
                raise RejectedError("nobody removes himself; another administrator can", code="in-use")
            connection.execute(sessions.delete().where(sessions.c.user == user.name))
            connection.execute(api_tokens.delete().where(api_tokens.c.owner == user.name))
            connection.execute(users.delete().where(users.c.name == user.name))
            _record(connection, who, "user.remove", user.name, before=user)
        self._forget()

    # --- for the door ---------------------------------------------------------------------------------------------

    def check_sign_in(self, name: str, password: str) -> User | None:
        """Return who has this name and password; None takes as long. A hash with old parameters is renewed."""
        with self._read() as connection:
            row = _row(connection, name)
        is_right = self._passwords.verify(row.password if row is not None else None, password)
        if row is None or not is_right or row.is_disabled:
            return None
        if self._passwords.is_outdated(row.password):
            renewed = self._passwords.hash(password)
            same = sa.and_(users.c.name == row.name, users.c.password == row.password)
            with self._write() as connection:
                connection.execute(users.update().where(same), {"password": renewed})
        return user_of(row)

    def are_any(self) -> bool:
        """Whether there is a user at all."""
        with self._read() as connection:
            return connection.execute(sa.select(users.c.name).limit(1)).one_or_none() is not None

    def is_taken(self, name: str) -> bool:
        """Whether somebody has this name."""
        with self._read() as connection:
            return _row(connection, name) is not None

    def bind(self, who: Principal, email: str, issuer: str, subject: str) -> User | None:
        """Bind the user who was added for this address, and signs in nowhere yet, to a subject at an issuer."""
        with self._write() as connection:
            rows = _expected(connection, {email})
            if len(rows) != 1:
                return None
            values = {"issuer": issuer, "subject": subject}
            connection.execute(users.update().where(users.c.name == rows[0].name), values)
            user = user_of(_row(connection, rows[0].name))
            _record(connection, who, "user.bind", user.name, before=user_of(rows[0]), after=user)
        return user

    def by_subject(self, issuer: str, subject: str) -> User | None:
        """Return who signs in as `subject` at `issuer`."""
        where = sa.and_(users.c.issuer == issuer, users.c.subject == subject)
        with self._read() as connection:
            row = connection.execute(sa.select(users).where(where)).one_or_none()
        return None if row is None else user_of(row)


def user_of(row: Any) -> User:
    """Return a row as a user, without the password's hash."""
    return User(
        name=row.name, display=row.display, email=row.email, grants=row.grants, has_password=row.password is not None,
        must_change=row.must_change, issuer=row.issuer, subject=row.subject, is_disabled=row.is_disabled,
        created=row.created, last_sign_in=row.last_sign_in,
    )  # fmt: skip


def tenant_of(grants: Mapping[str, str]) -> str:
    """Return whose administrators may read of a user with these grants in the audit log; "": the installation's."""
    names = set(grants)
    return next(iter(names)) if len(names) == 1 and EVERYWHERE not in names else ""


def _row(connection: sa.Connection, name: str) -> Any:
    return connection.execute(sa.select(users).where(users.c.name == name)).one_or_none()


def _has_subject(connection: sa.Connection, issuer: str, subject: str) -> bool:
    where = sa.and_(users.c.issuer == issuer, users.c.subject == subject)
    return connection.execute(sa.select(users.c.name).where(where)).first() is not None


def _addresses(user: User) -> set[str]:
    """Return by which addresses a provider's word would make somebody this user; none once he has another way in."""
    if user.has_password or user.issuer is not None:
        return set()
    return {each for each in (user.name, user.email.lower()) if "@" in each}


def _expected(connection: sa.Connection, addresses: set[str]) -> Sequence[Any]:
    """Return who is expected by one of these addresses, and signs in nowhere yet."""
    c = users.c
    is_free = sa.and_(c.password.is_(None), c.issuer.is_(None))
    is_meant = sa.or_(c.name.in_(addresses), sa.func.lower(c.email).in_(addresses))
    return connection.execute(sa.select(users).where(is_free, is_meant)).all()


def _require_expecting(connection: sa.Connection, who: Principal, user: User) -> None:
    """Refuse whom a provider is to know where `who` may not say that, or two would be meant by one address."""
    who.require_installation()
    if len(_expected(connection, _addresses(user))) > 1:
        raise RejectedError("somebody else is expected by this e-mail address", code="exists")


def _manages(who: Principal, grants: Mapping[str, str]) -> bool:
    if not who.is_at_least("admin"):
        return False
    administered = grants_of(who.limited_to("admin"))
    # who has no rights any more (`strip`) is nobody's of the tenants: he may have been of another
    return covers(administered, grants or {EVERYWHERE: "viewer"})


def _managed(connection: sa.Connection, who: Principal, name: str) -> Any:
    row = _row(connection, name.strip().lower())
    if row is None or not _manages(who, row.grants):
        raise RejectedError(f"no user {name[:64]!r}", code="not-found")
    return row


def _require_within(who: Principal, grants: Mapping[str, str]) -> None:
    if not _manages(who, grants):
        raise RejectedError("nobody grants more than he administers himself", code="forbidden")


def _record(
    connection: sa.Connection, who: Principal, what: str, name: str, *, before: Any = None, after: Any = None
) -> None:
    user = next((each for each in (after, before) if isinstance(each, User)), None)
    tenant = tenant_of(user.grants) if user is not None else ""
    record(connection, who.name, what, name, before=before, after=after, tenant=tenant, address=who.address)
