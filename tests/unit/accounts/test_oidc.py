"""What the settings of the OIDC provider may say, and what follows from its claims. Signing in: tests/real."""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from godwit.contract.errors import RejectedError
from godwit.server.accounts.oidc import read_id_token
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


# --- the ID token -----------------------------------------------------------------------------------------------------

KEY = ECKey.generate_key("P-256", {"kid": "k", "use": "sig"})
NOW = 1_800_000_000
CLAIMS = {"iss": "https://login.example.org", "sub": "kim", "aud": "godwit", "exp": NOW + 60, "iat": NOW, "nonce": "n"}


def read(token: str) -> dict[str, Any]:
    return read_id_token(token, KeySet([KEY]), "https://login.example.org", "godwit", nonce="n", now=NOW)


def signed(key: Any = KEY, algorithm: str = "ES256", **more: Any) -> str:
    claims = {name: value for name, value in (CLAIMS | more).items() if value is not None}
    return jwt.encode({"alg": algorithm, "kid": "k"}, claims, key, algorithms=[algorithm])


def with_our_public_key_as_a_secret() -> str:
    head = b64('{"alg":"HS256","kid":"k"}')
    body = f"{head}.{signed().split('.')[1]}"
    tag = hmac.digest(KEY.as_pem(private=False), body.encode(), "sha256")
    return f"{body}.{urlsafe_b64encode(tag).decode().rstrip('=')}"


def b64(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def test_an_id_token_of_the_provider_for_us_is_read() -> None:
    assert read(signed())["sub"] == "kim"
    assert read(signed(aud=["godwit", "grafana"], azp="godwit"))["sub"] == "kim"


@pytest.mark.parametrize(
    "forged",
    [
        lambda: signed(iss="https://login.example.com"),
        lambda: signed(aud="grafana"),
        lambda: signed(aud=["godwit", "grafana"]),
        lambda: signed(aud=["godwit", "grafana"], azp="grafana"),
        lambda: signed(azp="grafana"),
        lambda: signed(nonce="of another sign-in"),
        lambda: signed(nonce=None),
        lambda: signed(exp=NOW - 3_600),
        lambda: signed(exp=None),
        lambda: signed(iat=NOW + 3_600),
        lambda: signed(sub=None),
        lambda: signed(ECKey.generate_key("P-256", {"kid": "k"})),
        with_our_public_key_as_a_secret,
        lambda: ".".join((b64('{"alg":"none"}'), signed().split(".")[1], "")),
        lambda: signed()[:-6] + "AAAAAA",
        lambda: "rubbish",
        lambda: "",
    ],
)
def test_one_that_is_anything_else_signs_nobody_in(forged: Callable[[], str]) -> None:
    with pytest.raises(RejectedError) as refused:
        read(forged())
    assert refused.value.code == "oidc-invalid"
