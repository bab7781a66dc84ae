"""Can the tests fail? Each of these mistakes, made in a copy of the source, is caught by the tests named with it.

The first three are the ones that lose or double a reading in other platforms: acknowledging before the commit,
remembering what arrived outside of the transaction that stores it, and taking a number for known whatever its epoch.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
INGEST = "tests/unit/ingest"
STORY = f"{INGEST}/test_nothing_lost.py"


class Mutation(NamedTuple):
    """A mistake: in `file`, `right` becomes `wrong`; `tests` have to fail."""

    file: str
    right: str
    wrong: str
    tests: str


MUTATIONS = {
    "the acknowledgement leaves before the commit": Mutation(
        "server/ingest/commit.py",
        "            if works:\n                await self._write(works)\n            self._settle(arrivals)\n",
        "            self._settle(arrivals)\n            if works:\n                await self._write(works)\n",
        STORY,
    ),
    "deduplication is not in the transaction": Mutation(
        "server/ingest/service.py",
        "            batch.released,\n            data,\n",
        "            batch.released,\n",
        STORY,
    ),
    "the epoch is forgotten": Mutation(
        "server/ingest/pipeline.py",
        "        track = self.directory.track(entry, message.stream, message.epoch)\n",
        '        track = self.directory.track(entry, message.stream, "")\n',
        STORY,
    ),
    "what is taken up from the journal is not folded": Mutation(
        "server/ingest/delta.py", "            dirty.tracks.add(number)\n", "", STORY
    ),
    "gap records are not in the transaction": Mutation(
        "server/ingest/delta.py",
        "np.int64).tobytes(), batch.lost\n",
        "np.int64).tobytes(), []\n",
        f"{INGEST}/test_gaps.py",
    ),
    "stored is said of what has holes": Mutation(
        "server/ingest/stored.py", "min(each.low for each", "min(each.high for each", f"{INGEST}/test_gaps.py"
    ),
    "stored is said of what is not durable yet": Mutation(
        "server/ingest/service.py", "        self.stored.seal()\n", "", f"{INGEST}/test_gaps.py"
    ),
    "contents are not compared": Mutation(
        "server/ingest/contents.py",
        "Verdict.SAME if is_same else Verdict.OTHER",
        "Verdict.SAME",
        f"{INGEST}/test_clones.py",
    ),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("mutated") / "src"
    shutil.copytree(REPOSITORY / "src", copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return copy


def run(source: Path, tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests against a copy of the source."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", tests]
    return subprocess.run(
        command,
        check=False,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_without_a_mistake_they_pass(source: Path) -> None:
    where = subprocess.run(
        [sys.executable, "-c", "import godwit; print(godwit.__file__)"],
        check=True,
        env=os.environ | {"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
    )
    assert str(source) in where.stdout, "the copy is not what is tested"
    for tests in sorted({each.tests for each in MUTATIONS.values()}):
        done = run(source, tests)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mistake", MUTATIONS)
def test_a_mistake_is_caught(source: Path, mistake: str) -> None:
    mutation = MUTATIONS[mistake]
    path = source / "godwit" / mutation.file
    right = path.read_text()
    assert mutation.right in right, f"{mutation.file} has changed: the mistake has to be made in another way"
    path.write_text(right.replace(mutation.right, mutation.wrong))
    try:
        done = run(source, mutation.tests)
    finally:
        path.write_text(right)
    assert done.returncode == 1, f"nobody noticed that {mistake}:\n{done.stdout}{done.stderr}"  # 1: tests failed
    assert "AssertionError" in done.stdout or "assert " in done.stdout, done.stdout
