"""What other rooms ask of the registry. All methods block: threads call them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from godwit.contract.ids import DeviceId, TenantId, TypeName
from godwit.server.registry.model import Device, DevicePage, DeviceType, Group, Presence, Principal
from godwit.server.registry.policies import Policies
from godwit.server.registry.tenants import Tenants


class RegistryDoor(Protocol):
    """What API, console and ingest ask of the registry. Raises RejectedError (codes not-found, exists, invalid-...)."""

    def devices(
        self,
        who: Principal,
        *,
        search: str = "",
        tenant: TenantId | None = None,
        device_type: TypeName | None = None,
        lifecycle: str | None = None,
        group: str | None = None,
        online: bool | None = None,
        tags: dict[str, str] | None = None,
        sort: str = "deviceId",
        descending: bool = False,
        cursor: str | None = None,
        limit: int = 100,
    ) -> DevicePage:
        """Return one page of devices."""
        ...

    def device(self, who: Principal, device_id: DeviceId) -> Device:
        """Return a device."""
        ...

    def presence(self, who: Principal, device_id: DeviceId) -> Presence:
        """Return whether a device is there."""
        ...

    def create_device(self, who: Principal, device: Device) -> Device:
        """Insert a device."""
        ...

    def take_in(self, who: Principal, device: Device, groups: Sequence[str] = ()) -> Device:
        """Insert a device, or make an unclaimed one this tenant's own, in these groups."""
        ...

    def change_device(self, who: Principal, device_id: DeviceId, changes: dict[str, object]) -> Device:
        """Change some fields (camelCase) of a device."""
        ...

    def retire_device(self, who: Principal, device_id: DeviceId) -> Device:
        """Retire a device: its data stays, its messages are refused."""
        ...

    def erase_device(self, who: Principal, device_id: DeviceId) -> None:
        """Remove a device from the registry."""
        ...

    def counts(self, who: Principal) -> dict[str, int]:
        """Return fleet numbers: total, online, unclaimed, active, suspended, retired."""
        ...

    def positions(self, who: Principal, limit: int = 10_000) -> list[tuple[DeviceId, float, float, bool]]:
        """Return (device, latitude, longitude, online) of devices with a known place, for the map."""
        ...

    def types(self, who: Principal) -> list[DeviceType]:
        """Return the device types."""
        ...

    def put_type(self, who: Principal, device_type: DeviceType) -> DeviceType:
        """Insert or replace a device type."""
        ...

    def delete_type(self, who: Principal, tenant: TenantId, name: TypeName) -> None:
        """Remove a device type that no device has."""
        ...

    def groups(self, who: Principal) -> list[Group]:
        """Return the groups with their sizes."""
        ...

    def put_group(self, who: Principal, group: Group) -> Group:
        """Insert a group or change its description."""
        ...

    def delete_group(self, who: Principal, tenant: TenantId, name: str) -> None:
        """Remove a group; its devices stay."""
        ...

    def add_to_group(self, who: Principal, tenant: TenantId, name: str, devices: Sequence[DeviceId]) -> int:
        """Add devices; returns the size of the group."""
        ...

    def remove_from_group(self, who: Principal, tenant: TenantId, name: str, devices: Sequence[DeviceId]) -> int:
        """Remove devices; returns the size of the group."""
        ...

    def tenants(self, who: Principal) -> list[TenantId]:
        """Return the tenants."""
        ...

    def put_tenant(self, who: Principal, tenant: TenantId) -> None:
        """Add a tenant."""
        ...

    @property
    def policies(self) -> Policies:
        """What tenants want of their devices' messages."""
        ...

    # for the machine itself, without a principal
    def load_all(self) -> tuple[list[Device], list[DeviceType]]:
        """Return all devices and types, for the directory on the hot path, at start."""
        ...

    def register_unclaimed(self, devices: Iterable[DeviceId], now: int) -> None:
        """Insert devices as unclaimed, keeping those that exist. Durable on return."""
        ...

    def write_presence(self, rows: Sequence[Presence]) -> None:
        """Upsert presence where `number` is higher than the stored one."""
        ...

    def write_places(self, rows: Sequence[tuple[DeviceId, float, float, float | None]]) -> None:
        """Keep the last reported position of devices (latitude, longitude, altitude)."""
        ...

    def load_presence(self) -> list[Presence]:
        """Return the presence of all devices."""
        ...

    @property
    def tenancy(self) -> Tenants:
        """Return the tenants with their quotas."""
        ...

    def on_change(self, listener: Callable[[Device | DeviceType | DeviceId], None]) -> None:
        """Call `listener` (from the writing thread, after commit) with what changed; a bare id was erased."""
        ...
