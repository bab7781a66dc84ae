"""As whose does a WebSocket of the console's port count: this machine's, or anybody's?"""

import pytest

from godwit.server.upgrade import listener_of

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
