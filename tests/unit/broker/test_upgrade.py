"""As whose does a WebSocket of the console's port count: this machine's, or anybody's?"""

import pytest

from godwit.server.accounts.throttle import Throttle
from godwit.server.upgrade import client_of, listener_of

HERE = {"host": "localhost:8080"}


@pytest.mark.parametrize(
    ("headers", "trusts", "listener"),
    [
        (HERE, True, "websocket"),
        ({"host": "127.0.0.1"}, True, "websocket"),
        ({"host": "[::1]:8080"}, True, "websocket"),
        (HERE, False, "websocket-http"),  # LOCAL_LISTENER=false
        ({"host": "iot.example"}, True, "websocket-http"),  # a proxy, or a name bound anew to 127.0.0.1
        ({"host": "localhost.evil.example"}, True, "websocket-http"),
        ({"host": "127.0.0.1.evil.example:8080"}, True, "websocket-http"),
        ({"host": "iot.example@localhost"}, True, "websocket-http"),
        ({"host": "["}, True, "websocket-http"),
        ({}, True, "websocket-http"),
        (HERE | {"x-forwarded-for": "192.0.2.1"}, True, "websocket-http"),
        (HERE | {"forwarded": "for=192.0.2.1"}, True, "websocket-http"),
    ],
)
def test_only_who_names_this_machine_and_comes_by_no_proxy_is_trusted(
    headers: dict[str, str], trusts: bool, listener: str
) -> None:
    assert listener_of(headers, is_tls=False, trusts=trusts) == listener


def test_over_tls_nobody_is_trusted_for_what_he_says() -> None:
    assert listener_of(HERE, is_tls=True, trusts=True) == "websocket-tls"


@pytest.mark.parametrize(
    ("peer", "said", "address"),
    [
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("::1", "2001:db8::7", "2001:db8::7"),
        ("127.0.0.1", "10.9.9.9, 192.0.2.7", "192.0.2.7"),  # the client said the first, the proxy saw the second
        ("127.0.0.1", "192.0.2.7, 127.0.0.1", "192.0.2.7"),  # two proxies on this machine
        ("127.0.0.1", "192.0.2.7, rubbish", "127.0.0.1"),
        ("203.0.113.9", "192.0.2.7", "203.0.113.9"),  # no proxy of ours
    ],
)
def test_only_a_proxy_on_this_machine_is_believed_whose_connection_it_is(
    peer: str, said: str | None, address: str
) -> None:
    assert client_of(peer, {} if said is None else {"x-forwarded-for": said}) == address


def test_who_guesses_through_a_proxy_holds_up_nobody_else_behind_it() -> None:
    throttle = Throttle()

    def guess(account: str, said: str) -> bool:
        return throttle.guess(account, client_of("127.0.0.1", {"x-forwarded-for": said}), 0.0) == 0

    assert sum(guess(f"user{number}", "198.51.100.1") for number in range(100)) == 20
    assert guess("eve", "192.0.2.7")
    # a made-up address before it does not make the guesser somebody else, and a whole /64 is one
    assert not guess("user200", "192.0.2.8, 198.51.100.1")
    assert sum(guess(f"other{number}", f"2001:db8::{number + 1:x}") for number in range(100)) == 20
