"""Does the server ask for what is missing, believe what is lost, and never say `stored` of what is neither?"""

from itertools import pairwise
from typing import Any

NS = 1_000_000_000


def gap(first: int, last: int, reason: str = "evicted", **more: Any) -> dict:
    return {"stream": "s", "epoch": "e", "gaps": [{"first": first, "last": last, "reason": reason}]} | more


def test_a_hole_is_asked_for_when_it_does_not_close_by_itself(road, samples):
    road.send(samples(0, 5))
    road.send(samples(8, 2))
    road.send(samples(12, 1))
    road.commit()
    road.later(2)
    assert road.notices("gap-wanted") == []
    road.later(2)
    assert road.notices("gap-wanted") == [{"stream": "s", "epoch": "e", "ranges": [[5, 7], [10, 11]]}]
    road.send(samples(5, 3))
    road.send(samples(10, 2))
    road.commit()
    road.later(1_000)
    assert len(road.notices("gap-wanted")) == 1
    assert (road.ledger().gaps, road.ledger().accepted) == (0, 13)


def test_what_the_network_reorders_is_not_asked_for(road, samples):
    road.send(samples(5, 5))
    road.send(samples(0, 5))
    road.commit()
    road.later(10)
    assert road.notices("gap-wanted") == []


def test_it_asks_again_with_growing_pauses_while_the_device_is_heard_of(road, samples):
    road.send(samples(0, 1))
    road.send(samples(2, 1))
    road.commit()
    asked = []
    for second in range(200):
        road.later(1)
        road.send({"status": "busy"}, channel="events") if second % 2 else None
        road.send(samples(3 + second, 1))
        if len(road.notices("gap-wanted")) > len(asked):
            asked.append(second)
    pauses = [b - a for a, b in pairwise(asked)]
    assert pauses == [5, 10, 30, 60]


def test_nobody_is_asked_who_is_not_there(road, samples):
    road.send(samples(0, 1))
    road.send(samples(2, 1))
    road.commit()
    road.later(5)
    for _ in range(20):
        road.later(600)
    assert len(road.notices("gap-wanted")) == 1
    road.send({"status": "online"}, channel="status")
    road.commit()
    assert len(road.notices("gap-wanted")) == 2  # at once


def test_devices_without_numbers_are_not_asked(road):
    for n in range(5):
        road.send({"messageId": str(n), "readings": {"v": n}})
        road.send({"readings": {"v": n}})
    road.commit()
    road.later(10)
    assert road.notices("gap-wanted") == []


def test_a_restarted_server_asks_once_the_device_is_heard_of(road, samples):
    road.send(samples(0, 1))
    road.send(samples(4, 1))
    road.commit()
    for after in road.restarts():
        after.later(10)
        assert after.notices("gap-wanted") == []
        after.send(samples(5, 1))
        after.commit()
        after.later(1)
        assert after.notices("gap-wanted") == [{"stream": "s", "epoch": "e", "ranges": [[1, 3]]}]


def test_so_many_ranges_are_asked_for_at_a_time(road, samples):
    for n in range(0, 400, 2):
        road.send(samples(n, 1))
    road.commit()
    road.later(5)
    (wanted,) = road.notices("gap-wanted")
    assert wanted["ranges"] == [[n, n] for n in range(1, 128, 2)]


def test_what_the_device_lost_is_known_counted_once_and_not_asked_for(road, samples):
    road.send(samples(0, 3), qos=0)
    road.send(samples(10, 2), qos=0)
    for _ in range(2):  # the same record twice counts once
        road.send(gap(3, 9), qos=0)
        road.commit()
    road.later(10)
    ledger = road.ledger()
    assert (ledger.gaps, ledger.lost, ledger.accepted) == (0, {"evicted": 7}, 5)
    assert road.notices("gap-wanted") == []
    assert road.stored()[-1] == ("s", "e", 11)
    assert [(each.first, each.last, each.state, each.reason) for each in road.ingest.gaps("d")] == [
        (3, 9, "lost", "evicted")
    ]
    for after in road.restarts():
        assert after.ledger() == ledger
        assert after.track().low == 12


def test_a_record_never_takes_back_what_arrived(road, samples):
    road.send(samples(0, 3))
    road.send(samples(5, 1))
    road.send(gap(1, 9))
    road.commit()
    assert road.ledger().lost == {"evicted": 6}
    assert road.track().low == 10
    assert road.values()["s", "e"] == [(0, 0), (1, 1), (2, 2), (5, 5)]


def test_a_lost_sample_that_arrives_after_all_is_accepted_and_uncounted(road, samples):
    road.send(gap(0, 9))
    road.send(samples(4, 2))
    road.commit()
    assert (road.ledger().lost, road.ledger().accepted) == ({"evicted": 8}, 2)
    road.send(samples(4, 2))
    road.commit()
    assert (road.ledger().lost, road.ledger().duplicate) == ({"evicted": 8}, 2)
    assert road.crash().ledger() == road.ledger()


def test_a_record_may_name_other_streams_and_come_with_samples(road, samples):
    said = [{"first": 0, "last": 1, "reason": "damaged", "stream": "alarms", "epoch": "x"}]
    road.send(samples(0, 2, gaps=said))
    road.commit()
    assert road.track("alarms", "x").low == 2
    assert road.track().low == 2
    assert (road.ledger().lost, road.ledger().accepted) == ({"damaged": 2}, 2)


def test_of_a_stream_that_never_came_by_telemetry_nothing_is_missing(road):
    """Events are numbered by the device as well; what its spool had to give up of them is told like samples."""
    road.send(gap(5, 9, stream="events"), qos=0)
    road.send({"status": "online"}, channel="status")
    road.commit()
    road.later(10)
    assert (road.ledger().gaps, road.ledger().lost) == (0, {"evicted": 5})
    assert [each.state for each in road.ingest.gaps("d")] == ["lost"]
    assert road.notices("gap-wanted") == []


def test_records_are_not_believed_without_an_epoch_or_of_nonsense(road):
    for bad in (
        {"gaps": [{"first": 0, "last": 1}]},
        gap(5, 4),
        gap(-1, 4),
        gap(0, 2**62),
        gap(0, 1, "Because!"),
        gap(0, 1, ""),
        {"stream": "s", "epoch": "e", "gaps": [{"first": 0, "last": 1}] * 1_001},
        {"stream": "s", "epoch": "e", "gaps": []},
    ):
        assert road.send(bad).code in {"wrong-type", "invalid-name", "too-many-readings", "unknown-shape"}, bad


def test_stored_says_only_what_is_durable_or_lost(road, samples):
    road.send(samples(0, 3), qos=0)
    road.send(samples(5, 3), qos=0)
    road.commit()
    assert road.stored() == [("s", "e", 2)]
    road.later(1)
    road.send(gap(3, 3), qos=0)
    road.commit()
    assert road.stored()[-1] == ("s", "e", 3)
    after = road.crash()
    after.send({"status": "online"}, channel="status")
    after.commit()
    assert after.stored() == [("s", "e", 3)]


def test_a_server_restored_from_a_backup_learns_what_is_gone_and_gets_the_rest(road, samples):
    """The device was told `stored` up to 299 and deleted that; the backup knows 0 to 99. It still has 250 to 299."""
    road.send(samples(0, 100), qos=0)
    road.commit()
    road.fold()
    backup = road.crash()
    road = backup.crash()  # as the first one would have gone on: it is gone now
    road.send(samples(300, 5), qos=0)
    road.commit()
    assert road.stored() == [("s", "e", 99)]  # the device knows better, and goes on
    road.later(5)
    assert road.notices("gap-wanted") == [{"stream": "s", "epoch": "e", "ranges": [[100, 299]]}]
    road.send(samples(250, 50), qos=0)
    road.send(gap(100, 249, "deleted"), qos=0)
    road.commit()
    road.later(1_000)
    assert len(road.notices("gap-wanted")) == 1
    assert road.track().low == 305
    assert (road.ledger().gaps, road.ledger().lost) == (0, {"deleted": 150})
    assert [n for n, _ in road.values()["s", "e"]] == [*range(100), *range(250, 305)]


def test_with_too_many_holes_a_message_waits_in_quarantine_and_nothing_is_called_stored(road, samples):
    for n in range(0, 2_050, 2):
        road.send(samples(n, 1))
    refused = road.send(samples(2_050, 1))
    road.commit()
    assert refused.code == "too-many-gaps"
    assert road.track().low == 1
    assert road.ledger().quarantined == {"too-many-gaps": 1}
    road.send(samples(1, 1))  # the device answers
    assert road.send(samples(2_050, 1)).code == ""


def test_a_device_that_never_answers_gives_way_to_its_newer_data(road, samples):
    for n in range(0, 2_050, 2):
        road.send(samples(n, 1))
    road.commit()
    for _ in range(60):
        road.later(10)
        road.send({"event": "alive"}, channel="events")
    assert road.send(samples(2_050, 1)).code == ""
    road.commit()
    assert road.ledger().lost == {"unanswered": 1}
    assert road.track().low == 3
    assert road.crash().ledger() == road.ledger()
    road.send(samples(1, 1))
    assert road.ledger().lost == {}
