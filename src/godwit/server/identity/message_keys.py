"""Keys of messages that are signed or encrypted end to end: the public ones of devices, and ours, sealed by the vault.

A device has one key of each purpose in use; a new one retires the one before, which counts a while longer for what was
made before (`TenantPolicy.key_overlap_s`). So it is with ours, of which each tenant has its own. Removing a key ends it
at once.
"""

from time import time_ns
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

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
ENDED: Final = 1
"""Retired so long ago (1970) that nothing which it made counts: what listeners are told of a key that was removed."""


class GrantKeys(NamedTuple):
    """Our public keys, PEM, as a device is given them with its certificate."""

    agree_key: str
    sign_key: str


class MessageKeys:
    """The room. Blocks: called in threads."""

    def __init__(self, database: Database, vault: Vault, news: News) -> None:
        self._database, self._vault, self._news = database, vault, news

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
        """End a key at once, whatever it signed before. Raises RejectedError (`not-found`)."""
        who.require("operator")
        c = t.device_keys.c
        where = sa.and_(c.device_id == device_id, c.key_id == name, c.purpose.in_(PURPOSES))
        with self._database.write() as connection:
            tenant = _tenant_of(connection, who, device_id)
            found = _device_keys(connection, where)
            if not found:
                raise not_found("key", name)
            connection.execute(t.device_keys.delete().where(where))
            record(connection, who.name, "device-key.remove", device_id, before=found, tenant=tenant,
                   address=who.address)  # fmt: skip
        self._tell([msgspec.structs.replace(each, retired=ENDED) for each in found])

    def erase(self, device_id: DeviceId) -> None:
        """Remove the keys of a device that was erased."""
        with self._database.write() as connection:
            connection.execute(t.device_keys.delete().where(t.device_keys.c.device_id == device_id))

    def enroll(
        self, device_id: DeviceId, tenant: TenantId, asked: EnrollmentRequest, by: str, address: str
    ) -> GrantKeys:
        """Take the keys of a request that was granted, and return ours. Raises RejectedError (`key-unfit`).

        Not within another transaction; the same keys again change nothing.
        """
        changed: list[DeviceKey] = []
        given = ((KeyPurpose.SIGN, asked.sign_key), (KeyPurpose.AGREE, asked.agree_key))
        wanted = [(purpose, public) for purpose, public in given if public]
        if wanted:
            with self._database.write() as connection:
                for purpose, public in wanted:
                    changed += self._put(connection, by, device_id, tenant, purpose, public, address)
        self._tell(changed)
        return self.ours(tenant)

    def _put(  # noqa: PLR0917 - the columns of a key, and who brought it
        self,
        connection: sa.Connection,
        who: str,
        device_id: DeviceId,
        tenant: TenantId,
        purpose: KeyPurpose,
        public: str,
        address: str,
    ) -> list[DeviceKey]:
        if purpose not in PURPOSES:
            raise RejectedError("keys of messages are to sign or to agree", code="invalid-field")
        read = verifying_key(public) if purpose is KeyPurpose.SIGN else agree_public(public)
        c = t.device_keys.c
        kept = _device_keys(connection, sa.and_(c.device_id == device_id, c.purpose == purpose))
        now = time_ns()
        key = DeviceKey(key_id(read), device_id, tenant, purpose, pem_of(read), now)
        in_use = [each for each in kept if not each.retired]
        if any(each.key_id == key.key_id for each in in_use):
            return [each for each in in_use if each.key_id == key.key_id]
        if any(each.key_id == key.key_id for each in kept):
            raise RejectedError("this key was retired: make a new one", code="key-retired")
        retired = [msgspec.structs.replace(each, retired=now) for each in in_use]
        for each in retired:
            where = sa.and_(c.device_id == device_id, c.purpose == purpose, c.key_id == each.key_id)
            connection.execute(t.device_keys.update().where(where), {"retired": now})
        left = kept[KEYS_MAX - 1 :]
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
        now = time_ns()
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

    def load(self) -> tuple[list[DeviceKey], list[PlatformKey]]:
        """Return all keys of messages, for the hot path, at start."""
        with self._database.read() as connection:
            devices = _device_keys(connection, t.device_keys.c.purpose.in_(PURPOSES))
            return devices, _platform_keys(connection, sa.true())

    def _tell(self, changed: "list[DeviceKey] | list[PlatformKey]") -> None:
        for each in changed:
            self._news.tell(each)


def about_key(name: str) -> str:
    """Return what the vault is told of one of our keys."""
    return f"platform key {name}"


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
            row.created, row.retired,
        )
        for row in rows
    ]  # fmt: skip


def _platform_keys(connection: sa.Connection, where: "sa.ColumnElement[bool]") -> list[PlatformKey]:
    c = t.platform_keys.c
    rows = connection.execute(sa.select(t.platform_keys).where(where).order_by(c.created.desc(), c.key_id)).all()
    return [
        PlatformKey(row.key_id, TenantId(row.tenant), KeyPurpose(row.purpose), row.public, row.created, row.retired)
        for row in rows
    ]


def _columns(key: DeviceKey | PlatformKey) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, str) else value for name, value in msgspec.structs.asdict(key).items()
    }
