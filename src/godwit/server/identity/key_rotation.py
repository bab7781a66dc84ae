"""The rotation of our keys of messages by the clock: made anew when old, ended when nothing comes to them more.

A retired key opens what comes late. Whoever encrypts to it is told the new one with the next message that comes; a
device that stays away for a year learns of it then. So a key ends only when its overlap is over and no device is left
that has no newer one: of each device it is written down which it was given or has used last. A key to sign with ends
when no device is left that may know no other one.
"""

from typing import Final

import sqlalchemy as sa

from godwit.contract.ids import TenantId
from godwit.server.identity.message_keys import MessageKeys
from godwit.server.identity.model import KeyPurpose, PlatformKey
from godwit.server.registry import store
from godwit.server.registry.model import Lifecycle, TenantPolicy
from godwit.server.storage import identity_tables as t
from godwit.server.storage import tables
from godwit.server.storage.database import Database

NS: Final = 1_000_000_000
WHO: Final = "godwit"


def is_old(keys: list[PlatformKey], policy: TenantPolicy, now: int) -> bool:
    """Whether the keys in use of a tenant have to be made anew."""
    in_use = [each.created for each in keys if not each.retired]
    return bool(in_use) and 0 < policy.key_age_s * NS <= now - min(in_use)


def over(keys: list[PlatformKey], held: set[str], policy: TenantPolicy, now: int) -> list[PlatformKey]:
    """Return the keys of a tenant that nothing comes to any more. `held`: those that some device encrypts to."""
    oldest_held = min((each.created for each in keys if each.key_id in held), default=now)
    return [
        each
        for each in keys
        if each.retired
        and not each.ended
        and now > each.retired + policy.key_overlap_s * NS
        and (each.key_id not in held if each.purpose is KeyPurpose.AGREE else each.retired <= oldest_held)
    ]


class KeyRotation:
    """Blocks: called in threads."""

    def __init__(self, database: Database, keys: MessageKeys) -> None:
        self._database, self._keys = database, keys

    def tick(self, now: int) -> None:
        """Make new keys where the old ones are too old, and end those that are over. Every minute or so."""
        by_tenant: dict[TenantId, list[PlatformKey]] = {}
        for each in self._keys.load_ours():
            by_tenant.setdefault(each.tenant, []).append(each)
        if not by_tenant:
            return
        policies, held = self._policies(), self._held()
        for tenant, keys in by_tenant.items():
            policy = policies.get(tenant, TenantPolicy(tenant))
            if is_old(keys, policy, now):
                self._keys.renew_ours(WHO, tenant)
            for each in over(keys, held, policy, now):
                self._keys.end(WHO, each)

    def _policies(self) -> dict[TenantId, TenantPolicy]:
        with self._database.read() as connection:
            rows = connection.execute(sa.select(tables.tenants)).all()
        return {TenantId(row.name): store.policy_of(row) for row in rows}

    def _held(self) -> set[str]:
        """Return the keys that devices encrypt to which may come back to that owner."""
        h, d = t.held_keys.c, tables.devices.c
        its_own = sa.and_(d.device_id == h.device_id, d.tenant == h.tenant, d.lifecycle != str(Lifecycle.RETIRED))
        with self._database.read() as connection:
            rows = connection.execute(sa.select(h.key_id).join(tables.devices, its_own).distinct())
            return {row.key_id for row in rows}
