"""What telemetry is made of inside the server: columns of points, and what is committed with them.

Times are int64 nanoseconds UTC everywhere. A *series* is one named reading of one device, and has a number. A *track*
is one `(device, stream, epoch)`: the unit of order and of deduplication; track 0 is data without sequence numbers.
"""

from enum import IntEnum
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

GOOD: Final = 0
UNCERTAIN: Final = 1
BAD: Final = 2


class Kind(IntEnum):
    """Which column holds a point's value."""

    FLOAT = 0
    INTEGER = 1
    BOOLEAN = 2
    TEXT = 3


class Points(msgspec.Struct, frozen=True):
    """Columns of points, all of the same length n.

    `value` holds floats, and integers and booleans as floats too (so that aggregates need one column); `integer` holds
    int64 values exactly (None where the whole batch has none beyond 2**53); `text` holds text values (None where the
    batch has none; else a list of str | None). `seq` is the sample's number in its track (-1 without one), `offset` is
    device time minus stored time in ns (0: not corrected), `received` is the server's time of arrival.
    """

    series: NDArray[np.int32]
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    kind: NDArray[np.uint8]
    quality: NDArray[np.uint8]
    seq: NDArray[np.int64]
    track: NDArray[np.int32]
    offset: NDArray[np.int64]
    received: NDArray[np.int64]
    integer: NDArray[np.int64] | None = None
    text: list[str | None] | None = None

    def __len__(self) -> int:
        return len(self.series)


class DeviceRow(msgspec.Struct, frozen=True):
    """A device as the store numbers it. A later row with the same number replaces the earlier one (type changed)."""

    device_no: int
    device_id: str
    tenant: str
    device_type: str


class SeriesRow(msgspec.Struct, frozen=True):
    """A series as the store numbers it. A later row with the same number replaces the earlier one (unit changed)."""

    series_no: int
    device_no: int
    name: str
    unit: str = ""


class TrackRow(msgspec.Struct, frozen=True):
    """A `(device, stream, epoch)` as the store numbers it."""

    track_no: int
    device_no: int
    stream: str
    epoch: str


class Document(msgspec.Struct, frozen=True):
    """Something a device said besides telemetry: status, event, command result ... kept whole."""

    device_no: int
    channel: str
    time: int
    received: int
    payload: bytes


class Quarantined(msgspec.Struct, frozen=True):
    """A refused message, kept whole. `number` is given by the server and grows; `sample` >= 0 names one bad sample."""

    number: int
    device_id: str
    tenant: str
    topic: str
    code: str
    detail: str
    content_type: str
    received: int
    payload: bytes
    sample: int = -1


class StateRow(msgspec.Struct, frozen=True):
    """A piece of folded state (dedup, ledger, latest values) under a key; a later row replaces the earlier one."""

    kind: str
    key: int
    data: bytes


class Commit(msgspec.Struct, frozen=True):
    """All that becomes durable in one transaction, or not at all.

    `number` grows by one a commit. `delta` is what dedup, ledger and latest values change by, opaque to the store.
    """

    number: int
    points: Points | None = None
    devices: list[DeviceRow] = []
    series: list[SeriesRow] = []
    tracks: list[TrackRow] = []
    documents: list[Document] = []
    quarantined: list[Quarantined] = []
    released: list[int] = []
    """Quarantine numbers that leave with this commit: replayed or purged."""
    delta: bytes = b""


class Recovered(msgspec.Struct, frozen=True):
    """What a store holds of the server's state when it is opened."""

    number: int
    """Of the last commit; 0 in a new store."""
    devices: list[DeviceRow]
    series: list[SeriesRow]
    tracks: list[TrackRow]
    state: list[StateRow]
    deltas: list[tuple[int, bytes]]
    """(commit number, delta) of all commits since the last fold, in order."""
    quarantine_number: int
    """The highest quarantine number ever given."""
    quarantine_bytes: int


class Retention(msgspec.Struct, frozen=True):
    """How long points of one tenant's device type are kept. None: for ever."""

    tenant: str
    device_type: str
    age_s_max: int | None
