"""Is it seen when connections fight for a client id?"""

from godwit.server.broker.conflicts import IDS_MAX, NS, Conflicts


def test_the_last_hour_is_counted_and_memory_has_an_end():
    conflicts = Conflicts()
    for minute in range(90):
        conflicts.note("pump", minute * 60 * NS)
    assert conflicts.recent(90 * 60 * NS) == {"pump": 50}  # no more are kept
    assert conflicts.recent(89 * 60 * NS + 3_600 * NS) == {}
    for number in range(IDS_MAX + 5):
        conflicts.note(f"c-{number}", 0)
    assert len(conflicts.recent(1)) == IDS_MAX


def test_a_name_taken_from_elsewhere_is_a_conflict_a_return_is_none(world):
    for address in ("10.0.0.1", "10.0.0.1", "10.0.0.2"):
        peer = world.connect("pump", address=address)
        assert peer.connack.reason_code == 0
    assert world.broker.reception.conflicts.recent(world.now) == {"pump": 1}
