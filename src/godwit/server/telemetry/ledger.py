"""The account of every device: what came, what was stored, what was refused and why. Arrays, indexed by device number.

Counted in samples, but for `messages` and `readings`. Nothing here is durable by itself: what a group adds travels in
its commit's delta, and folded chunks in state rows.
"""

from collections import Counter
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from godwit.server.telemetry.model import StateRow

CHUNK: Final = 1_024
KIND: Final = "ledger"
REFUSALS: Final = "refusals"


class Account(IntEnum):
    """Columns of the ledger."""

    MESSAGES = 0
    ACCEPTED = 1
    READINGS = 2
    DUPLICATE = 3
    LATE = 4
    REFUSED = 5


WIDTH: Final = len(Account)


class Ledger:
    """Counters per device, and refusals per device and reason code."""

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros((CHUNK, WIDTH), np.int64)
        self._quarantined: dict[int, Counter[str]] = {}
        self._dirty_chunks: set[int] = set()
        self._dirty_devices: set[int] = set()

    def add(self, devices: NDArray[np.int32], amounts: NDArray[np.int64]) -> None:
        """Add `amounts` (n x WIDTH) to the accounts of `devices` (n, repeated ones add up)."""
        if not len(devices):
            return
        self._reserve(int(devices.max()))
        np.add.at(self._counts, devices, amounts)
        self._dirty_chunks.update(np.unique(devices // CHUNK).tolist())

    def refuse(self, device_no: int, code: str, count: int = 1) -> None:
        """Count a quarantined message (or sample) under its reason; device -1 stands for unknown peers."""
        self._quarantined.setdefault(device_no, Counter())[code] += count
        self._dirty_devices.add(device_no)

    def account(self, device_no: int) -> list[int]:
        """Return the counters of a device, in the order of `Account`."""
        return self._counts[device_no].tolist() if device_no < len(self._counts) else [0] * WIDTH

    def refusals(self, device_no: int) -> dict[str, int]:
        """Return quarantined counts by reason code."""
        return dict(self._quarantined.get(device_no, {}))

    def totals(self) -> list[int]:
        """Return the sums over all devices, in the order of `Account`."""
        sums: list[int] = self._counts.sum(axis=0).tolist()
        return sums

    def quarantined_total(self) -> int:
        """Return how much was ever quarantined."""
        return sum(counter.total() for counter in self._quarantined.values())

    def forget(self, device_no: int) -> None:
        """Clear a device's account: it was erased."""
        self._reserve(device_no)
        self._counts[device_no] = 0
        self._dirty_chunks.add(device_no // CHUNK)
        self._quarantined[device_no] = Counter()
        self._dirty_devices.add(device_no)

    def dump(self) -> list[StateRow]:
        """Return state rows of all that changed since the last dump."""
        rows = [StateRow(KIND, at, self._counts[at * CHUNK : (at + 1) * CHUNK].tobytes()) for at in self._dirty_chunks]
        rows += [
            StateRow(REFUSALS, number, msgspec.msgpack.encode(dict(self._quarantined[number])))
            for number in self._dirty_devices
        ]
        self._dirty_chunks.clear()
        self._dirty_devices.clear()
        return rows

    def restore(self, rows: Iterable[StateRow]) -> None:
        """Take up dumped rows (others are passed over)."""
        for row in rows:
            if row.kind == KIND:
                self._reserve((row.key + 1) * CHUNK - 1)
                chunk = np.frombuffer(row.data, np.int64).reshape(-1, WIDTH)
                self._counts[row.key * CHUNK : (row.key + 1) * CHUNK] = chunk
            elif row.kind == REFUSALS:
                self._quarantined[row.key] = Counter(msgspec.msgpack.decode(row.data, type=dict[str, int]))

    def _reserve(self, device_no: int) -> None:
        while device_no >= len(self._counts):
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
