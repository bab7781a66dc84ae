"""What a worker tells the owner, and when it takes nobody more."""

from godwit.contract.topics import topics_for
from godwit.server.workers import frames
from godwit.server.workers.relay import UNSEEN_MAX, Relay


def test_nobody_is_accepted_while_the_owner_has_many_to_look_at():
    relay = Relay(1_000, topics_for("native"), lambda: None)
    for _ in range(UNSEEN_MAX):
        assert relay.may_accept
        relay.admit(None, "local", None)
    assert not relay.may_accept
    relay.follow(frames.Seen(1))
    assert relay.may_accept
    relay.is_pipe_full = True
    assert not relay.may_accept
