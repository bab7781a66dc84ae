"""How long a guess has to wait; and which browser is which."""

import pytest

from godwit.server.accounts.agents import family
from godwit.server.accounts.throttle import ADDRESS_FREE, FREE, WAIT_S_MAX, Throttle, place_of

THERE, HOME = "203.0.113.9", "192.0.2.7"


def guess_until_it_waits(throttle: Throttle, account: str, address: str, now: float) -> int:
    count = 0
    while throttle.guess(account, address, now) == 0:
        count += 1
    return count


def test_the_wait_doubles_up_to_a_limit() -> None:
    throttle, now, waits = Throttle(), 0.0, []
    assert guess_until_it_waits(throttle, "eve", THERE, now) == FREE
    for _ in range(12):
        waits.append(throttle.left("eve", THERE, now))
        now += waits[-1]
        assert throttle.guess("eve", THERE, now) == 0
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == WAIT_S_MAX
    assert throttle.left("eve", THERE, now + 3_600) == 0  # forgotten


def test_many_at_once_are_not_all_looked_at() -> None:
    throttle = Throttle()
    assert sum(throttle.guess("eve", THERE, 0.0) == 0 for _ in range(1_000)) == FREE


def test_an_attacker_does_not_lock_the_owner_out() -> None:
    throttle = Throttle()
    throttle.guess("eve", HOME, 0.0)
    throttle.succeed("eve", HOME, 0.0)
    for number in range(200):  # from everywhere
        throttle.guess("eve", f"198.51.100.{number}", float(number))
    assert throttle.left("eve", THERE, 200.0) > 0
    assert throttle.left("eve", HOME, 200.0) == 0
    assert guess_until_it_waits(throttle, "eve", HOME, 200.0) == FREE  # it does not guess without end, either


def test_one_address_does_not_try_all_accounts() -> None:
    throttle = Throttle()
    tried = sum(throttle.guess(f"user{number}", THERE, 0.0) == 0 for number in range(1_000))
    assert tried == ADDRESS_FREE
    assert throttle.left("eve", HOME, 0.0) == 0


def test_an_office_that_signs_in_is_not_held_up() -> None:
    throttle = Throttle()
    for number in range(200):
        assert throttle.guess(f"user{number}", HOME, 0.0) == 0
        throttle.succeed(f"user{number}", HOME, 0.0)


def test_a_household_of_ipv6_is_one_place() -> None:
    assert place_of("2001:db8::1") == place_of("2001:db8::ffff:2") == "2001:db8::"
    assert place_of("2001:db8:0:1::1") != place_of("2001:db8::1")
    assert place_of("testclient") == "testclient"


@pytest.mark.parametrize(
    ("agent", "known"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0", "Firefox on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/131.0 Safari/537.36 Edg/131", "Edge on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1", "Safari on iOS"),
        ("Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/131.0 Mobile Safari/537", "Chrome on Android"),
        ("python-httpx/0.28", "a program"),
        ("", "a program"),
    ],
)
def test_families_of_browsers(agent: str, known: str) -> None:
    assert family(agent) == known
