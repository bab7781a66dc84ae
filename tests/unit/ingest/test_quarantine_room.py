"""Is what is kept of nonsense bounded, for each sender and in all?"""

from godwit.server.ingest.quarantine_room import STRANGERS, QuarantineRoom


def test_a_device_a_tenant_and_all_have_their_bounds() -> None:
    room = QuarantineRoom(total=100, tenant=60, device=20)
    assert room.take("a", "d1", 20)
    assert not room.take("a", "d1", 1)
    assert room.take("a", "d2", 20)
    assert room.take("a", "d3", 20)
    assert not room.take("a", "d4", 1)
    assert room.take("b", "e1", 20)
    assert room.take("b", "e2", 20)
    assert not room.take("c", "f1", 1)


def test_strangers_share_one_bound() -> None:
    room = QuarantineRoom(device=10)
    assert all(room.take("default", STRANGERS, 10) for _ in range(4))
    assert not room.take("default", STRANGERS, 1)


def test_sizes_are_taken_up_again() -> None:
    room = QuarantineRoom(device=10)
    assert room.take("a", "d", 10)
    room.restore({("a", "d"): 4, ("a", "gone"): 7}, {"d": object()})
    assert room.take("a", "d", 6)
    assert not room.take("a", "d", 1)


def test_a_tenant_may_have_a_bound_of_its_own():
    bounds = {"small": 10}
    room = QuarantineRoom(tenant=100, tenant_max_of=lambda tenant: bounds.get(tenant, 0))
    assert room.take("small", "a", 10)
    assert not room.take("small", "b", 1)
    assert room.take("other", "c", 90)
    bounds["small"] = 20
    assert room.take("small", "b", 1)
