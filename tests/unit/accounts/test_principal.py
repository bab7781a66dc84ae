"""Who may what where."""

import pytest

from godwit.contract.errors import RejectedError
from godwit.server.accounts.principal import ROLES, Principal, covers, grants_of, lesser, principal_of

EVERYWHERE_VIEWER = {"*": "viewer", "acme": "admin"}


def test_the_same_role_everywhere_is_small() -> None:
    who = principal_of("eve", {"*": "operator"})
    assert who == Principal("eve", role="operator")
    assert who.role_in("any") == "operator"
    who = principal_of("eve", {"acme": "viewer", "beta": "viewer"})
    assert who is not None
    assert who.tenants == ("acme", "beta")
    assert who.roles == ()
    assert who.role_in("gamma") is None


def test_roles_differ_between_tenants() -> None:
    who = principal_of("eve", EVERYWHERE_VIEWER)
    assert who is not None
    assert who.tenants is None
    assert who.role == "admin"  # somewhere
    assert [who.role_in(each) for each in ("acme", "beta")] == ["admin", "viewer"]
    who.require("admin", "acme")
    with pytest.raises(RejectedError) as refused:
        who.require("operator", "beta")
    assert refused.value.code == "forbidden"
    assert who.limited_to("operator").tenants == ("acme",)
    assert who.limited_to("viewer").tenants is None
    with pytest.raises(RejectedError):
        who.require_installation()


def test_nothing_is_granted_by_nothing() -> None:
    assert principal_of("eve", {}) is None
    assert Principal("eve", tenants=(), role="admin").role_in("acme") is None


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ({"*": "admin"}, {"acme": "viewer"}, {"acme": "viewer"}),
        ({"acme": "viewer"}, {"*": "admin"}, {"acme": "viewer"}),
        ({"acme": "admin"}, {"beta": "admin"}, {}),
        ({"*": "viewer", "acme": "admin"}, {"acme": "operator"}, {"acme": "operator"}),
        ({"*": "viewer"}, {"*": "operator", "acme": "admin"}, {"*": "viewer", "acme": "viewer"}),
    ],
)
def test_a_token_has_no_more_than_its_owner(one: dict[str, str], other: dict[str, str], both: dict[str, str]) -> None:
    assert lesser(one, other) == both
    assert covers(one, both)
    assert covers(other, both)


def test_covering() -> None:
    assert covers({"*": "operator", "acme": "admin"}, {"*": "operator"})
    assert not covers({"acme": "admin"}, {"*": "viewer"})
    assert not covers({"*": "viewer"}, {"acme": "operator"})
    assert all(covers({"*": "admin"}, {"acme": role}) for role in ROLES)


def test_grants_and_principals_are_the_same_thing() -> None:
    for grants in ({"*": "viewer"}, {"acme": "admin"}, EVERYWHERE_VIEWER):
        who = principal_of("eve", grants)
        assert who is not None
        assert grants_of(who) == grants


def test_a_scope_is_needed_only_where_there_are_scopes() -> None:
    Principal("eve").require_scope("devices:read")
    with pytest.raises(RejectedError) as refused:
        Principal("eve", scopes=("devices:read",)).require_scope("devices:write")
    assert refused.value.code == "scope-missing"
