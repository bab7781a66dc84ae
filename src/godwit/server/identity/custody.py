"""Whose a device is: claiming what came by itself, other hardware under the same id, release, another tenant.

Whoever gives a device away keeps nothing on it: certificates, tokens and keys end, groups and configuration go.
"""

from time import time_ns
from typing import Final

import msgspec
import sqlalchemy as sa

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId, TenantId
from godwit.server.accounts.principal import Principal
from godwit.server.identity import rows
from godwit.server.identity.claims import LIFETIME_DEFAULT_S, NewClaim
from godwit.server.identity.enrollment import Enrollment
from godwit.server.identity.issuance import Issuance
from godwit.server.identity.model import (
    CertificateState,
    Claim,
    ClaimState,
    Landing,
    Source,
)
from godwit.server.identity.news import News
from godwit.server.identity.revocation import Revocation
from godwit.server.identity.rules import landing_of
from godwit.server.registry.access import require_tenant
from godwit.server.registry.model import DEFAULT_TYPE, Device, Lifecycle
from godwit.server.registry.service import Registry
from godwit.server.storage import identity_tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

_OPEN: Final = (str(ClaimState.OPEN), str(ClaimState.BOUND))


class Custody:
    """Thread-safe; blocks."""

    def __init__(
        self,
        *,
        database: Database,
        registry: Registry,
        issuance: Issuance,
        revocation: Revocation,
        enrollment: Enrollment,
        news: News,
    ) -> None:
        self._database, self._registry, self._issuance = database, registry, issuance
        self._revocation, self._enrollment, self._news = revocation, enrollment, news

    def claim(
        self, who: Principal, device_id: DeviceId, tenant: TenantId | None = None, landing: Landing | None = None
    ) -> Device:
        """Make an unclaimed device a tenant's own. Raises RejectedError (`not-found`, `exists`)."""
        before = self._registry.device(who, device_id)
        if before.lifecycle is not Lifecycle.UNCLAIMED:
            raise RejectedError(f"{device_id!r} has an owner: it is {before.lifecycle}", code="exists")
        tenant = require_tenant(who, tenant or before.tenant)
        rules = self._enrollment.rules.of_tenant(tenant)
        landing = landing_of(rules, device_id, Source.OPERATOR, landing or Landing())
        device = Device(device_id, tenant, landing.device_type or DEFAULT_TYPE, tags=landing.tags)
        made = self._registry.take_in(who, device, landing.groups)
        self._enrollment.configure(device_id, landing.configuration)
        return made

    def replace(
        self, who: Principal, device_id: DeviceId, *, revoke_now: bool = False, lifetime_s: int = LIFETIME_DEFAULT_S
    ) -> tuple[Claim, str]:
        """Return a claim for other hardware under the same id.

        The old certificates are revoked when the new one first connects, or at once. Sequence numbers do not suffer:
        the new hardware has a spool, and so an epoch, of its own.
        """
        device = self._registry.device(who, device_id)
        wanted = NewClaim(device.tenant, f"replaces {device_id}", device_id=device_id, lifetime_s=lifetime_s)
        made = self._enrollment.claims.create(who, wanted)
        if revoke_now:
            self._revoke_all(who, device, "superseded")
        return made

    def shut_out(self, who: Principal, device_id: DeviceId, reason: str = "unspecified") -> Device:
        """End all that a device comes in by, and the claims for its id. It stays what and whose it is."""
        device = self._registry.device(who, device_id)
        who.require("operator", device.tenant)
        self._revoke_all(who, device, reason)
        return device

    def release(self, who: Principal, device_id: DeviceId) -> Device:
        """Give a device up: it is unclaimed, and its tenant may claim it again."""
        before = self._registry.device(who, device_id)
        self._revoke_all(who, before, "cessationOfOperation")
        self._forget_desired(device_id)
        return self._registry.hand_over(who, device_id, before.tenant)

    def transfer(self, who: Principal, device_id: DeviceId, tenant: TenantId) -> Device:
        """Give a device to another tenant, where it enrolls anew. `who` is an administrator of both.

        Its telemetry goes with it: what a device measured is its history, whoever owns it. Erase it first, where the
        next owner is not to see it. Raises RejectedError (`not-found`, `same-tenant`).
        """
        before = self._registry.device(who, device_id)
        tenant = require_tenant(who, tenant)
        if tenant == before.tenant:
            raise RejectedError(f"{device_id!r} is in {tenant!r} already", code="same-tenant")
        self._registry.require_tenants(who, tenant)
        self._revoke_all(who, before, "affiliationChanged")
        self._forget_desired(device_id)
        return self._registry.hand_over(who, device_id, tenant)

    def _forget_desired(self, device_id: DeviceId) -> None:
        """Leave the next owner nothing of what this one wanted, whoever had it retained."""
        self._enrollment.configure(device_id, {})
        if self._enrollment.on_configured is not None:
            self._enrollment.on_configured(device_id, {})

    def _revoke_all(self, who: Principal, device: Device, reason: str) -> None:
        """End all credentials of a device, and the claims for its id; it renews none of them meanwhile."""
        with self._database.alone():
            self._end_all(who, device, reason)

    def _end_all(self, who: Principal, device: Device, reason: str) -> None:
        for each in self._issuance.of_device(device.device_id):
            if each.state is not CertificateState.REVOKED:
                self._revocation.revoke(each.fingerprint, reason, who.name, address=who.address)
        now = time_ns()
        tokens, keys, claims = t.device_tokens, t.device_keys, t.claims
        of_tokens = sa.and_(tokens.c.device_id == device.device_id, tokens.c.revoked == 0)
        of_keys = sa.and_(keys.c.device_id == device.device_id, keys.c.retired == 0)
        of_claims = sa.and_(claims.c.device_id == device.device_id, claims.c.state.in_(_OPEN))
        with self._database.write() as connection:
            ended = [rows.device_token_of(each) for each in connection.execute(sa.select(tokens).where(of_tokens))]
            retired = [rows.device_key_of(each) for each in connection.execute(sa.select(keys).where(of_keys))]
            connection.execute(tokens.update().where(of_tokens).values(revoked=now))
            connection.execute(keys.update().where(of_keys).values(retired=now))
            if reason != "superseded":  # the claim of a replacement is what it is for
                connection.execute(claims.update().where(of_claims).values(state=str(ClaimState.REVOKED)))
            if ended or retired:
                record(
                    connection, who.name, "device.credentials-end", device.device_id, tenant=device.tenant,
                    address=who.address,
                    before={"tokens": [each.token_id for each in ended], "keys": [each.key_id for each in retired]},
                )  # fmt: skip
        for token in ended:
            self._news.tell(msgspec.structs.replace(token, revoked=now))
        for key in retired:
            self._news.tell(msgspec.structs.replace(key, retired=now))
