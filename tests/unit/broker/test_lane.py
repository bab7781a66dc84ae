"""Do those who flush a backlog take turns, and does nobody wait behind them? Counted, not timed."""

import pytest

from godwit.server.broker.lane import TURN_BYTES
from godwit.server.broker.limits import Quotas

OVERHEAD = 600
PAYLOAD = 200
TURN = TURN_BYTES // (OVERHEAD + PAYLOAD)
"""Messages of one read of a socket."""


class Flusher:
    """A device with a backlog that never ends: whenever it is read, it has a socket full of messages."""

    def __init__(self, world, number):
        self.peer = world.connect(f"flusher-{number}", version=4)
        self.sent = 0

    def is_read(self):
        if self.peer.is_choked:
            return
        for _ in range(TURN):
            self.sent += 1
            self.peer.publish("t", "x" * PAYLOAD, 1, packet_id=self.sent % 65_535 + 1)


def turns(world, flushers, count, commit_every):
    """Let the loop turn: sockets are read, now and then a group is committed, those who are held are relieved."""
    for turn in range(count):
        for flusher in flushers:
            flusher.is_read()
        if turn % commit_every == 0:
            world.group.commit()
        world.broker.relieve()
        yield len(world.group.arrivals)


@pytest.mark.parametrize("number", [1, 10, 100])
def test_what_stands_before_a_message_does_not_grow_with_the_number_of_flushers(make_world, number):
    world = make_world(quotas=Quotas(lane_bytes=1_048_576))
    flushers = [Flusher(world, each) for each in range(number)]
    before = list(turns(world, flushers, 200, commit_every=3))
    lane = 1_048_576 / (OVERHEAD + PAYLOAD)
    assert max(before[:20]) <= lane + 2 * TURN * number  # nobody is held until the lane has been full once
    assert max(before[20:]) <= 2 * lane


def test_flushers_get_equal_shares(make_world):
    world = make_world(quotas=Quotas(lane_bytes=1_048_576))
    flushers = [Flusher(world, each) for each in range(40)]
    list(turns(world, flushers, 2_000, commit_every=3))
    sent = [each.sent for each in flushers]
    assert min(sent) > 0.9 * max(sent)


def test_one_that_flushes_alone_is_held_by_the_lane_only(make_world):
    world = make_world(quotas=Quotas(lane_bytes=1_048_576))
    (flusher,) = flushers = [Flusher(world, 0)]
    list(turns(world, flushers, 5, commit_every=100))
    assert flusher.sent == 5 * TURN
    assert not flusher.peer.is_choked


def test_who_sends_now_and_then_is_never_held(make_world):
    world = make_world(quotas=Quotas(lane_bytes=100_000))
    flushers, calm = [Flusher(world, each) for each in range(10)], world.connect("calm")
    for turn, _ in enumerate(turns(world, flushers, 300, commit_every=5)):
        calm.publish("t", "now", 1, packet_id=turn + 1)
        assert not calm.is_choked
    assert world.broker.gate.limited.held > 0


def test_who_hangs_up_while_it_waits_takes_nobodys_turn(make_world):
    world = make_world(quotas=Quotas(lane_bytes=100_000))
    flushers = [Flusher(world, each) for each in range(3)]
    list(turns(world, flushers, 3, commit_every=100))
    assert all(each.peer.is_choked for each in flushers)
    flushers[0].peer.vanish()
    world.group.commit()
    world.broker.relieve()
    assert flushers[0].peer.is_choked
    assert not flushers[1].peer.is_choked
