"""Device tokens: passwords of devices without certificates. Random, shown once; what is kept is their SHA-256."""

import hashlib
import secrets
from time import time_ns
from typing import Final

import msgspec
import sqlalchemy as sa

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId
from godwit.server.accounts.principal import Principal
from godwit.server.identity import rows
from godwit.server.identity.model import DeviceToken
from godwit.server.identity.news import News
from godwit.server.identity.roster import Roster
from godwit.server.registry.access import not_found
from godwit.server.registry.service import Registry
from godwit.server.storage import identity_tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

PREFIX: Final = "gwd_"
TOKENS_MAX: Final = 10
"""Of one device: the next one, and some that were forgotten."""
NAME_MAX: Final = 128


def digest_of(secret: str) -> str:
    """Return what is kept of a token. It has 256 random bits: a plain hash cannot be guessed back."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


class DeviceTokens:
    """Thread-safe; blocks."""

    def __init__(self, database: Database, registry: Registry, news: News, roster: Roster) -> None:
        self._database, self._registry, self._news, self._roster = database, registry, news, roster
        self._used: dict[str, int] = {}

    def create(
        self, who: Principal, device_id: DeviceId, name: str = "", *, expires: int = 0
    ) -> tuple[DeviceToken, str]:
        """Make a token; returns it and its secret, which nobody sees again. `expires` in ns UTC, 0: never.

        Raises RejectedError (`not-found`, `forbidden`, `invalid-time`, `too-many-tokens`).
        """
        device = self._registry.device(who, device_id)
        who.require("operator", device.tenant)
        now = time_ns()
        if expires and expires <= now:
            raise RejectedError("the token would have ended already", code="invalid-time")
        secret = PREFIX + secrets.token_urlsafe(32)
        token = DeviceToken(
            secrets.token_hex(8), device_id, device.tenant, name.strip()[:NAME_MAX], now, who.name, expires=expires
        )
        of_device = sa.and_(t.device_tokens.c.device_id == device_id, t.device_tokens.c.revoked == 0)
        with self._database.write() as connection:
            held = connection.execute(sa.select(sa.func.count()).select_from(t.device_tokens).where(of_device))
            if held.scalar_one() >= TOKENS_MAX:
                raise RejectedError(f"a device has at most {TOKENS_MAX} tokens: revoke one", code="too-many-tokens")
            connection.execute(t.device_tokens.insert(), rows.row_of_device_token(token, digest_of(secret)))
            record(
                connection, who.name, "device.token-create", device_id, tenant=device.tenant, address=who.address,
                after={"tokenId": token.token_id, "name": token.name, "expires": expires},
            )  # fmt: skip
        self._roster.add_token(digest_of(secret), token)
        self._news.tell(token)
        return token, secret

    def of_device(self, who: Principal, device_id: DeviceId) -> list[DeviceToken]:
        """Return a device's tokens, the newest first. Raises RejectedError (`not-found`)."""
        self._registry.device(who, device_id)
        c = t.device_tokens.c
        statement = sa.select(t.device_tokens).where(c.device_id == device_id).order_by(c.created.desc())
        with self._database.read() as connection:
            return [rows.device_token_of(each) for each in connection.execute(statement)]

    def revoke(self, who: Principal, device_id: DeviceId, token_id: str) -> DeviceToken:
        """Revoke a token; again is no error. Raises RejectedError (`not-found`, `forbidden`)."""
        device = self._registry.device(who, device_id)
        who.require("operator", device.tenant)
        c = t.device_tokens.c
        where = sa.and_(c.token_id == token_id, c.device_id == device_id)
        with self._database.write() as connection:
            row = connection.execute(sa.select(t.device_tokens).where(where)).one_or_none()
            if row is None:
                raise not_found("token", token_id[:64])
            token = rows.device_token_of(row)
            if token.revoked:
                return token
            token = msgspec.structs.replace(token, revoked=time_ns())
            connection.execute(t.device_tokens.update().where(where).values(revoked=token.revoked))
            record(
                connection, who.name, "device.token-revoke", device_id, tenant=device.tenant, address=who.address,
                before={"tokenId": token_id, "name": token.name},
            )  # fmt: skip
        self._news.tell(token)
        return token

    def find(self, secret: str) -> DeviceToken | None:
        """Return a token that counts. Does not block."""
        if not secret.startswith(PREFIX):
            return None
        token, now = self._roster.token(digest_of(secret)), time_ns()
        if token is None or 0 < token.expires <= now:
            return None
        self._used[token.token_id] = now
        return token

    @property
    def has_used(self) -> bool:
        """Whether there is something to write down."""
        return bool(self._used)

    def flush(self) -> None:
        """Write down which tokens were used, and when. Raises UnavailableError."""
        used, self._used = self._used, {}
        c = t.device_tokens.c
        statement = (
            t.device_tokens.update().where(c.token_id == sa.bindparam("b_id")).values(last_used=sa.bindparam("b_at"))
        )
        with self._database.write() as connection:
            connection.execute(statement, [{"b_id": token_id, "b_at": at} for token_id, at in used.items()])
