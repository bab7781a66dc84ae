"""Recorded series from CSV files, as the Numenta Anomaly Benchmark writes them: `timestamp,value`. Pure.

Times without a zone are UTC. Rows stay in the order of the file, and rows that share a time are all kept: what the
file holds is what the store must hold afterwards.
"""

import csv
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from godwit.contract.errors import MalformedError

_UNIX = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Row(NamedTuple):
    """One value at one time, ns UTC."""

    time: int
    value: float


def parse_time(text: str) -> int:
    """Return an ISO 8601 time in ns UTC; without a zone it is UTC. Exact to the microsecond."""
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise MalformedError(f"{text[:40]!r} is no time such as 2013-12-02 21:15:00") from error
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return (when - _UNIX) // _MICROSECOND * 1_000


def read_rows(lines: Iterable[str]) -> list[Row]:
    """Read all rows of a CSV file. Raises MalformedError that names the line."""
    rows: list[Row] = []
    for number, fields in enumerate(csv.reader(lines), start=1):
        if not fields or (number == 1 and fields[:1] == ["timestamp"]):
            continue
        try:
            rows.append(Row(parse_time(fields[0]), float(fields[1])))
        except (IndexError, ValueError, MalformedError) as error:
            raise MalformedError(f"line {number} is no `timestamp,value` row: {error}") from error
    return rows


def shift_to(rows: Sequence[Row], end: int) -> list[Row]:
    """Move all rows so that the last one in time is at `end`."""
    by = end - max(row.time for row in rows) if rows else 0
    return [Row(row.time + by, row.value) for row in rows]
