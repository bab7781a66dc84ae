"""The open group's columns: lists while messages arrive, numpy arrays once it is sealed."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from godwit.server.telemetry.model import Document, Kind, Points, Quarantined

EXACT_IN_FLOAT: Final = 2**53
"""Integers up to here survive a float64 (IEEE 754)."""


class Batch:
    """Gathers one group. Per reading: series, value. Per sample: the rest, repeated over its readings when sealed."""

    __slots__ = (
        "counts", "documents", "id_devices", "id_hashes", "id_seconds", "kinds", "message_devices",
        "messages_accepted", "messages_duplicate", "messages_late", "messages_readings", "print_devices", "prints",
        "qualities", "quarantined", "received", "refusals", "released", "seqs", "series", "taken_counts",
        "taken_firsts", "taken_tracks", "times", "track_nos", "values",
    )  # fmt: skip

    def __init__(self) -> None:
        # one a reading
        self.series: list[int] = []
        self.values: list[float] = []
        self.kinds: list[tuple[int, Kind, int | str | None]] = []
        """(index of reading, kind, exact value) where it is no float."""
        self.qualities: list[tuple[int, int]] = []
        """(index of reading, quality) where it is not good."""
        # one a sample
        self.times: list[int] = []
        self.seqs: list[int] = []
        self.track_nos: list[int] = []
        self.received: list[int] = []
        self.counts: list[int] = []
        # one a message
        self.message_devices: list[int] = []
        self.messages_accepted: list[int] = []
        self.messages_readings: list[int] = []
        self.messages_duplicate: list[int] = []
        self.messages_late: list[int] = []
        # evidence against doubles
        self.taken_tracks: list[int] = []
        self.taken_firsts: list[int] = []
        self.taken_counts: list[int] = []
        self.id_devices: list[int] = []
        self.id_hashes: list[int] = []
        self.id_seconds: list[int] = []
        self.print_devices: list[int] = []
        self.prints: list[int] = []
        # the rest
        self.documents: list[Document] = []
        self.quarantined: list[Quarantined] = []
        self.refusals: list[tuple[int, str]] = []
        self.released: list[int] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing has to be committed."""
        return not (
            self.message_devices or self.documents or self.quarantined or self.released or self.prints or self.refusals
        )

    def odd_value(self, value: float | str) -> None:
        """Append a value that is no float."""
        at = len(self.values)
        if isinstance(value, bool):
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

    def points(self) -> Points | None:
        """Return the columns as arrays, None when there are none."""
        n = len(self.series)
        if not n:
            return None
        counts = np.array(self.counts, np.intp)
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
            time=np.repeat(np.array(self.times, np.int64), counts),
            value=values,
            kind=kind,
            quality=quality,
            seq=np.repeat(np.array(self.seqs, np.int64), counts),
            track=np.repeat(np.array(self.track_nos, np.int32), counts),
            offset=np.zeros(n, np.int64),
            received=np.repeat(np.array(self.received, np.int64), counts),
            integer=integer,
            text=text,
        )
