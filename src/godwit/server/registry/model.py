"""Rows of the registry. Pure."""

from enum import StrEnum

import msgspec

from godwit.contract.ids import DEFAULT_TENANT, DeviceId, TenantId, TypeName
from godwit.server.accounts.principal import Principal

__all__ = [
    "DEFAULT_TYPE",
    "DeclaredReading",
    "Device",
    "DevicePage",
    "DeviceType",
    "Group",
    "Lifecycle",
    "Location",
    "Outside",
    "Presence",
    "Principal",
    "Protection",
    "Tenant",
    "TenantPolicy",
    "TenantQuota",
]

DEFAULT_TYPE = TypeName("default")


class Lifecycle(StrEnum):
    """Where a device is in its life."""

    UNCLAIMED = "unclaimed"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    RETIRED = "retired"


class Outside(StrEnum):
    """What happens to a value outside its declared range."""

    MARK_BAD = "bad"
    QUARANTINE = "quarantine"


class Protection(StrEnum):
    """What telemetry and events have to be, end to end."""

    NONE = "none"
    SIGNED = "signed"
    ENCRYPTED = "encrypted"
    SIGNED_ENCRYPTED = "signed-encrypted"

    @property
    def wants_signature(self) -> bool:
        """Whether messages have to be signed."""
        return self in (Protection.SIGNED, Protection.SIGNED_ENCRYPTED)

    @property
    def wants_encryption(self) -> bool:
        """Whether messages have to be encrypted."""
        return self in (Protection.ENCRYPTED, Protection.SIGNED_ENCRYPTED)

    def __or__(self, other: "Protection") -> "Protection":
        """Return what satisfies both."""
        if self is other or other is Protection.NONE:
            return self
        return other if self is Protection.NONE else Protection.SIGNED_ENCRYPTED


class DeclaredReading(msgspec.Struct, frozen=True, rename="camel"):
    """What a device type says of one reading. `step` is the resolution, for charts and for compression."""

    name: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    outside: Outside = Outside.MARK_BAD
    description: str = ""


class DeviceType(msgspec.Struct, frozen=True, rename="camel"):
    """A kind of device. `codec`: json, cbor, protobuf, senml+json, senml+cbor, or None (told apart by first byte)."""

    name: TypeName
    tenant: TenantId = DEFAULT_TENANT
    description: str = ""
    readings: tuple[DeclaredReading, ...] = ()
    codec: str | None = None
    retention_days: float | None = None
    messages: Protection = Protection.NONE
    """What messages of its devices have to be, whatever their tenant wants."""


class TenantPolicy(msgspec.Struct, frozen=True, rename="camel"):
    """What a tenant wants of its devices' messages.

    `replay_window_s`: a signed message that brings nothing new, and was made longer ago, is no redelivery but a replay.
    `key_overlap_s`: for so long after its retirement a key still counts for what was made before. `key_age_s`: the
    platform's own keys are made anew when they are so old; 0: never by themselves.
    """

    tenant: TenantId = DEFAULT_TENANT
    messages: Protection = Protection.NONE
    replay_window_s: int = 86_400
    key_overlap_s: int = 604_800
    key_age_s: int = 7_776_000


class Location(msgspec.Struct, frozen=True, rename="camel"):
    """Where a device stands: a named place, and WGS 84 degrees where known; altitude in metres."""

    name: str = ""
    latitude: float | None = None
    longitude: float | None = None
    altitude: float | None = None


class Device(msgspec.Struct, frozen=True, rename="camel"):
    """A device as the registry knows it. `created` and `updated` are ns UTC."""

    device_id: DeviceId
    tenant: TenantId = DEFAULT_TENANT
    device_type: TypeName = DEFAULT_TYPE
    name: str = ""
    lifecycle: Lifecycle = Lifecycle.ACTIVE
    location: Location = Location()
    tags: dict[str, str] = {}
    metadata: dict[str, object] = {}
    created: int = 0
    updated: int = 0


class Presence(msgspec.Struct, frozen=True, rename="camel"):
    """Whether a device is there. `number` orders changes; `since`, `last_seen` are ns UTC (0: never)."""

    device_id: DeviceId
    online: bool = False
    since: int = 0
    last_seen: int = 0
    number: int = 0
    reason: str = ""
    status: dict[str, object] | None = None
    """The last status document (with health and errors), as the device sent it."""


class DevicePage(msgspec.Struct, frozen=True):
    """One page of devices with their presence; `cursor` opens the next one, None after the last."""

    items: list[tuple[Device, Presence]]
    cursor: str | None
    total: int


class Group(msgspec.Struct, frozen=True, rename="camel"):
    """A static group of devices."""

    name: str
    tenant: TenantId = DEFAULT_TENANT
    description: str = ""
    size: int = 0


class TenantQuota(msgspec.Struct, frozen=True, rename="camel"):
    """What a tenant may use. 0: what the settings say for each tenant."""

    devices: int = 0
    connections: int = 0
    messages_per_s: int = 0
    bytes_per_s: int = 0
    retained_bytes: int = 0
    quarantine_bytes: int = 0
    requests_per_s: int = 0
    """Of the API, by those who see this tenant and not all."""


class Tenant(msgspec.Struct, frozen=True, rename="camel"):
    """A tenant, how many devices it has, and what it may use. `created` is ns UTC."""

    name: TenantId
    created: int
    devices: int
    quota: TenantQuota
