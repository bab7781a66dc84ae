"""A tenant that has all its devices: what another sends that would register itself is kept, told, and let in later."""

from godwit.contract import codes
from godwit.contract.ids import TenantId
from godwit.server.broker.refusals import REASONS
from godwit.server.ingest.directory import FULL_NS
from godwit.server.registry.model import Device, Lifecycle

HELLO = {"readings": {"v": 1.5}}


def limit(road, most: int) -> None:
    road.directory.devices_max_of = lambda tenant: most if tenant == "default" else 0


def test_a_device_too_many_is_kept_in_quarantine_and_told_and_registered_nowhere(road):
    limit(road, 2)
    sent = {name: road.send(HELLO, device=name, peer=road.peer(name)) for name in ("a", "b", "c", "a")}
    assert [each.code for each in sent.values()] == ["", "", codes.QUOTA_DEVICES]
    assert REASONS[sent["c"].code] == 0x97
    road.commit()
    assert road.directory.unclaimed == ["a", "b"]
    (kept,) = road.store.quarantine()
    assert (kept.device_id, kept.code, kept.tenant) == ("c", "quota-devices", "default")
    assert "has 2 devices and may have 2" in kept.detail
    assert road.ingest.stats().full == ["default"]


def test_all_channels_of_it_and_who_is_registered_goes_on(road):
    limit(road, 1)
    road.send(HELLO, device="a", peer=road.peer("a"))
    for channel in ("telemetry", "status", "events"):
        message = {"status": "online"} if channel == "status" else {"event": "boot"} if channel == "events" else HELLO
        assert road.send(message, device="b", channel=channel, peer=road.peer("b")).code == codes.QUOTA_DEVICES
    assert road.send(HELLO, device="a", peer=road.peer("a")).code == ""


def test_with_room_again_it_comes_in_and_nobody_is_warned_any_more(road):
    limit(road, 1)
    road.send(HELLO, device="a", peer=road.peer("a"))
    road.send(HELLO, device="b", peer=road.peer("b"))
    road.directory.forget("a")
    assert road.ingest.stats().full == []
    assert road.send(HELLO, device="b", peer=road.peer("b")).code == ""
    assert road.send(HELLO, device="a", peer=road.peer("a")).code == codes.QUOTA_DEVICES
    limit(road, 0)
    assert road.send(HELLO, device="a", peer=road.peer("a")).code == ""


def test_a_warning_passes_when_nobody_has_come_for_an_hour(road):
    limit(road, 1)
    road.send(HELLO, device="a", peer=road.peer("a"))
    road.send(HELLO, device="b", peer=road.peer("b"))
    road.now += FULL_NS - 1
    assert road.ingest.stats().full == ["default"]
    road.now += 1
    assert road.ingest.stats().full == []


def test_devices_are_counted_where_they_are(road):
    directory, acme = road.directory, TenantId("acme")
    road.send(HELLO, device="a", peer=road.peer("a"))
    directory.learn(Device("b", lifecycle=Lifecycle.ACTIVE))
    directory.learn(Device("b", lifecycle=Lifecycle.SUSPENDED))
    assert directory.known == {"default": 2}
    directory.learn(Device("a", acme))
    assert (directory.known["default"], directory.known["acme"]) == (1, 1)
    directory.forget("b")
    directory.forget("b")
    directory.forget("nobody")
    assert (directory.known["default"], directory.known["acme"]) == (0, 1)
