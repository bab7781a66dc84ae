"""The one place through which every read and write of a device passes: who may see which.

A device of another tenant and a device that does not exist get the same answer.
"""

from typing import Any

import sqlalchemy as sa

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DEFAULT_TENANT, TenantId
from godwit.server.accounts.principal import Principal
from godwit.server.storage.tables import devices


def visible(who: Principal, tenant_column: "sa.Column[Any]" = devices.c.tenant) -> "sa.ColumnElement[bool]":
    """Return the condition that leaves what `who` may see."""
    if who.tenants is None:
        return sa.true()
    return tenant_column.in_(who.tenants)


def sees(who: Principal, tenant: str) -> bool:
    """Whether `who` may see what belongs to a tenant: `visible` for what is not in the database."""
    return who.tenants is None or tenant in who.tenants


def may_use(who: Principal, tenant: str) -> bool:
    """Whether `who` may use one thing of a tenant.

    Raises RejectedError (`forbidden`) where he sees it, but may not do what he was limited to for this request.
    """
    if not sees(who, tenant) and who.roles and (role := who.role_in(tenant)) is not None:
        raise RejectedError(f"{who.name} has only the role {role} in {tenant}", code="forbidden")
    return sees(who, tenant)


def home(who: Principal) -> TenantId:
    """Return the tenant that `who` means where none is named."""
    return who.tenants[0] if who.tenants else DEFAULT_TENANT


def require_tenant(who: Principal, tenant: TenantId | None) -> TenantId:
    """Return the tenant to write to. Raises RejectedError (`not-found`) for one that `who` may not see."""
    if tenant is None:
        return home(who)
    if not may_use(who, tenant):
        raise not_found("tenant", tenant)
    return tenant


def not_found(kind: str, name: str) -> RejectedError:
    """Return the answer for what is not there, or not for these eyes."""
    return RejectedError(f"no {kind} {name!r}", code="not-found")
