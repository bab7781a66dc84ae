"""Claims: tokens with which a device without identity may ask for one.

A token is random (256 bits), shown once, and kept as its SHA-256 only. A one-time claim belongs to the key of the first
request that comes with it, and is spent when the new certificate first connects.
"""

import hashlib
import secrets
from collections.abc import Sequence
from time import time_ns
from typing import Final

import msgspec
import sqlalchemy as sa

from godwit.contract.errors import MalformedError, RejectedError
from godwit.contract.ids import DeviceId, TenantId, parse_device_id
from godwit.server.accounts.principal import Principal
from godwit.server.identity import rows
from godwit.server.identity.model import Certificate, Claim, ClaimKind, ClaimState, Landing
from godwit.server.identity.news import News
from godwit.server.identity.rules import check_landing, check_patterns
from godwit.server.registry.access import not_found, require_tenant, visible
from godwit.server.storage import identity_tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database
from godwit.server.storage.tables import tenants

PREFIX: Final = "gwc_"
"""By it a claim token is told from other secrets, also by scanners of repositories."""
LIFETIME_DEFAULT_S: Final = 7 * 86_400
LIFETIME_MAX_S: Final = 10 * 365 * 86_400
_NS: Final = 1_000_000_000


class NewClaim(msgspec.Struct, frozen=True):
    """What a claim is to be. `lifetime_s` 0: it does not expire."""

    tenant: TenantId | None = None
    name: str = ""
    kind: ClaimKind = ClaimKind.ONE_TIME
    device_id: DeviceId | None = None
    ids: tuple[str, ...] = ()
    uses_max: int | None = None
    lifetime_s: int = LIFETIME_DEFAULT_S
    landing: Landing = Landing()


def digest_of(token: str) -> str:
    """Return what is kept of a token. It has 256 random bits: a plain hash cannot be guessed back."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


class Claims:
    """Thread-safe; blocks."""

    def __init__(self, database: Database, news: News) -> None:
        self._database, self._news = database, news

    def create(self, who: Principal, wanted: NewClaim) -> tuple[Claim, str]:
        """Return a new claim and its token, which nobody can show again.

        Whether an id is another tenant's is not said here: the claim opens nothing then.

        Raises RejectedError (`not-found`, `invalid-device-id`, `invalid-claim`, `landing-too-large`).
        """
        return self.create_all(who, [wanted])[0]

    def create_all(self, who: Principal, wanted: Sequence[NewClaim]) -> list[tuple[Claim, str]]:
        """Return new claims and their tokens: all of them, or none where one is refused."""
        made = [self._new(who, each) for each in wanted]
        with self._database.write() as connection:
            for tenant in {claim.tenant for claim, _ in made}:
                if connection.execute(sa.select(tenants.c.name).where(tenants.c.name == tenant)).first() is None:
                    raise not_found("tenant", tenant)
            for claim, token in made:
                connection.execute(t.claims.insert(), rows.row_of_claim(claim, digest_of(token)))
                record(
                    connection, who.name, "claim.create", claim.claim_id, after=claim, tenant=claim.tenant,
                    address=who.address,
                )  # fmt: skip
        return made

    @staticmethod
    def _new(who: Principal, wanted: NewClaim) -> tuple[Claim, str]:
        tenant = require_tenant(who, wanted.tenant)
        _check(wanted)
        now = time_ns()
        token = PREFIX + secrets.token_urlsafe(32)
        claim = Claim(
            claim_id=secrets.token_hex(8),
            tenant=tenant,
            name=wanted.name,
            kind=wanted.kind,
            device_id=wanted.device_id,
            state=ClaimState.OPEN,
            key_fingerprint=None,
            uses=0,
            uses_max=wanted.uses_max if wanted.kind is ClaimKind.FLEET else 1,
            expires=now + wanted.lifetime_s * _NS if wanted.lifetime_s else 0,
            created=now,
            created_by=who.name,
            ids=wanted.ids,
            landing=wanted.landing,
        )
        return claim, token

    def all(self, who: Principal, *, limit: int = 1_000) -> list[Claim]:
        """Return the claims that `who` may see, the newest first."""
        statement = (
            sa.select(t.claims).where(visible(who, t.claims.c.tenant)).order_by(t.claims.c.created.desc()).limit(limit)
        )
        with self._database.read() as connection:
            return [rows.claim_of(each) for each in connection.execute(statement)]

    def of_device(self, who: Principal, device_id: DeviceId, *, limit: int = 20) -> list[Claim]:
        """Return the claims for this very id that `who` may see, the newest first."""
        c = t.claims.c
        statement = sa.select(t.claims).where(visible(who, c.tenant), c.device_id == device_id)
        with self._database.read() as connection:
            found = connection.execute(statement.order_by(c.created.desc()).limit(limit))
            return [rows.claim_of(each) for each in found]

    def shown(self, who: Principal, token: str) -> Claim:
        """Return what a token stands for. Raises RejectedError (`not-found`): also for somebody else's."""
        claim = self.of_token(token)
        if claim is None or (who.tenants is not None and claim.tenant not in who.tenants):
            raise not_found("claim", "of this token")
        return claim

    def get(self, who: Principal, claim_id: str) -> Claim:
        """Return a claim. Raises RejectedError (`not-found`)."""
        claim = self.find(claim_id)
        if claim is None or (who.tenants is not None and claim.tenant not in who.tenants):
            raise not_found("claim", claim_id[:64])
        return claim

    def revoke(self, who: Principal, claim_id: str) -> Claim:
        """Revoke a claim: it opens nothing from now on. Certificates that it gave stay."""
        before = self.get(who, claim_id)
        if before.state is ClaimState.REVOKED:
            return before
        after = msgspec.structs.replace(before, state=ClaimState.REVOKED)
        with self._database.write() as connection:
            connection.execute(
                t.claims.update().where(t.claims.c.claim_id == claim_id).values(state=str(ClaimState.REVOKED))
            )
            record(
                connection, who.name, "claim.revoke", claim_id, before={"state": str(before.state)},
                after={"state": str(after.state)}, tenant=before.tenant, address=who.address,
            )  # fmt: skip
        self._news.tell(after)
        return after

    # --- for enrollment -------------------------------------------------------------------------------------------

    def find(self, claim_id: str) -> Claim | None:
        """Return a claim by its id."""
        return self._one(t.claims.c.claim_id == claim_id)

    def of_token(self, token: str) -> Claim | None:
        """Return what a token stands for, whatever its state."""
        return self._one(t.claims.c.digest == digest_of(token)) if token.startswith(PREFIX) else None

    def _one(self, where: "sa.ColumnElement[bool]") -> Claim | None:
        with self._database.read() as connection:
            row = connection.execute(sa.select(t.claims).where(where)).one_or_none()
        return None if row is None else rows.claim_of(row)

    def use(self, claim: Claim, key: str) -> bool:
        """Note a use by `key`; a one-time claim is bound to it. False: another was quicker."""
        c = t.claims.c
        where = [c.claim_id == claim.claim_id, c.state != str(ClaimState.REVOKED)]
        change = t.claims.update()
        if claim.kind is not ClaimKind.FLEET:
            mine = sa.and_(c.state == str(ClaimState.BOUND), c.key_fingerprint == key)
            where.append(sa.or_(c.state == str(ClaimState.OPEN), mine))
            change = change.values(state=str(ClaimState.BOUND), key_fingerprint=key, uses=1)
        else:
            where.append(sa.or_(c.uses_max.is_(None), c.uses < c.uses_max))
            change = change.values(uses=c.uses + 1)
        with self._database.write() as connection:
            return connection.execute(change.where(*where)).rowcount == 1

    def keys_for(self, device_id: DeviceId) -> set[str]:
        """Return the keys with which claims for this very id were used, whose certificates have not connected yet."""
        c = t.claims.c
        statement = sa.select(c.key_fingerprint).where(
            c.device_id == device_id, c.state == str(ClaimState.BOUND), c.key_fingerprint.is_not(None)
        )
        with self._database.read() as connection:
            return set(connection.execute(statement).scalars())

    def spend(self, certificate: Certificate) -> Claim | None:
        """Spend the one-time claim by which a certificate came; returns it, None where there is none."""
        c = t.claims.c
        where = sa.and_(
            c.key_fingerprint == certificate.key_fingerprint,
            c.tenant == certificate.tenant,
            c.state == str(ClaimState.BOUND),
        )
        with self._database.read() as connection:
            row = connection.execute(sa.select(t.claims).where(where)).first()
        if row is None:  # most have none, and a transaction for each would be too many
            return None
        before = rows.claim_of(row)
        with self._database.write() as connection:
            after = msgspec.structs.replace(before, state=ClaimState.SPENT)
            connection.execute(t.claims.update().where(c.claim_id == after.claim_id).values(state=str(after.state)))
            record(
                connection, certificate.device_id, "claim.spend", after.claim_id, before={"state": str(before.state)},
                after={"state": str(after.state), "deviceId": certificate.device_id}, tenant=after.tenant,
            )  # fmt: skip
        self._news.tell(after)
        return after


def _check(wanted: NewClaim) -> None:
    check_landing(wanted.landing)
    check_patterns(*wanted.ids)
    if wanted.device_id is not None:
        try:
            parse_device_id(wanted.device_id)
        except MalformedError as error:
            raise RejectedError(str(error), code=error.code) from error
        if wanted.kind is ClaimKind.FLEET:
            raise RejectedError("a fleet claim is for many devices, not for one id", code="invalid-claim")
    elif wanted.kind is ClaimKind.GRANT:
        raise RejectedError("a device grant is for one id", code="invalid-claim")
    if wanted.uses_max is not None and wanted.uses_max < 1:
        raise RejectedError("a claim is good for one use at least", code="invalid-claim")
    if not 0 <= wanted.lifetime_s <= LIFETIME_MAX_S:
        raise RejectedError("a claim lives ten years at most; 0: until it is revoked", code="invalid-claim")
