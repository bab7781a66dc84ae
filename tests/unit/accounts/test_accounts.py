"""Users, sessions and tokens: who gets in, and who does not any more."""

from pathlib import Path
from time import time_ns

import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher

from godwit.contract.errors import RejectedError
from godwit.server.accounts.passwords import Passwords
from godwit.server.accounts.principal import Principal, principal_of
from godwit.server.accounts.refusal_tally import OF_ONE_MAX
from godwit.server.accounts.room import Accounts
from godwit.server.storage.account_tables import api_tokens, sessions, users
from godwit.server.storage.database import Database
from godwit.server.storage.tables import audit

ADMIN = Principal("admin", address="192.0.2.1")
PASSWORD = "seven godwits fly south"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0"
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0 Safari/537.36"
HERE = "192.0.2.7"


def code_of(refused: pytest.ExceptionInfo[RejectedError]) -> str:
    return refused.value.code


def sign_in(accounts: Accounts, name: str = "eve", password: str = PASSWORD, address: str = HERE) -> str:
    return accounts.sign_in.with_password(name, password, address=address, agent=FIREFOX)


def lines(database: Database, what: str) -> list[sa.Row]:
    with database.read() as connection:
        return list(connection.execute(sa.select(audit).where(audit.c.what == what)))


@pytest.fixture
def eve(accounts: Accounts) -> Principal:
    accounts.users.create(ADMIN, "Eve", {"acme": "operator"}, password=PASSWORD, must_change=False)
    found = principal_of("eve", {"acme": "operator"})
    assert found is not None
    return found


# --- the way in at first start ----------------------------------------------------------------------------------------


def test_the_first_token_and_links(accounts: Accounts, database: Database, tmp_path: Path) -> None:
    path = tmp_path / "admin-token"
    assert path.stat().st_mode & 0o777 == 0o600
    assert Accounts(database, tmp_path).admin_token == accounts.admin_token
    assert accounts.principal(accounts.admin_token) == Principal("admin")
    assert accounts.principal("x") is None
    assert accounts.principal("") is None
    link = accounts.issue_sign_in()
    session = accounts.redeem(link)
    assert session is not None
    assert accounts.redeem(link) is None
    assert accounts.principal(session, address=HERE) == Principal("admin", address=HERE)
    assert accounts.principal(link) is None
    accounts.sign_out(session)
    assert accounts.principal(session) is None


# --- users ------------------------------------------------------------------------------------------------------------


def test_a_user_signs_in_and_what_is_kept_is_a_hash(accounts: Accounts, database: Database, eve: Principal) -> None:
    assert accounts.principal(sign_in(accounts)) == eve
    assert accounts.principal(sign_in(accounts, " EVE ")) == eve
    with database.read() as connection:
        row = connection.execute(sa.select(users)).one()
        kept = [each.digest for each in connection.execute(sa.select(sessions))]
    assert row.password.startswith("$argon2id$")
    assert row.last_sign_in > 0
    assert all(len(each) == 64 for each in kept)
    (line,) = lines(database, "user.create")
    assert (line.who, line.tenant, line.address) == ("admin", "acme", "192.0.2.1")
    assert "password" not in line.after
    assert [each.address for each in lines(database, "sign-in")] == [HERE, HERE]


@pytest.mark.parametrize("name", ["", "admin", " ADMIN", "a b", "-x", "a" * 129, "a/b"])
def test_names_that_nobody_may_have(accounts: Accounts, name: str) -> None:
    with pytest.raises(RejectedError) as refused:
        accounts.users.create(ADMIN, name, {"*": "viewer"})
    assert code_of(refused) == "invalid-name"


@pytest.mark.parametrize("password", ["short", "x" * 257, "aaaaaaaaaaaaaaaa", "passwordpassword1", "eveeveeveeve"])
def test_passwords_that_are_guessed(accounts: Accounts, password: str) -> None:
    with pytest.raises(RejectedError) as refused:
        accounts.users.create(ADMIN, "eve", {"*": "viewer"}, password=password)
    assert code_of(refused) == "weak-password"


def test_a_new_password_ends_the_other_sessions(accounts: Accounts, eve: Principal) -> None:
    here, there = sign_in(accounts), sign_in(accounts)
    known = accounts.known(here)
    assert known is not None
    with pytest.raises(RejectedError) as refused:
        accounts.users.change_own_password(eve, "not it at all", "another good sentence")
    assert code_of(refused) == "wrong-password"
    accounts.users.change_own_password(eve, PASSWORD, "another good sentence", keep_session=known.session)
    assert accounts.principal(here) == eve
    assert accounts.principal(there) is None
    with pytest.raises(RejectedError):
        sign_in(accounts)
    assert sign_in(accounts, password="another good sentence")


def test_who_must_change_his_password_may_nothing_else(accounts: Accounts, eve: Principal) -> None:
    accounts.users.set_password(ADMIN, "eve", "given to her by mail")
    session = sign_in(accounts, password="given to her by mail")
    known = accounts.known(session)
    assert known is not None
    assert known.must_change
    assert accounts.principal(session) is None
    accounts.users.change_own_password(eve, "given to her by mail", PASSWORD, keep_session=known.session)
    assert accounts.principal(session) == eve


def test_a_disabled_user_is_out_at_once(accounts: Accounts, eve: Principal) -> None:
    session = sign_in(accounts)
    token = accounts.tokens.create(eve, "ci").secret
    assert accounts.principal(session) == eve
    assert accounts.principal(token) is not None
    accounts.users.change(ADMIN, "eve", {"is_disabled": True})
    assert accounts.principal(session) is None
    assert accounts.principal(token) is None
    with pytest.raises(RejectedError) as refused:
        sign_in(accounts)
    assert code_of(refused) == "wrong-password"  # like any stranger
    accounts.users.change(ADMIN, "eve", {"is_disabled": False})
    assert accounts.principal(session) is None  # it had ended
    assert accounts.principal(token) is not None


def test_other_rights_end_sessions_and_hold_for_tokens(accounts: Accounts, eve: Principal) -> None:
    session, token = sign_in(accounts), accounts.tokens.create(eve, "ci").secret
    assert accounts.principal(token) is not None
    accounts.users.change(ADMIN, "eve", {"grants": {"acme": "viewer", "beta": "admin"}})
    assert accounts.principal(session) is None
    who = accounts.principal(token)
    assert who is not None
    assert (who.tenants, who.role) == (("acme",), "viewer")
    accounts.users.change(ADMIN, "eve", {"grants": {"beta": "admin"}})
    assert accounts.principal(token) is None


def test_nobody_takes_his_own_rights_and_the_last_administrator_stays(accounts: Accounts) -> None:
    accounts.users.create(ADMIN, "ada", {"*": "admin"}, password=PASSWORD, must_change=False)
    ada = Principal("ada")
    for changes in ({"grants": {"*": "viewer"}}, {"is_disabled": True}):
        with pytest.raises(RejectedError) as refused:
            accounts.users.change(ada, "ada", changes)
        assert refused.value.code == "in-use"
    assert accounts.users.change(ada, "ada", {"grants": {"*": "admin"}, "display": "Ada"}).display == "Ada"


def test_a_tenants_administrator_manages_his_own_people_only(accounts: Accounts, eve: Principal) -> None:
    bob = Principal("bob", tenants=("acme",))  # type: ignore[arg-type]
    accounts.users.create(ADMIN, "root", {"*": "admin"})
    accounts.users.create(ADMIN, "both", {"acme": "viewer", "beta": "viewer"})
    assert [each.name for each in accounts.users.users(bob)] == ["eve"]
    assert [each.name for each in accounts.users.users(ADMIN)] == ["both", "eve", "root"]
    assert accounts.users.users(eve) == []
    for name in ("root", "both", "nobody"):
        with pytest.raises(RejectedError) as refused:
            accounts.users.change(bob, name, {"display": "mine"})
        assert code_of(refused) == "not-found"
    for grants in ({"*": "viewer"}, {"beta": "viewer"}):
        with pytest.raises(RejectedError) as refused:
            accounts.users.change(bob, "eve", {"grants": grants})
        assert code_of(refused) == "forbidden"
    assert accounts.users.change(bob, "eve", {"grants": {"acme": "admin"}}).grants == {"acme": "admin"}


def test_hashes_are_renewed_when_parameters_change(accounts: Accounts, database: Database, tmp_path: Path) -> None:
    accounts.users.create(ADMIN, "eve", {"*": "viewer"}, password=PASSWORD, must_change=False)
    dearer = Accounts(database, tmp_path, passwords=Passwords(PasswordHasher(2, 16, 1)))
    with database.read() as connection:
        before = connection.execute(sa.select(users.c.password)).scalar_one()
    sign_in(dearer)
    with database.read() as connection:
        after = connection.execute(sa.select(users.c.password)).scalar_one()
    assert "t=1" in before
    assert "t=2" in after
    sign_in(dearer)


def test_the_parameters_are_those_of_rfc_9106() -> None:
    assert "$argon2id$v=19$m=65536,t=3,p=4$" in Passwords().hash(PASSWORD)


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_a_cookie_in_another_kind_of_browser_is_stolen(accounts: Accounts, database: Database, eve: Principal) -> None:
    session = sign_in(accounts)
    assert accounts.principal(session, agent=FIREFOX.replace("133", "134")) == eve
    with pytest.raises(RejectedError) as refused:
        accounts.principal(session, agent=CHROME, address="203.0.113.9")
    assert code_of(refused) == "session-stolen"
    assert accounts.principal(session, agent=FIREFOX) is None  # it has ended for both
    (line,) = lines(database, "session.refuse")
    assert (line.about, line.after, line.address) == ("eve", {"code": "session-stolen"}, "203.0.113.9")


def test_a_replaced_secret_gives_a_thief_away(accounts: Accounts, database: Database, eve: Principal) -> None:
    old = sign_in(accounts)
    new = accounts.sessions.replace(old)
    assert new != old
    assert accounts.sessions.replace(old) == old  # once only
    assert accounts.principal(old) == eve  # requests may be under way
    assert accounts.principal(new) == eve
    assert len(accounts.sessions.sessions("eve")) == 1
    with database.write() as connection:
        long_ago = time_ns() - 120 * 1_000_000_000
        connection.execute(sessions.update().where(sessions.c.replaced > 0), {"replaced": long_ago})
    accounts.forget()
    with pytest.raises(RejectedError) as refused:
        accounts.principal(old)
    assert code_of(refused) == "session-stolen"
    assert accounts.principal(new) is None


@pytest.mark.parametrize("column", ["seen", "expires"])
def test_sessions_end_when_nobody_is_there_and_in_any_case(
    accounts: Accounts, database: Database, eve: Principal, column: str
) -> None:
    session = sign_in(accounts)
    with database.write() as connection:
        connection.execute(sessions.update(), {column: 1})
    accounts.forget()
    assert accounts.principal(session) is None
    assert accounts.sessions.sessions("eve") == []


def test_one_sees_and_ends_ones_own_sessions(accounts: Accounts, eve: Principal) -> None:
    here, there = sign_in(accounts), sign_in(accounts)
    known = accounts.known(there)
    assert known is not None
    assert {each.agent for each in accounts.sessions.sessions("eve")} == {"Firefox on Linux"}
    accounts.sessions.end(eve, "eve", known.session)
    accounts.forget()
    assert accounts.principal(there) is None
    assert accounts.principal(here) == eve
    with pytest.raises(RejectedError) as refused:
        accounts.sessions.end(eve, "bob", known.session)
    assert code_of(refused) == "not-found"


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_is_a_hash_with_scopes_and_an_end(accounts: Accounts, database: Database, eve: Principal) -> None:
    made = accounts.tokens.create(eve, "ci", scopes=["devices:read"], expires=time_ns() + 3_600 * 10**9)
    assert made.secret.startswith("gwt_")
    with database.read() as connection:
        row = connection.execute(sa.select(api_tokens)).one()
    assert made.secret not in str(row)
    who = accounts.principal(made.secret, address=HERE)
    assert who is not None
    assert (who.name, who.account, who.scopes, who.address) == ("eve/ci", "eve", ("devices:read",), HERE)
    assert accounts.principal(made.secret + "x") is None
    with database.write() as connection:
        connection.execute(api_tokens.update(), {"expires": 1})
    accounts.forget()
    assert accounts.principal(made.secret) is None


def test_a_revoked_token_is_dead_at_once(accounts: Accounts, eve: Principal) -> None:
    made = accounts.tokens.create(eve, "ci")
    assert accounts.principal(made.secret) is not None
    stranger = Principal("bob", tenants=("beta",))  # type: ignore[arg-type]
    with pytest.raises(RejectedError) as refused:
        accounts.tokens.revoke(stranger, made.token.token_id)
    assert code_of(refused) == "not-found"
    assert accounts.tokens.revoke(eve, made.token.token_id).revoked > 0
    assert accounts.principal(made.secret) is None


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"grants": {"*": "viewer"}}, "forbidden"),
        ({"grants": {"acme": "admin"}}, "forbidden"),
        ({"grants": {"acme": "king"}}, "invalid-grants"),
        ({"grants": {}}, "invalid-grants"),
        ({"scopes": ["devices:eat"]}, "invalid-scope"),
        ({"expires": 1}, "invalid-time"),
        ({"name": " "}, "invalid-name"),
    ],
)
def test_tokens_that_are_not_made(accounts: Accounts, eve: Principal, wanted: dict, code: str) -> None:
    with pytest.raises(RejectedError) as refused:
        accounts.tokens.create(eve, **{"name": "ci", **wanted})
    assert code_of(refused) == code


def test_a_token_makes_no_wider_token(accounts: Accounts, eve: Principal) -> None:
    narrow = accounts.principal(accounts.tokens.create(eve, "a", scopes=["tokens:write", "devices:read"]).secret)
    assert narrow is not None
    with pytest.raises(RejectedError):
        accounts.tokens.create(narrow, "b", scopes=["devices:write"])
    assert accounts.tokens.create(narrow, "b").token.scopes == ("devices:read", "tokens:write")


def test_the_administrators_tokens(accounts: Accounts) -> None:
    made = accounts.tokens.create(ADMIN, "grafana", grants={"acme": "viewer"}, scopes=["telemetry:read"])
    who = accounts.principal(made.secret)
    assert who is not None
    assert (who.name, who.tenants, who.role) == ("admin/grafana", ("acme",), "viewer")
    accounts.close()
    assert accounts.tokens.tokens(ADMIN)[0].last_used > 0


# --- guessing ---------------------------------------------------------------------------------------------------------


def test_guessing_has_to_wait_and_the_owner_does_not(accounts: Accounts, database: Database, eve: Principal) -> None:
    sign_in(accounts)
    for _ in range(5):
        with pytest.raises(RejectedError) as refused:
            sign_in(accounts, password="a wrong guess here", address="203.0.113.9")
        assert code_of(refused) == "wrong-password"
    with pytest.raises(RejectedError) as refused:
        sign_in(accounts, address="203.0.113.9")
    assert code_of(refused) == "too-many-attempts"
    sign_in(accounts)  # from where she always does
    codes = {each.after["code"] for each in lines(database, "sign-in.refuse")}
    assert "wrong-password" in codes
    assert PASSWORD not in str(lines(database, "sign-in.refuse"))


def test_refusals_do_not_fill_the_disk(accounts: Accounts, database: Database) -> None:
    for number in range(1_000):
        accounts.refusals.note("?", "sign-in.refuse", f"user{number}", code="wrong-password", address=HERE)
    assert len(lines(database, "sign-in.refuse")) == OF_ONE_MAX
    accounts.close()
    last = lines(database, "sign-in.refuse")[-1]
    assert last.about == f"{1_000 - OF_ONE_MAX} more like this"
    assert last.after == {"more": 1_000 - OF_ONE_MAX, "codes": {"wrong-password": 1_000 - OF_ONE_MAX}}
    assert last.address == HERE
