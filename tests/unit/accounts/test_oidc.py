"""What the settings of the OIDC provider may say, and what follows from its claims. Signing in: tests/real."""

import pytest

from godwit.contract.errors import RejectedError
from godwit.server.accounts.oidc_settings import OidcSettings, oidc_settings
from godwit.server.accounts.principal import Principal
from godwit.server.accounts.room import Accounts


def settings(issuer: str = "https://login.example.org", client_id: str = "godwit", **more: str) -> OidcSettings | None:
    wanted = {"name": "OIDC", "claim": "groups", "grants": "", "admit": ""} | more
    return oidc_settings(issuer, client_id, "", **wanted)


def test_settings() -> None:
    assert settings(issuer="") is None
    found = settings(grants="staff=acme:viewer, root=*:admin, staff=beta:operator", admit="viewer")
    assert found is not None
    assert found.grants == {"staff": {"acme": "viewer", "beta": "operator"}, "root": {"*": "admin"}}
    assert found.admit == {"*": "viewer"}
    assert settings(issuer="http://127.0.0.1:9400") is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "http://login.example.org"}, {"issuer": "login.example.org"}, {"client_id": ""},
        {"grants": "staff"}, {"grants": "staff=acme:king"}, {"admit": "king"},
    ],
)  # fmt: skip
def test_settings_that_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(RejectedError) as refused:
        settings(**wrong)
    assert refused.value.code == "invalid-setting"


@pytest.mark.parametrize(
    ("claims", "granted"),
    [
        ({"groups": ["staff"]}, {"acme": "viewer"}),
        ({"groups": ["staff", "chiefs"]}, {"acme": "admin"}),
        ({"groups": "staff"}, {"acme": "viewer"}),
        ({"groups": ["others"]}, {}),
        ({}, {}),
        ({"groups": None}, {}),
    ],
)
def test_claims_become_grants(accounts: Accounts, claims: dict, granted: dict) -> None:
    from godwit.server.accounts.oidc import OidcDoor  # noqa: PLC0415

    found = settings(grants="staff=acme:viewer,chiefs=acme:admin")
    assert found is not None
    door = OidcDoor(found, accounts.users, accounts.sign_in, accounts.refusals)
    assert door.grants_of(claims) == granted


def test_an_expected_user_is_bound_by_a_verified_address_once(accounts: Accounts) -> None:
    admin = Principal("admin")
    accounts.users.create(admin, "kim", {"*": "viewer"}, email="Kim@example.org")
    accounts.users.create(admin, "pat", {"*": "admin"}, email="pat@example.org", password="a sentence of pat's")
    bind = accounts.users.bind
    assert bind(admin, "pat@example.org", "https://x", "1") is None  # has a password: nobody else becomes him
    bound = bind(admin, "kim@example.org", "https://x", "1")
    assert bound is not None
    assert (bound.name, bound.subject) == ("kim", "1")
    assert bind(admin, "kim@example.org", "https://x", "2") is None
    assert accounts.users.by_subject("https://x", "1") == bound
