"""What it costs when a whole fleet comes back at once with certificates: full handshakes, none of them may fail.

The baseline is Mosquitto with `require_certificate`, which looks at the chain and nothing else; godwit looks every
certificate up in its registry, and gives each connection the rights of its device.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.process import Target, godwit, mosquitto_alone

DEVICES = 1_000


def run(directory: Path, *, quick: bool) -> dict[str, object]:
    """Return a row for each broker, the same devices with the same certificates."""
    count = 100 if quick else DEVICES
    lines, bundles = directory / "doors.csv", directory / "doors-bundles"
    lines.write_text("device_id\n" + "".join(f"press-{each:05}\n" for each in range(count)))
    with godwit(directory / "doors") as target:
        environment = os.environ | {
            "GODWIT_SERVER": f"http://127.0.0.1:{target.http_port}", "DATA_DIR": str(target.data_dir),
        }  # fmt: skip
        command = [sys.executable, "-m", "godwit.cli.main", "device", "enroll", "--batch", str(lines)]
        subprocess.run([*command, "--out", str(bundles)], env=environment, check=True, stdout=subprocess.DEVNULL)
        authority = next(bundles.rglob("ca.crt"))
        ours = [_rush(target, "localhost", authority, count, bundles) for _ in range(2)]
    chain = directory / "doors-chain.crt"
    first = next(bundles.rglob("device.crt")).read_text()
    above = first[first.index("-----BEGIN", 10) :] if first.count("-----BEGIN") > 1 else ""
    chain.write_text(authority.read_text() + above)
    strict = f"cafile {chain}\nrequire_certificate true\n"
    with mosquitto_alone(directory / "doors-mosquitto", strict) as target:
        theirs = _rush(target, "127.0.0.1", directory / "doors-mosquitto" / "server.crt", count, bundles)
    return {"at_once": [{"case": "first", **ours[0]}, {"case": "again", **ours[1]}, {"case": "mosquitto", **theirs}]}


def _rush(target: Target, host: str, authority: Path, count: int, bundles: Path) -> dict[str, Any]:
    before = target.cpu_s()
    command = [
        sys.executable,
        "-m",
        "bench.rush",
        f"{host}:{target.tls_port}",
        str(authority),
        str(count),
        str(bundles),
    ]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {
        "devices": count,
        "failed": count - told["admitted"],
        "seconds": told["seconds"],
        "a_second": told["admitted"] / told["seconds"],
        "cpu_ms_each": (target.cpu_s() - before) / count * 1_000,
    }
