"""Is late what comes long after newer data of its stream, and nothing else?"""

NS = 1_000_000_000
T0 = 1_700_000_000 * NS
HOUR = 3_600 * NS


def test_a_backlog_after_an_outage_is_not_late(road, samples):
    road.send(samples(0, 10))
    road.now += 4 * 24 * HOUR
    for first in range(10, 100_000, 5_000):  # a day at one a second, while the platform was away
        road.send(samples(first, 5_000))
    road.commit()
    assert road.ledger().late == 0


def test_what_comes_after_newer_data_is_late_beyond_the_threshold(road, samples):
    road.send(samples(10_000, 1))
    road.send(samples(0, 1))  # a hole is filled: ten thousand seconds late
    road.send(samples(9_700, 1))  # 300 s: just not
    road.send(samples(9_699, 1))
    road.commit()
    assert road.ledger().late == 2
    assert road.crash().ledger().late == 2


def test_a_duplicate_is_not_late_again(road, samples):
    road.send(samples(0, 1))
    road.send(samples(10_000, 1))
    road.send(samples(0, 1))
    road.commit()
    assert (road.ledger().late, road.ledger().duplicate) == (0, 1)


def test_streams_do_not_wait_for_each_other(road, samples):
    """An alarm goes before a week of backlog."""
    road.send(samples(0, 1, at=T0 + 24 * 7 * HOUR, stream="alarms"))
    road.send(samples(0, 1_000))
    road.commit()
    assert road.ledger().late == 0


def test_an_older_epoch_that_comes_after_a_newer_one_is_late(road, samples):
    """The spool was set aside, and is read again later."""
    road.send(samples(0, 10, epoch="old"))
    road.send(samples(0, 10, epoch="new", at=T0 + HOUR))
    road.send(samples(10, 10, epoch="old"))
    road.commit()
    assert road.ledger().late == 10
    assert road.values()["s", "old"] == [(n, n) for n in range(20)]
    for count, after in enumerate(road.restarts()):
        after.send(samples(20 + count, 1, epoch="even older"))
        after.commit()
    assert after.ledger().late == 12


def test_within_one_message_the_order_does_not_matter(road):
    listed = [{"timestamp": T0 - n * HOUR, "readings": {"v": n}} for n in range(5)]
    road.send({"stream": "s", "epoch": "e", "seq": 0, "samples": listed})
    road.commit()
    assert road.ledger().late == 0


def test_a_clock_that_was_ahead_does_not_make_all_that_follows_late(road):
    for ahead in (3_000, 0, 10, 20):
        road.send({"timestamp": road.now + ahead * NS, "readings": {"v": 1}})
        road.now += NS
    road.commit()
    assert road.ledger().late == 0


def test_plain_devices_have_late_data_too_also_after_a_restart(road):
    road.send({"timestamp": T0 + HOUR, "readings": {"v": 1}})
    road.commit()
    for after in road.restarts():
        after.send({"timestamp": T0, "readings": {"v": 1}})
        after.commit()
    assert after.ledger().late == 2
