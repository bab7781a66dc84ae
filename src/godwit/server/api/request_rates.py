"""How many requests a tenant's people and programs may make: a bucket for each tenant that has a quota. Thread-safe.

Who sees several tenants takes from all of them; who sees all takes from none.
"""

import threading
from collections.abc import Callable
from time import monotonic_ns

from godwit.contract.errors import RejectedError
from godwit.server.accounts.principal import Principal
from godwit.server.broker.limits import Bucket
from godwit.server.registry.model import TenantQuota


class RequestRates:
    """Buckets by tenant."""

    def __init__(self, quota_of: Callable[[str], TenantQuota], now: Callable[[], int] = monotonic_ns) -> None:
        self._quota_of, self._now = quota_of, now
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[int, Bucket]] = {}

    def take(self, who: Principal) -> None:
        """Count a request. Raises RejectedError (`too-many-requests`)."""
        for tenant in who.tenants or ():
            per_s = self._quota_of(tenant).requests_per_s
            if per_s:
                self._take(tenant, per_s)

    def _take(self, tenant: str, per_s: int) -> None:
        with self._lock:
            now = self._now()
            known = self._buckets.get(tenant)
            if known is None or known[0] != per_s:
                known = self._buckets[tenant] = per_s, Bucket(per_s, now)
            bucket = known[1]
            bucket.fill(now)
            if not bucket.has(1):
                raise RejectedError(f"at most {per_s} requests/s of tenant {tenant}", code="too-many-requests")
            bucket.take(1)
