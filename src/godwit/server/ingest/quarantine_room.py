"""How much is kept of what was refused: bounds per device, per tenant, for strangers and in all. Pure.

Quarantine keeps whole payloads, and whoever sends nonsense sends much of it.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

STRANGERS: Final = ""
"""All peers that no registered device stands behind: names are free, so they share one bound."""


class QuarantineRoom:
    """Sizes of what is kept. 0 means without a bound."""

    def __init__(
        self,
        *,
        total: int = 0,
        tenant: int = 0,
        device: int = 0,
        tenant_max_of: Callable[[str], int] = lambda _tenant: 0,
    ) -> None:
        self._total_max, self._tenant_max, self._device_max = total, tenant, device
        self._tenant_max_of = tenant_max_of
        """What a tenant's own bound is; 0: that of every tenant."""
        self._total = 0
        self._tenants: Counter[str] = Counter()
        self._holders: Counter[str] = Counter()

    def restore(self, sizes: Mapping[tuple[str, str], int], known: Mapping[str, object]) -> None:
        """Take up sizes by (tenant, device id), as the store has them; `known` has the registered devices."""
        self._total = 0
        self._tenants.clear()
        self._holders.clear()
        for (tenant, device_id), size in sizes.items():
            self._add(tenant, device_id if device_id in known else STRANGERS, size)

    def of_tenants(self) -> dict[str, int]:
        """Return the bytes that are kept, by tenant."""
        return dict(self._tenants)

    def take(self, tenant: str, holder: str, size: int) -> bool:
        """Make room for a payload; False where a bound is in the way."""
        tenant_max = self._tenant_max_of(tenant) or self._tenant_max
        strangers_max = 4 * self._device_max
        holder_max = self._device_max if holder != STRANGERS else strangers_max
        if (
            (self._total_max and self._total + size > self._total_max)
            or (tenant_max and self._tenants[tenant] + size > tenant_max)
            or (holder_max and self._holders[holder] + size > holder_max)
        ):
            return False
        self._add(tenant, holder, size)
        return True

    def _add(self, tenant: str, holder: str, size: int) -> None:
        self._total += size
        self._tenants[tenant] += size
        self._holders[holder] += size
