"""The device grant's answers to polls (RFC 8628, 3.5), its codes, and the throttle."""

import msgspec
import pytest

from godwit.server.identity.device_grant import INTERVAL_S, SLOWER_S, normal, poll, shown
from godwit.server.identity.model import DeviceGrant, GrantState
from godwit.server.identity.throttle import NAMES_MAX, Throttle

S = 1_000_000_000


def grant(state: GrantState = GrantState.WAITING, **changes) -> DeviceGrant:
    base = DeviceGrant("1", "pump-1", state, None, (), "", "", 0, 600 * S, INTERVAL_S, 0)
    return msgspec.structs.replace(base, **changes)


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (GrantState.WAITING, "authorization_pending"),
        (GrantState.DENIED, "access_denied"),
        (GrantState.GIVEN, "invalid_grant"),
        (GrantState.APPROVED, None),
    ],
)
def test_a_poll_is_answered_by_the_state(state, error):
    after, told = poll(grant(state), 10 * S)
    assert told == error
    assert after.polled == 10 * S
    assert after.state is (GrantState.GIVEN if error is None else state)


def test_who_polls_too_fast_is_slowed_down_for_good_and_gets_nothing():
    asked, told = poll(grant(GrantState.APPROVED, polled=10 * S), 12 * S)
    assert (told, asked.interval, asked.state) == ("slow_down", INTERVAL_S + SLOWER_S, GrantState.APPROVED)
    asked, told = poll(asked, 20 * S)
    assert told == "slow_down"
    assert poll(asked, 20 * S + asked.interval * S)[1] is None


def test_a_code_expires_whatever_was_decided():
    assert poll(grant(GrantState.APPROVED), 600 * S)[1] == "expired_token"


def test_codes_are_read_as_people_type_them():
    assert normal(" wdjb mjht") == normal("WDJB-MJHT") == "WDJBMJHT"
    assert shown("WDJBMJHT") == "WDJB-MJHT"
    assert normal("0O1I-aeiou") == ""


def test_the_throttle_lets_a_burst_and_then_a_rate_and_forgets_who_is_long_away():
    throttle = Throttle(1, 3)
    assert [throttle.take("a", 0) for _ in range(4)] == [True, True, True, False]
    assert not throttle.is_open("a", S // 2)
    assert throttle.take("a", S)
    assert not throttle.take("a", S)
    assert throttle.take("b", S)
    for number in range(2 * NAMES_MAX):
        throttle.take(f"name {number}", 2 * S + number)
    assert len(throttle._left) <= NAMES_MAX
