"""What is written of refusals, and what is counted: a flood hides nobody else's, and fills neither disk nor memory."""

from godwit.server.accounts.refusal_tally import (
    CODES_MAX,
    COUNTS_MAX,
    EVERY_S,
    KEPT_MAX,
    OF_KIND_FIRST_MAX,
    OF_KIND_MAX,
    OF_ONE_MAX,
    Kind,
    More,
    Refusal,
    RefusalTally,
)

FLOOD, OTHER = "198.51.100.1", "203.0.113.9"


def guess(tally: RefusalTally, number: int, address: str, now: float, what: str = "sign-in.refuse") -> bool:
    return tally.is_new(Refusal("?", what, f"user{number}", "wrong-password", address), now)


def test_a_flood_from_one_address_hides_nothing_of_another() -> None:
    tally = RefusalTally()
    assert sum(guess(tally, number, FLOOD, 0.0) for number in range(100_000)) == OF_ONE_MAX
    assert guess(tally, 1, OTHER, 1.0)
    assert guess(tally, 1, FLOOD, 1.0, "request.refuse")
    assert tally.due(1.0) == []
    assert tally.due(EVERY_S) == [
        More(Kind("sign-in.refuse", FLOOD, ""), 100_000 - OF_ONE_MAX, {"wrong-password": 100_000 - OF_ONE_MAX})
    ]
    assert tally.due(2 * EVERY_S) == []  # nothing more: nothing is told


def test_the_same_once_a_minute_and_the_others_are_counted() -> None:
    tally = RefusalTally()
    assert [guess(tally, 1, FLOOD, float(second)) for second in range(0, 120, 20)] == [True, False, False] * 2
    assert [each.number for each in tally.due(60.0)] == [2]
    assert [each.number for each in tally.due(61.0, at_once=True)] == [2]


def test_what_follows_after_a_quiet_minute_is_written_and_what_was_counted_is_kept() -> None:
    tally = RefusalTally()
    guess(tally, 1, FLOOD, 0.0)
    guess(tally, 1, FLOOD, 0.0)
    assert guess(tally, 1, FLOOD, 500.0)
    assert [each.number for each in tally.due(500.0)] == [1]


def test_a_household_of_ipv6_is_one_place() -> None:
    tally = RefusalTally()
    written = sum(guess(tally, number, f"2001:db8:0:7::{number:x}", 0.0) for number in range(5_000))
    assert written == OF_ONE_MAX
    assert guess(tally, 1, "2001:db8:0:8::1", 0.0)


def test_a_flood_from_everywhere_fills_neither_disk_nor_memory() -> None:
    tally = RefusalTally()
    places = [f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}" for number in range(3 * KEPT_MAX)]
    written = sum(guess(tally, number % 7, place, 0.0) for number, place in enumerate(places * 2))
    assert written == OF_KIND_FIRST_MAX
    assert guess(tally, 1, OTHER, 1.0, "session.refuse")  # another kind has its own
    told = [each for each in tally.due(2 * EVERY_S) if each.kind.what == "sign-in.refuse"]
    assert COUNTS_MAX < len(told) <= COUNTS_MAX + 2
    assert sum(each.number for each in told) + written == len(places) * 2  # none is lost
    assert told[-1].kind.place == ""


def test_few_places_leave_room_for_the_first_line_of_others() -> None:
    tally = RefusalTally()
    for place in range(OF_KIND_MAX):
        for number in range(OF_ONE_MAX):
            guess(tally, number, f"10.0.{place // 200}.{place % 200}", 0.0)
    assert guess(tally, 1, OTHER, 1.0)
    assert not guess(tally, 2, OTHER, 1.0)


def test_codes_are_counted_by_name_but_not_without_end() -> None:
    tally = RefusalTally()
    for number in range(1_000):
        tally.is_new(Refusal("?", "mqtt.refuse", "x", f"code-{number}", FLOOD), 0.0)
    (more,) = tally.due(0.0, at_once=True)
    assert len(more.codes) == CODES_MAX + 1
    assert sum(more.codes.values()) == 1_000 - OF_ONE_MAX
