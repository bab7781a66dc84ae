"""Is everything that the store acknowledged there, however its process ended and whatever became of its log?

A child commits numbered batches and says each number once `commit` has returned; it is killed, its disk is tiny, its
memory small, or its log is cut; then the store is opened and has to hold what was said. `make chaos` kills 50 times.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from godwit.contract.errors import UnavailableError
from godwit.server.telemetry.duckdb import DuckDBStore

pytestmark = pytest.mark.real
KILLS = int(os.environ.get("GODWIT_STORE_KILLS", "8"))
CUTS = max(4, KILLS // 2)
T0 = 1_700_000_000_000_000_000

CHILD = """
import sys
from pathlib import Path
import numpy as np
from godwit.server.telemetry.duckdb import DuckDBStore
from godwit.server.telemetry.model import Commit, Points, StateRow
store = DuckDBStore(Path(sys.argv[1]), memory=sys.argv[2])
log = Path(sys.argv[1]) / "telemetry.duckdb.wal"
number = store.recover().number
rows = int(sys.argv[3])
while True:
    number += 1
    n = np.arange(rows)
    points = Points(
        np.zeros(rows, np.int32), 1_700_000_000_000_000_000 + number * 10**9 + n, np.full(rows, float(number)),
        np.zeros(rows, np.uint8), np.zeros(rows, np.uint8), n, np.ones(rows, np.int32), np.zeros(rows, np.int64),
        np.full(rows, 1_700_000_000_000_000_000),
    )
    store.commit(Commit(number, points, delta=b"%d" % number))
    print(number, log.stat().st_size if log.exists() else 0, flush=True)
    if number % 20 == 0:
        store.fold(number - 5, [StateRow("last", 0, b"%d" % number)])
    if number % 35 == 0:
        store.seal(0, force=True)
"""


def commit_until_killed(directory: Path, *, seconds: float, rows: int = 400, memory: str = "256MB") -> tuple[int, str]:
    """Return the last number that the child said, and its error output."""
    said, errors = sayings(directory, seconds=seconds, rows=rows, memory=memory)
    return said[-1][0] if said else 0, errors


def sayings(
    directory: Path, *, seconds: float, rows: int = 400, memory: str = "256MB"
) -> tuple[list[tuple[int, int]], str]:
    """Return what the child said until it was killed: (number, bytes of the log when it was committed)."""
    command = [sys.executable, "-c", CHILD, str(directory), memory, str(rows)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        first = child.stdout.readline()
        if first:
            time.sleep(seconds)
        child.kill()
        said, errors = child.communicate()
    lines = (first + said).split("\n")[:-1]  # a line that was cut in two was not said
    return [(int(number), int(size)) for number, size in map(str.split, lines)], errors


def check(directory: Path, said: int, rows: int = 400) -> None:
    """Open the store: all that was said is there once, whole."""
    store = DuckDBStore(directory)
    try:
        number = store.recover().number
        assert said <= number <= said + 1  # one more may be durable that nobody heard of
        found = store.buckets([0], 0, 2**62, 10**9, ["count", "min", "max"])
        assert found.time.tolist() == [T0 + each * 10**9 for each in range(1, number + 1)]
        assert set(found.columns["count"].tolist()) == {float(rows)}
        assert found.columns["min"].tolist() == [float(each) for each in range(1, number + 1)]
    finally:
        store.close()


def test_killed_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(11)
    for _ in range(KILLS):
        said, errors = commit_until_killed(tmp_path, seconds=chance.uniform(0.05, 0.8))
        assert said, errors
        check(tmp_path, said)


def test_a_small_memory_limit_loses_nothing(tmp_path: Path) -> None:
    said, errors = commit_until_killed(tmp_path, seconds=1.5, rows=20_000, memory="60MB")
    assert said, errors
    check(tmp_path, said, 20_000)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(tmp_path)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_a_full_disk_loses_nothing(tiny_disk: Path) -> None:
    said, errors = commit_until_killed(tiny_disk, seconds=12, rows=5_000)
    assert said
    assert UnavailableError.__name__ in errors, errors  # it was full, and said so
    for path in (tiny_disk / "tmp").glob("*"):
        path.unlink()
    subprocess.run(["mount", "-o", "remount,size=96m", str(tiny_disk)], check=True)
    check(tiny_disk, said, 5_000)


def test_a_cut_log_opens_with_what_came_before_the_cut(tmp_path: Path) -> None:
    """Sealing and merging go on all the while: files must not leave before the file that has their rows is safe."""
    chance, cuts, whole = random.Random(5), 0, tmp_path / "whole"
    for _ in range(CUTS):
        said, errors = sayings(whole, seconds=chance.uniform(0.3, 0.9))
        assert said, errors
        log = whole / "telemetry.duckdb.wal"
        for _ in range(2 if log.exists() else 0):  # it is not there just after a checkpoint
            directory = tmp_path / f"cut-{cuts}"
            shutil.copytree(whole, directory)
            kept = chance.randrange(1, log.stat().st_size)
            os.truncate(directory / "telemetry.duckdb.wal", kept)
            check_prefix(directory, before_cut(said, kept))
            shutil.rmtree(directory)
            cuts += 1
    assert cuts >= CUTS, "hardly ever cut"


def before_cut(said: list[tuple[int, int]], kept: int) -> int:
    """Return the last batch that was acknowledged before the log had more than `kept` bytes.

    Where the log became shorter between two of them, all until then went into the file.
    """
    safe = said[0][0] - 1
    for (number, size), (_, next_size) in pairwise(said):
        if next_size < size:
            safe = number
    return max(safe, *(number for number, size in said if size <= kept), 0)


def check_prefix(directory: Path, acknowledged: int) -> None:
    """Open the store: each batch is whole or not there, none without the earlier ones, all that were acknowledged."""
    store = DuckDBStore(directory)
    number = store.recover().number
    assert number >= acknowledged
    found = store.buckets([0], 0, 2**62, 10**9, ["count"])
    assert found.time.tolist() == [T0 + each * 10**9 for each in range(1, number + 1)]
    assert set(found.columns["count"].tolist()) <= {400.0}
    store.close()
