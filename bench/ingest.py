"""CPU per message on the way in, memory that stays flat, and what an idle connection costs.

Every case runs against godwit (done = committed and acknowledged) and, with the same load, against Mosquitto with a
subscriber that writes to nowhere; the CPU of all processes of a side is summed. Server CPU is what /proc says between
the word "go" and a moment after the last acknowledgement; connecting is not in it.
"""

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from bench.process import Load, Target, godwit, mosquitto

SETTLE_S = 0.3
GOALS_US = {50: 14.0, 5_000: 35.0}
GOALS_KB = {False: 15.0, True: 60.0}


class Case(NamedTuple):
    """A number of connections, and how many messages each keeps in flight."""

    connections: int
    in_flight: int
    messages: int


CASES = (Case(50, 20, 200_000), Case(2_000, 1, 200_000), Case(5_000, 1, 200_000))
QUICK = (Case(50, 20, 30_000), Case(500, 1, 20_000))


def measure(target: Target, case: Case, *, tls: bool) -> dict[str, Any]:
    """Run one case against one target."""
    load = Load(
        target, "closed", tls=tls, connections=case.connections, in_flight=case.in_flight, messages=case.messages,
    )  # fmt: skip
    before = target.cpu_s()
    found = load.run()
    time.sleep(SETTLE_S)
    used = target.cpu_s() - before
    goal = GOALS_US.get(case.connections) if target.http_port else None
    return {
        "target": target.name, "connections": case.connections, "tls": tls, "in_flight": case.in_flight,
        "messages": found["messages"], "cpu_us_per_message": used / found["messages"] * 1e6, "times_mosquitto": None,
        "goal_us": goal,
        "messages_per_s": found["per_s"], "p50_ms": found["p50_ms"], "p99_ms": found["p99_ms"],
        "refused": found["refused"],
    }  # fmt: skip


def cases(directory: Path, *, quick: bool) -> list[dict[str, object]]:
    """Run all cases, plain and TLS, each side in one process for all of them."""
    rows: list[dict[str, Any]] = []
    chosen = [(case, tls) for tls in (False, True) for case in (QUICK if quick else CASES)]
    with godwit(directory / "ingest") as target:
        _warm(target)
        rows += [measure(target, case, tls=tls) for case, tls in chosen]
        stations = _stations(target)
    with mosquitto(directory / "mosquitto") as target:
        _warm(target)
        rows += [measure(target, case, tls=tls) for case, tls in chosen]
    rows.sort(key=lambda row: (row["tls"], row["connections"], row["target"]))
    for ours, baseline in pairwise(rows):
        if ours["connections"] == baseline["connections"]:
            ours["times_mosquitto"] = ours["cpu_us_per_message"] / baseline["cpu_us_per_message"]
    return [*rows, *stations]


def _warm(target: Target) -> None:
    Load(target, "closed", connections=10, in_flight=10, messages=5_000, prefix="warm").run()


def _stations(target: Target) -> list[dict[str, object]]:
    """Return the CPU per message of each station of the pipeline, as /metrics has it."""
    found = []
    for line in target.get("/metrics", "text/plain").decode().splitlines():
        if line.startswith("godwit_station_seconds{"):
            name = line.split('"')[1]
            found.append({"station": name, "us_per_message": float(line.rsplit(" ", 1)[1]) * 1e6})
    return found


def flatness(directory: Path, messages: int) -> dict[str, object]:
    """Send `messages` in ten parts and look at the memory after each."""
    part = messages // 10
    sizes = []
    with godwit(directory / "flat") as target:
        _warm(target)
        for _ in range(10):
            Load(target, "closed", connections=50, in_flight=20, messages=part, prefix="flat").run()
            time.sleep(1)
            sizes.append(target.rss_bytes() / 1e6)
    return {"messages": messages, "rss_mb": sizes, "growth_mb_second_half": sizes[-1] - sizes[4]}


def idle(directory: Path, connections: int) -> list[dict[str, object]]:
    """Return the memory of an idle connection, plain and TLS, beside Mosquitto's."""
    rows = []
    for make in (godwit, mosquitto):
        for tls in (False, True):
            with make(directory / f"idle-{make.__name__}-{tls}") as target:
                Load(target, "idle", tls=tls, connections=max(20, connections // 15), prefix="first").run()
                time.sleep(1)
                before = target.rss_bytes()
                load = Load(target, "idle", tls=tls, connections=connections, prefix="idle")
                time.sleep(2)
                size = (target.rss_bytes() - before) / connections / 1e3
                load.run()
                goal = GOALS_KB[tls] if target.http_port else None
                rows.append({"target": target.name, "tls": tls, "kb_per_connection": size, "goal_kb": goal})
    return rows


def run(directory: Path, *, quick: bool, messages: int) -> dict[str, object]:
    """Run everything about ingest."""
    return {
        "cases": cases(directory, quick=quick),
        "idle": idle(directory, 300 if quick else 3_000),
        "flat": flatness(directory, 20_000 if quick else messages),
    }


if __name__ == "__main__":
    print(json.dumps(run(Path("/tmp"), quick=True, messages=20_000)))
