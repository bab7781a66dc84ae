"""How fresh the fleet's data are: the age of the newest sample of each live device, and who is catching up.

A device is live while telemetry of it was stored in the last five minutes. It is catching up while the newest sample it
has delivered was old when it came, a moment ago: it flushes what it kept while it was away. Who sends fresh samples
beside its backlog is up to date, and who sent one old sample and nothing more has no backlog. Nothing is counted on the
road: all of it follows from the newest values, when somebody asks.
"""

from time import time_ns
from typing import Final

import numpy as np
from numpy.typing import NDArray

from godwit.server.ingest.directory import Directory
from godwit.server.ingest.door import Freshness
from godwit.server.telemetry.latest import LatestValues

NS: Final = 1_000_000_000
LIVE_NS: Final = 300 * NS
BEHIND_NS_MIN: Final = 300 * NS
"""As for samples that are counted as late."""
FLUSHING_NS: Final = 60 * NS
"""Who flushes says something at least so often."""
KEEP_NS: Final = NS
"""How long a look is good enough for the next who asks."""
LOOKS_MAX: Final = 1_000


class FleetFreshness:
    """Looks at the newest values, for any thread, at most once a second."""

    def __init__(self, directory: Directory, latest: LatestValues) -> None:
        self._directory, self._latest = directory, latest
        self._devices: NDArray[np.int64] = np.zeros(0, np.int64)
        """Device number by series number."""
        self._seen: dict[frozenset[str] | None, tuple[int, Freshness]] = {}
        """By whose devices: those of some tenants, or (None) all."""

    def look(self, now: int | None = None, tenants: frozenset[str] | None = None) -> Freshness:
        """Return the freshness at `now`, ns UTC, of all devices or those of some tenants."""
        now = time_ns() if now is None else now
        at, found = self._seen.get(tenants, (0, Freshness()))
        if not 0 <= now - at < KEEP_NS:
            newest, came = self._newest()
            if tenants is not None:
                owners = self._directory.by_no[: len(came)]
                is_theirs = np.array([each.is_known and each.tenant in tenants for each in owners], bool)
                came = np.where(is_theirs, came, 0)
            found = measure(newest, came, now)
            if len(self._seen) >= LOOKS_MAX:
                self._seen.clear()
            self._seen[tenants] = now, found
        return found

    def _newest(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return, by device number, the time of the newest sample and when it came; 0: none."""
        time, received = self._latest.time, self._latest.received
        rows = self._directory.series
        count = min(len(rows), len(time), len(received))  # they grow one after the other
        if len(self._devices) < count:
            more = [row[0].device_no for row in rows[len(self._devices) : count]]
            self._devices = np.concatenate([self._devices, np.array(more, np.int64)])
        devices, time, received = self._devices[:count], time[:count], received[:count]
        has_any = (devices >= 0) & (time > 0)
        devices, time, received = devices[has_any], time[has_any], received[has_any]
        size = int(devices.max()) + 1 if len(devices) else 0
        newest, came = np.zeros(size, np.int64), np.zeros(size, np.int64)
        np.maximum.at(newest, devices, time)
        np.maximum.at(came, devices, received)
        return newest, came


def measure(newest: NDArray[np.int64], came: NDArray[np.int64], now: int) -> Freshness:
    """Return the freshness of a fleet from the newest sample of each device and when it came, ns UTC."""
    is_live = came > now - LIVE_NS
    newest, came = newest[is_live], came[is_live]
    if not len(newest):
        return Freshness()
    ages = np.maximum(now - newest, 0) / NS  # a clock may be ahead
    lag = came - newest
    behind = lag[(lag > BEHIND_NS_MIN) & (came > now - FLUSHING_NS)] / NS
    # The age of a device there is, not one between a second and a year that no device has.
    age_p50, age_p95 = np.quantile(ages, (0.5, 0.95), method="inverted_cdf")
    return Freshness(
        live=len(newest),
        age_p50_s=round(float(age_p50), 3),
        age_p95_s=round(float(age_p95), 3),
        catching_up=len(behind),
        behind_p50_s=round(float(np.median(behind)), 3) if len(behind) else 0.0,
        behind_max_s=round(float(behind.max()), 3) if len(behind) else 0.0,
    )
