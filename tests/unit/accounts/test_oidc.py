"""What the settings of the OIDC provider may say, and what follows from its word. Signing in: tests/real."""

import hmac
import http.server
import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from godwit.contract.errors import RejectedError, UnavailableError
from godwit.server.accounts.oidc import OidcDoor
from godwit.server.accounts.oidc_settings import OidcSettings, oidc_settings
from godwit.server.accounts.oidc_tokens import LOGOUT_EVENT, read_id_token
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


def test_only_who_administers_all_tenants_says_whom_the_provider_is_to_know(accounts: Accounts) -> None:
    """A tenant's administrator would else keep somebody out whom others expect, or have him as a user of his own."""
    admin, acme = Principal("admin"), Principal("eva", ("acme",))
    users, mine = accounts.users, {"acme": "viewer"}
    users.create(admin, "kim", {"*": "viewer"}, email="kim@example.org")
    users.create(acme, "ann", mine)
    users.create(acme, "zoe", mine, email="kim@example.org", password="a sentence of zoe's")
    for attempt in (
        lambda: users.create(acme, "own", mine, email="Kim@example.org"),
        lambda: users.create(acme, "kim@example.org", mine),
        lambda: users.create(acme, "own", mine, email="whoever@example.org"),
        lambda: users.change(acme, "ann", {"email": "kim@example.org"}),
    ):
        with pytest.raises(RejectedError) as refused:
            attempt()
        assert refused.value.code == "forbidden"
    for twice in (
        lambda: users.create(admin, "other", mine, email="KIM@example.org"),
        lambda: users.create(admin, "kim@example.org", mine),
        lambda: users.change(admin, "ann", {"email": "kim@example.org"}),
    ):
        with pytest.raises(RejectedError) as refused:
            twice()
        assert refused.value.code == "exists"
    bound = users.bind(admin, "kim@example.org", "https://x", "1")
    assert bound is not None
    assert bound.name == "kim"


def test_only_who_administers_all_tenants_gives_a_password_to_whom_the_provider_knows(accounts: Accounts) -> None:
    """Whoever knows it has what the provider grants later, which may be more."""
    admin, acme = Principal("admin"), Principal("eva", ("acme",))
    accounts.users.create(admin, "kim", {"acme": "viewer"}, issuer="https://x", subject="1")
    with pytest.raises(RejectedError) as refused:
        accounts.users.set_password(acme, "kim", "a sentence of eva's")
    assert refused.value.code == "forbidden"
    accounts.users.set_password(admin, "kim", "a sentence of kim's")


class Provider:
    """What a provider publishes, served on loopback, and tokens that it signs."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256", {"kid": "now", "use": "sig"})
        self.asked: list[str] = []
        provider = self

        class Published(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                found = provider.metadata() if "well-known" in self.path else {"keys": [provider.key.as_dict()]}
                body = json.dumps(found).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Published)
        self.issuer = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def metadata(self) -> dict[str, str]:
        roads = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        return {"issuer": self.issuer} | {road: f"{self.issuer}/{road}" for road in roads}

    def logout_token(self, key: ECKey | None = None, **changes: Any) -> str:
        claims = {
            "iss": self.issuer, "sub": "kim", "aud": "godwit", "iat": int(time.time()), "jti": "1",
            "events": {LOGOUT_EVENT: {}},
        } | changes  # fmt: skip
        kept = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode({"alg": "ES256", "kid": "now"}, kept, key or self.key, algorithms=["ES256"])


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    found = Provider()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def door(accounts: Accounts, provider: Provider) -> OidcDoor:
    found = settings(issuer=provider.issuer)
    assert found is not None
    who = Principal("admin")
    accounts.users.create(who, "kim", {"acme": "admin"}, issuer=provider.issuer, subject="kim")
    accounts.users.create(who, "lee", {"acme": "admin"}, issuer=provider.issuer, subject="lee")
    return OidcDoor(found, accounts.users, accounts.sign_in, accounts.refusals)


def test_who_signs_out_at_the_provider_is_out_here_at_once(
    accounts: Accounts, provider: Provider, door: OidcDoor
) -> None:
    kims = [accounts.sign_in.begin("kim", address="x", how="oidc") for _ in range(2)]
    lees = accounts.sign_in.begin("lee", address="x", how="oidc")
    assert all(accounts.known(each) for each in (*kims, lees))
    generation = accounts.generation
    door.log_out(provider.logout_token(), address="192.0.2.1")
    assert [accounts.known(each) for each in kims] == [None, None]
    assert accounts.known(lees)
    assert accounts.generation != generation  # open pages look, and leave
    door.log_out(provider.logout_token(sub="nobody"), address="192.0.2.1")  # who is not here is out


@pytest.mark.parametrize(
    "forge",
    [
        lambda _provider: "rubbish",
        lambda provider: provider.logout_token(ECKey.generate_key("P-256", {"kid": "now"})),
        lambda provider: provider.logout_token(iss="https://other.example"),
        lambda provider: provider.logout_token(aud="another"),
        lambda provider: provider.logout_token(sub=None),
        lambda provider: provider.logout_token(events=None),
        lambda provider: provider.logout_token(events={"http://schemas.openid.net/event/other": {}}),
        lambda provider: provider.logout_token(nonce="an ID token's"),
        lambda provider: provider.logout_token(iat=int(time.time()) - 3_600),
    ],
)
def test_nobody_else_signs_people_out(
    accounts: Accounts, provider: Provider, door: OidcDoor, forge: Callable[[Provider], str]
) -> None:
    session = accounts.sign_in.begin("kim", address="x", how="oidc")
    with pytest.raises(RejectedError) as refused:
        door.log_out(forge(provider), address="192.0.2.1")
    assert refused.value.code == "oidc-invalid"
    assert accounts.known(session)


def test_whoever_posts_logout_tokens_does_not_have_the_provider_asked_each_time(
    provider: Provider, door: OidcDoor
) -> None:
    provider.asked.clear()
    for _ in range(20):
        with pytest.raises(RejectedError):
            door.log_out("rubbish", address="192.0.2.1")
    assert len(provider.asked) == 2  # its metadata, and its keys


def test_a_provider_that_does_not_answer_is_not_waited_for_by_everybody(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = settings(issuer="https://login.example.org")
    assert found is not None
    door, asked = OidcDoor(found, accounts.users, accounts.sign_in, accounts.refusals), []

    def silent(_method: str, url: str) -> dict[str, Any]:
        asked.append(url)
        raise UnavailableError("it does not answer", code="provider-unavailable")

    monkeypatch.setattr(door, "_ask", silent)
    for _ in range(20):
        with pytest.raises(UnavailableError, match="does not answer"):
            door.begin("https://here/callback")
    assert len(asked) == 1


def test_whom_the_provider_gives_nothing_twice_gets_no_session_that_opens_nothing(accounts: Accounts) -> None:
    found = settings(grants="staff=acme:viewer")
    assert found is not None
    door = OidcDoor(found, accounts.users, accounts.sign_in, accounts.refusals)
    assert door._user_of({"sub": "kim", "groups": ["staff"]}, "x").grants == {"acme": "viewer"}
    for _ in range(2):
        with pytest.raises(RejectedError) as refused:
            door._user_of({"sub": "kim", "groups": []}, "x")
        assert refused.value.code == "not-admitted"
    assert door._user_of({"sub": "kim", "groups": ["staff"]}, "x").grants == {"acme": "viewer"}


def test_a_session_of_the_provider_is_shorter_than_others(accounts: Accounts) -> None:
    accounts.users.create(Principal("admin"), "kim", {"acme": "admin"})
    for longest, expected in (
        (None, accounts.sessions._longest),
        (60, 60 * 10**9),
        (10**9, accounts.sessions._longest),
    ):
        known = accounts.known(accounts.sign_in.begin("kim", address="x", how="oidc", longest_s=longest))
        assert known is not None
        (session, *_) = accounts.sessions.sessions("kim")
        limit = min(expected, accounts.sessions._idle)
        assert session.expires - session.created == limit


def test_whom_the_provider_gives_nothing_any_more_is_out_with_all_he_has(accounts: Accounts) -> None:
    who, acme = Principal("admin"), Principal("eva", ("acme",))
    accounts.users.create(who, "kim", {"acme": "admin"}, issuer="https://x", subject="1")
    session = accounts.sign_in.begin("kim", address="x", how="oidc")
    token = accounts.tokens.create(Principal("kim", ("acme",)), "mine", grants={"acme": "viewer"}).secret
    assert accounts.known(session)
    assert accounts.known(token)
    accounts.users.strip(who, "kim")
    assert (accounts.known(session), accounts.known(token)) == (None, None)
    assert accounts.users.user(who, "kim").grants == {}
    assert not accounts.users.user(who, "kim").is_disabled
    with pytest.raises(RejectedError):  # nobody's of the tenants any more
        accounts.users.user(acme, "kim")
    accounts.users.change(who, "kim", {"grants": {"acme": "viewer"}})
    assert accounts.known(token)


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
