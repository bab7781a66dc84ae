"""`make soak`: 2,000 devices for half an hour, among hostile clients; nothing may be lost, doubled, or grow.

Starts a platform, devices in a few processes (`bench.fleet`) that come and go in every way, and beside them peers that
misbehave (`bench.hostile`). Memory is looked at every few seconds. At the end each device's acknowledged messages are
compared with what the API returns of the store. Exit code 1: something is lost or doubled, or memory is not flat.

make soak                     30 minutes
make soak MINUTES=1           does it work at all?
make soak SOAK="--workers 2"  with workers
"""

import argparse
import contextlib
import json
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.process import Target, godwit
from bench.run import RESULTS, machine, show
from rich.console import Console

SAMPLE_S = 2.0
SHOW_S = 15.0
END_S_MAX = 150.0
GROWTH_MB_MAX = 40.0
"""By which memory may grow in the second half, after the trend."""
GROWTH_PART_MAX = 0.15
"""Or by which part of what it was at half-time, if that is more."""
JUDGED_MINUTES_MIN = 5.0
"""A shorter run says nothing about memory: queues and caches are still filling up to their bounds."""
SPAN = "from=2020-01-01T00:00:00Z&to=2090-01-01T00:00:00Z"


class Fleet:
    """The processes of the devices, and what they said last."""

    def __init__(self, target: Target, options: argparse.Namespace) -> None:
        self.last: list[dict[str, Any]] = []
        self.slowest_s = self.lately_s = 0.0
        """How long an acknowledgement took at most, in all and since the last line was shown."""
        self._said: queue.Queue[tuple[int, str]] = queue.Queue()
        self._processes = []
        share = options.devices // options.processes
        for number in range(options.processes):
            command = [sys.executable, "-m", "bench.fleet", "--port", str(target.port)]
            command += ["--tls-port", str(target.tls_port), "--devices", str(share), "--first", str(number * share)]
            command += ["--interval", str(options.interval), "--stay", str(options.stay)]
            self._processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            self.last.append({})
            threading.Thread(target=self._listen, args=(number,), daemon=True).start()

    def _listen(self, number: int) -> None:
        output = self._processes[number].stdout
        assert output is not None
        for line in output:
            self._said.put((number, line))

    def look(self) -> None:
        """Take in what was said."""
        with contextlib.suppress(queue.Empty):
            while True:
                number, line = self._said.get_nowait()
                said = json.loads(line)
                self.lately_s = max(self.lately_s, said["slowest_s"])
                self.slowest_s = max(self.slowest_s, self.lately_s)
                self.last[number] = said
        for process in self._processes:
            if process.poll():
                raise SystemExit(f"a fleet process ended with {process.returncode}")

    def total(self, name: str) -> int:
        """Return the sum of a figure."""
        return sum(each.get(name, 0) for each in self.last)

    def finish(self) -> dict[str, list[int]]:
        """Have all acknowledged, end the processes; returns how many of each device are, and were sent."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("stop\n")
            process.stdin.flush()
        for process in self._processes:
            process.wait(END_S_MAX)
        time.sleep(0.5)
        self.look()
        return {name: counts for each in self.last for name, counts in each["devices"].items()}

    def close(self) -> None:
        """End the processes, whatever they do."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()


@contextlib.contextmanager
def hostile(target: Target) -> Iterator[dict[str, Any]]:
    """Have misbehaving peers about for the length of a block; what they did is known after it."""
    command = [sys.executable, "-m", "bench.hostile", str(target.port), str(target.tls_port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    done: dict[str, Any] = {}
    try:
        yield done
        done.update(json.loads(process.communicate(timeout=60)[0]))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def slope(samples: list[tuple[float, float]]) -> float:
    """Return the trend of (time, value) pairs by least squares."""
    count = len(samples)
    mean_t, mean_v = sum(t for t, _ in samples) / count, sum(v for _, v in samples) / count
    spread = sum((t - mean_t) ** 2 for t, _ in samples)
    return sum((t - mean_t) * (v - mean_v) for t, v in samples) / spread if spread else 0.0


def endure(target: Target, fleet: Fleet, seconds: float, console: Console, samples: list[tuple[float, float]]) -> None:
    """Watch for so long."""
    begin = shown = time.monotonic()
    while (now := time.monotonic()) < begin + seconds:
        time.sleep(SAMPLE_S)
        fleet.look()
        samples.append((now - begin, target.rss_bytes() / 1e6))
        if now - shown >= SHOW_S:
            shown = now
            console.print(
                f"{now - begin:6.0f} s   {samples[-1][1]:6.1f} MB   sent {fleet.total('sent'):,}"
                f"   acknowledged {fleet.total('acknowledged'):,}   connects {fleet.total('connects'):,}"
                f"   repeated {fleet.total('repeated'):,}   slowest {fleet.lately_s:.2f} s"
            )
            fleet.lately_s = 0.0


def compare(target: Target, counts: dict[str, list[int]]) -> dict[str, Any]:
    """Compare what was acknowledged with what the store has."""

    def look(device: str) -> tuple[int, int, int, int]:
        confirmed, sent = counts[device]
        answer = json.loads(target.get(f"/api/v1/devices/{device}/telemetry?readings=number&{SPAN}&limit=1000000"))
        stored = Counter(int(value) for value in answer["columns"]["value"])
        lost = sum(number not in stored for number in range(sent)) - (sent - confirmed)
        doubled = sum(times - 1 for times in stored.values())
        strange = sum(number >= sent for number in stored)
        return len(stored), max(0, lost), doubled, strange

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(look, sorted(counts)))
    stored, lost, doubled, strange = (sum(column) for column in zip(*found, strict=True))
    return {
        "stored": stored, "lost": lost, "doubled": doubled, "never_sent": strange,
        "unacknowledged": sum(sent - confirmed for confirmed, sent in counts.values()),
    }  # fmt: skip


def judge(samples: list[tuple[float, float]]) -> dict[str, Any]:
    """Say whether memory is flat, by the trend of the second half."""
    half = samples[len(samples) // 2 :]
    trend = slope(half)
    grown = trend * (half[-1][0] - half[0][0])
    middle = sum(value for _, value in half) / len(half)
    allowed = max(GROWTH_MB_MAX, GROWTH_PART_MAX * middle)
    return {
        "mb_at_begin": samples[0][1], "mb_at_half": half[0][1], "mb_at_end": half[-1][1],
        "mb_max": max(value for _, value in samples), "trend_mb_per_hour": trend * 3_600,
        "growth_mb_second_half": grown, "allowed_mb": allowed, "is_flat": grown <= allowed,
    }  # fmt: skip


def soak(directory: Path, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run it all; returns the figures."""
    samples: list[tuple[float, float]] = []
    # sealed and folded as in weeks, not once at the end
    settings = {"SEAL_AFTER_S": "120", "WORKERS": str(options.workers)}
    with godwit(directory / "soak", **settings) as target, contextlib.ExitStack() as stack:
        fleet = Fleet(target, options)
        stack.callback(fleet.close)
        with hostile(target) as misdeeds:
            begin = target.cpu_s()
            endure(target, fleet, options.minutes * 60, console, samples)
            used = target.cpu_s() - begin
            console.print("waiting for the last acknowledgements ...")
            counts = fleet.finish()
        console.print("comparing with the store ...")
        found = compare(target, counts)
        figures = {
            "minutes": options.minutes, "devices": len(counts), "workers": options.workers,
            **{name: fleet.total(name) for name in ("sent", "acknowledged", "repeated", "refused", "connects")},
            "slowest_acknowledgement_s": fleet.slowest_s, "cpu_of_one_core": used / (options.minutes * 60),
        }  # fmt: skip
        parted = {how: sum(each["parted"][how] for each in fleet.last) for how in fleet.last[0]["parted"]}
        return {
            "figures": figures | found, "memory": judge(samples), "parted": parted,
            "hostile": [{"kind": kind, **did} for kind, did in misdeeds.items()], "rss_mb": samples,
        }  # fmt: skip


def failures(found: dict[str, Any]) -> list[str]:
    """Return the sentences of what is wrong."""
    figures = found["figures"]
    wrong = [
        f"{name} {figures[name]:,}"
        for name in ("lost", "doubled", "never_sent", "unacknowledged", "refused")
        if figures[name]
    ]
    memory = found["memory"]
    if figures["minutes"] >= JUDGED_MINUTES_MIN and not memory["is_flat"]:
        wrong.append(f"memory grew by {memory['growth_mb_second_half']:.1f} MB in the second half")
    return wrong


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--processes", type=int, default=4, help="of the devices")
    parser.add_argument("--interval", type=float, default=4.0, help="seconds between the messages of a device")
    parser.add_argument("--stay", type=float, default=60.0, help="seconds of a connection, in the mean")
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    begun = datetime.now(UTC)
    directory = Path(tempfile.mkdtemp(prefix="godwit-soak-"))
    try:
        found = soak(directory, options, console)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"soak-{begun:%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps({"at": begun.isoformat(), "machine": machine(), **found}, indent=2))
    for name in ("figures", "memory", "parted", "hostile"):
        show(console, name, found[name])
    console.print(f"written to {path}")
    if wrong := failures(found):
        raise SystemExit("failed: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
