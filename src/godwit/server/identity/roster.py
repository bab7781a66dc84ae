"""Who is known, in memory: what the broker asks at every CONNECT, answered in microseconds and without SQL.

Filled at start from the database, and kept by the news of identity and of the registry. It is written in whatever
thread changes something, after its commit, and read on the broker's loop: every step is one assignment to a
dictionary. News of one row may come in another order than their commits; what is final (revoked, retired) stays so.
"""

from sys import intern
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from cryptography import x509

from godwit.contract.ids import DeviceId
from godwit.server.identity import rows
from godwit.server.identity.authorities import Authorities
from godwit.server.identity.model import (
    Authority,
    AuthorityState,
    Certificate,
    CertificateState,
    Change,
    DeviceKey,
    DeviceToken,
    KeyPurpose,
)
from godwit.server.registry.model import Device, DeviceType, Lifecycle, TenantPolicy
from godwit.server.storage import identity_tables as t
from godwit.server.storage.database import Database

GATEWAY: Final = "gateway"
"""The field of a device's metadata that names the gateway which speaks for it."""


class KnownDevice(NamedTuple):
    """A device of the registry, as far as a door asks."""

    tenant: str
    device_type: str
    place: str
    lifecycle: Lifecycle
    gateway: str
    updated: int

    @property
    def is_claimed(self) -> bool:
        """Whether it has an owner: nobody speaks for it without proof."""
        return self.lifecycle is not Lifecycle.UNCLAIMED


class KnownCertificate(NamedTuple):
    """A certificate of a device. Times are ns UTC."""

    device_id: str
    tenant: str
    authority: str
    state: CertificateState
    not_before: int
    not_after: int
    reason: str


class KnownAuthority(NamedTuple):
    """An authority, and its certificate taken apart."""

    row: Authority
    certificate: x509.Certificate


class Roster:
    """See the module."""

    def __init__(self) -> None:
        self.devices: dict[str, KnownDevice] = {}
        self.authorities: dict[str, KnownAuthority] = {}
        self._certificates: dict[bytes, KnownCertificate] = {}
        self._tokens: dict[str, DeviceToken] = {}
        self._digests: dict[str, str] = {}
        """Token id -> digest: what is told of a token does not hold it."""
        self._keys: dict[str, dict[str, DeviceKey]] = {}
        """Device id -> key id -> key, of those that sign a device's tokens."""

    def load(self, database: Database, authorities: Authorities) -> None:
        """Take up what the database holds, but for the devices."""
        for authority in authorities.all():
            self.follow(authority)
        c = t.certificates.c
        statement = sa.select(
            c.fingerprint, c.device_id, c.tenant, c.authority, c.state, c.not_before, c.not_after, c.reason
        )
        with database.read() as connection:
            for row in connection.execution_options(yield_per=1_000).execute(statement):
                self._certificates[bytes.fromhex(row.fingerprint)] = _known(row)
            for row in connection.execute(sa.select(t.device_tokens).where(t.device_tokens.c.revoked == 0)):
                self.add_token(row.digest, rows.device_token_of(row))
            for row in connection.execute(sa.select(t.device_keys).where(t.device_keys.c.retired == 0)):
                self.follow(rows.device_key_of(row))

    # --- changes ----------------------------------------------------------------------------------------------------

    def learn(self, changed: Device | DeviceType | TenantPolicy | DeviceId) -> None:
        """Follow a change of the registry; a bare id was erased."""
        if isinstance(changed, Device):
            known = self.devices.get(changed.device_id)
            if known is None or known.updated <= changed.updated:
                self.devices[changed.device_id] = _known_device(changed)
        elif not isinstance(changed, DeviceType | TenantPolicy):
            self.devices.pop(changed, None)

    def follow(self, change: Change) -> None:
        """Follow a change of identity."""
        if isinstance(change, Certificate):
            key = bytes.fromhex(change.fingerprint)
            known = self._certificates.get(key)
            if known is None or known.state is not CertificateState.REVOKED:
                self._certificates[key] = _known(change)
        elif isinstance(change, Authority):
            before = self.authorities.get(change.fingerprint)
            if before is None or before.row.state is not AuthorityState.RETIRED:
                certificate = x509.load_pem_x509_certificate(change.certificate.encode())
                self.authorities[change.fingerprint] = KnownAuthority(change, certificate)
        elif isinstance(change, DeviceToken):
            if change.revoked:
                self._tokens.pop(self._digests.pop(change.token_id, ""), None)
        elif isinstance(change, DeviceKey) and change.purpose is KeyPurpose.JWT:
            keys = {**self._keys.get(change.device_id, {}), change.key_id: change}
            if change.retired:
                del keys[change.key_id]
            self._keys[change.device_id] = keys

    def add_token(self, digest: str, token: DeviceToken) -> None:
        """Take up a device token under the SHA-256 of its secret."""
        if not token.revoked:
            self._tokens[digest] = token
            self._digests[token.token_id] = digest

    # --- questions --------------------------------------------------------------------------------------------------

    def certificate(self, fingerprint: bytes) -> KnownCertificate | None:
        """Return a certificate by the SHA-256 of its DER."""
        return self._certificates.get(fingerprint)

    @property
    def certificates(self) -> int:
        """How many certificates are known."""
        return len(self._certificates)

    def token(self, digest: str) -> DeviceToken | None:
        """Return a device token that is not revoked, by the SHA-256 of its secret."""
        return self._tokens.get(digest)

    def has_token(self, token_id: str) -> bool:
        """Whether a token is there, and not revoked."""
        return token_id in self._digests

    def keys(self, device_id: str) -> list[DeviceKey]:
        """Return the keys that sign a device's tokens."""
        return list(self._keys.get(device_id, {}).values())

    def is_claimed(self, device_id: str) -> bool:
        """Whether a device has an owner. One that nobody has registered has none."""
        known = self.devices.get(device_id)
        return known is not None and known.is_claimed

    def trusted(self) -> list[KnownAuthority]:
        """Return the authorities whose certificates count."""
        return [each for each in list(self.authorities.values()) if each.row.state is not AuthorityState.RETIRED]

    def issuers(self, name: x509.Name) -> list[KnownAuthority]:
        """Return those trusted authorities that have a name."""
        return [each for each in self.trusted() if each.certificate.subject == name]


def _known(row: Any) -> KnownCertificate:
    return KnownCertificate(
        row.device_id, intern(str(row.tenant)), intern(row.authority), CertificateState(row.state),
        row.not_before, row.not_after, intern(row.reason),
    )  # fmt: skip


def _known_device(device: Device) -> KnownDevice:
    gateway = device.metadata.get(GATEWAY)
    return KnownDevice(
        intern(str(device.tenant)),
        intern(str(device.device_type)),
        intern(device.location.name),
        Lifecycle(device.lifecycle),
        gateway if isinstance(gateway, str) else "",
        device.updated,
    )
