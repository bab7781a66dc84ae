"""Is each tenant held to its quota, by who may say so, and can an empty one go?"""

from pathlib import Path

import pytest

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DEFAULT_TENANT, DeviceId, TenantId
from godwit.server.registry.model import Device, Group, Principal, TenantQuota
from godwit.server.registry.service import Registry
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine

ADMIN = Principal("admin")
ACME = TenantId("acme")
OF_ACME = Principal("ada", (ACME,))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(Database(open_engine("", tmp_path)))
    made.put_tenant(ADMIN, ACME)
    return made


def code(act, *arguments) -> str:
    with pytest.raises(RejectedError) as refused:
        act(*arguments)
    return refused.value.code


def device(name: str, tenant: TenantId = ACME) -> Device:
    return Device(DeviceId(name), tenant)


def test_devices_are_counted_one_by_one_and_in_batches(registry: Registry) -> None:
    registry.tenancy.set_quota(ADMIN, ACME, {"devices": 3})
    registry.create_device(ADMIN, device("a"))
    found = registry.create_devices(ADMIN, [(device(each), ()) for each in ("a", "b", "c", "d")])
    assert [getattr(each, "code", "") for each in found] == ["", "", "", "quota-devices"]  # `a` is there already
    assert code(registry.create_device, ADMIN, device("e")) == "quota-devices"
    registry.create_device(ADMIN, device("f", DEFAULT_TENANT))  # others are not concerned
    registry.erase_device(ADMIN, DeviceId("b"))
    registry.create_device(ADMIN, device("e"))


def test_a_device_is_not_handed_to_who_has_no_room(registry: Registry) -> None:
    registry.tenancy.set_quota(ADMIN, ACME, {"devices": 1})
    registry.create_device(ADMIN, device("a"))
    registry.create_device(ADMIN, device("b", DEFAULT_TENANT))
    assert code(registry.hand_over, ADMIN, DeviceId("b"), ACME) == "quota-devices"
    assert registry.device(ADMIN, DeviceId("b")).tenant == DEFAULT_TENANT


def test_a_quota_is_the_installations_to_change_and_everybodys_of_the_tenant_to_see(registry: Registry) -> None:
    told = []
    registry.tenancy.on_quota(lambda tenant, quota: told.append((tenant, quota.messages_per_s)))
    changed = registry.tenancy.set_quota(ADMIN, ACME, {"messages_per_s": 5})
    assert changed.quota == TenantQuota(messages_per_s=5)
    assert registry.tenancy.set_quota(ADMIN, ACME, {"connections": 7}).quota.messages_per_s == 5
    assert registry.tenancy.get(OF_ACME, ACME).quota.connections == 7
    assert told == [(ACME, 5), (ACME, 5)]
    assert code(registry.tenancy.set_quota, OF_ACME, ACME, {"messages_per_s": 0}) == "forbidden"
    assert code(registry.tenancy.get, OF_ACME, DEFAULT_TENANT) == "not-found"
    assert code(registry.tenancy.get, OF_ACME, TenantId("nobody")) == "not-found"
    assert code(registry.tenancy.set_quota, ADMIN, TenantId("nobody"), {}) == "not-found"


def test_quotas_are_there_after_a_restart(tmp_path: Path) -> None:
    database = Database(open_engine("", tmp_path))
    first = Registry(database)
    first.put_tenant(ADMIN, ACME)
    first.tenancy.set_quota(ADMIN, ACME, {"retained_bytes": 9})
    assert Registry(database).tenancy.quota_of("acme").retained_bytes == 9
    assert Registry(database).tenancy.quota_of("other") == TenantQuota()


def test_only_an_empty_tenant_goes(registry: Registry) -> None:
    registry.create_device(ADMIN, device("a"))
    registry.put_group(ADMIN, Group("hall", ACME))
    with pytest.raises(RejectedError, match="devices, groups") as refused:
        registry.tenancy.remove(ADMIN, ACME)
    assert refused.value.code == "in-use"
    registry.erase_device(ADMIN, DeviceId("a"))
    registry.delete_group(ADMIN, ACME, "hall")
    assert code(registry.tenancy.remove, OF_ACME, ACME) == "forbidden"
    registry.tenancy.remove(ADMIN, ACME)
    assert registry.tenants(ADMIN) == [DEFAULT_TENANT]
    assert code(registry.tenancy.remove, ADMIN, ACME) == "not-found"
    assert code(registry.tenancy.remove, ADMIN, DEFAULT_TENANT) == "in-use"
