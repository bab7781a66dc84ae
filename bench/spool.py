"""The device's spool: what an append costs in each durability, beside bare SQLite with a commit for each insert.

One item at a time, as a device has them: 60 bytes, about four readings in CBOR. CPU is that of the process, the pacer's
thread included; wall time is the disk's where something waits for it.
"""

import os
import resource
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from bench.process import rss_bytes

from godwit.spool import Bounds, Durability, Spool

GOAL_PER_S = 20_000
PAYLOAD = os.urandom(60)
BATCH = 500
BARE = {
    "bare SQLite, WAL, NORMAL": ("journal_mode = WAL", "synchronous = NORMAL"),
    "bare SQLite, WAL, FULL": ("journal_mode = WAL", "synchronous = FULL"),
    "bare SQLite as it comes": ("journal_mode = DELETE", "synchronous = FULL"),
}


def _measure(append: Callable[[int], object], count: int) -> dict[str, object]:
    cpu, begin = time.process_time(), time.perf_counter()
    for number in range(count):
        append(number)
    taken, used = time.perf_counter() - begin, time.process_time() - cpu
    return {"items": count, "per_s": count / taken, "cpu_us": used / count * 1e6, "per_cpu_s": count / used}


def _size(path: Path) -> int:
    return sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*") if "reserve" not in each.name)


def _spool(directory: Path, durability: Durability, count: int) -> dict[str, object]:
    path = directory / f"spool-{durability}"
    spool = Spool.open(path, durability=durability)
    spool.declare("telemetry", 1)
    before = rss_bytes(os.getpid())
    row = {"target": f"spool, {durability}"} | _measure(
        lambda number: spool.append("telemetry", number, PAYLOAD), count
    )
    row["rss_grown_mb"] = (rss_bytes(os.getpid()) - before) / 1e6
    begin, last = time.perf_counter(), -1
    while items := spool.read("telemetry", last, items_max=BATCH, bytes_max=2**20):
        last = items[-1].seq
        spool.settle("telemetry", last)
    row["delivered_per_s"] = count / (time.perf_counter() - begin)
    for number in range(count):
        spool.append("telemetry", number, PAYLOAD)
    spool.close()
    row["bytes_per_item"] = _size(path) / count if path.exists() else None
    return row


def _bare(directory: Path, name: str, count: int) -> dict[str, object]:
    path = directory / f"bare-{len(name)}"
    db = sqlite3.connect(path, isolation_level=None)
    for pragma in BARE[name]:
        db.execute(f"PRAGMA {pragma}")
    db.execute("CREATE TABLE item (seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, payload BLOB NOT NULL)")
    cursor = db.cursor()
    row = {"target": name} | _measure(
        lambda number: cursor.execute("INSERT INTO item VALUES (?, ?, ?)", (number, number, PAYLOAD)), count
    )
    cursor.close()
    db.close()
    return row | {"rss_grown_mb": None, "delivered_per_s": None, "bytes_per_item": _size(path) / count}


def _outage(directory: Path, count: int) -> dict[str, object]:
    """Append to a spool that is full, so that something has to leave, and weigh the files beside the bound."""
    bound = 32 * 2**20
    path = directory / "spool-outage"
    spool = Spool.open(path, bounds=Bounds(bytes_max=bound))
    for stream in ("telemetry", "vibration"):
        spool.declare(stream, 1)
    while not spool.gaps():
        spool.append_many("vibration", [(0, PAYLOAD)] * 1_000)
    largest = 0

    def append(number: int) -> None:
        nonlocal largest
        spool.append("telemetry", number, PAYLOAD)
        if number % 1_000 == 0:
            largest = max(largest, _size(path))

    row = _measure(append, count) | {"largest_of_bound": largest / bound}
    spool.close()
    return row


def run(directory: Path, *, quick: bool) -> dict[str, object]:
    """Measure all of it; `directory` is on the disk that is meant."""
    many, few = (20_000, 200) if quick else (200_000, 2_000)
    directory = directory / "spools"
    directory.mkdir(exist_ok=True)
    rows = [
        _spool(directory, Durability.NORMAL, many),
        _bare(directory, "bare SQLite, WAL, NORMAL", many),
        _spool(directory, Durability.MEMORY, many),
        _spool(directory, Durability.FULL, few),
        _bare(directory, "bare SQLite, WAL, FULL", few),
        _bare(directory, "bare SQLite as it comes", few),
    ]
    return {
        "goal_append_per_s": GOAL_PER_S,
        "rss_max_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "appends": rows,
        "full": [_outage(directory, many)],
    }
