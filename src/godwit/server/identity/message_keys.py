"""Keys of messages that are signed or encrypted end to end: the public ones of devices, and ours, sealed by the vault.

A device has one key of each purpose in use. A new one that an operator registers retires the one before; one that
comes from the device itself does so when it is first used (`confirm`), since the answer to the device may be lost. A
retired key counts a while longer for what was made before (`TenantPolicy.key_overlap_s`). Each tenant has keys of ours;
when these are made anew and end is `key_rotation`'s. What an operator removes ends at once, and is never taken again.
"""

from collections.abc import Callable, Iterable, Mapping
from time import time_ns
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from godwit.contract import codes
from godwit.contract.cose_keys import AgreeKey, agree_key, agree_public, key_id, pem_of, verifying_key
from godwit.contract.enrollment import EnrollmentRequest
from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId, TenantId
from godwit.server.accounts.principal import Principal
from godwit.server.identity.model import DeviceKey, KeyPurpose, PlatformKey
from godwit.server.identity.news import News
from godwit.server.identity.vault import Vault
from godwit.server.registry.access import not_found, require_tenant, visible
from godwit.server.storage import identity_tables as t
from godwit.server.storage import tables
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

PURPOSES: Final = (KeyPurpose.SIGN, KeyPurpose.AGREE)
KEYS_MAX: Final = 16
"""Of one device and purpose, retired ones included: the oldest of more leave."""
IN_USE_MAX: Final = 3
"""So many keys of a device wait for their first use: of more, the oldest retire."""
_AT_ONCE: Final = 500
ENDED: Final = 1
"""Retired so long ago (1970) that nothing which it made counts: what listeners are told of a key that was removed."""


class GrantKeys(NamedTuple):
    """Our public keys, PEM, as a device is given them with its certificate."""

    agree_key: str
    sign_key: str
    taken: tuple[str, ...] = ()
    """Ids of those of the device that came with its request."""


class MessageKeys:
    """The room. Blocks: called in threads."""

    def __init__(self, database: Database, vault: Vault, news: News, now_ns: Callable[[], int] = time_ns) -> None:
        self._database, self._vault, self._news, self.now_ns = database, vault, news, now_ns
        self.on_held: Callable[[DeviceId, str], None] = lambda _device_id, _key_id: None
        """Told which of our keys a device has been given."""
        self.on_removed: Callable[[DeviceId], None] = lambda _device_id: None
        """Told of a device whose key an operator removed: it is to make another."""

    # --- devices' keys --------------------------------------------------------------------------------------------

    def keys(self, who: Principal, device_id: DeviceId) -> list[DeviceKey]:
        """Return a device's keys, newest first. Raises RejectedError (`not-found`)."""
        with self._database.read() as connection:
            _tenant_of(connection, who, device_id)
            return _device_keys(connection, t.device_keys.c.device_id == device_id)

    def register(self, who: Principal, device_id: DeviceId, purpose: KeyPurpose, public: str) -> DeviceKey:
        """Take a device's public key; the one before retires. Raises RejectedError (`key-unfit`, `not-found`)."""
        who.require("operator")
        with self._database.write() as connection:
            tenant = _tenant_of(connection, who, device_id)
            changed = self._put(connection, who.name, device_id, tenant, purpose, public, who.address)
        self._tell(changed)
        return changed[-1]

    def remove(self, who: Principal, device_id: DeviceId, name: str) -> None:
        """End a key at once, whatever it signed before, and for good. Raises RejectedError (`not-found`)."""
        who.require("operator")
        c, now = t.device_keys.c, self.now_ns()
        where = sa.and_(c.device_id == device_id, c.key_id == name, c.purpose.in_(PURPOSES), c.removed == 0)
        with self._database.write() as connection:
            tenant = _tenant_of(connection, who, device_id)
            found = _device_keys(connection, where)
            if not found:
                raise not_found("key", name)
            connection.execute(t.device_keys.update().where(where), {"retired": now, "removed": now})
            record(connection, who.name, "device-key.remove", device_id, before=found, tenant=tenant,
                   address=who.address)  # fmt: skip
        self._tell([msgspec.structs.replace(each, retired=now, removed=now) for each in found])
        self.on_removed(device_id)

    def erase(self, device_id: DeviceId) -> None:
        """Remove the keys of a device that was erased."""
        with self._database.write() as connection:
            connection.execute(t.device_keys.delete().where(t.device_keys.c.device_id == device_id))
            connection.execute(t.held_keys.delete().where(t.held_keys.c.device_id == device_id))

    def enroll(
        self, device_id: DeviceId, tenant: TenantId, asked: EnrollmentRequest, by: str, address: str
    ) -> GrantKeys:
        """Take the keys of a request that was granted, and return ours.

        Not within another transaction; the same keys again change nothing. Those before count until these are used.
        Raises RejectedError (`key-unfit`, `key-retired`, `key-removed`).
        """
        changed: list[DeviceKey] = []
        given = ((KeyPurpose.SIGN, asked.sign_key), (KeyPurpose.AGREE, asked.agree_key))
        wanted = [(purpose, public) for purpose, public in given if public]
        if wanted:
            with self._database.write() as connection:
                for purpose, public in wanted:
                    changed += self._put(connection, by, device_id, tenant, purpose, public, address, is_its_own=True)
        self._tell(changed)
        ours = self.ours(tenant)
        if wanted:
            self.hold([(device_id, tenant, key_id(agree_public(ours.agree_key)))])
        return ours._replace(taken=tuple(key_id(verifying_key(public)) for _, public in wanted))

    def confirm(self, used: Mapping[str, str]) -> None:
        """Note that devices sign with their new keys: those from before retire. Many at once are one transaction."""
        now, pairs = self.now_ns(), list(used.items())
        for at in range(0, len(pairs), _AT_ONCE):
            with self._database.write() as connection:
                older = [
                    each
                    for device_id, name in pairs[at : at + _AT_ONCE]
                    for each in _retire_before(connection, DeviceId(device_id), name, now)
                ]
            self._tell([msgspec.structs.replace(each, retired=now) for each in older])

    def hold(self, held: Iterable[tuple[DeviceId, TenantId, str]]) -> None:
        """Write down to which of our keys devices encrypt from now on: until they use another, it does not end."""
        c, now = t.held_keys.c, self.now_ns()
        rows = [{"device_id": device, "tenant": tenant, "key_id": name, "since": now} for device, tenant, name in held]
        for at in range(0, len(rows), _AT_ONCE):
            part = rows[at : at + _AT_ONCE]
            with self._database.write() as connection:
                connection.execute(t.held_keys.delete().where(c.device_id.in_([each["device_id"] for each in part])))
                connection.execute(t.held_keys.insert(), part)
            for each in part:
                self.on_held(DeviceId(str(each["device_id"])), str(each["key_id"]))

    def held(self) -> dict[DeviceId, str]:
        """Return which of our keys each device encrypts to, as far as it is known."""
        c = t.held_keys.c
        with self._database.read() as connection:
            return {DeviceId(row.device_id): row.key_id for row in connection.execute(sa.select(c.device_id, c.key_id))}

    def _put(  # noqa: PLR0917 - the columns of a key, and who brought it
        self,
        connection: sa.Connection,
        who: str,
        device_id: DeviceId,
        tenant: TenantId,
        purpose: KeyPurpose,
        public: str,
        address: str,
        *,
        is_its_own: bool = False,
    ) -> list[DeviceKey]:
        """Keep a key; returns what has changed, the key last. `is_its_own`: the device says so itself."""
        if purpose not in PURPOSES:
            raise RejectedError("keys of messages are to sign or to agree", code="invalid-field")
        read = verifying_key(public) if purpose is KeyPurpose.SIGN else agree_public(public)
        c = t.device_keys.c
        kept = _device_keys(connection, sa.and_(c.device_id == device_id, c.purpose == purpose))
        now = self.now_ns()
        key = DeviceKey(key_id(read), device_id, tenant, purpose, pem_of(read), now)
        in_use = [each for each in kept if not each.retired]
        if any(each.key_id == key.key_id for each in in_use):
            return [each for each in in_use if each.key_id == key.key_id]
        known = next((each for each in kept if each.key_id == key.key_id), None)
        if known is not None:
            what, code = (
                ("removed by an operator", codes.KEY_REMOVED) if known.removed else ("retired", codes.KEY_RETIRED)
            )
            raise RejectedError(f"this key was {what}: make a new one", code=code)
        leaving = in_use[IN_USE_MAX - 1 :] if is_its_own else in_use
        retired = [msgspec.structs.replace(each, retired=now) for each in leaving]
        for each in retired:
            where = sa.and_(c.device_id == device_id, c.purpose == purpose, c.key_id == each.key_id)
            connection.execute(t.device_keys.update().where(where), {"retired": now})
        left = [each for each in kept[KEYS_MAX - 1 :] if not each.removed]
        for each in left:
            where = sa.and_(c.device_id == device_id, c.purpose == purpose, c.key_id == each.key_id)
            connection.execute(t.device_keys.delete().where(where))
        connection.execute(t.device_keys.insert(), {**_columns(key), "secret": None})
        record(connection, who, "device-key.register", device_id, before=in_use, after=key, tenant=tenant,
               address=address)  # fmt: skip
        return [*retired, *(msgspec.structs.replace(each, retired=ENDED) for each in left), key]

    # --- our keys -------------------------------------------------------------------------------------------------

    def ours(self, tenant: TenantId) -> GrantKeys:
        """Return our public keys in use for a tenant; makes them where it has none."""
        found = {each.purpose: each for each in self._in_use(tenant)}
        for purpose in PURPOSES:
            if purpose not in found:
                found[purpose] = self._make("platform", tenant, purpose)
        return GrantKeys(found[KeyPurpose.AGREE].public, found[KeyPurpose.SIGN].public)

    def platform_keys(self, who: Principal, tenant: TenantId) -> list[PlatformKey]:
        """Return our keys for a tenant, newest first. Raises RejectedError (`not-found`)."""
        tenant = require_tenant(who, tenant)
        with self._database.read() as connection:
            _require_tenant_row(connection, tenant)
            return _platform_keys(connection, t.platform_keys.c.tenant == tenant)

    def holders(self, tenant: TenantId) -> dict[str, int]:
        """Return how many devices encrypt to each of our keys, as far as it is known: how far a rotation is."""
        c = t.held_keys.c
        statement = sa.select(c.key_id, sa.func.count()).where(c.tenant == tenant).group_by(c.key_id)
        with self._database.read() as connection:
            return {name: int(count) for name, count in connection.execute(statement)}

    def remove_ours(self, who: Principal, tenant: TenantId, name: str) -> None:
        """End a key of ours at once: what is encrypted to it opens no more. One in use is replaced first.

        Raises RejectedError (`not-found`).
        """
        who.require("admin")
        tenant = require_tenant(who, tenant)
        c, now = t.platform_keys.c, self.now_ns()
        where = sa.and_(c.tenant == tenant, c.key_id == name, c.removed == 0)
        with self._database.read() as connection:
            found = _platform_keys(connection, where)
        if not found:
            raise not_found("key", name)
        if not found[0].retired:
            self._make(who.name, tenant, found[0].purpose, who.address)
        self.end(who.name, found[0], removed=now, address=who.address)

    def end(self, who: str, key: PlatformKey, *, removed: int = 0, address: str = "") -> None:
        """Destroy the private half of a key of ours."""
        now = removed or self.now_ns()
        ended = msgspec.structs.replace(key, retired=key.retired or now, ended=key.ended or now, removed=removed)
        with self._database.write() as connection:
            where = t.platform_keys.c.key_id == key.key_id
            connection.execute(t.platform_keys.update().where(where), {**_columns(ended), "secret": None})
            what = "platform-key.remove" if removed else "platform-key.end"
            record(connection, who, what, key.tenant, before=key, after=ended, tenant=key.tenant, address=address)
        self._tell([ended])

    def renew_ours(self, who: str, tenant: TenantId) -> None:
        """Make new keys of ours, both: who is told of one is told of the other by it."""
        for purpose in PURPOSES:
            self._make(who, tenant, purpose)

    def rotate(self, who: Principal, tenant: TenantId, purpose: KeyPurpose) -> PlatformKey:
        """Make a new key of ours; the one before counts for the overlap. Raises RejectedError (`not-found`)."""
        who.require("admin")
        if purpose not in PURPOSES:
            raise RejectedError("keys of messages are to sign or to agree", code="invalid-field")
        tenant = require_tenant(who, tenant)
        with self._database.read() as connection:
            _require_tenant_row(connection, tenant)
        known = {each.purpose for each in self._in_use(tenant)}
        for other in PURPOSES:
            if other not in known and other is not purpose:
                self._make(who.name, tenant, other, who.address)
        return self._make(who.name, tenant, purpose, who.address)

    def _in_use(self, tenant: TenantId) -> list[PlatformKey]:
        c = t.platform_keys.c
        with self._database.read() as connection:
            return _platform_keys(connection, sa.and_(c.tenant == tenant, c.retired == 0))

    def _make(self, who: str, tenant: TenantId, purpose: KeyPurpose, address: str = "") -> PlatformKey:
        private = ec.generate_private_key(ec.SECP256R1())
        now = self.now_ns()
        key = PlatformKey(key_id(private.public_key()), tenant, purpose, pem_of(private.public_key()), now)
        secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        c = t.platform_keys.c
        where = sa.and_(c.tenant == tenant, c.purpose == purpose, c.retired == 0)
        with self._database.write() as connection:
            retired = [msgspec.structs.replace(each, retired=now) for each in _platform_keys(connection, where)]
            connection.execute(t.platform_keys.update().where(where), {"retired": now})
            row = {**_columns(key), "secret": self._vault.seal(secret, about_key(key.key_id))}
            connection.execute(t.platform_keys.insert(), row)
            record(connection, who, "platform-key.make", tenant, before=retired, after=key, tenant=tenant,
                   address=address)  # fmt: skip
        self._tell([*retired, key])
        return key

    def private(self, name: str) -> AgreeKey:
        """Return the private half of a key of ours. Raises RejectedError (`not-found`, `key-passphrase`)."""
        with self._database.read() as connection:
            c = t.platform_keys.c
            secret = connection.execute(sa.select(c.secret).where(c.key_id == name)).scalar_one_or_none()
        if secret is None:
            raise not_found("key", name)
        return agree_key(self._vault.open(secret, about_key(name)))

    # --- for the machine itself -----------------------------------------------------------------------------------

    def load(self) -> list[DeviceKey]:
        """Return the keys of all devices, for the hot path, at start."""
        with self._database.read() as connection:
            return _device_keys(connection, t.device_keys.c.purpose.in_(PURPOSES))

    def load_ours(self) -> list[PlatformKey]:
        """Return our keys for all tenants."""
        with self._database.read() as connection:
            return _platform_keys(connection, sa.true())

    def _tell(self, changed: "list[DeviceKey] | list[PlatformKey]") -> None:
        for each in changed:
            self._news.tell(each)


def about_key(name: str) -> str:
    """Return what the vault is told of one of our keys."""
    return f"platform key {name}"


def _retire_before(connection: sa.Connection, device_id: DeviceId, name: str, now: int) -> list[DeviceKey]:
    """Retire the keys of a device that are older than the one of this name; returns them as they were."""
    c = t.device_keys.c
    kept = _device_keys(connection, sa.and_(c.device_id == device_id, c.purpose.in_(PURPOSES), c.retired == 0))
    used = next((each for each in kept if each.key_id == name), None)
    older = [] if used is None else [each for each in kept if each.created < used.created]
    for each in older:
        where = sa.and_(c.device_id == device_id, c.purpose == each.purpose, c.key_id == each.key_id)
        connection.execute(t.device_keys.update().where(where), {"retired": now})
    if used is not None and older:
        record(connection, str(device_id), "device-key.retire", device_id, before=older, after=used,
               tenant=used.tenant)  # fmt: skip
    return older


def _tenant_of(connection: sa.Connection, who: Principal, device_id: DeviceId) -> TenantId:
    c = tables.devices.c
    found = connection.execute(sa.select(c.tenant).where(c.device_id == device_id, visible(who))).scalar_one_or_none()
    if found is None:
        raise not_found("device", device_id)
    return TenantId(found)


def _require_tenant_row(connection: sa.Connection, tenant: TenantId) -> None:
    c = tables.tenants.c
    if connection.execute(sa.select(c.name).where(c.name == tenant)).one_or_none() is None:
        raise not_found("tenant", tenant)


def _device_keys(connection: sa.Connection, where: "sa.ColumnElement[bool]") -> list[DeviceKey]:
    c = t.device_keys.c
    rows = connection.execute(sa.select(t.device_keys).where(where).order_by(c.created.desc(), c.key_id)).all()
    return [
        DeviceKey(
            row.key_id, DeviceId(row.device_id), TenantId(row.tenant), KeyPurpose(row.purpose), row.public,
            row.created, row.retired, row.removed,
        )
        for row in rows
    ]  # fmt: skip


def _platform_keys(connection: sa.Connection, where: "sa.ColumnElement[bool]") -> list[PlatformKey]:
    c = t.platform_keys.c
    rows = connection.execute(sa.select(t.platform_keys).where(where).order_by(c.created.desc(), c.key_id)).all()
    return [
        PlatformKey(
            row.key_id, TenantId(row.tenant), KeyPurpose(row.purpose), row.public, row.created, row.retired,
            row.ended, row.removed,
        )
        for row in rows
    ]  # fmt: skip


def _columns(key: DeviceKey | PlatformKey) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, str) else value for name, value in msgspec.structs.asdict(key).items()
    }
