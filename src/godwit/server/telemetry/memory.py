"""A store in memory with the semantics of a crash, for the simulator and the tests. Same suite as the real one."""

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from godwit.contract.errors import UnavailableError
from godwit.server.telemetry.lttb import largest_triangles
from godwit.server.telemetry.model import (
    Commit,
    DeviceRow,
    Document,
    Points,
    Quarantined,
    Recovered,
    Retention,
    SeriesRow,
    StateRow,
    TrackRow,
)
from godwit.server.telemetry.store import Aggregate, Buckets, StoreStats

Row = TypeVar("Row", DeviceRow, SeriesRow, TrackRow)
_COLUMNS = ("series", "time", "value", "kind", "quality", "seq", "track", "offset", "received")

_AGGREGATES: dict[str, Callable[[NDArray[np.float64]], float]] = {
    "avg": lambda values: float(values.mean()),
    "min": lambda values: float(values.min()),
    "max": lambda values: float(values.max()),
    "sum": lambda values: float(values.sum()),
    "count": lambda values: float(len(values)),
    "first": lambda values: float(values[0]),
    "last": lambda values: float(values[-1]),
    "p50": lambda values: float(np.quantile(values, 0.5)),
    "p95": lambda values: float(np.quantile(values, 0.95)),
}


class MemoryStore:
    """See `TelemetryStore`. `fault` is called with a commit before and after it is durable; it may raise or crash."""

    def __init__(self) -> None:
        self._commits: list[Commit] = []
        self._state: dict[tuple[str, int], StateRow] = {}
        self._folded = 0
        self._erased: set[int] = set()
        self._released: set[int] = set()
        self._is_crashed = False
        self.fault: Callable[[Commit, bool], None] = lambda _commit, _is_durable: None

    def crash(self) -> "MemoryStore":
        """End as a killed process does; returns the store that is opened next, with what was committed and no more.

        This one takes nothing any more, nor the commit in whose midst it crashed, unless that was durable already.
        """
        self._is_crashed = True
        opened = MemoryStore()
        opened._commits, opened._state = list(self._commits), dict(self._state)
        opened._folded = self._folded
        opened._erased, opened._released = set(self._erased), set(self._released)
        return opened

    def _refuse_crashed(self) -> None:
        if self._is_crashed:
            raise UnavailableError("the store has crashed", code="store-unavailable")

    def recover(self) -> Recovered:
        """Return the state as of the last commit."""
        kept = [each for commit in self._commits for each in commit.quarantined]
        return Recovered(
            number=self._commits[-1].number if self._commits else 0,
            devices=[
                self._unless_erased(row, device_id="")
                for row in {row.device_no: row for commit in self._commits for row in commit.devices}.values()
            ],
            series=[
                self._unless_erased(row, name="", unit="")
                for row in {row.series_no: row for commit in self._commits for row in commit.series}.values()
            ],
            tracks=[self._unless_erased(row, stream="", epoch="") for commit in self._commits for row in commit.tracks],
            state=list(self._state.values()),
            deltas=[(each.number, each.delta) for each in self._commits if each.number > self._folded],
            quarantine_number=max((each.number for each in kept), default=0),
            quarantine_bytes=sum(len(each.payload) for each in kept if each.number not in self._released),
        )

    def _unless_erased(self, row: Row, **blank: str) -> Row:
        """Return a row; of an erased device only its numbers, which stay taken."""
        return msgspec.structs.replace(row, **blank) if row.device_no in self._erased else row

    def newest(self) -> Points:
        """Return the newest point of each series."""
        points = self._points()
        order = np.lexsort((points.seq, points.time, points.series))
        is_last = np.append(np.diff(points.series[order]) != 0, True) if len(order) else np.zeros(0, bool)
        return _take(points, order[is_last])

    def last_samples(self, count: int) -> Points:
        """Return the last samples of each track."""
        points = self._points()
        if not len(points):
            return points
        last = np.full(int(points.track.max()) + 1, -1, np.int64)
        np.maximum.at(last, points.track, points.seq)
        chosen = np.flatnonzero((points.track > 0) & (points.seq > last[points.track] - count))
        return _take(points, chosen[np.lexsort((points.seq[chosen], points.track[chosen]))])

    def commit(self, commit: Commit) -> None:
        """Make `commit` part of what is recovered."""
        self._refuse_crashed()
        if self._commits and commit.number <= self._commits[-1].number:
            return
        self.fault(commit, False)  # noqa: FBT003
        self._refuse_crashed()
        self._commits.append(copy.deepcopy(commit))  # what the caller does to it later is not committed
        self._released.update(commit.released)
        self.fault(commit, True)  # noqa: FBT003
        self._refuse_crashed()

    def fold(self, number: int, rows: Iterable[StateRow]) -> None:
        """Replace state rows by key and forget the deltas up to `number`."""
        self._refuse_crashed()
        for row in rows:
            self._state[row.kind, row.key] = row
        self._folded = number

    def _points(self) -> Points:
        return _join([commit.points for commit in self._commits if commit.points is not None])

    def _chosen(self, series: Sequence[int] | None, start: int, end: int) -> Points:
        points = self._points()
        mask = (points.time >= start) & (points.time < end)
        if series is not None:
            mask &= np.isin(points.series, np.array(series, np.int32))
        chosen = _take(points, np.flatnonzero(mask))
        return _take(chosen, np.lexsort((chosen.series, chosen.seq, chosen.time)))

    def range(
        self, series: Sequence[int], start: int, end: int, *, limit: int | None = None, newest_first: bool = False
    ) -> Points:
        """Return points sorted by time."""
        points = self._chosen(series, start, end)
        order = np.arange(len(points))
        if newest_first:
            order = np.lexsort((points.series, -points.seq, -points.time))
        return _take(points, order[:limit])

    def buckets(
        self, series: Sequence[int] | None, start: int, end: int, every_ns: int, aggregates: Sequence[Aggregate]
    ) -> Buckets:
        """Aggregate per series and bucket."""
        return self._aggregate(series, start, end, every_ns, aggregates, by_series=True)

    def fleet_buckets(
        self, series: Sequence[int] | None, start: int, end: int, every_ns: int, aggregates: Sequence[Aggregate]
    ) -> Buckets:
        """Aggregate over all series per bucket."""
        return self._aggregate(series, start, end, every_ns, aggregates, by_series=False)

    def _aggregate(
        self,
        series: Sequence[int] | None,
        start: int,
        end: int,
        every_ns: int,
        aggregates: Sequence[Aggregate],
        *,
        by_series: bool,
    ) -> Buckets:
        points = self._chosen(series, start, end)
        good = np.flatnonzero((points.quality < 2) & (points.kind < 3))
        groups: dict[tuple[int, int], list[float]] = {}
        for at in good.tolist():
            key = int(points.series[at]) if by_series else -1
            time = int(points.time[at])
            groups.setdefault((key, time - time % every_ns), []).append(float(points.value[at]))
        keys = sorted(groups)
        columns = {
            name: np.array([_AGGREGATES[name](np.array(groups[key])) for key in keys], np.float64)
            for name in aggregates
        }
        return Buckets(
            np.array([key[0] for key in keys], np.int32), np.array([key[1] for key in keys], np.int64), columns
        )

    def chart(
        self, series: int, start: int, end: int, points_max: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return at most `points_max` points that show the curve."""
        points = self._chosen([series], start, end)
        good = (points.quality < 2) & (points.kind < 3)
        return largest_triangles(points.time[good], points.value[good], points_max)

    def export(self, series: Sequence[int], start: int, end: int, path: Path) -> int:
        """Write points to a Parquet file; returns the number of rows."""
        import pyarrow as pa  # noqa: PLC0415 - large, and only wanted here
        from pyarrow import parquet  # noqa: PLC0415

        points = self._chosen(series, start, end)
        devices = {row.device_no: row.device_id for commit in self._commits for row in commit.devices}
        names = {row.series_no: row for commit in self._commits for row in commit.series}
        known = [names.get(number) for number in points.series.tolist()]
        columns = {
            "device": [devices.get(row.device_no, "") if row else "" for row in known],
            "reading": [row.name if row else "" for row in known],
            "time": pa.array(points.time).cast(pa.timestamp("ns")),
            "value": points.value,
            "integer": pa.array(points.integer if points.integer is not None else [None] * len(points), pa.int64()),
            "text": pa.array(points.text if points.text is not None else [None] * len(points), pa.string()),
            "quality": points.quality,
            "seq": points.seq,
        }
        parquet.write_table(pa.table(columns), path)
        return len(points)

    def documents(self, device_no: int | None, channels: Sequence[str], limit: int) -> list[Document]:
        """Return the newest documents of a device, or of all."""
        found = [
            each
            for commit in self._commits
            for each in commit.documents
            if device_no in (None, each.device_no) and each.channel in channels and each.device_no not in self._erased
        ]
        return sorted(found, key=lambda each: -each.received)[:limit]

    def quarantine(
        self,
        *,
        tenants: Collection[str] | None = None,
        device_id: str | None = None,
        code: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[Quarantined]:
        """List quarantined messages, newest first."""
        found = [
            each
            for commit in self._commits
            for each in commit.quarantined
            if each.number not in self._released
            and (tenants is None or each.tenant in tenants)
            and device_id in (None, each.device_id)
            and code in (None, each.code)
            and (before is None or each.number < before)
        ]
        return sorted(found, key=lambda each: -each.number)[:limit]

    def quarantine_sizes(self) -> dict[tuple[str, str], int]:
        """Return the bytes in quarantine by (tenant, device id)."""
        sizes: Counter[tuple[str, str]] = Counter()
        for each in self.quarantine(limit=2**31):
            sizes[each.tenant, each.device_id] += len(each.payload)
        return dict(sizes)

    def quarantined(self, number: int) -> Quarantined | None:
        """Return one quarantined message."""
        return next(iter(self.quarantine(before=number + 1, limit=1)), None) if self._has(number) else None

    def _has(self, number: int) -> bool:
        return any(each.number == number for each in self.quarantine(limit=10**9))

    def is_seal_due(self, now: int) -> bool:  # noqa: ARG002
        """Nothing is ever sealed."""
        return False

    def seal(self, now: int, *, force: bool = False) -> int:  # noqa: ARG002
        """Nothing is ever sealed."""
        return 0

    def retain(self, now: int, rules: Sequence[Retention]) -> int:  # noqa: ARG002
        """Nothing is ever sealed, so nothing ages."""
        return 0

    def erase(self, device_no: int) -> int:
        """Remove every trace of a device."""
        self._refuse_crashed()
        names = {row.device_id for commit in self._commits for row in commit.devices if row.device_no == device_no}
        gone = [row.series_no for commit in self._commits for row in commit.series if row.device_no == device_no]
        before = len(self._points())
        cleaned = []
        for commit in self._commits:
            points = commit.points
            if points is not None:
                points = _take(points, np.flatnonzero(~np.isin(points.series, np.array(gone, np.int32))))
            self._released.update(each.number for each in commit.quarantined if each.device_id in names)
            fields = {name: getattr(commit, name) for name in commit.__struct_fields__}
            cleaned.append(Commit(**{**fields, "points": points}))
        self._commits = cleaned
        self._erased.add(device_no)
        return before - len(self._points())

    def stats(self) -> StoreStats:
        """Return sizes."""
        return StoreStats(len(self._points()), 0, 0, 0, 0, len(self._commits))

    def close(self) -> None:
        """Nothing to close."""


def _take(points: Points, order: NDArray[Any]) -> Points:
    columns = {name: getattr(points, name)[order] for name in _COLUMNS}
    integer = points.integer[order] if points.integer is not None else None
    text = [points.text[at] for at in order.tolist()] if points.text is not None else None
    return Points(**columns, integer=integer, text=text)


def _join(batches: list[Points]) -> Points:
    if not batches:
        empty = np.zeros(0, np.int64)
        return Points(empty.astype(np.int32), empty, empty.astype(float), *(empty.astype(np.uint8),) * 2, *(empty,) * 4)  # type: ignore[arg-type]
    columns = {name: np.concatenate([getattr(each, name) for each in batches]) for name in _COLUMNS}
    integer, text = None, None
    if any(each.integer is not None for each in batches):
        parts = [
            each.integer if each.integer is not None else np.nan_to_num(each.value).astype(np.int64) for each in batches
        ]
        integer = np.concatenate(parts)
    if any(each.text is not None for each in batches):
        text = [value for each in batches for value in (each.text or [None] * len(each))]
    return Points(**columns, integer=integer, text=text)
