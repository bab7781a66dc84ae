"""What the telemetry store does alone: appending, bytes a point, one series of many, the whole fleet; beside SQLite.

The data are daily curves with two decimals of `series` series over 24 hours, committed in batches of 10,000 points in
order of time, as a fleet sends them, and sealed every hour of it. SQLite gets the same points in the same batches, but
fewer of them; what was reckoned from the smaller set is named `..._extrapolated`.
"""

import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from godwit.server.telemetry.duckdb import DuckDBStore
from godwit.server.telemetry.model import Commit, DeviceRow, Points, SeriesRow

S = 1_000_000_000
HOUR = 3_600 * S
DAY = 24 * HOUR
T0 = 1_767_225_600 * S
BATCH = 10_000
READINGS = ("temperature", "humidity", "pressure", "battery")

GOALS = {
    "append_points_per_s": 1_000_000,
    "bytes_per_point_regular": 2.5,
    "bytes_per_point_jittered": 6.0,
    "one_series_24h_ms": 20.0,
    "fleet_hourly_avg_ms": 200.0,
}


def fleet(series: int) -> tuple[list[DeviceRow], list[SeriesRow]]:
    """Return devices of four readings each."""
    devices = [DeviceRow(at, f"pump-{at:05d}", "default", "pump") for at in range((series + 3) // 4)]
    return devices, [SeriesRow(at, at // 4, READINGS[at % 4], "") for at in range(series)]


def batches(series: int, instants: int, *, jitter_ms: int = 0, seed: int = 7) -> Iterator[Points]:
    """Yield points of all series at `instants` instants of a day, in batches, in order of time."""
    random = np.random.default_rng(seed)
    per_batch = max(1, BATCH // series)
    number = np.arange(series, dtype=np.int32)
    base, swing = random.uniform(10, 60, series), random.uniform(1, 8, series)
    walk = np.zeros(series)
    step = DAY // instants
    for first in range(0, instants, per_batch):
        at = np.arange(first, min(first + per_batch, instants))
        walks = []
        for _ in at:
            walk += random.normal(0, 0.02, series)
            walks.append(walk.copy())
        curve = base + swing * np.sin(2 * np.pi * at[:, None] / instants) + np.array(walks)
        times = np.repeat(T0 + at * step, series)
        if jitter_ms:  # a device's readings share an instant
            noise = random.integers(0, jitter_ms, (len(at), (series + 3) // 4)) * 1_000_000
            times += np.repeat(noise, 4, axis=1)[:, :series].ravel()
        n = len(times)
        yield Points(
            series=np.tile(number, len(at)), time=times, value=np.round(curve, 2).ravel(),
            kind=np.zeros(n, np.uint8), quality=np.zeros(n, np.uint8), seq=np.repeat(at, series).astype(np.int64),
            track=np.tile(number // 4, len(at)).astype(np.int32), offset=np.zeros(n, np.int64),
            received=times + random.integers(20_000_000, 400_000_000, n),
        )  # fmt: skip


def timed(work: Callable[[], object], repeats: int = 7) -> float:
    """Return the median of a few runs, in ms, after one that warms up."""
    work()
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        taken.append((time.perf_counter() - begin) * 1e3)
    return median(taken)


def _fill(store: DuckDBStore, series: int, instants: int, *, jitter_ms: int = 0) -> tuple[NDArray[np.float64], float]:
    """Commit a day; return the seconds of each commit and the seconds of all seals."""
    devices, rows = fleet(series)
    store.commit(Commit(1, None, devices, rows))
    taken, sealing, hour = [], 0.0, T0 // HOUR
    for number, points in enumerate(batches(series, instants, jitter_ms=jitter_ms), 2):
        if points.time[0] // HOUR != hour:
            hour = points.time[0] // HOUR
            begin = time.perf_counter()
            store.seal(int(points.time[0]), force=True)
            sealing += time.perf_counter() - begin
        begin = time.perf_counter()
        store.commit(Commit(number, points, delta=bytes(200)))
        taken.append(time.perf_counter() - begin)
    return np.array(taken), sealing


def _duckdb(directory: Path, series: int, instants: int) -> dict[str, float]:
    store = DuckDBStore(directory, hot_rows_max=10**9)
    taken, sealing = _fill(store, series, instants)
    found: dict[str, float] = {
        "points": float(series * instants),
        "append_points_per_s": series * instants / float(taken.sum()),
        "append_batch_ms_p50": float(np.quantile(taken, 0.5)) * 1e3,
        "append_batch_ms_p99": float(np.quantile(taken, 0.99)) * 1e3,
        "append_batch_ms_max": float(taken.max()) * 1e3,
    }
    hourly = (None, T0, T0 + DAY, HOUR, ["avg"])
    one = [series // 2]
    # the last hour is not sealed yet: this is how the store looks at any moment
    found["one_series_24h_ms"] = timed(lambda: store.range(one, T0, T0 + DAY))
    found["one_series_chart_ms"] = timed(lambda: store.chart(one[0], T0, T0 + DAY, 500))
    found["fleet_hourly_avg_ms"] = timed(lambda: store.fleet_buckets(*hourly))
    assert len(store.range(one, T0, T0 + DAY)) == instants
    begin = time.perf_counter()
    store.seal(T0 + DAY, force=True)
    found["seal_points_per_s"] = series * instants / (sealing + time.perf_counter() - begin)
    stats = store.stats()
    assert stats.points_sealed == series * instants
    found["bytes_per_point_regular"] = stats.bytes_sealed / stats.points_sealed
    found["files"] = float(stats.files)
    store.close()
    return found


def _bytes_jittered(directory: Path, series: int, instants: int) -> float:
    store = DuckDBStore(directory, hot_rows_max=10**9)
    _fill(store, series, instants, jitter_ms=5_000)
    store.seal(T0 + DAY, force=True)
    stats = store.stats()
    store.close()
    return stats.bytes_sealed / stats.points_sealed


def _sqlite(directory: Path, series: int, instants: int, of: int) -> dict[str, float]:
    """Measure SQLite with the table one would give it: clustered by series and time, WAL, synchronous."""
    directory.mkdir()
    con = sqlite3.connect(directory / "points.db", isolation_level=None)
    con.execute("PRAGMA journal_mode=WAL")
    con.execute("PRAGMA synchronous=FULL")
    con.execute(
        "CREATE TABLE points(series INTEGER, time INTEGER, seq INTEGER, value REAL, quality INTEGER, received INTEGER,"
        " PRIMARY KEY(series, time, seq)) WITHOUT ROWID"
    )
    taken = 0.0
    for points in batches(series, instants):
        names = ("series", "time", "seq", "value", "quality", "received")
        rows = list(zip(*(getattr(points, name).tolist() for name in names), strict=True))
        begin = time.perf_counter()
        con.execute("BEGIN")
        con.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?, ?)", rows)
        con.execute("COMMIT")
        taken += time.perf_counter() - begin
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    n = series * instants
    one = "SELECT time, value, seq, quality, received FROM points WHERE series = ? AND time >= ? AND time < ?"
    bounds = (series // 2, T0, T0 + DAY)
    hourly = f"SELECT time - time % {HOUR}, avg(value) FROM points WHERE quality < 2 GROUP BY 1"
    found = {
        "points": float(n),
        "append_points_per_s": n / taken,
        "bytes_per_point_regular": (directory / "points.db").stat().st_size / n,
        "one_series_24h_ms_extrapolated": timed(lambda: con.execute(one, bounds).fetchall()) * of / n,
        "fleet_hourly_avg_ms_extrapolated": timed(lambda: con.execute(hourly).fetchall(), 1) * of / n,
    }
    con.close()
    return found


def run(*, quick: bool = False) -> dict[str, object]:
    """Measure; `quick`: a twentieth of the data."""
    series, instants = 5_000, 100 if quick else 2_000
    directory = Path(tempfile.mkdtemp(prefix="godwit-store-"))
    try:
        duck = _duckdb(directory / "duck", series, instants)
        duck["bytes_per_point_jittered"] = _bytes_jittered(directory / "jitter", series, instants // 4)
        lite = _sqlite(directory / "lite", series, max(20, instants // 20), series * instants)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    names = dict.fromkeys([*duck, *lite])
    rows = [{"figure": name, "godwit": duck.get(name), "goal": GOALS.get(name), "sqlite": lite.get(name)}
            for name in names]  # fmt: skip
    return {"figures": rows}


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
