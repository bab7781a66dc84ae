"""Does a sample number, a message id or a redelivery count once, whatever the order in which it comes?"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from godwit.server.ingest.tracks import (
    ISLANDS_MAX,
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


@given(runs)
def test_a_restored_track_goes_on_where_it_stopped(taken: list[tuple[int, int]]) -> None:
    whole, half = Track(1, "s", "e"), Track(1, "s", "e")
    for first, count in taken:
        restored = Track(1, "s", "e")
        restored.restore(half.low, [list(each) for each in half.islands])
        half = restored
        assert list(whole.take(first, count)) == list(half.take(first, count))


def test_holes_are_bounded() -> None:
    track = Track(1, "s", "e")
    for number in range(0, 4 * ISLANDS_MAX, 2):
        track.take(number, 1)
    assert len(track.islands) <= ISLANDS_MAX


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
