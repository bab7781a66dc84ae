"""Reads the machine's clocks for `DeviceClock`, and keeps in the spool what was learnt of each boot."""

import contextlib
from collections.abc import Sequence
from typing import Final

import msgspec

from godwit.contract.errors import UnavailableError
from godwit.contract.stored import StoredUpTo
from godwit.device.clock import Boot, DeviceClock, Placed, Run
from godwit.runtime.clock import NS, Clock
from godwit.spool import Spool
from godwit.spool.files import boot_id

KEEP_EVERY_S: Final = 600.0
_BOOTS: Final = "boots"


class Timekeeper:
    """The time of one device."""

    def __init__(self, clock: Clock, spool: Spool) -> None:
        self._clock, self._spool = clock, spool
        try:
            kept = msgspec.json.decode(spool.noted(_BOOTS) or "[]", type=list[Boot])
        except msgspec.DecodeError:
            kept = []  # of another version: readings of those boots go out as uptimes
        self._known = DeviceClock(boot_id(), clock.uptime_ns(), kept)
        self._has_exchange = self._has_echo = False
        self.keep()

    def keep(self) -> None:
        """Let the spool remember the boots; what it cannot take now, it takes the next time."""
        self._kept_s = self._clock.monotonic_s()
        with contextlib.suppress(UnavailableError):
            self._spool.note(_BOOTS, msgspec.json.encode(self._known.keep()).decode())

    def _keep_sometimes(self) -> None:
        if self._clock.monotonic_s() >= self._kept_s + KEEP_EVERY_S:
            self.keep()

    def stamp(self) -> int:
        """Return what a sample that is taken now is stamped with."""
        wall = self._clock.now_ns()
        if not self._known.is_believable(wall):
            self._keep_sometimes()
        return self._known.stamp(self._clock.uptime_ns(), wall)

    def utc(self) -> int | None:
        """Return the time of day, ns UTC, as far as it is known."""
        placed = self.place(self.stamp())
        return None if placed.boot_id else placed.time

    def age_s(self, stamp: int) -> float:
        """Return how long ago a sample was taken; of an earlier boot: at least so long."""
        return max(0.0, self._known.age(stamp, self._clock.uptime_ns(), self._clock.now_ns()) / NS)

    def run(self, stamps: Sequence[int]) -> Run:
        """Return as many of the first `stamps` as may go out in one message."""
        return self._known.run(stamps)

    def place(self, stamp: int) -> Placed:
        """Return a stamp as UTC where that is known well enough."""
        return self._known.place(stamp)

    def fields(self, boot: str) -> dict[str, object]:
        """Return the fields of a message that is sent now and whose times are of `boot`, or UTC."""
        head: dict[str, object] = msgspec.to_builtins(
            self._known.head(boot, self._clock.uptime_ns(), self._clock.now_ns())
        )
        if head.get("sync") and not self._has_echo:
            self._has_echo = True
            self.keep()
        return head

    def told(self, notice: StoredUpTo) -> None:
        """Take up the timestamps of a `telemetry/stored`."""
        if self._known.told(notice, self._clock.uptime_ns(), self._clock.now_ns()) is None:
            return
        if self._has_exchange:
            self._keep_sometimes()
        else:
            self._has_exchange = True
            self.keep()

    @property
    def offset_s(self) -> float | None:
        """How far the time of day is ahead of the server's; None before they were compared."""
        offset = self._known.offset(self._clock.uptime_ns(), self._clock.now_ns())
        return None if offset is None else round(offset / NS, 3)
