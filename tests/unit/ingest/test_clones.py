"""Are two devices under one name told apart by what they say, nothing lost or mixed? Is a redelivery never one?"""

import json
import random

from hypothesis import given, settings
from hypothesis import strategies as st

NS = 1_000_000_000
T0 = 1_700_000_000 * NS


def test_a_redelivery_is_no_clone(road, samples):
    for first in range(0, 200, 5):
        road.send(samples(first, 5))
    road.commit()
    for first, count in ((195, 5), (0, 200), (150, 50), (199, 1), (180, 40)):  # cut differently, some of it new
        road.send(samples(first, count, sentAt=T0 + first))
    road.commit()
    assert road.ledger().cloned == 0
    assert road.notices("clone-detected") == []
    assert road.values()["s", "e"] == [(n, n) for n in range(220)]


def test_a_redelivery_within_one_group_is_no_clone(road, samples):
    for _ in range(3):
        road.send(samples(0, 5))
        road.send(samples(3, 5))
    road.commit()
    assert road.ledger().cloned == 0
    assert road.values()["s", "e"] == [(n, n) for n in range(8)]


def test_other_content_under_the_same_number_is_kept_apart_within_one_group_too(road, samples):
    for is_committed in (False, True):
        road.send(samples(0, 5, epoch=str(is_committed)))
        if is_committed:
            road.commit()
        road.send(samples(3, 4, epoch=str(is_committed), value=lambda n: -n))
        road.commit()
        values = road.values()
        assert values["s", str(is_committed)] == [(n, n) for n in range(5)]
        assert values["s", f"{is_committed}~2"] == [(n, -n) for n in range(3, 7)]


def test_equal_values_at_other_times_are_other_samples(road, samples):
    road.send(samples(0, 5, value=lambda _: 1.0))
    road.send(samples(0, 5, value=lambda _: 1.0, at=T0 + 1))
    road.commit()
    assert len(road.values()["s", "e~2"]) == 5


def test_texts_booleans_integers_and_samples_without_a_time_are_compared_too(road):
    def say(text, *, qos=1):
        reading = {"text": text, "b": True, "n": 2**62, "x": 1}
        road.send({"stream": "s", "epoch": "e", "seq": 0, "readings": reading}, qos=qos)
        road.now += NS
        road.commit()

    say("on")
    say("on")
    assert road.ledger().cloned == 0
    say("off")
    assert road.ledger().cloned == 1


def test_what_is_quarantined_and_comes_again_is_no_clone(road, samples):
    for at in (road.now + 10**6 * NS, T0):
        road.send(samples(0, 3, at=at, epoch=str(at)))
        road.send(samples(0, 3, at=at, epoch=str(at)))
        road.commit()
    road.now += 10**6 * NS  # it is no longer in the future
    road.send(samples(0, 3, at=road.now, epoch=str(road.now)))
    assert road.ledger().cloned == 0


def test_the_owner_and_the_device_are_told_once(road, samples):
    road.send(samples(0, 50))
    first, second = road.peer(), road.peer()
    for n in range(20):
        road.send(samples(50 + n, 1), peer=first)
        road.send(samples(50 + n, 1, value=lambda n: -n), peer=second)
        road.commit()
    assert road.notices("clone-detected") == [{"stream": "s", "epoch": "e", "first": 50, "keptAs": "e~2"}]
    (event,) = road.store.documents(0, ["events"], 9)
    said = json.loads(event.payload)
    assert (said["event"], said["severity"], said["details"]["keptAs"]) == ("clone-detected", "warning", "e~2")
    (clone,) = road.ledger().clones
    assert (clone.epoch, clone.kept_as, clone.first, clone.samples) == ("e", "e~2", 50, 20)
    assert (road.ledger().cloned, road.ledger().accepted, road.ledger().gaps) == (20, 90, 0)
    road.send(samples(69, 2, value=lambda n: -n), peer=road.peer())  # it comes again, and has heard nothing
    road.commit()
    assert len(road.notices("clone-detected")) == 2


def test_a_device_restored_from_an_image_of_its_disk(road, samples):
    """Its numbers go back by a week; what lay in its spool is known, what it measures now is new."""
    for first in range(0, 5_000, 100):
        road.send(samples(first, 100))
    road.commit()
    road.fold()
    road = road.crash()
    later = T0 + 1_000_000 * NS
    road.send(samples(990, 20))  # from the spool, as it was in the image
    road.send(samples(1_010, 1, at=later - 1_010 * NS + 100, value=lambda n: -n))
    road.send(samples(1_011, 500, at=later, value=lambda n: -n))
    road.commit()
    assert road.ledger().duplicate == 20
    assert road.values()["s", "e"] == [(n, n) for n in range(5_000)]
    assert road.values()["s", "e~2"] == [(n, -n) for n in range(1_010, 1_511)]


def test_a_device_that_counts_anew_at_each_start_loses_nothing(road, samples):
    """It uses one epoch for ever: each of its lives is kept apart, and named."""
    for life in range(4):
        peer = road.peer()
        for n in range(30):
            road.send(samples(n, 1, at=T0 + life * 1_000 * NS, value=lambda n, life=life: life * 100 + n), peer=peer)
        road.commit()
    values = road.values()
    assert [values["s", epoch] for epoch in ("e", "e~2", "e~3", "e~4")] == [
        [(n, life * 100 + n) for n in range(30)] for life in range(4)
    ]
    assert road.ledger().cloned == 90


def test_after_a_restart_it_is_still_known_who_is_who(road, samples):
    road.send(samples(0, 50))
    road.send(samples(40, 20, value=lambda n: -n))
    road.commit()
    for after, cloned in zip(road.restarts(), (20, 23), strict=True):
        assert after.ledger().cloned == cloned
        after.send(samples(45, 5))
        after.send(samples(55, 8, value=lambda n: -n), peer=after.peer())
        after.commit()
        assert after.values()["s", "e~2"] == [(n, -n) for n in range(40, 63)]
        assert len(after.values()) == 2
        assert after.track(epoch="e~2").low == 63
    after.send(samples(0, 50, value=lambda n: n / 2, at=T0 + 100_000 * NS))
    after.commit()
    assert len(after.values()["s", "e~3"]) == 50


def test_two_connections_that_speak_by_turns_are_two_devices(road, samples):
    """The copy's clock is a day slow, and its numbers are far behind: nothing but the two connections tells."""
    road.send(samples(0, 1_000))
    first, copy = road.peer(), road.peer()
    for n in range(50):
        road.send(samples(1_000 + n, 1), peer=first)
        road.send(samples(100 + n, 1, at=T0 - 86_400 * NS, value=lambda n: -n), peer=copy)
    road.commit()
    (clone,) = road.ledger().clones
    assert clone.first == 102
    assert road.values()["s", "e~2"] == [(n, -n) for n in range(102, 150)]
    assert road.values()["s", "e"] == [(n, n) for n in range(1_050)]
    assert (road.ledger().cloned, road.ledger().duplicate) == (48, 2)


def test_a_device_that_comes_by_a_new_connection_and_repeats_much_is_no_clone(road, samples):
    for n in range(1_000):
        road.send(samples(n, 1))
    for _ in range(5):
        peer = road.peer()
        for n in range(0, 1_000, 10):
            road.send(samples(n, 10), peer=peer)
        road.send(samples(road.track().high, 1), peer=peer)
    road.commit()
    assert road.ledger().cloned == 0


def test_too_many_clones_wait_in_quarantine(road, samples):
    for life in range(40):
        road.send(samples(0, 2, value=lambda n, life=life: life + n / 2))
    road.commit()
    assert road.ledger().quarantined == {"too-many-clones": 7}
    assert road.ledger().cloned == 64


def test_of_clones_a_gap_record_counts_for_who_says_it(road, samples):
    one, other = road.peer(), road.peer()
    road.send(samples(0, 10), peer=one)
    road.send(samples(5, 3, value=lambda n: -n), peer=other)
    gaps = {"stream": "s", "epoch": "e", "gaps": [{"first": 8, "last": 9, "reason": "evicted"}]}
    road.send(gaps, peer=other)
    road.commit()
    assert road.ledger().lost == {"evicted": 2}
    assert (road.track().low, road.track(epoch="e~2").low) == (10, 10)
    road.later(100)
    assert road.notices("gap-wanted") == []


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10**9), st.integers(2, 4), st.sampled_from(("lasting", "reconnecting", "foreign broker")))
def test_whatever_they_do_each_sample_of_each_is_kept_once(seed, copies, connections):
    """Copies of a device part at some number, and go on at their own pace, with redeliveries and reconnects.

    While each keeps its connection, no track has samples of two of them.
    """
    from tests.unit.ingest.conftest import Road, samples  # noqa: PLC0415 - a fixture would be shared by examples

    chance = random.Random(seed)
    road = Road(now=T0 + 1_000_000 * NS)
    parted = chance.randrange(1, 30)
    road.send(samples(0, parted))
    paces = [chance.choice((1, 1, 2)) for _ in range(copies)]
    shared = road.peer("platform", is_shared=True)
    peers = [road.peer() for _ in range(copies)]
    sent = [parted] * copies
    for _ in range(40):
        who = chance.randrange(copies)
        first, count = sent[who], chance.randrange(1, 4) * paces[who]
        if chance.random() < 0.3:  # once more, as nothing was heard of it
            first -= min(chance.randrange(1, 6), first - parted)
        if connections == "reconnecting" and chance.random() < 0.2:
            peers[who] = road.peer()
        road.send(
            samples(first, count, value=lambda n, who=who: n + who / 8 if n >= parted else n),
            peer=shared if connections == "foreign broker" else peers[who],
        )
        sent[who] = max(sent[who], first + count)
        if chance.random() < 0.5:
            road.commit()
    road.commit()
    found = [value for kept in road.values().values() for _, value in kept]
    wanted = [float(n) for n in range(parted)]
    wanted += [n + who / 8 for who in range(copies) for n in range(parted, sent[who])]
    assert sorted(found) == sorted(wanted)
    if connections == "lasting":
        for kept in road.values().values():
            assert len({value % 1 for n, value in kept if n >= parted}) <= 1
