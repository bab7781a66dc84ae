"""API tokens: for programs. Shown once, kept as a hash; never more than the owner has at the time of use."""

import secrets
from collections.abc import Callable, Iterable, Mapping
from time import time_ns
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from godwit.contract.errors import RejectedError
from godwit.server.accounts.digests import digest_of, new_secret
from godwit.server.accounts.model import ADMINISTRATOR, SCOPES, ApiToken
from godwit.server.accounts.principal import EVERYWHERE, Principal, check_grants, covers, grants_of
from godwit.server.accounts.users import tenant_of
from godwit.server.storage.account_tables import api_tokens, users
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

PREFIX: Final = "gwt_"
NAME_MAX: Final = 64
OF_OWNER_MAX: Final = 1_000
_IN_FORCE: Final = (  # made once: to build it costs more than to run it
    sa.select(api_tokens, users.c.grants.label("owner_grants"))
    .select_from(api_tokens.outerjoin(users, sa.and_(users.c.name == api_tokens.c.owner, sa.not_(users.c.is_disabled))))
    .where(api_tokens.c.digest == sa.bindparam("digest"), api_tokens.c.revoked == 0)
)


class NewToken(NamedTuple):
    """A token just made: its secret is told this once."""

    secret: str
    token: ApiToken


class ApiTokens:
    """Thread-safe; every method blocks. `forget` is called after each commit that changes who may what."""

    def __init__(self, database: Database, forget: Callable[[], None]) -> None:
        self._write, self._read = database.write, database.read
        self._forget = forget

    def create(
        self,
        who: Principal,
        name: str,
        *,
        grants: Mapping[str, str] | None = None,
        scopes: Iterable[str] = (),
        expires: int = 0,
    ) -> NewToken:
        """Make a token for `who`; without grants it has all of its owner's.

        Raises RejectedError (`invalid-name`, `invalid-grants`, `invalid-scope`, `invalid-time`, `forbidden`).
        """
        own = grants_of(who)
        wanted = check_grants(grants) if grants is not None else own
        asked = check_scopes(scopes)
        _check_request(who, name, wanted, asked, expires)
        secret = new_secret(PREFIX)
        row = {
            "token_id": secrets.token_hex(6), "digest": digest_of(secret), "owner": who.account, "name": name.strip(),
            "grants": wanted, "scopes": list(asked or who.scopes), "created": time_ns(), "expires": expires,
            "revoked": 0, "last_used": 0,
        }  # fmt: skip
        with self._write() as connection:
            count = sa.select(sa.func.count()).where(api_tokens.c.owner == who.account, api_tokens.c.revoked == 0)
            if connection.execute(count).scalar_one() >= OF_OWNER_MAX:
                raise RejectedError(f"{who.account} has {OF_OWNER_MAX} tokens; revoke some", code="in-use")
            connection.execute(api_tokens.insert(), row)
            token = token_of(_row(connection, str(row["token_id"])))
            record(
                connection, who.name, "token.create", token.token_id, after=_shown(token), tenant=tenant_of(wanted),
                address=who.address,
            )  # fmt: skip
        return NewToken(secret, token)

    def tokens(self, who: Principal, *, all_owners: bool = False) -> list[ApiToken]:
        """Return one's own tokens, or all that `who` administers; the newest first, revoked ones too."""
        statement = sa.select(api_tokens).order_by(api_tokens.c.created.desc(), api_tokens.c.token_id)
        if not all_owners:
            statement = statement.where(api_tokens.c.owner == who.account)
        with self._read() as connection:
            found = [token_of(row) for row in connection.execute(statement)]
        return [each for each in found if _may_see(who, each)]

    def revoke(self, who: Principal, token_id: str) -> ApiToken:
        """Revoke a token; it opens nothing any more, at once. Raises RejectedError (`not-found`)."""
        with self._write() as connection:
            row = _row(connection, token_id)
            if row is None or not _may_see(who, token_of(row)):
                raise RejectedError(f"no token {token_id[:32]!r}", code="not-found")
            if not row.revoked:
                where = api_tokens.c.token_id == token_id
                connection.execute(api_tokens.update().where(where), {"revoked": time_ns()})
                before = token_of(row)
                record(
                    connection, who.name, "token.revoke", token_id, before=_shown(before),
                    tenant=tenant_of(before.grants), address=who.address,
                )  # fmt: skip
            after = token_of(_row(connection, token_id))
        self._forget()
        return after

    def find(self, secret: str, now: int) -> Any:
        """Return the row of a token that is in force, with its owner's `owner_grants`; None otherwise."""
        with self._read() as connection:
            row = connection.execute(_IN_FORCE, {"digest": digest_of(secret)}).one_or_none()
        if row is None or (row.expires and row.expires <= now):
            return None
        return row if row.owner_grants is not None or row.owner == ADMINISTRATOR else None

    def note_use(self, used: Mapping[str, int]) -> None:
        """Write down when tokens were last used."""
        with self._write() as connection:
            for token_id, at in used.items():
                connection.execute(api_tokens.update().where(api_tokens.c.token_id == token_id), {"last_used": at})


def owner_grants(row: Any) -> dict[str, str]:
    """Return what the owner of a found token has."""
    return {EVERYWHERE: "admin"} if row.owner == ADMINISTRATOR else dict(row.owner_grants)


def check_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """Return scopes, sorted. Raises RejectedError (`invalid-scope`)."""
    found = tuple(sorted(set(scopes)))
    for each in found:
        if each not in SCOPES:
            raise RejectedError(f"no scope {each[:40]!r}; there are {', '.join(sorted(SCOPES))}", code="invalid-scope")
    return found


def _check_request(who: Principal, name: str, grants: Mapping[str, str], scopes: tuple[str, ...], expires: int) -> None:
    if not name.strip() or len(name.strip()) > NAME_MAX or not name.isprintable():
        raise RejectedError(f"a token has a name of 1 to {NAME_MAX} characters", code="invalid-name")
    if not covers(grants_of(who), grants):
        raise RejectedError("a token may not more than its owner", code="forbidden")
    if who.scopes and not set(scopes) <= set(who.scopes):
        raise RejectedError("a token made by a token has none but its scopes", code="forbidden")
    if expires and expires <= time_ns():
        raise RejectedError("a token expires in the future", code="invalid-time")


def _row(connection: sa.Connection, token_id: str) -> Any:
    return connection.execute(sa.select(api_tokens).where(api_tokens.c.token_id == token_id)).one_or_none()


def token_of(row: Any) -> ApiToken:
    """Return the token of a row of `api_tokens`."""
    return ApiToken(
        token_id=row.token_id, owner=row.owner, name=row.name, grants=row.grants, scopes=tuple(row.scopes),
        created=row.created, expires=row.expires, revoked=row.revoked, last_used=row.last_used,
    )  # fmt: skip


def _may_see(who: Principal, token: ApiToken) -> bool:
    if token.owner == who.account and (not who.is_token or covers(grants_of(who), token.grants)):
        return True
    return who.is_at_least("admin") and covers(grants_of(who.limited_to("admin")), token.grants)


def _shown(token: ApiToken) -> dict[str, object]:
    return {
        "owner": token.owner, "name": token.name, "grants": token.grants, "scopes": list(token.scopes),
        "expires": token.expires,
    }  # fmt: skip
