"""Does a device come back as soon as it may, and no sooner?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godwit.device.reconnect import Reconnect, parse_reference
from godwit.mqtt import reasons

REASONS = [
    value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, int) and value >= 0x80
]


@given(st.lists(st.sampled_from([None, *REASONS]), min_size=1, max_size=30), st.floats(0, 1, exclude_max=True))
def test_every_reason_has_a_bounded_wait(refusals: list[int | None], chance: float) -> None:
    reconnect = Reconnect()
    for reason in refusals:
        assert 0 <= reconnect.after(reason, chance).wait_s <= 1_000


@pytest.mark.parametrize("reason", REASONS)
def test_a_device_does_not_hammer(reason: int) -> None:
    reconnect = Reconnect()
    waits = [reconnect.after(reason, 0.99).wait_s for _ in range(10)]
    if reason != reasons.UNSUPPORTED_PROTOCOL_VERSION:
        assert waits == sorted(waits)
        assert waits[-1] >= 29


def test_the_network_is_tried_soon_and_then_less_often() -> None:
    reconnect = Reconnect()
    assert reconnect.after(None, 0.99).wait_s < 0.6
    waits = [reconnect.after(None, 0.99).wait_s for _ in range(12)]
    assert waits[-1] == pytest.approx(60 * 0.99)


def test_a_connection_that_lasted_begins_anew() -> None:
    reconnect = Reconnect()
    for _ in range(10):
        reconnect.after(None, 0.99)
    assert reconnect.after(None, 0.99, lasted_s=100).wait_s < 0.6


def test_who_is_told_to_ask_a_person_waits_long() -> None:
    plan = Reconnect().after(reasons.BAD_USER_NAME_OR_PASSWORD, 0.0)
    assert plan.wait_s >= 30
    assert "password" in plan.advice


def test_a_taken_session_is_not_fought_over() -> None:
    plan = Reconnect().after(reasons.SESSION_TAKEN_OVER, 0.0)
    assert plan.wait_s >= 10
    assert "clone" in plan.advice


def test_an_older_version_is_tried_at_once() -> None:
    plan = Reconnect().after(reasons.UNSUPPORTED_PROTOCOL_VERSION, 0.9)
    assert plan.is_older_version
    assert plan.wait_s == 0


def test_another_server_is_followed_and_left_again_when_it_does_not_answer() -> None:
    reconnect = Reconnect()
    assert reconnect.after(reasons.SERVER_MOVED, 0.5, server_reference="b.example:8884 c.example").server == (
        "b.example",
        8884,
    )
    assert reconnect.after(None, 0.5, lasted_s=5).server == ("b.example", 8884)
    assert reconnect.after(None, 0.5).server is None


@pytest.mark.parametrize(
    ("reference", "server"),
    [
        ("myserver.xyz.org", ("myserver.xyz.org", None)),
        ("myserver.xyz.org:8883", ("myserver.xyz.org", 8883)),
        ("10.10.151.22:8883 other", ("10.10.151.22", 8883)),
        ("[fe80::9610:3eff:fe1c]:1883", ("fe80::9610:3eff:fe1c", 1883)),
        ("fe80::9610:3eff:fe1c", ("fe80::9610:3eff:fe1c", None)),
        ("[fe80::1]", ("fe80::1", None)),
        ("", None),
        ("host:port", None),
    ],
)
def test_references(reference: str, server: tuple[str, int | None] | None) -> None:
    assert parse_reference(reference) == server
