"""Device grants: a device with a screen shows a code, its owner types it in the console, and says whose the device is.

The access token that follows is a claim for this very id (`ClaimKind.GRANT`): bound to one key, spent at first use.
"""

import hashlib
import secrets
from time import time_ns
from typing import Final

import msgspec
import sqlalchemy as sa

from godwit.contract.errors import MalformedError, RejectedError
from godwit.contract.ids import DeviceId, TenantId, parse_device_id
from godwit.server.accounts.principal import Principal
from godwit.server.accounts.throttle import place_of
from godwit.server.identity import rows
from godwit.server.identity.claims import Claims, NewClaim
from godwit.server.identity.device_grant import (
    ALPHABET,
    CODE_CHARACTERS,
    INTERVAL_S,
    LIFETIME_S,
    normal,
    poll,
)
from godwit.server.identity.model import ClaimKind, DeviceGrant, GrantState, Landing
from godwit.server.identity.throttle import Throttle
from godwit.server.registry.access import not_found, require_tenant
from godwit.server.registry.model import Device, Lifecycle
from godwit.server.registry.service import Registry
from godwit.server.storage import identity_tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

WAITING_MAX: Final = 10_000
TOKEN_S: Final = 600
_NS: Final = 1_000_000_000


class Started(msgspec.Struct, frozen=True):
    """What a device is told when it begins."""

    device_code: str
    user_code: str
    expires_in: int = LIFETIME_S
    interval: int = INTERVAL_S


class GrantRefusal(Exception):  # noqa: N818 - it is an answer of the protocol
    """What a device is told instead of a token: `error` of RFC 6749 5.2 and RFC 8628 3.5."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error


_TOLD: Final = {
    "expired_token": "the code has expired: begin again",
    "slow_down": "wait longer between two requests",
    "authorization_pending": "the owner has not decided yet",
    "access_denied": "the owner denied it",
    "invalid_grant": "this device code is not known, or was used",
}


class DeviceGrants:
    """Thread-safe; blocks."""

    def __init__(self, database: Database, registry: Registry, claims: Claims) -> None:
        self._database, self._registry, self._claims = database, registry, claims
        # RFC 8628, 5.1: user codes are short, so guessing has to be slow.
        self._starts, self._polls, self._guesses = Throttle(0.2, 30), Throttle(5, 100), Throttle(0.1, 10)

    # --- the device's side ----------------------------------------------------------------------------------------

    def start(self, client_id: str, address: str) -> Started:
        """Begin: `client_id` is the device's id. Raises GrantRefusal."""
        now = time_ns()
        if not self._starts.take(place_of(address), now):
            raise GrantRefusal("slow_down", "too many requests from this address")
        try:
            device_id = parse_device_id(client_id)
        except MalformedError as error:
            raise GrantRefusal("invalid_client", f"client_id is the device's id: {error}") from None
        started = Started(secrets.token_urlsafe(32), "".join(secrets.choice(ALPHABET) for _ in range(CODE_CHARACTERS)))
        g = t.device_grants.c
        with self._database.write() as connection:
            connection.execute(t.device_grants.delete().where(g.expires < now - LIFETIME_S * _NS))
            waiting = sa.select(sa.func.count()).select_from(t.device_grants)
            if connection.execute(waiting).scalar_one() >= WAITING_MAX:
                raise GrantRefusal("slow_down", "too many devices wait for their owners")
            connection.execute(
                t.device_grants.insert(),
                {
                    "grant_id": secrets.token_hex(8), "device_digest": _digest(started.device_code),
                    "user_digest": _digest(started.user_code), "device_id": device_id,
                    "state": str(GrantState.WAITING), "tenant": None, "groups": [], "decided_by": "",
                    "address": address[:64], "created": now, "expires": now + LIFETIME_S * _NS,
                    "interval": INTERVAL_S, "polled": 0,
                },
            )  # fmt: skip
        return started

    def token(self, device_code: str, client_id: str, address: str) -> str:
        """Return the access token, once. Raises GrantRefusal."""
        g = t.device_grants.c
        where = sa.and_(g.device_digest == _digest(device_code), g.device_id == client_id)
        with self._database.read() as connection:
            is_known = connection.execute(sa.select(g.grant_id).where(where)).first() is not None
        if not is_known:  # only these are counted: who has a code does not wait for others at his address
            told = "invalid_grant" if self._polls.take(place_of(address), time_ns()) else "slow_down"
            raise GrantRefusal(told, _TOLD[told])
        with self._database.write() as connection:
            row = connection.execute(sa.select(t.device_grants).where(where)).one_or_none()
            if row is None:  # has ended since
                raise GrantRefusal("invalid_grant", _TOLD["invalid_grant"])
            grant, error = poll(rows.grant_of(row), time_ns())
            connection.execute(
                t.device_grants.update()
                .where(where)
                .values(state=str(grant.state), polled=grant.polled, interval=grant.interval)
            )
        if error is not None:
            raise GrantRefusal(error, _TOLD[error])
        assert grant.tenant is not None
        wanted = NewClaim(
            grant.tenant, f"device grant {grant.grant_id}", ClaimKind.GRANT, grant.device_id, lifetime_s=TOKEN_S,
            landing=Landing(groups=grant.groups),
        )  # fmt: skip
        try:
            return self._claims.create(Principal(grant.decided_by, (grant.tenant,), address=address), wanted)[1]
        except RejectedError as refusal:
            raise GrantRefusal("access_denied", str(refusal)) from None

    # --- the owner's side -----------------------------------------------------------------------------------------

    def look(self, who: Principal, user_code: str) -> DeviceGrant:
        """Return which device asks under a code. Raises RejectedError (`not-found`, `rate-limited`)."""
        now = time_ns()
        if not self._guesses.is_open(who.name, now):
            raise RejectedError("too many codes that nobody has: wait a minute", code="rate-limited")
        g = t.device_grants.c
        with self._database.read() as connection:
            row = connection.execute(
                sa.select(t.device_grants).where(g.user_digest == _digest(normal(user_code)))
            ).one_or_none()
        grant = None if row is None else rows.grant_of(row)
        if grant is None or grant.state is not GrantState.WAITING or grant.expires <= now:
            self._guesses.take(who.name, now)
            raise RejectedError("no device waits with this code: it may have expired", code="not-found")
        return grant

    def decide(
        self, who: Principal, user_code: str, *, approve: bool, tenant: TenantId | None = None,
        groups: tuple[str, ...] = (),
    ) -> DeviceGrant:  # fmt: skip
        """Approve or deny. Raises RejectedError (`not-found`, `exists`: the id is another's)."""
        grant = self.look(who, user_code)
        tenant = require_tenant(who, tenant)
        self._registry.require_tenants(who, tenant)
        if approve:
            self._refuse_taken(grant.device_id, tenant)
        state = GrantState.APPROVED if approve else GrantState.DENIED
        after = msgspec.structs.replace(grant, state=state, tenant=tenant, groups=groups, decided_by=who.name)
        g = t.device_grants.c
        where = sa.and_(g.grant_id == grant.grant_id, g.state == str(GrantState.WAITING))
        with self._database.write() as connection:
            changed = connection.execute(
                t.device_grants.update()
                .where(where)
                .values(state=str(state), tenant=tenant, groups=list(groups), decided_by=who.name)
            )
            if not changed.rowcount:
                raise RejectedError("somebody decided a moment ago", code="not-found")
            record(
                connection, who.name, f"grant.{'approve' if approve else 'deny'}", grant.device_id, tenant=tenant,
                address=who.address, after={"groups": list(groups), "device": grant.address},
            )  # fmt: skip
        return after

    def device(self, who: Principal, device_id: DeviceId) -> Device | None:
        """Return the device that has an id already, if `who` may see it."""
        try:
            return self._registry.device(who, device_id)
        except RejectedError:
            return None

    def _refuse_taken(self, device_id: DeviceId, tenant: TenantId) -> None:
        found = self.device(Principal("godwit"), device_id)
        if found is None:
            return
        if found.tenant != tenant:
            raise RejectedError(f"the id {device_id!r} is taken", code="exists")
        if found.lifecycle in (Lifecycle.SUSPENDED, Lifecycle.RETIRED):
            raise not_found("active device", device_id)


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "replace")).hexdigest()
