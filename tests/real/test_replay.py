"""Does the API return of a replayed file what the file holds, and does it stay so when it is replayed again?"""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real

WHOLE = "from=2013-01-01T00:00:00Z&to=2015-01-01T00:00:00Z"


def replay(platform: Any, file: Path, *more: str) -> str:
    command = [sys.executable, "-m", "godwit.cli.main", "simulate", "--port", str(platform.mqtt), "--replay", str(file)]
    command += ["--device", "machine-1", "--reading", "temperature", "--speed", "0", *more]
    return subprocess.run(command, check=True, timeout=120, capture_output=True, text=True).stdout


def totals(platform: Any) -> tuple[int, float, float, float]:
    """Return count, min, max and mean of all there is, as one bucket of the API."""
    answer = platform.json(
        f"/api/v1/devices/machine-1/telemetry?readings=temperature&{WHOLE}&every=3650d&aggregate=count,min,max,sum"
    )
    columns = answer["columns"]
    count = sum(columns["count"])
    return count, min(columns["min"]), max(columns["max"]), sum(columns["sum"]) / count


def test_count_min_max_and_mean_equal_those_of_the_file(platform: Any, shared: Path) -> None:
    file = shared / "data" / "nab" / "machine_temperature_system_failure.csv"
    with file.open(newline="") as lines:
        values = [float(row["value"]) for row in csv.DictReader(lines)]
    assert len(values) == 22_695

    assert "22,695 of 22,695 samples stored" in replay(platform, file)
    count, low, high, mean = totals(platform)
    assert (count, low, high) == (22_695, min(values), max(values))
    assert mean == pytest.approx(sum(values) / len(values), rel=1e-12)

    text = platform.get(f"/api/v1/devices/machine-1/telemetry?readings=temperature&{WHOLE}&limit=100000", "text/csv")
    rows = list(csv.DictReader(text.decode().splitlines()))
    assert sorted(float(row["value"]) for row in rows) == sorted(values)

    replay(platform, file, "--batch", "333")  # cut differently: the samples are the same
    assert totals(platform)[0] == 22_695
    ledger = platform.json("/api/v1/devices/machine-1/ledger")
    assert (ledger["accepted"], ledger["duplicate"]) == (22_695, 22_695)


def test_a_shifted_replay_ends_now(platform: Any, tmp_path: Path) -> None:
    file = tmp_path / "short.csv"
    file.write_text("timestamp,value\n2014-01-01 00:00:00,1\n2014-01-01 00:10:00,2\n2014-01-01 00:05:00,3\n")
    assert "3 of 3 samples stored" in replay(platform, file, "--shift", "--unit", "Cel")
    latest = platform.json("/api/v1/devices/machine-1/telemetry/latest")["readings"]["temperature"]
    assert (latest["value"], latest["unit"]) == (2, "Cel")
