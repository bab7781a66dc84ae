"""Does a plain device's `messageId` count once over the last 4,096 and a day, whenever the platform is restarted?"""

import pytest

from godwit.server.ingest.tracks import MESSAGE_ID_AGE_S_MAX, MESSAGE_IDS_MAX

NS = 1_000_000_000
HOW = ["from the journal", "from folded state", "twice"]


def restarted(road, how):
    road.commit()
    if how == "from folded state":
        road.fold()
    again = road.crash()
    if how == "twice":  # what was taken up from the journal is folded, and taken up again
        again.fold()
        again = again.crash()
    return again


def said(number):
    return {"messageId": f"m-{number}", "timestamp": 1_700_000_000 + number, "readings": {"v": number}}


def count_of(road):
    return len(road.values().get(("", ""), []))


@pytest.mark.parametrize("how", HOW)
def test_a_message_that_comes_again_after_a_restart_is_known(road, how):
    road.send(said(1))
    again = restarted(road, how)
    again.send(said(1))
    again.commit()
    assert (again.ledger().accepted, again.ledger().duplicate, count_of(again)) == (1, 1, 1)


@pytest.mark.parametrize("how", HOW)
def test_the_last_4096_are_known_after_a_restart_and_no_more(road, how):
    for number in range(MESSAGE_IDS_MAX + 10):
        road.send(said(number))
        if number % 1_000 == 0:
            road.commit()
    again = restarted(road, how)
    for number in (MESSAGE_IDS_MAX + 9, 2_000, 10, 9):  # the last one has left the ring
        again.send(said(number))
    again.commit()
    assert (again.ledger().duplicate, count_of(again)) == (3, MESSAGE_IDS_MAX + 11)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("age_s", "is_known"), [(MESSAGE_ID_AGE_S_MAX, True), (MESSAGE_ID_AGE_S_MAX + 1, False)])
def test_for_a_day_counted_from_the_message_not_from_the_restart(road, how, age_s, is_known):
    road.send(said(1))
    again = restarted(road, how)
    again.now += age_s * NS
    again.send(said(1))
    again.commit()
    assert again.ledger().duplicate == is_known


@pytest.mark.parametrize("how", HOW)
def test_a_plain_redelivery_is_known_after_a_restart(road, how):
    message = {"readings": {"v": 1}}
    road.send(message)
    again = restarted(road, how)
    arrival = again.send(message)
    assert arrival.accepted == 1  # the same bytes are no redelivery unless they say so
    redelivered = arrival.publish.__copy__()
    redelivered.dup = True
    again.ingest.receive(type(arrival)(again, redelivered, arrival.peer, again.now, arrival.topic))
    again.commit()
    assert again.ledger().duplicate == 1
