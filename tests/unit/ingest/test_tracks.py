"""Does a sample number, a message id or a redelivery count once, whatever the order in which it comes?"""

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from godwit.server.ingest.tracks import (
    ISLANDS_MAX,
    LOST_MAX,
    LOST_REASONS_MAX,
    MESSAGE_ID_AGE_S_MAX,
    MESSAGE_IDS_MAX,
    PRINTS_MAX,
    MessageIds,
    Prints,
    Track,
    fingerprint,
    hash_message_id,
)

runs = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=40)
steps = st.lists(st.tuples(st.sampled_from(["take", "lose"]), st.integers(0, 60), st.integers(1, 12)), max_size=40)


@given(runs)
def test_every_number_is_new_exactly_once(taken: list[tuple[int, int]]) -> None:
    track, seen = Track(1, "s", "e"), set()
    for first, count in taken:
        fresh = list(track.take(first, count))
        wanted = set(range(first, first + count))
        assert set(fresh) == wanted - seen
        assert fresh == sorted(fresh)
        seen |= wanted
    assert track.gaps == (max(seen) + 1 - len(seen) if seen else 0)
    assert all(number in seen for number in range(track.low))


@given(steps)
def test_a_number_is_missing_lost_or_there(said: list[tuple[str, int, int]]) -> None:
    """What was lost and arrives is there; what is there is never lost; `low` passes over both and nothing else."""
    track, there, lost = Track(1, "s", "e"), set(), set()
    for what, first, count in said:
        numbers = set(range(first, first + count))
        if what == "take":
            assert set(track.take(first, count)) == numbers - there
            there |= numbers
            lost -= numbers
        else:
            assert track.lose(first, first + count, "evicted") == len(numbers - there - lost)
            lost |= numbers - there
        high = max(there | lost) + 1
        assert {n for start, stop, _ in track.lost for n in range(start, stop)} == lost
        assert {n for start, stop in track.holes() for n in range(start, stop)} == set(range(high)) - there - lost
        assert track.low == next(n for n in range(high + 1) if n not in there | lost)
        assert track.high == high
        assert (track.arrived, track.lost_counts.get("evicted", 0)) == (len(there), len(lost))
        assert all(track.has_arrived(n) == (n in there) for n in range(80))
        again = Track(1, "s", "e")
        again.restore(track.dump())
        assert again.dump() == track.dump()
        track = again  # goes on where it stopped


@given(steps)
def test_the_order_of_records_and_samples_does_not_matter(said: list[tuple[str, int, int]]) -> None:
    """A group is replayed with its records first."""
    one, other = Track(1, "s", "e"), Track(1, "s", "e")
    for track, order in ((one, said), (other, sorted(said, key=lambda each: each[0] != "lose"))):
        for what, first, count in order:
            track.take(first, count) if what == "take" else track.lose(first, first + count, "evicted")
    assert (one.low, one.holes(), one.lost_counts) == (other.low, other.holes(), other.lost_counts)


def test_what_was_folded_before_there_were_gap_records_is_understood() -> None:
    track = Track(1, "s", "e")
    track.restore(msgspec.msgpack.encode((5, [[7, 9]])))
    assert (track.low, track.high, track.holes(), track.lost) == (5, 9, [(5, 7)], [])


def test_holes_are_bounded_and_none_is_forgotten() -> None:
    track = Track(1, "s", "e")
    for number in range(0, 2 * ISLANDS_MAX + 2, 2):
        assert track.has_room_for(number, 1)
        track.take(number, 1)
    top = track.high
    assert not track.has_room_for(top + 1, 1)
    assert not track.has_room_for(top + 1, 5)
    assert track.has_room_for(top, 5)  # what follows, closes or grows makes no hole
    assert track.has_room_for(1, 1)
    assert track.has_room_for(top - 3, 4)
    assert track.gaps == ISLANDS_MAX
    assert track.give_up() is None  # nobody was asked
    track.unanswered_below = 4
    assert [track.give_up() for _ in range(3)] == [(1, 2, "unanswered"), (3, 4, "unanswered"), None]
    assert track.has_room_for(top + 1, 1)


def test_lost_ranges_are_bounded_and_all_are_counted() -> None:
    track = Track(1, "s", "e")
    for number in range(0, 4 * LOST_MAX, 2):
        track.take(number, 1)
        track.lose(number + 1, number + 2, f"r{number % 40}" if number % 80 else "evicted")
    assert len(track.lost) <= LOST_MAX
    assert sum(track.lost_counts.values()) == 2 * LOST_MAX
    assert len(track.lost_counts) <= 2 * LOST_REASONS_MAX + 5
    assert track.low == 4 * LOST_MAX
    again = Track(1, "s", "e")
    again.restore(track.dump())
    assert again.lost_counts == track.lost_counts


def test_a_derived_track_begins_where_it_was_derived() -> None:
    track = Track(1, "s", "e~2")
    track.begin(100)
    track.take(100, 3)
    track.take(105, 1)
    assert (track.low, track.arrived, track.gaps) == (103, 4, 2)


def test_a_message_id_counts_once_within_a_day() -> None:
    ids, number = MessageIds(), hash_message_id("m-1")
    assert ids.take(number, 1_000)
    assert not ids.take(number, 1_000 + MESSAGE_ID_AGE_S_MAX)
    assert ids.take(number, 1_001 + 2 * MESSAGE_ID_AGE_S_MAX)


def test_the_last_4096_message_ids_are_known() -> None:
    ids = MessageIds()
    for at in range(3 * MESSAGE_IDS_MAX):
        assert ids.take(at + 1, 5)
    assert not ids.take(3 * MESSAGE_IDS_MAX, 5)
    assert not ids.take(2 * MESSAGE_IDS_MAX + 1, 5)
    assert ids.take(2 * MESSAGE_IDS_MAX, 5)


def test_dumped_ids_come_back_in_order() -> None:
    ids = MessageIds()
    for at in range(MESSAGE_IDS_MAX + 10):
        ids.put(at + 1, at)
    hashes, seconds = ids.dump()
    assert np.frombuffer(hashes, np.uint64).tolist() == list(range(11, MESSAGE_IDS_MAX + 11))
    assert np.frombuffer(seconds, np.uint32).tolist() == list(range(10, MESSAGE_IDS_MAX + 10))


def test_prints_remember_the_last_ones() -> None:
    prints = Prints()
    for packet_id in range(1, PRINTS_MAX + 2):
        prints.put(fingerprint(1, packet_id, b"payload"))
    assert fingerprint(1, 1, b"payload") not in prints
    assert fingerprint(1, 2, b"payload") in prints
    assert fingerprint(1, 2, b"other") not in prints
    assert fingerprint(2, 2, b"payload") not in prints
    again = Prints()
    for value in np.frombuffer(prints.dump(), np.uint64).tolist():
        again.put(value)
    assert fingerprint(1, PRINTS_MAX + 1, b"payload") in again
