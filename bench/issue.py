"""How long a batch takes: keys, requests, devices, certificates and files for 10,000 devices, all of it durable.

The baseline is what people do without us: `openssl req` and `openssl x509`, a process for each step, in a shell loop
on both cores. It registers nothing and syncs nothing.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from bench.process import godwit

DEVICES = 10_000
GOAL_S = 60.0
BASELINE = 400


def run(directory: Path, *, quick: bool) -> dict[str, object]:
    """Enroll a batch on an empty platform."""
    count = 500 if quick else DEVICES
    lines = directory / "devices.csv"
    lines.write_text("device_id,tags\n" + "".join(f"press-{each:05},hall={each % 7}\n" for each in range(count)))
    with godwit(directory / "issue") as target:
        environment = os.environ | {
            "GODWIT_SERVER": f"http://127.0.0.1:{target.http_port}", "DATA_DIR": str(target.data_dir),
        }  # fmt: skip
        command = [sys.executable, "-m", "godwit.cli.main", "device", "enroll", "--batch", str(lines)]
        begin = time.perf_counter()
        subprocess.run([*command, "--out", str(directory / "bundles")], env=environment, check=True)
        seconds = time.perf_counter() - begin
    per_certificate = _openssl(directory / "openssl", 50 if quick else BASELINE)
    return {
        "devices": count,
        "seconds": seconds,
        "goal_s": GOAL_S * count / DEVICES,
        "a_second": count / seconds,
        "openssl_a_second": 1 / per_certificate,
        "openssl_seconds_for_as_many": per_certificate * count,
    }


def _openssl(directory: Path, count: int) -> float:
    """Return the seconds for each certificate."""
    directory.mkdir()
    make = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj /CN=ca "
        "-keyout ca.key -out ca.crt"
    )
    subprocess.run(make.split(), cwd=directory, check=True, capture_output=True)
    each = (
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$0 -keyout $0.key -out $0.csr "
        "&& openssl x509 -req -in $0.csr -CA ca.crt -CAkey ca.key -set_serial $0 -days 90 -out $0.crt"
    )
    names = "\n".join(str(number) for number in range(1, count + 1))
    begin = time.perf_counter()
    subprocess.run(
        ["xargs", "-P", "2", "-n", "1", "sh", "-c", each], input=names.encode(), cwd=directory, check=True,
        capture_output=True,
    )  # fmt: skip
    return (time.perf_counter() - begin) / count
