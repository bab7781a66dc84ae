"""What people and programs see of clocks: a row for each device, the worst first, and the fleet at a glance. Pure."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from statistics import median
from typing import Final

import msgspec

NS: Final = 1_000_000_000
DRIFT_KNOWN_PPM: Final = 40.0
"""A drift that may be further off than this says nothing yet."""
SORTS: Final = ("offset", "drift", "uncertainty", "measured", "steps", "deviceId")
"""What rows may be ordered by; the first is the default."""
OFFSET_EDGES_NS: Final = tuple(
    [-each for each in (86_400 * NS, 3_600 * NS, 60 * NS, NS, NS // 10, NS // 100)]
    + [NS // 100, NS // 10, NS, 60 * NS, 3_600 * NS, 86_400 * NS]
)
DRIFT_EDGES_PPM: Final = (-100.0, -50.0, -30.0, -20.0, -10.0, -5.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0)


class ClockReport(msgspec.Struct, frozen=True, rename="camel"):
    """What is known of one device's clock. Times and spans in ns, drift in ppm; offset: the device's minus ours."""

    device_id: str
    clock: str
    """`utc`, or `uptime`: then there is no offset that would say anything."""
    boot_id: str
    measured: int
    offset_ns: int | None
    uncertainty_ns: int
    drift_ppm: float
    drift_uncertainty_ppm: float
    exchanges: int
    steps: int
    stepped: int
    """When the newest step was seen; 0: none was."""
    step_ns: int
    is_corrected: bool

    @property
    def is_drift_known(self) -> bool:
        """Whether there were exchanges enough, far enough apart."""
        return self.drift_uncertainty_ppm <= DRIFT_KNOWN_PPM


class FleetClocks(msgspec.Struct, frozen=True, rename="camel"):
    """The clocks of a fleet: of absolute offsets and drifts the middle and the largest; 0 where none is known."""

    devices: int
    corrected: int
    stepped: int
    """Devices whose clock was seen to step."""
    offset_ns_median: int
    offset_ns_max: int
    drifts: int
    """Devices whose drift is known."""
    drift_ppm_median: float
    drift_ppm_max: float


def fleet(reports: Sequence[ClockReport]) -> FleetClocks:
    """Return the clocks of a fleet at a glance."""
    offsets = [abs(each.offset_ns) for each in reports if each.offset_ns is not None]
    drifts = [abs(each.drift_ppm) for each in reports if each.is_drift_known]
    return FleetClocks(
        devices=len(reports),
        corrected=sum(each.is_corrected for each in reports),
        stepped=sum(each.steps > 0 for each in reports),
        offset_ns_median=round(median(offsets)) if offsets else 0,
        offset_ns_max=max(offsets, default=0),
        drifts=len(drifts),
        drift_ppm_median=median(drifts) if drifts else 0.0,
        drift_ppm_max=max(drifts, default=0.0),
    )


def offset_bins(reports: Sequence[ClockReport]) -> list[int]:
    """Return how many devices there are between OFFSET_EDGES_NS: one bin more than edges, slow clocks first."""
    return _bins(OFFSET_EDGES_NS, [each.offset_ns for each in reports if each.offset_ns is not None])


def drift_bins(reports: Sequence[ClockReport]) -> list[int]:
    """Return how many devices there are between DRIFT_EDGES_PPM, of those whose drift is known."""
    return _bins(DRIFT_EDGES_PPM, [each.drift_ppm for each in reports if each.is_drift_known])


def _bins(edges: Sequence[float], values: Sequence[float]) -> list[int]:
    counts = [0] * (len(edges) + 1)
    for each in values:
        counts[bisect_right(edges, each)] += 1
    return counts


_KEYS: Final[dict[str, Callable[[ClockReport], tuple[float, ...]]]] = {
    "offset": lambda each: (each.offset_ns is not None, abs(each.offset_ns or 0)),
    "drift": lambda each: (each.is_drift_known, abs(each.drift_ppm)),
    "uncertainty": lambda each: (each.uncertainty_ns,),
    "measured": lambda each: (each.measured,),
    "steps": lambda each: (each.steps, each.stepped),
}


def page(
    reports: Sequence[ClockReport], search: str, sort: str, offset: int, limit: int, *, descending: bool
) -> tuple[list[ClockReport], int]:
    """Return some of the rows whose device id holds `search`, and how many there are.

    Offset and drift are ordered by how far off they are, those that are not known last when the worst come first.
    """
    found = sorted((each for each in reports if search.lower() in each.device_id.lower()), key=_device_id)
    key = _KEYS.get(sort)
    if key is not None:
        found.sort(key=key, reverse=descending)
    elif descending:
        found.reverse()
    return found[offset : offset + limit], len(found)


def _device_id(report: ClockReport) -> str:
    return report.device_id
