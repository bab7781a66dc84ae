"""Who asks, and what they may."""

from typing import Final

import msgspec

from godwit.contract.errors import RejectedError
from godwit.contract.ids import TenantId

ROLES: Final = ("viewer", "operator", "admin")
"""Each may what those before it may: look; change devices and what concerns them; change who may what."""


class Principal(msgspec.Struct, frozen=True):
    """Who asks. `tenants` None: all of them. `scopes` empty: all that the role has."""

    name: str
    tenants: tuple[TenantId, ...] | None = None
    role: str = "admin"
    scopes: tuple[str, ...] = ()
    address: str = ""

    def is_at_least(self, role: str) -> bool:
        """Whether it may what `role` may."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def require(self, role: str) -> None:
        """Raise RejectedError (`forbidden`) where it may not what `role` may."""
        if not self.is_at_least(role):
            raise RejectedError(f"this needs the role {role}; {self.name} is {self.role}", code="forbidden")

    def require_installation(self) -> None:
        """Raise RejectedError (`forbidden`) where it is not an administrator of all tenants."""
        self.require("admin")
        if self.tenants is not None:
            raise RejectedError("only an administrator of all tenants may do this", code="forbidden")
