"""The seam to a telemetry engine: what every store can do. All stores pass one suite, `tests/telemetry/suite.py`.

Writing is one `commit` at a time from one thread; reading may happen from any thread at any time. Every method may
block and raises only `UnavailableError` for trouble that may pass (disk full, engine away).
"""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from godwit.server.telemetry.model import Commit, Document, Points, Quarantined, Recovered, Retention, StateRow

Aggregate = Literal["avg", "min", "max", "sum", "count", "first", "last", "p50", "p95"]


class Buckets(msgspec.Struct, frozen=True):
    """Aggregates per series and bucket, sorted by series, then time; empty buckets are left out.

    `time` is the bucket's start (ns, aligned to multiples of the bucket's width since 1970). Text and bad-quality
    points
    do not count.
    """

    series: NDArray[np.int32]
    time: NDArray[np.int64]
    columns: dict[Aggregate, NDArray[np.float64]]


class StoreStats(msgspec.Struct, frozen=True):
    """What a store says of itself, for the console and /metrics."""

    points_hot: int
    points_sealed: int
    bytes_hot: int
    bytes_sealed: int
    files: int
    commits: int


class TelemetryStore(Protocol):
    """Columns in; range, buckets, chart points and latest out. Data and the server's state in one transaction."""

    def recover(self) -> Recovered:
        """Return the state as of the last commit. Called once, before the first commit."""
        ...

    def newest(self) -> Points:
        """Return the newest point of each series among those not sealed yet. Called once, after `recover`."""
        ...

    def last_samples(self, count: int) -> Points:
        """Return the points of the last `count` sample numbers of each track, of those not sealed yet, in order."""
        ...

    def commit(self, commit: Commit) -> None:
        """Make `commit` durable. When it raises UnavailableError, nothing of it is stored and it may be tried again."""
        ...

    def fold(self, number: int, rows: Iterable[StateRow]) -> None:
        """Replace state rows by key and forget the deltas of commits up to `number`, in one transaction."""
        ...

    def range(
        self, series: Sequence[int], start: int, end: int, *, limit: int | None = None, newest_first: bool = False
    ) -> Points:
        """Return points with start <= time < end, sorted by time, then seq (descending when newest_first)."""
        ...

    def buckets(
        self, series: Sequence[int] | None, start: int, end: int, every_ns: int, aggregates: Sequence[Aggregate]
    ) -> Buckets:
        """Aggregate per series and bucket. `series` None: all series."""
        ...

    def fleet_buckets(
        self, series: Sequence[int] | None, start: int, end: int, every_ns: int, aggregates: Sequence[Aggregate]
    ) -> Buckets:
        """Aggregate over all the series together per bucket (`series` column is all -1)."""
        ...

    def chart(
        self, series: int, start: int, end: int, points_max: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return at most `points_max` (time, value) that show the curve (LTTB, Steinarsson 2013)."""
        ...

    def export(self, series: Sequence[int], start: int, end: int, path: Path) -> int:
        """Write points, one row each with columns device, reading, time, value, text, quality, seq to a Parquet file.

        Returns the number of rows. Runs apart from the commit road and in bounded memory.
        """
        ...

    def documents(self, device_no: int | None, channels: Sequence[str], limit: int) -> list[Document]:
        """Return the newest documents of a device (None: of all devices), newest first."""
        ...

    def quarantine(
        self,
        *,
        tenants: Collection[str] | None = None,
        device_id: str | None = None,
        code: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[Quarantined]:
        """List quarantined messages (of some tenants), newest first, with numbers below `before`."""
        ...

    def quarantine_sizes(self) -> dict[tuple[str, str], int]:
        """Return the bytes in quarantine by (tenant, device id)."""
        ...

    def quarantined(self, number: int) -> Quarantined | None:
        """Return one quarantined message, whole."""
        ...

    def is_seal_due(self, now: int) -> bool:
        """Whether `seal` would find something to move. Cheap."""
        ...

    def seal(self, now: int, *, force: bool = False) -> int:
        """Move hot rows whose time has come into Parquet; returns the points moved. Called while commits go on."""
        ...

    def retain(self, now: int, rules: Sequence[Retention]) -> int:
        """Unlink what is older than its type's retention; returns the points removed."""
        ...

    def erase(self, device_no: int) -> int:
        """Remove every trace of a device: points, documents, state, quarantine; returns the points removed."""
        ...

    def stats(self) -> StoreStats:
        """Return sizes."""
        ...

    def close(self) -> None:
        """Close. Whatever was committed is there when it is opened again."""
        ...
