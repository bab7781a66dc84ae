"""Telemetry as named columns, from the store to the socket: rows are never made into Python objects on the way."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from godwit.server.telemetry.model import Kind, Points

QUALITIES = ("good", "uncertain", "bad")


class Coded(msgspec.Struct, frozen=True):
    """A column of few different texts: row i has `names[codes[i]]`."""

    codes: NDArray[np.int32]
    names: list[str]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: slice) -> "Coded":
        return Coded(self.codes[rows], self.names)

    def texts(self) -> list[str]:
        """Return the texts."""
        names = self.names
        return [names[code] for code in self.codes.tolist()]


class Table(msgspec.Struct):
    """Named columns of one length: arrays, `Coded`, or lists of what JSON can say. `time` in ns."""

    columns: dict[str, Any]

    def __len__(self) -> int:
        return len(self.columns["time"])

    def first(self, rows: int) -> "Table":
        """Return the first `rows` rows."""
        return Table({name: column[:rows] for name, column in self.columns.items()})


def named(series: NDArray[np.int32], names: dict[int, str]) -> Coded:
    """Return a column of series numbers as their readings' names."""
    known, codes = np.unique(series, return_inverse=True)
    return Coded(codes.astype(np.int32), [names[number] for number in known.tolist()])


def points_table(points: Points, names: dict[int, str]) -> Table:
    """Return points as rows of time, reading, value, quality, seq; with `offset` where any time was corrected.

    The device's own time is `time` plus `offset` (ns).
    """
    columns = {
        "time": points.time,
        "reading": named(points.series, names),
        "value": points.value if not points.kind.any() else values_of(points),
        "quality": Coded(points.quality.astype(np.int32), list(QUALITIES)),
        "seq": points.seq,
    }
    if points.offset.any():
        columns["offset"] = points.offset
    return Table(columns)


def values_of(points: Points) -> list[float | int | bool | str | None]:
    """Return the values with their kinds: integers exact, no NaN."""
    values: list[Any] = points.value.tolist()
    for at in np.flatnonzero(points.kind != Kind.FLOAT).tolist():
        kind = points.kind[at]
        if kind == Kind.TEXT:
            values[at] = points.text[at] if points.text is not None else None
        elif kind == Kind.BOOLEAN:
            values[at] = bool(values[at])
        else:
            is_exact = points.integer is not None and float(points.integer[at]) == values[at]
            values[at] = int(points.integer[at]) if is_exact and points.integer is not None else int(values[at])
    return values
