"""Pure broker work beside Mosquitto: CPU per message, retained documents, connecting, idle connections, workers.

Both sides get the same packets from the same generator, one after the other, each in one process for all cases. A
message of a fan-out is one delivery. godwit commits before it acknowledges, also where nothing is to be stored;
Mosquitto keeps everything in memory. What did not arrive, or arrived twice, stands under `missing`, and fails the run.
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.process import Load, Target, cpu_s, godwit, mosquitto_alone, tree

SETTLE_S = 0.3
IDLE = 20_000
IDLE_GOAL_MB = 400.0
DESCRIPTORS_KEPT = 300
"""Of the limit of a process, for its own files."""
WORKERS_GOAL = 1.5
TARGETS = (godwit, mosquitto_alone)


class Case(NamedTuple):
    """One load: the generator's mode and options, and what they are for --quick."""

    name: str
    mode: str
    options: dict[str, Any]
    quick: dict[str, Any]


def _cases() -> Iterator[Case]:
    for qos in (0, 1, 2):
        yield Case(
            f"device to one subscriber, QoS {qos}", "pass", {"qos": qos, "messages": 100_000}, {"messages": 10_000}
        )
    telemetry = {"qos": 1, "contract": 1, "messages": 100_000}
    yield Case("telemetry to the store and one subscriber, QoS 1", "pass", telemetry, {"messages": 10_000})
    for qos in (0, 1):
        fan = {"qos": qos, "publishers": 1, "subscribers": 1_000, "window": 1, "messages": 500}
        yield Case(f"1 to 1,000 subscribers, QoS {qos}", "pass", fan, {"messages": 30})
    for qos in (0, 1):
        fetch = {"qos": qos, "messages": 10_000, "rounds": 20}
        yield Case(f"10,000 retained documents to a new #, QoS {qos}", "retained", fetch, {"rounds": 2})
    yield Case("connect, plain", "connect", {"messages": 10_000, "window": 20}, {"messages": 500})
    # device certificates, and with them mTLS, come later
    name = "connect, TLS (the server's certificate only, not mTLS)"
    yield Case(name, "connect", {"tls": True, "messages": 3_000, "window": 20}, {"messages": 200})


def measure(target: Target, case: Case, number: int, *, quick: bool) -> dict[str, Any]:
    """Run one case against one target."""
    options = case.options | (case.quick if quick else {})
    load = Load(target, case.mode, program="bench.exchange", prefix=f"c{number}x", net=number, **options)
    before = target.cpu_s()
    found = load.run()
    time.sleep(SETTLE_S)
    used = target.cpu_s() - before
    return {
        "target": target.name, "case": case.name, "count": found["count"],
        "cpu_us_per_message": used / found["count"] * 1e6, "times_mosquitto": None,
        "per_s": found["count"] / found["seconds"], "missing": found["missing"],
    }  # fmt: skip


def cases(directory: Path, *, quick: bool, only: str = "") -> list[dict[str, Any]]:
    """Run all cases against both, and put the ratio beside ours."""
    chosen = [(number, case) for number, case in enumerate(_cases()) if only in case.name]
    sides = []
    for make in TARGETS:
        with make(directory / f"broker-{make.__name__}") as target:
            Load(target, "pass", program="bench.exchange", prefix="warm", qos=1, messages=5_000).run()
            sides.append([measure(target, case, number, quick=quick) for number, case in chosen])
    rows = []
    for ours, theirs in zip(*sides, strict=True):
        if theirs["cpu_us_per_message"]:  # a quick case may cost less than the clock of /proc shows
            ours["times_mosquitto"] = ours["cpu_us_per_message"] / theirs["cpu_us_per_message"]
        rows += [ours, theirs]
    return rows


@contextmanager
def _held(target: Target, connections: int, prefix: str) -> Iterator[list[Load]]:
    """Hold connections open from two processes for the length of a block."""
    halves = (connections - connections // 2, connections // 2)
    loads = [
        Load(target, "hold", program="bench.exchange", messages=half, net=200 + side, prefix=f"{prefix}{side}x")
        for side, half in enumerate(halves)
    ]
    try:
        yield loads
    finally:
        for load in loads:
            load.go()


def idle(directory: Path, connections: int) -> list[dict[str, Any]]:
    """Return what idle connections add to the memory, beside Mosquitto's; as many as the descriptors allow."""
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - DESCRIPTORS_KEPT
    count = min(connections, room)
    rows = []
    for make in TARGETS:
        with make(directory / f"held-{make.__name__}") as target:
            with _held(target, max(20, count // 100), "first") as first:
                pass
            for load in first:
                load.result()
            time.sleep(1)
            before = target.rss_bytes()
            with _held(target, count, "held") as loads:
                time.sleep(2)
                grown = (target.rss_bytes() - before) / 1e6
            missing = sum(load.result()["missing"] for load in loads)
            row = {
                "target": target.name, "connections": count, "rss_growth_mb": grown,
                "mb_for_20000": grown / count * IDLE, "kb_per_connection": grown / count * 1e3,
                "goal_mb": IDLE_GOAL_MB if target.http_port else None, "missing": missing,
            }  # fmt: skip
            rows.append(row)
    return rows


def workers(directory: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Return what WORKERS=2 takes off the process that all must pass: its CPU per message against one process's.

    With cores free, the rate follows the busiest process; where the generator needs one of two cores, the wall's rate
    cannot show it, so both stand here.
    """
    loads = [(50, 20), (2_000, 1)]
    rows: list[dict[str, Any]] = []
    for count in ("0", "2"):
        with godwit(directory / f"workers-{count}", WORKERS=count) as target:
            Load(target, "closed", connections=10, in_flight=10, messages=5_000, prefix="warm").run()
            for tls in (False, True):
                for connections, in_flight in loads[:1] if quick else loads:
                    messages = 20_000 if quick else 100_000
                    rows.append(_worker_row(target, int(count), connections, in_flight, messages, tls=tls))
    half = len(rows) // 2
    for one, two in zip(rows[:half], rows[half:], strict=True):
        two["owner_ratio"] = one["owner_us"] / two["owner_us"]
        two["rate_ratio"] = two["per_s"] / one["per_s"]
        two["goal"] = WORKERS_GOAL
    return rows


def _worker_row(
    target: Target, count: int, connections: int, in_flight: int, messages: int, *, tls: bool
) -> dict[str, Any]:
    owner = target.pids[0]
    rest = [pid for pid in tree(owner) if pid != owner]
    load = Load(
        target, "closed", tls=tls, connections=connections, in_flight=in_flight, messages=messages,
        prefix=f"w{connections}x",  # known by the time TLS is measured: it registers nobody
    )  # fmt: skip
    before = cpu_s(owner), sum(cpu_s(pid) for pid in rest)
    found = load.run()
    time.sleep(SETTLE_S)
    used = [cpu_s(owner) - before[0], sum(cpu_s(pid) for pid in rest) - before[1]]
    return {
        "workers": count, "tls": tls, "connections": connections, "owner_us": used[0] / messages * 1e6,
        "workers_us": used[1] / messages * 1e6, "per_s": found["per_s"], "owner_ratio": None, "rate_ratio": None,
        "goal": None, "missing": messages - found["messages"] + found["refused"],
    }  # fmt: skip


def run(directory: Path, *, quick: bool) -> dict[str, object]:
    """Run everything about the broker."""
    return {
        "cases": cases(directory, quick=quick),
        "idle": idle(directory, 600 if quick else IDLE),
        "workers": workers(directory, quick=quick),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="godwit-bench-") as temporary:
        words = [word for word in sys.argv[1:] if word != "--quick"]
        for row in cases(Path(temporary), quick="--quick" in sys.argv, only=" ".join(words)):
            print(json.dumps(row))
