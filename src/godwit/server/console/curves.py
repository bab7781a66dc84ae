"""Which part of a device's history its charts show, and points on their way to the browser. Pure, but for the store."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import numpy as np

from godwit.server.telemetry.live import Reading
from godwit.server.telemetry.store import TelemetryStore

NS_PER_MS: Final = 1_000_000
POINTS_MAX: Final = 800
"""Points of one chart's history: about two to a pixel column."""

PUSHED_MAX: Final = 200
"""Points of one reading in one push; of more, every so-manieth is shown, and a reload shows the curve."""

RANGES: Final = (
    ("15m", "15 min", 900),
    ("1h", "1 h", 3_600),
    ("24h", "24 h", 86_400),
    ("7d", "7 d", 604_800),
    ("30d", "30 d", 2_592_000),
)
_SECONDS: Final = {key: seconds for key, _, seconds in RANGES}

SHOWN_MAX: Final = 4
"""Readings that are shown before anybody has chosen."""


class Window(NamedTuple):
    """A span of time, ns. `follow`: it ends now, whenever that is."""

    start: int
    end: int
    follow: bool

    def milliseconds(self) -> tuple[int, int]:
        """Return start and end in ms, as browsers count."""
        return self.start // NS_PER_MS, self.end // NS_PER_MS


def window_of(key: str, now: int) -> Window:
    """Return the window of a key of RANGES that ends `now`; an unknown one is an hour."""
    return Window(now - _SECONDS.get(key, 3_600) * 1_000_000_000, now, follow=True)


def custom_window(start_ms: str, end_ms: str) -> Window | None:
    """Return a window between two times of the browser, or None while they make no sense."""
    if not (start_ms.isdecimal() and end_ms.isdecimal()) or max(len(start_ms), len(end_ms)) > 14:
        return None
    start, end = int(start_ms) * NS_PER_MS, int(end_ms) * NS_PER_MS
    return Window(start, end, follow=False) if start < end else None


def history(store: TelemetryStore, series: dict[str, int], window: Window) -> dict[str, list[list[float]]]:
    """Return `[ms, value]` points per reading. Blocks."""
    # the newest commit may lie after `end`, which was read before: a window that follows is open at that side
    end = window.end + 60_000_000_000 if window.follow else window.end
    points = {}
    for name, number in series.items():
        time, value = store.chart(number, window.start, end, POINTS_MAX)
        finite = np.isfinite(value)
        points[name] = [
            list(each) for each in zip((time[finite] // NS_PER_MS).tolist(), value[finite].tolist(), strict=True)
        ]
    return points


def batch(news: Iterable[Reading], chosen: Iterable[str]) -> dict[str, list[list[Any]]]:
    """Return the points of chosen readings in `news`, in order of time, thinned when there are very many."""
    wanted = set(chosen)
    points: dict[str, list[list[Any]]] = {}
    for each in news:
        if each.name in wanted and not isinstance(each.value, str) and each.quality != "bad":
            points.setdefault(each.name, []).append([each.time // NS_PER_MS, float(each.value)])
    for name, found in points.items():
        found.sort(key=lambda point: point[0])
        if len(found) > PUSHED_MAX:
            points[name] = found[:: len(found) // PUSHED_MAX + 1] + found[-1:]
    return points
