"""Real devices, a real platform, a bad network between, and fate with SIGKILL: is everything there, once, in order?

CHAOS_DEVICES, CHAOS_SAMPLES and CHAOS_KILLS make it longer or shorter; SEED repeats the order of blows, not the moment.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from godwit.sim.crowd import READINGS
from godwit.sim.proxy import Proxy

DEVICES = int(os.environ.get("CHAOS_DEVICES", "100"))
SAMPLES = int(os.environ.get("CHAOS_SAMPLES", "2000"))
KILLS = int(os.environ.get("CHAOS_KILLS", "50"))
SEED = int(os.environ.get("SEED", str(time.time_ns() % 10**6)))
CROWDS = 10
LIFE_S = SAMPLES / 14
END_S = 900


class Crowd:
    """A process with some of the devices."""

    def __init__(self, port: int, directory: Path, first: int, count: int, samples: int) -> None:
        self._command = [
            sys.executable, "-m", "godwit.sim.crowd",
            *(str(each) for each in (port, directory, first, count, samples, LIFE_S)),
        ]  # fmt: skip
        self.log = directory / f"crowd-{first}.log"
        self.kills = 0
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.kills += 1

    @property
    def is_done(self) -> bool:
        return self.process.poll() == 0

    @property
    def is_broken(self) -> bool:
        return self.process.poll() not in (0, None, -9)


class Fate:
    """Strikes, one blow after the other."""

    def __init__(self, random: Random, proxy: Proxy, crowds: list[Crowd], servers: dict[str, Any]) -> None:
        self.random, self.proxy, self.crowds, self.servers = random, proxy, crowds, servers
        self.blows: Counter[str] = Counter()

    @property
    def kills(self) -> int:
        return sum(count for blow, count in self.blows.items() if blow.startswith("kill"))

    async def strike(self) -> None:
        random, proxy = self.random, self.proxy
        blow = random.choice(
            ["kill devices"] * 5 + [f"kill {name}" for name in self.servers] * 3
            + ["cut", "cut", "half-close", "stall", "slow", "refuse"]
        )  # fmt: skip
        pause = random.uniform(0.1, 1.5)
        if blow == "kill devices":
            alive = [each for each in self.crowds if not each.is_done]
            if not alive:
                return
            crowd = random.choice(alive)
            crowd.kill()
            await asyncio.sleep(pause)
            crowd.start()
        elif blow.startswith("kill"):
            server = self.servers[blow.removeprefix("kill ")]
            server.kill()
            await asyncio.sleep(pause)
            await asyncio.to_thread(server.start)
        elif blow == "cut":
            proxy.cut(random.choice((0.1, 0.5, 1.0)))
        elif blow == "half-close":
            proxy.half_close(0.3)
        else:
            setting, value = {
                "stall": ("is_stalled", True), "slow": ("bytes_per_s", 3_000.0), "refuse": ("is_refusing", True),
            }[blow]  # fmt: skip
            was = getattr(proxy.faults, setting)
            setattr(proxy.faults, setting, value)
            await asyncio.sleep(pause * 2)
            setattr(proxy.faults, setting, was)
        self.blows[blow] += 1


async def play(random: Random, target: int, directory: Path, servers: dict[str, Any], devices: int, samples: int,
               kills: int) -> tuple[Fate, Proxy]:  # fmt: skip
    proxy = Proxy(target, random)
    port = await proxy.start()
    each = devices // CROWDS
    crowds = [Crowd(port, directory, number * each, each, samples) for number in range(CROWDS)]
    fate = Fate(random, proxy, crowds, servers)
    end = time.monotonic() + END_S
    try:
        while not all(crowd.is_done for crowd in crowds):
            assert time.monotonic() < end, f"not done after {END_S} s: {fate.blows}"
            broken = [crowd for crowd in crowds if crowd.is_broken]
            assert not broken, broken[0].log.read_text()[-3_000:]
            await asyncio.sleep(random.uniform(0.2, 2.0))
            if fate.kills < kills or random.random() < 0.2:
                await fate.strike()
        assert fate.kills >= kills, f"all was done after {fate.kills} kills: more samples"
    finally:
        for crowd in crowds:
            crowd.process.kill()
            crowd.process.wait()
        await proxy.close()
    return fate, proxy


def count(platform: Any, devices: int, samples: int) -> dict[str, int]:
    books = Counter[str]()
    for number in range(devices):
        device = f"chaos-{number}"
        for reading in READINGS:
            path = f"/api/v1/devices/{device}/telemetry?readings={reading}&from=2020-01-01T00:00:00Z"
            columns = platform.json(f"{path}&to=2099-01-01T00:00:00Z&limit=100000")["columns"]
            seqs = Counter(columns["seq"])
            books["readings"] += len(columns["seq"])
            books["lost"] += samples - len(seqs)
            books["doubled"] += sum(seqs.values()) - len(seqs)
            books["wrong"] += sum(value != seq for value, seq in zip(columns["value"], columns["seq"], strict=True))
            books["out of order"] += columns["seq"] != sorted(columns["seq"])
        ledger = platform.json(f"/api/v1/devices/{device}/ledger")
        books["sent again"] += ledger["duplicate"]
        books["gaps"] += ledger["gaps"]
        books["clones"] += len(ledger["clones"])
    return dict(books)


def show(title: str, fate: Fate, proxy: Proxy, books: dict[str, int], seconds: float) -> None:
    print(f"\n{title} (seed {SEED}, {seconds:.0f} s)")
    for name, value in [*fate.blows.items(), ("connections cut", proxy.cuts), *books.items()]:
        print(f"| {name} | {value:,} |")


def judge(books: dict[str, int], devices: int, samples: int) -> None:
    assert books["readings"] == devices * samples * len(READINGS)
    for wrong in ("lost", "doubled", "wrong", "out of order", "gaps", "clones"):
        assert books[wrong] == 0, (wrong, books)


def test_nothing_lost_nothing_doubled(platform_in: Callable[..., Any], tmp_path: Path) -> None:
    platform = platform_in().start()
    begin = time.monotonic()
    fate, proxy = asyncio.run(
        play(Random(SEED), platform.mqtt, tmp_path, {"platform": platform}, DEVICES, SAMPLES, KILLS)
    )
    books = count(platform, DEVICES, SAMPLES)
    show(f"{DEVICES} devices, the platform, fate", fate, proxy, books, time.monotonic() - begin)
    judge(books, DEVICES, SAMPLES)


def test_behind_a_broker_that_is_not_ours(
    platform_in: Callable[..., Any], mosquitto_in: Callable[..., Any], tmp_path: Path
) -> None:
    broker = mosquitto_in().start()
    platform = platform_in(
        MQTT_BROKER="external", MQTT_HOST="127.0.0.1", MQTT_PORT=str(broker.port), MQTT_REGISTER_DEVICES="true"
    ).start()
    devices, samples, kills = max(10, DEVICES // 5), SAMPLES // 2, max(5, KILLS // 4)
    begin = time.monotonic()
    fate, proxy = asyncio.run(
        play(Random(SEED), broker.port, tmp_path, {"platform": platform, "broker": broker}, devices, samples, kills)
    )
    books = count(platform, devices, samples)
    show(f"{devices} devices, Mosquitto, the platform, fate", fate, proxy, books, time.monotonic() - begin)
    judge(books, devices, samples)


if __name__ == "__main__":
    pytest.main([__file__, "-s"])
