"""How the machine is that a device runs on: processor, memory, disk, uptime, as status messages carry them.

Read from Linux' /proc; elsewhere what cannot be known is left out. No package is needed for it.
"""

import os
import time
from pathlib import Path

from godwit.contract.status import Health


class Machine:
    """Looks when it is asked. `disk` is a path on the file system whose space matters: the spool's."""

    def __init__(self, disk: Path, proc: Path = Path("/proc")) -> None:
        self._disk, self._proc = disk, proc
        self._busy, self._whole = self._processor()

    def look(self, *, spool_depth: int, clock_offset: float | None) -> Health:
        """Return the health now; the processor's load is that since the last look."""
        return Health(
            cpu=self._cpu(),
            memory=self._memory(),
            disk=self._disk_used(),
            uptime=self._uptime(),
            temperature=_temperature(),
            spool_depth=spool_depth,
            clock_offset=clock_offset,
        )

    def _processor(self) -> tuple[int, int]:
        """Return (busy, whole) time of all processors since boot (proc_stat(5))."""
        try:
            ticks = [int(each) for each in (self._proc / "stat").read_text().split("\n", 1)[0].split()[1:9]]
        except (OSError, ValueError, IndexError):
            return 0, 0
        idle = ticks[3] + ticks[4]
        return sum(ticks) - idle, sum(ticks)

    def _cpu(self) -> float | None:
        busy, whole = self._processor()
        passed = whole - self._whole
        load = round(100 * (busy - self._busy) / passed, 1) if passed > 0 else None
        self._busy, self._whole = busy, whole
        return load

    def _memory(self) -> float | None:
        try:
            lines = dict(line.split(":", 1) for line in (self._proc / "meminfo").read_text().splitlines())
            total, free = (int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
        except (OSError, ValueError, KeyError):
            return None
        return round(100 * (1 - free / total), 1)

    def _disk_used(self) -> float | None:
        path = self._disk
        while not path.exists() and path != path.parent:
            path = path.parent
        try:
            found = os.statvfs(path)
        except OSError:
            return None
        return round(100 * (1 - found.f_bavail / found.f_blocks), 1) if found.f_blocks else None

    def _uptime(self) -> float | None:
        try:
            return float((self._proc / "uptime").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return time.monotonic()


def _temperature() -> float | None:
    """Return the processor's temperature in degrees Celsius, where the kernel tells it."""
    try:
        return int(Path("/sys/class/thermal/thermal_zone0/temp").read_text()) / 1000
    except (OSError, ValueError):
        return None
