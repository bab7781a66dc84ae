"""Does an erased device leave nothing behind that another one would be taken for?"""

import asyncio


def test_after_erasing_and_a_restart_another_device_does_not_inherit_what_arrived(road, samples):
    road.send(samples(0, 5), device="a")
    road.send(samples(0, 50), device="b")
    road.commit()
    for is_folded in (False, True):
        if is_folded:
            road.fold()
        asyncio.run(erase(road, "b"))
        road = road.crash()
        road.send(samples(0, 10), device="b")
        road.send(samples(0, 10), device=f"c{is_folded}")
        road.commit()
        assert road.ledger("b").accepted == 10
        assert road.ledger(f"c{is_folded}").accepted == 10
        assert road.track(device="a").low == 5


def test_the_newest_value_of_an_erased_device_is_not_shown_as_another_ones(road, samples):
    road.send(samples(5_000, 1), device="gone")
    road.commit()
    road.fold()
    asyncio.run(erase(road, "gone"))
    road = road.crash()
    road.send(samples(0, 1), device="other")
    road.commit()
    assert [each.value for each in road.ingest.latest("other")] == [0.0]


async def erase(road, device_id):
    road.ingest._loop = asyncio.get_running_loop()
    await road.ingest.erase(device_id)
