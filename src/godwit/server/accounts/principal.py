"""Who asks, and what they may."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from godwit.contract.errors import RejectedError
from godwit.contract.ids import TenantId

ROLES: Final = ("viewer", "operator", "admin")
"""Each may what those before it may: look; change devices and what concerns them; change who may what."""
EVERYWHERE: Final = "*"
"""In grants: all tenants, those that are yet to come too."""

_RANK: Final = {role: rank for rank, role in enumerate(ROLES)}


class Principal(msgspec.Struct, frozen=True):
    """Who asks. `tenants` None: all of them. `scopes` empty: all that the role has.

    `role` is the highest that it has anywhere. Where roles differ between tenants, `roles` says them one by one, the
    one for EVERYWHERE among them.
    """

    name: str
    tenants: tuple[TenantId, ...] | None = None
    role: str = "admin"
    scopes: tuple[str, ...] = ()
    address: str = ""
    roles: tuple[tuple[str, str], ...] = ()

    @property
    def account(self) -> str:
        """Whose it is: a token's name begins with its owner's."""
        return self.name.partition("/")[0]

    @property
    def is_token(self) -> bool:
        """Whether a program asks, with a token that somebody made for it."""
        return self.name != self.account

    def require_own(self, scope: str) -> None:
        """Raise RejectedError (`forbidden`) for a token that was not made for its owner's own matters."""
        if self.is_token and scope not in self.scopes:
            raise RejectedError(
                f"only {self.account} himself may do this, or a token with the scope {scope}", code="forbidden"
            )

    def role_in(self, tenant: str) -> str | None:
        """Return the role in a tenant; None where it has none."""
        if not self.roles:
            return self.role if self.tenants is None or tenant in self.tenants else None
        found = [role for name, role in self.roles if name in (tenant, EVERYWHERE)]
        return max(found, key=_RANK.__getitem__, default=None)

    def is_at_least(self, role: str, tenant: str | None = None) -> bool:
        """Whether it may what `role` may, in a tenant; without one: in any."""
        has = self.role if tenant is None else self.role_in(tenant)
        return has is not None and _RANK[has] >= _RANK[role]

    def require(self, role: str, tenant: str | None = None) -> None:
        """Raise RejectedError (`forbidden`) where it may not what `role` may, in a tenant; without one: in any."""
        if not self.is_at_least(role, tenant):
            has = self.role if tenant is None else self.role_in(tenant)
            where = "" if tenant is None else f" in {tenant}"
            raise RejectedError(f"this needs the role {role}{where}; {self.name} has {has or 'none'}", code="forbidden")

    def require_installation(self) -> None:
        """Raise RejectedError (`forbidden`) where it is not an administrator of all tenants."""
        self.require("admin")
        if self.limited_to("admin").tenants is not None:
            raise RejectedError("only an administrator of all tenants may do this", code="forbidden")

    def limited_to(self, role: str) -> "Principal":
        """Return it as it is where it has at least `role`: `tenants` are those only."""
        if not self.roles:
            return self
        wide = _tenants(name for name, has in self.roles if _RANK[has] >= _RANK[role])
        return msgspec.structs.replace(self, tenants=wide)

    def require_scope(self, scope: str) -> None:
        """Raise RejectedError (`scope-missing`) for a token that was not made for this."""
        if self.scopes and scope not in self.scopes:
            raise RejectedError(f"this token has not the scope {scope}", code="scope-missing")


def _tenants(names: Iterable[str]) -> tuple[TenantId, ...] | None:
    found = sorted(set(names))
    return None if EVERYWHERE in found else tuple(TenantId(each) for each in found)


def principal_of(
    name: str, grants: Mapping[str, str], *, scopes: tuple[str, ...] = (), address: str = ""
) -> Principal | None:
    """Return who has these grants ({tenant: role}, EVERYWHERE for all); None for who has none."""
    if not grants:
        return None
    highest = max(grants.values(), key=_RANK.__getitem__)
    is_alike = len(set(grants.values())) == 1
    return Principal(
        name, _tenants(grants), highest, scopes, address, () if is_alike else tuple(sorted(grants.items()))
    )


def _role(grants: Mapping[str, str], tenant: str) -> str | None:
    own, wide = grants.get(tenant), grants.get(EVERYWHERE)
    if own is None or wide is None:
        return own or wide
    return max(own, wide, key=_RANK.__getitem__)


def lesser(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """Return the grants that both have: in each tenant the lower role."""
    both: dict[str, str] = {}
    for tenant in {*one, *other}:
        roles = [role for role in (_role(one, tenant), _role(other, tenant)) if role is not None]
        if len(roles) == 2:
            both[tenant] = min(roles, key=_RANK.__getitem__)
    return both


def covers(wide: Mapping[str, str], narrow: Mapping[str, str]) -> bool:
    """Whether nobody with `narrow` may anything that `wide` does not give."""
    for tenant, role in narrow.items():
        has = _role(wide, tenant)
        if has is None or _RANK[has] < _RANK[role]:
            return False
    return True


def grants_of(who: Principal) -> dict[str, str]:
    """Return what `who` has in his tenants, as grants."""
    if who.roles:
        return {name: role for name, role in who.roles if who.tenants is None or name in who.tenants}
    return dict.fromkeys((EVERYWHERE,) if who.tenants is None else who.tenants, who.role)


def check_grants(grants: Mapping[str, str]) -> dict[str, str]:
    """Return grants. Raises RejectedError (`invalid-grants`)."""
    for tenant, role in grants.items():
        if role not in ROLES:
            raise RejectedError(f"the role in {tenant!r} is one of {', '.join(ROLES)}", code="invalid-grants")
        if not tenant or len(tenant) > 64:
            raise RejectedError("a grant names a tenant, or * for all", code="invalid-grants")
    if not grants:
        raise RejectedError('who has no grant may nothing; name a role: {"*": "viewer"}', code="invalid-grants")
    return dict(grants)
