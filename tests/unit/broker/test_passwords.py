"""Passwords and tokens at the broker's door: guesses cost the one who guesses, and nobody behind the same address."""

import pytest

from godwit.mqtt.packets import Connect
from godwit.server.accounts.principal import Principal
from godwit.server.accounts.room import Known
from godwit.server.broker.authentication import (
    GUESSES_AT_ONCE,
    Desk,
    FleetAuthenticator,
    PasswordAuthenticator,
)
from godwit.server.broker.refusals import Denial
from godwit.server.broker.rights import Grant
from godwit.server.identity.model import Credential, Door
from godwit.server.identity.roster import Roster

NAT = "192.0.2.1"
CLAIM, TOKEN = "gwc_good", "gwt_good"


class House:
    """An authenticator with one claim, one API token, and the one user name and password."""

    def __init__(self) -> None:
        self.now = 0
        desk = Desk(
            lambda token: Credential(Door.CLAIM, "claim", "acme") if token == CLAIM else None,
            lambda _der, *, address: pytest.fail(f"nobody shows a certificate, {address} neither"),
            lambda token, *, address: Known(Principal("eve/app", address=address)) if token == TOKEN else None,
        )
        pair = PasswordAuthenticator("shop", "opensesame")
        self.door = FleetAuthenticator(Roster(), lambda _id, _topic: False, pair, desk=desk, now_ns=lambda: self.now)

    def code(self, password: str, address: str = NAT, user: str = "x") -> str:
        asked = Connect("pump-7", username=user, password=password.encode())
        decision = self.door.authenticate("tls", asked, None, address)
        if callable(decision):
            decision = decision()
        assert isinstance(decision, Grant | Denial)
        return decision.code if isinstance(decision, Denial) else ""


def test_wrong_tokens_slow_no_good_one_and_no_password() -> None:
    house = House()
    codes = [house.code(f"gwt_guess{number}") for number in range(GUESSES_AT_ONCE + 5)]
    assert codes == ["credentials-wrong"] * GUESSES_AT_ONCE + ["too-many-failures"] * 5
    assert [house.code(CLAIM), house.code(TOKEN), house.code("opensesame", user="shop")] == ["", "", ""]


def test_wrong_passwords_slow_passwords_from_there_and_no_token() -> None:
    house = House()
    codes = [house.code(f"guess{number}", user="shop") for number in range(GUESSES_AT_ONCE + 1)]
    assert codes[-1] == "too-many-failures"
    assert house.code("opensesame", user="shop") == "too-many-failures"  # or guessing would cost nothing
    assert house.code("opensesame", "192.0.2.2", user="shop") == ""
    assert [house.code(CLAIM), house.code(TOKEN), house.code("gwt_old")] == ["", "", "credentials-wrong"]
    house.now += 5_000_000_000
    assert house.code("opensesame", user="shop") == ""


def test_a_whole_network_of_ipv6_is_one_guesser() -> None:
    house = House()
    codes = [house.code("guess", f"2001:db8:0:7::{number:x}", user="shop") for number in range(GUESSES_AT_ONCE + 1)]
    assert codes[-1] == "too-many-failures"
    assert house.code("opensesame", "2001:db8:0:8::1", user="shop") == ""
