"""The newest point of every series, in memory, as columns. Advanced with each group; folded in chunks."""

from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from godwit.server.telemetry.model import Kind, Points, StateRow

CHUNK: Final = 1_024
KIND: Final = "latest"
_NEVER: Final = np.iinfo(np.int64).min


class _Chunk(msgspec.Struct, array_like=True):
    time: bytes
    value: bytes
    kind: bytes
    quality: bytes
    received: bytes
    exact: dict[int, int | str]


class LatestValues:
    """Newest time, value, kind and quality by series number; exact integers and texts beside."""

    def __init__(self) -> None:
        self.time: NDArray[np.int64] = np.full(CHUNK, _NEVER, np.int64)
        self.value: NDArray[np.float64] = np.zeros(CHUNK, np.float64)
        self.kind: NDArray[np.uint8] = np.zeros(CHUNK, np.uint8)
        self.quality: NDArray[np.uint8] = np.zeros(CHUNK, np.uint8)
        self.received: NDArray[np.int64] = np.zeros(CHUNK, np.int64)
        self._exact: dict[int, int | str] = {}
        self._dirty: set[int] = set()

    def advance(self, points: Points) -> None:
        """Take up a batch: the newest time wins, at equal times the one that came last."""
        if not len(points):
            return
        self._reserve(int(points.series.max()))
        order = np.argsort(points.time, kind="stable")
        series = points.series[order]
        newer = points.time[order] >= self.time[series]
        order, series = order[newer], series[newer]
        # Fancy assignment keeps the last of repeated indices; they are in order of time.
        self.time[series] = points.time[order]
        self.value[series] = points.value[order]
        self.kind[series] = points.kind[order]
        self.quality[series] = points.quality[order]
        self.received[series] = points.received[order]
        self._dirty.update(np.unique(series // CHUNK).tolist())
        if points.integer is not None or points.text is not None:
            self._advance_exact(points, order)

    def _advance_exact(self, points: Points, order: NDArray[np.intp]) -> None:
        for at in order.tolist():
            number, kind = int(points.series[at]), int(points.kind[at])
            if kind == Kind.TEXT and points.text is not None:
                self._exact[number] = points.text[at] or ""
            elif kind == Kind.INTEGER and points.integer is not None:
                self._exact[number] = int(points.integer[at])
            else:
                self._exact.pop(number, None)

    def get(self, series: int) -> tuple[int, float | int | bool | str, int, int] | None:
        """Return (time, value, quality, received) of a series, None before its first point."""
        if series >= len(self.time) or self.time[series] == _NEVER:
            return None
        kind, value = int(self.kind[series]), float(self.value[series])
        shown: float | int | bool | str = value
        if kind == Kind.BOOLEAN:
            shown = bool(value)
        elif kind == Kind.TEXT:
            shown = self._exact.get(series, "")
        elif kind == Kind.INTEGER:
            exact = self._exact.get(series)
            shown = exact if isinstance(exact, int) and float(exact) == value else int(value)
        return int(self.time[series]), shown, int(self.quality[series]), int(self.received[series])

    def time_of(self, series: int) -> int | None:
        """Return the newest time of a series, None before its first point."""
        return None if series >= len(self.time) or self.time[series] == _NEVER else int(self.time[series])

    def forget(self, series: Iterable[int]) -> None:
        """Clear series of an erased device."""
        for number in series:
            if number < len(self.time):
                self.time[number] = _NEVER
                self._exact.pop(number, None)
                self._dirty.add(number // CHUNK)

    def dump(self) -> list[StateRow]:
        """Return state rows of all chunks that changed since the last dump."""
        rows = []
        for at in self._dirty:
            part = slice(at * CHUNK, (at + 1) * CHUNK)
            exact = {n: self._exact[n] for n in range(part.start, part.stop) if n in self._exact} if self._exact else {}
            chunk = _Chunk(
                self.time[part].tobytes(),
                self.value[part].tobytes(),
                self.kind[part].tobytes(),
                self.quality[part].tobytes(),
                self.received[part].tobytes(),
                exact,
            )
            rows.append(StateRow(KIND, at, msgspec.msgpack.encode(chunk)))
        self._dirty.clear()
        return rows

    def restore(self, rows: Iterable[StateRow]) -> None:
        """Take up dumped rows (others are passed over)."""
        for row in rows:
            if row.kind != KIND:
                continue
            self._reserve((row.key + 1) * CHUNK - 1)
            chunk = msgspec.msgpack.decode(row.data, type=_Chunk)
            part = slice(row.key * CHUNK, (row.key + 1) * CHUNK)
            self.time[part] = np.frombuffer(chunk.time, np.int64)
            self.value[part] = np.frombuffer(chunk.value, np.float64)
            self.kind[part] = np.frombuffer(chunk.kind, np.uint8)
            self.quality[part] = np.frombuffer(chunk.quality, np.uint8)
            self.received[part] = np.frombuffer(chunk.received, np.int64)
            self._exact.update(chunk.exact)

    def _reserve(self, series: int) -> None:
        while series >= len(self.time):
            size = len(self.time)
            self.time = np.concatenate([self.time, np.full(size, _NEVER, np.int64)])
            self.value = np.concatenate([self.value, np.zeros(size, np.float64)])
            self.kind = np.concatenate([self.kind, np.zeros(size, np.uint8)])
            self.quality = np.concatenate([self.quality, np.zeros(size, np.uint8)])
            self.received = np.concatenate([self.received, np.zeros(size, np.int64)])
