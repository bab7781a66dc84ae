"""Some seconds of the soak: do devices that part in every way, among hostile clients, lose nothing?

`make soak` is the same for half an hour, with 2,000 devices and an eye on memory.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench import soak

pytestmark = pytest.mark.real


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_short_soak_loses_and_doubles_nothing(tmp_path: Path, repository: Path, workers: str) -> None:
    options = ["--minutes", "0.1", "--devices", "60", "--processes", "2", "--interval", "0.2", "--stay", "1"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(repository), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-m", "bench.soak", *options, "--workers", workers],
        check=False, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (tmp_path / "bench-results").glob("soak-*.json")
    found = json.loads(file.read_text())
    assert found["figures"]["acknowledged"] == found["figures"]["stored"] > 500
    assert found["figures"]["repeated"] > 20
    assert all(times > 10 for times in found["parted"].values())
    assert all(each["times"] for each in found["hostile"])


@pytest.mark.parametrize(("mb_per_minute", "is_flat"), [(0.0, True), (1.0, True), (20.0, False)])
def test_memory_that_grows_is_not_flat(mb_per_minute: float, is_flat: bool) -> None:
    samples = [(float(second), 200 + second / 60 * mb_per_minute + second % 7) for second in range(0, 600, 2)]
    assert soak.judge(samples)["is_flat"] is is_flat


def test_what_is_wrong_is_named() -> None:
    good = {"minutes": 30, "lost": 0, "doubled": 0, "never_sent": 0, "unacknowledged": 0, "refused": 0}
    flat = {"is_flat": True, "growth_mb_second_half": 1.0}
    assert soak.failures({"figures": good, "memory": flat}) == []
    assert soak.failures({"figures": good | {"lost": 3}, "memory": flat}) == ["lost 3"]
    grows = {"is_flat": False, "growth_mb_second_half": 99.0}
    assert soak.failures({"figures": good, "memory": grows}) == ["memory grew by 99.0 MB in the second half"]
