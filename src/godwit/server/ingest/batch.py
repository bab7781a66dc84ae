"""The open group's columns: lists while messages arrive, numpy arrays once it is sealed."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from godwit.server.ingest.clock_drift import Lesson
from godwit.server.telemetry.model import Document, Kind, Points, Quarantined

EXACT_IN_FLOAT: Final = 2**53
"""Integers up to here survive a float64 (IEEE 754)."""

SAMPLE_WIDTH: Final = 5
MESSAGE_WIDTH: Final = 5
TAKEN_WIDTH: Final = 4
ID_WIDTH: Final = 3
PRINT_WIDTH: Final = 2


class Batch:
    """Gathers one group. Per reading: series, value. Per sample: the rest, repeated over its readings when sealed."""

    __slots__ = (
        "clocks", "documents", "entered_readings", "entered_samples", "ids", "kinds", "lost", "messages", "offsets",
        "prints", "qualities", "quarantined", "refusals", "released", "samples", "series", "taken", "values",
    )  # fmt: skip

    def __init__(self) -> None:
        # one a reading
        self.series: list[int] = []
        self.values: list[float] = []
        self.kinds: list[tuple[int, Kind, int | str | None]] = []
        """(index of reading, kind, exact value) where it is no float."""
        self.qualities: list[tuple[int, int]] = []
        """(index of reading, quality) where it is not good."""
        self.offsets: list[tuple[int, int]] = []
        """(index of sample, device time minus stored time) where it was corrected."""
        # Rows laid end to end: one call of `extend` instead of an `append` a column.
        self.samples: list[int] = []
        """(time, seq, track, received, count of readings) of each sample."""
        self.messages: list[int] = []
        """(device, samples accepted, readings, samples duplicate, samples late) of each message."""
        # evidence against doubles
        self.taken: list[int] = []
        """(track, first number, count, latest time of its samples so far)"""
        self.lost: list[tuple[int, int, int, str]] = []
        """(track, first number, stop, reason) of what is known as lost; without a reason: where a clone's begins."""
        self.entered_samples = self.entered_readings = 0
        """How much of it has its content known already."""
        self.ids: list[int] = []
        """(device, hash of the message id, second)"""
        self.prints: list[int] = []
        """(device, fingerprint)"""
        self.clocks: list[tuple[int, Lesson]] = []
        """(device, what was learnt of its clocks)"""
        # the rest
        self.documents: list[Document] = []
        self.quarantined: list[Quarantined] = []
        self.refusals: list[tuple[int, str]] = []
        self.released: list[int] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing has to be committed."""
        return not (
            self.messages or self.documents or self.quarantined or self.released or self.prints or self.refusals
        )

    def add_value(self, value: float | str) -> None:
        """Append a value of any kind."""
        at = len(self.values)
        if isinstance(value, float):
            self.values.append(value)
        elif isinstance(value, bool):
            self.kinds.append((at, Kind.BOOLEAN, None))
            self.values.append(float(value))
        elif isinstance(value, str):
            self.kinds.append((at, Kind.TEXT, value))
            self.values.append(float("nan"))
        else:
            whole = int(value)
            is_exact = -EXACT_IN_FLOAT <= whole <= EXACT_IN_FLOAT
            self.kinds.append((at, Kind.INTEGER, None if is_exact else whole))
            self.values.append(float(value))

    def _offsets(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the corrections of all readings; `counts` has how many each sample holds."""
        offsets = np.zeros(len(counts), np.int64)
        for at, offset in self.offsets:
            offsets[at] = offset
        return np.repeat(offsets, counts)

    def points(self) -> Points | None:
        """Return the columns as arrays, None when there are none."""
        n = len(self.series)
        if not n:
            return None
        samples = np.array(self.samples, np.int64).reshape(-1, SAMPLE_WIDTH)
        time, seq, track, received, _ = np.repeat(samples, samples[:, 4], axis=0).T
        kind = np.zeros(n, np.uint8)
        quality = np.zeros(n, np.uint8)
        for at, code in self.qualities:
            quality[at] = code
        values = np.array(self.values, np.float64)
        integer: NDArray[np.int64] | None = None
        text: list[str | None] | None = None
        for at, code, exact in self.kinds:
            kind[at] = code
            if isinstance(exact, str):
                text = text if text is not None else [None for _ in range(n)]
                text[at] = exact
            elif exact is not None:
                integer = integer if integer is not None else np.zeros(n, np.int64)
                integer[at] = exact
        if integer is not None:
            # Where any integer needs its own column, all integers of the batch stand in it.
            fits = (kind == Kind.INTEGER) & (np.abs(values) <= EXACT_IN_FLOAT)
            integer[fits] = values[fits].astype(np.int64)
        return Points(
            series=np.array(self.series, np.int32),
            time=np.ascontiguousarray(time),
            value=values,
            kind=kind,
            quality=quality,
            seq=np.ascontiguousarray(seq),
            track=track.astype(np.int32),
            offset=self._offsets(samples[:, 4]) if self.offsets else np.zeros(n, np.int64),
            received=np.ascontiguousarray(received),
            integer=integer,
            text=text,
        )
