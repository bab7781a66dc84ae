"""Does every certificate find its successor in time, and nobody ask too often?"""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey

from godwit.device.jwt import make_jwt
from godwit.device.keys import FileKeys, fingerprint
from godwit.device.renewal import ANNOUNCED_SPREAD_S, BEFORE_S, DAY_S, Renewal, begins

chances = st.floats(0, 1, exclude_max=True)
lifetimes = st.sampled_from([6.0, 20.0, 3_600.0, DAY_S, 90 * DAY_S, 365 * DAY_S, 20 * 365 * DAY_S])


@pytest.mark.parametrize(
    ("lifetime_s", "before_s"), [(20, 20 / 3), (DAY_S, DAY_S / 3), (90 * DAY_S, 30 * DAY_S), (365 * DAY_S, 30 * DAY_S)]
)
def test_from_30_days_or_a_third_before_the_end(lifetime_s: float, before_s: float) -> None:
    assert begins(1e9, 1e9 + lifetime_s) == pytest.approx(1e9 + lifetime_s - before_s)


@given(lifetimes, chances)
def test_it_is_asked_for_while_most_of_the_time_is_left(lifetime_s: float, chance: float) -> None:
    plan = Renewal(1e9, 1e9 + lifetime_s, chance)
    before_s = min(BEFORE_S, lifetime_s / 3)
    assert 1e9 + lifetime_s - before_s <= plan.due + 1e-6
    assert plan.due <= 1e9 + lifetime_s - 0.7 * before_s
    assert not plan.is_due(plan.due - 0.1)
    assert plan.is_due(plan.due)


@given(lifetimes, st.lists(chances, min_size=1, max_size=50))
def test_what_fails_is_tried_again_before_the_end_and_never_in_a_storm(lifetime_s: float, tries: list[float]) -> None:
    plan = Renewal(0.0, lifetime_s, 0.0)
    now, waits = plan.due, []
    for chance in tries:
        plan.failed(now, chance)
        waits.append(plan.due - now)
        now = plan.due
    assert min(waits) >= 0.49
    assert max(waits) <= DAY_S + 30
    assert waits[0] <= max(1.5, lifetime_s / 100)


def test_a_fleet_does_not_come_at_one_moment() -> None:
    due = sorted(Renewal(0.0, 90 * DAY_S, number / 1_000).due for number in range(1_000))
    assert due[-1] - due[0] > 7 * DAY_S


@given(lifetimes, chances)
def test_a_wish_is_heard(lifetime_s: float, chance: float) -> None:
    plan = Renewal(0.0, lifetime_s, 0.0)
    plan.wanted(1.0, chance, is_for_all=True)
    assert 1.0 <= plan.due <= 1.0 + ANNOUNCED_SPREAD_S
    plan.wanted(1.0, chance, is_for_all=False)
    assert plan.due == 1.0


def test_a_certificate_that_ends_before_it_begins_is_renewed_soon_and_not_in_a_storm() -> None:
    plan = Renewal(100.0, 50.0, 0.5)
    assert not plan.is_due(100.5)
    assert plan.is_due(101.0)


def test_others_read_our_tokens(tmp_path: Path) -> None:
    keys = FileKeys(tmp_path)
    key = keys.open(keys.make())
    now = int(time.time())
    token = make_jwt("press-7", key, now * 1_000_000_000)
    public = ECKey.import_key(next(tmp_path.iterdir()).read_bytes())
    read = jwt.decode(token, public, algorithms=["ES256"])
    assert read.header == {"alg": "ES256", "typ": "JWT", "kid": fingerprint(key.public_key())}
    assert read.claims == {"sub": "press-7", "aud": "godwit", "iat": now, "exp": now + 3_600}
