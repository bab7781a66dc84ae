"""Who asks."""

import msgspec

from godwit.contract.ids import TenantId


class Principal(msgspec.Struct, frozen=True):
    """Who asks. `tenants` None: all of them."""

    name: str
    tenants: tuple[TenantId, ...] | None = None
    role: str = "admin"
