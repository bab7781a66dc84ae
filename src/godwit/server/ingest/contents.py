"""What the last samples of each track said, as checksums: a number that comes again is either the same sample or not.

A sample is its number, its time by the device's clock, and its readings; how samples are cut into messages may change
between two attempts, and so may when they are sent. Checksums are made of whole groups at once, from the columns that
are stored, so that they can be made again from the store after a restart. Pure.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from godwit.contract.samples import Sample
from godwit.server.ingest.batch import SAMPLE_WIDTH, Batch
from godwit.server.ingest.tracks import Track
from godwit.server.telemetry.model import Kind, Points

KEPT: Final = 64
"""Samples of a track whose content is known, by the last bits of their number."""
CHUNK: Final = 1_024
# A word is the last 32 bits of the number, and 32 of its content.
_NOTHING: Final = np.uint64(2**64 - 1)
_HALF: Final = np.uint64(32)
# Odd constants with bits all over: multiplying by them spreads differences upwards (Knuth, 6.4).
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX: Final = np.uint64(0xC2B2AE3D27D4EB4F)

Words = NDArray[np.uint64]


class Verdict(IntEnum):
    """What a number's content is, beside what came under it before."""

    NEW = 0
    """Nothing came under it."""
    UNKNOWN = 1
    """Something came, and is no longer known."""
    SAME = 2
    OTHER = 3


class Contents:
    """Checksums by track number and the last bits of the sample's number."""

    def __init__(self) -> None:
        self._kept: Words = np.full((CHUNK, KEPT), _NOTHING)

    def enter(self, points: Points) -> None:
        """Take up stored readings; those of one sample stand together."""
        is_numbered = points.track > 0
        if not is_numbered.any():
            return
        starts = np.flatnonzero(np.append(True, (np.diff(points.seq) != 0) | (np.diff(points.track) != 0)))
        bits = points.value.view(np.uint64)
        if points.text is not None:
            bits = bits.copy()
            for at in np.flatnonzero(points.kind == Kind.TEXT).tolist():
                bits[at] = crc32((points.text[at] or "").encode())
        time = _said(points.time[starts], points.offset[starts], points.received[starts])
        numbers = points.seq[starts]
        self._put(points.track[starts], numbers, _words(numbers, points.series.astype(np.int64), bits, starts, time))

    def enter_open(self, batch: Batch) -> None:
        """Take up what the open group has got since the last time."""
        done = batch.entered_samples
        rows = np.array(batch.samples[done * SAMPLE_WIDTH :], np.int64).reshape(-1, SAMPLE_WIDTH)
        if not len(rows):
            return
        at = batch.entered_readings
        bits = np.array(batch.values[at:], np.float64).view(np.uint64)
        for index, _kind, text in batch.kinds:
            if index >= at and isinstance(text, str):
                bits[index - at] = crc32(text.encode())
        starts = np.append(0, np.cumsum(rows[:-1, 4]))
        offsets = np.zeros(len(rows), np.int64)
        for row, offset in batch.offsets:
            if row >= done:
                offsets[row - done] = offset
        time = _said(rows[:, 0], offsets, rows[:, 3])
        words = _words(rows[:, 1], np.array(batch.series[at:], np.int64), bits, starts, time)
        self._put(rows[:, 2].astype(np.int32), rows[:, 1], words)
        batch.entered_samples += len(rows)
        batch.entered_readings = len(batch.series)

    def _put(self, tracks: NDArray[np.int32], numbers: NDArray[np.int64], words: Words) -> None:
        while int(tracks.max()) >= len(self._kept):
            self._kept = np.concatenate([self._kept, np.full_like(self._kept, _NOTHING)])
        self._kept[tracks, numbers % KEPT] = words

    def judge(self, track: Track, first: int, samples: Sequence[Sample], series: dict[str, int]) -> list[Verdict]:
        """Compare samples `first` and following of one message with what came under their numbers before.

        Of what came long ago nothing is known. But what is later than all that the track ever had was never there.
        """
        if track.track_no >= len(self._kept):
            return [Verdict.UNKNOWN if track.has_arrived(first + at) else Verdict.NEW for at in range(len(samples))]
        numbers = np.arange(first, first + len(samples), dtype=np.int64)
        known = self._kept[track.track_no, numbers % KEPT]
        timed, timeless = _words_of(numbers, samples, series)
        has_content = (known >> _HALF == timed >> _HALF) & (known != _NOTHING)
        is_same = (known == timed) | (known == timeless)
        return [
            _verdict(track, sample, has_content=has, is_same=same) if track.has_arrived(number) else Verdict.NEW
            for number, sample, has, same in zip(
                numbers.tolist(), samples, has_content.tolist(), is_same.tolist(), strict=True
            )
        ]


def _verdict(track: Track, sample: Sample, *, has_content: bool, is_same: bool) -> Verdict:
    if has_content:
        return Verdict.SAME if is_same else Verdict.OTHER
    time = time_said(sample)
    return Verdict.OTHER if time is not None and time > track.newest else Verdict.UNKNOWN


def time_said(sample: Sample) -> int | None:
    """Return the time of a sample by the device's clock, None where it has none."""
    return sample.own_time


def _said(time: NDArray[np.int64], offset: NDArray[np.int64], received: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return times as the devices said them; 0 where ours stands for it."""
    said: NDArray[np.int64] = time + offset
    return np.where(said == received, 0, said)


def _words_of(numbers: NDArray[np.int64], samples: Sequence[Sample], series: dict[str, int]) -> tuple[Words, Words]:
    """Return the words that samples have in the store: with their time, and where the server's stands for it."""
    named: list[int] = []
    values: list[float] = []
    texts: list[tuple[int, int]] = []
    starts: list[int] = []
    for sample in samples:
        starts.append(len(named))
        for name, value in sample.values.items() or (("", 0.0),):
            if isinstance(value, str):
                texts.append((len(values), crc32(value.encode())))
            named.append(series.get(name, -1))
            values.append(float("nan") if isinstance(value, str) else float(value))
    bits = np.array(values, np.float64).view(np.uint64)
    for at, check in texts:
        bits[at] = check
    time = np.array([time_said(sample) or 0 for sample in samples], np.int64)
    columns = (numbers, np.array(named, np.int64), bits, np.array(starts))
    return _words(*columns, time), _words(*columns, time * 0)


def _words(
    numbers: NDArray[np.int64],
    series: NDArray[np.int64],
    bits: Words,
    starts: NDArray[np.intp],
    time: NDArray[np.int64],
) -> Words:
    """Return a word for each sample; the order of its readings does not matter."""
    content = np.add.reduceat(_mixed(series.view(np.uint64) * _SPREAD + bits), starts) + time.view(np.uint64) * _MIX
    words: Words = numbers.view(np.uint64) << _HALF
    words |= _mixed(content) >> _HALF
    return words


def _mixed(words: Words) -> Words:
    words = (words ^ (words >> np.uint64(32))) * _MIX
    return (words ^ (words >> np.uint64(29))) * _SPREAD
