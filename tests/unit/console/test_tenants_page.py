"""What the page of tenants draws, and what its form says."""

import pytest

from godwit.contract.errors import RejectedError
from godwit.contract.ids import TenantId
from godwit.server.console.tenant_parts import LIMITS, add_form, amount, quota_form, quota_from, render, short
from godwit.server.platform import TenantUse
from godwit.server.registry.model import Tenant, TenantQuota
from godwit.server.settings import Settings

EVIL = '<script>alert("1")</script>'
SETTINGS = Settings(tenant_connections_max=400)
USE = TenantUse(devices=5, connections=2, messages_per_s=1.5, retained_bytes=100, quarantine_bytes=0)


def tenant(name: str, devices: int = 5, **quota: int) -> Tenant:
    return Tenant(TenantId(name), 1, devices, TenantQuota(**quota))


def test_each_limit_has_its_use_beside_it_and_who_is_near_one_comes_first() -> None:
    uses = {"acme": USE, "beta": USE, "zeta": USE}
    tenants = [tenant("acme"), tenant("beta", devices=500), tenant("zeta", devices=5)]
    shown = render(tenants, uses, SETTINGS, "")
    assert shown.index("acme") < shown.index("beta") < shown.index("zeta")
    assert "of 400" in shown  # the settings' own limit
    assert "at a limit" not in shown
    shown = render([*tenants[:2], Tenant(TenantId("zeta"), 1, 5, TenantQuota(devices=5))], uses, SETTINGS, "")
    assert shown.index("zeta") < shown.index("acme")
    assert shown.count("at a limit") == 1
    assert "at most 7" in render([tenant("acme", requests_per_s=7)], {"acme": USE}, SETTINGS, "")
    assert "No tenant is called that" in render(tenants, uses, SETTINGS, "nobody")


def test_only_what_is_empty_may_be_removed_and_the_default_tenant_never() -> None:
    empty = TenantUse(0, 0, 0.0, 0, 0)
    assert 'data-act="remove"' not in render([tenant("acme")], {"acme": USE}, SETTINGS, "")
    assert 'data-act="remove"' in render([tenant("acme", 0)], {"acme": empty}, SETTINGS, "")
    assert 'data-act="remove"' not in render([tenant("default", 0)], {"default": empty}, SETTINGS, "")


def test_what_strangers_wrote_does_not_run() -> None:
    assert (
        EVIL not in render([tenant(EVIL)], {EVIL: USE}, SETTINGS, "") + quota_form(tenant(EVIL), SETTINGS) + add_form()
    )


@pytest.mark.parametrize(
    ("said", "meant"),
    [("", 0), ("0", 0), ("500", 500), ("5k", 5_000), ("1,000", 1_000), ("64Mi", 2**26), ("64MiB", 2**26)],
)
def test_amounts_are_read_as_people_type_them(said: str, meant: int) -> None:
    assert amount(said, "x") == meant


@pytest.mark.parametrize("said", ["-1", "1.5", "many", "5x", "٣", "9" * 17, "99999999Ti", "k", "1mm"])
def test_other_amounts_are_refused(said: str) -> None:
    with pytest.raises(RejectedError) as refused:
        amount(said, "Devices")
    assert refused.value.code == "invalid-field"


def test_the_form_says_again_what_is_in_force() -> None:
    assert short(2**26) == "64Mi"
    assert all(amount(short(each), "x") == each for each in (0, 1, 1_000, 1_024, 3 * 2**20, 5 * 2**40, 1_025))
    assert quota_from({"devices": "7", "retained_bytes": "", "tenant": "acme", "role": "admin"}) == {
        "devices": 7, "retained_bytes": 0,
    }  # fmt: skip
    assert {each.field for each in LIMITS} == set(TenantQuota.__struct_fields__)
