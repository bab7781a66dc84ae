"""What every database under the registry has to do: SQLite by the unit tests, PostgreSQL beside them."""

import pytest

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId, TenantId
from godwit.server.registry.model import (
    DeclaredReading,
    Device,
    DeviceType,
    Group,
    Lifecycle,
    Location,
    Presence,
    Principal,
)
from godwit.server.registry.service import Registry

ADMIN = Principal("admin")
ACME = Principal("acme-user", (TenantId("acme"),))
OTHER = Principal("other-user", (TenantId("other"),))


def all_pages(registry: Registry, **query: object) -> list[str]:
    seen, cursor = [], None
    while True:
        page = registry.devices(ADMIN, cursor=cursor, limit=7, **query)
        seen += [device.device_id for device, _ in page.items]
        cursor = page.cursor
        if cursor is None:
            return seen


class RegistrySuite:
    """Inherit, with a fixture `registry`."""

    def test_pages_hold_every_device_once_in_every_order(self, registry: Registry) -> None:
        ids = [f"d-{number:03d}" for number in range(60)]
        registry.register_unclaimed([DeviceId(each) for each in ids], 5)
        registry.write_presence([Presence(DeviceId(each), at % 2 == 0, 1, at % 9, 1) for at, each in enumerate(ids)])
        for sort in ("deviceId", "name", "created", "lastSeen", "type", "online"):
            for descending in (False, True):
                found = all_pages(registry, sort=sort, descending=descending)
                assert sorted(found) == ids, (sort, descending)
        times = [presence.last_seen for _, presence in registry.devices(ADMIN, sort="lastSeen", limit=60).items]
        assert times == sorted(times)
        assert registry.devices(ADMIN, online=True).total == 30
        assert registry.counts(ADMIN)["online"] == 30

    def test_search_and_tags(self, registry: Registry) -> None:
        registry.create_device(ADMIN, Device(DeviceId("pump-1"), name="North 50%", tags={"hall": "1", "line": "a"}))
        registry.create_device(ADMIN, Device(DeviceId("pump_2"), name="South", tags={"hall": "1", "line": "b"}))
        assert registry.devices(ADMIN, search="PUMP").total == 2
        assert registry.devices(ADMIN, search="north").total == 1
        assert registry.devices(ADMIN, search="50%").total == 1
        assert registry.devices(ADMIN, search="p_2").total == 1
        assert registry.devices(ADMIN, tags={"hall": "1"}).total == 2
        assert registry.devices(ADMIN, tags={"hall": "1", "line": "b"}).total == 1
        registry.change_device(ADMIN, DeviceId("pump_2"), {"tags": {}})
        assert registry.devices(ADMIN, tags={"hall": "1"}).total == 1

    def test_a_foreign_id_and_a_free_id_get_the_same_answer(self, registry: Registry) -> None:
        for tenant in ("acme", "other"):
            registry.put_tenant(ADMIN, TenantId(tenant))
        registry.create_device(ACME, Device(DeviceId("ours"), TenantId("acme")))
        for call in (registry.device, registry.presence, registry.retire_device, registry.erase_device):
            said = []
            for device in ("ours", "free"):
                with pytest.raises(RejectedError) as caught:
                    call(OTHER, DeviceId(device))
                said.append((caught.value.code, str(caught.value).replace(device, "")))
            assert said[0] == said[1]
        assert registry.devices(OTHER).total == 0
        assert registry.device(ACME, DeviceId("ours")).tenant == "acme"
        with pytest.raises(RejectedError) as caught:
            registry.create_device(OTHER, Device(DeviceId("x"), TenantId("acme")))
        assert caught.value.code == "not-found"

    def test_changes_are_told_and_types_come_back(self, registry: Registry) -> None:
        told: list[object] = []
        registry.on_change(told.append)
        kind = DeviceType("pump", readings=(DeclaredReading("t", "Cel", -40, 85),), codec="cbor", retention_days=30)
        registry.put_type(ADMIN, kind)
        device = registry.create_device(
            ADMIN, Device(DeviceId("p"), device_type="pump", metadata={"a": [1, {"b": None}]})
        )
        registry.change_device(ADMIN, DeviceId("p"), {"location": {"name": "Hall", "latitude": 1.5, "longitude": 2.5}})
        registry.write_places([(DeviceId("p"), 3.5, 4.5, None)])
        assert registry.types(ADMIN) == [kind]
        found = registry.device(ADMIN, DeviceId("p"))
        assert found.location == Location("Hall", 3.5, 4.5, None)
        assert found.metadata == {"a": [1, {"b": None}]}
        assert registry.positions(ADMIN) == [(DeviceId("p"), 3.5, 4.5, False)]
        with pytest.raises(RejectedError):
            registry.delete_type(ADMIN, TenantId("default"), kind.name)
        registry.erase_device(ADMIN, DeviceId("p"))
        assert [type(each) for each in told] == [DeviceType, Device, Device, str]
        assert told[1] == device
        devices, types = registry.load_all()
        assert (devices, types) == ([], [kind])

    def test_presence_keeps_its_order(self, registry: Registry) -> None:
        registry.register_unclaimed([DeviceId("a"), DeviceId("a")], 5)
        registry.write_presence([Presence(DeviceId("a"), True, 10, 20, 8, "connected", {"status": "online"})])
        registry.write_presence([Presence(DeviceId("a"), False, 1, 2, 7, "late news")])
        found = registry.presence(ADMIN, DeviceId("a"))
        assert (found.online, found.number, found.status) == (True, 8, {"status": "online"})
        assert registry.device(ADMIN, DeviceId("a")).lifecycle is Lifecycle.UNCLAIMED
        assert registry.load_presence() == [found]

    def test_groups(self, registry: Registry) -> None:
        registry.register_unclaimed([DeviceId(each) for each in "abc"], 5)
        tenant = TenantId("default")
        registry.put_group(ADMIN, Group("north", description="one"))
        assert registry.put_group(ADMIN, Group("north", description="two")).description == "two"
        assert registry.add_to_group(ADMIN, tenant, "north", [DeviceId("a"), DeviceId("b"), DeviceId("a")]) == 2
        assert all_pages(registry, group="north") == ["a", "b"]
        registry.erase_device(ADMIN, DeviceId("a"))
        assert registry.groups(ADMIN)[0].size == 1
        assert registry.remove_from_group(ADMIN, tenant, "north", [DeviceId("b"), DeviceId("c")]) == 0
        registry.delete_group(ADMIN, tenant, "north")
        with pytest.raises(RejectedError):
            registry.delete_group(ADMIN, tenant, "north")
