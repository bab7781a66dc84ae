"""Are readings stored at the time at which they were measured, whatever the device's clock says?"""

import asyncio
import datetime as dt
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from godwit.device import Device, Stream

pytestmark = pytest.mark.real

NS = 1_000_000_000
NEAR_NS = NS // 2
"""A busy machine may need so long between reading its clock and being heard."""
CLOCKS = {"slow": -3_600 * NS, "good": 0, "days-ahead": 2 * 86_400 * NS}
UNSET = {"year-1970": 5 * NS, "year-2150": 5_680_281_600 * NS}
STREAMS = (Stream("main"), Stream("frequent", qos=0))


class WrongClock:
    """A machine whose time of day is off, or was never set: then it counts from `begins`."""

    def __init__(self, offset: int | None, begins: int = 0) -> None:
        self._offset = offset if offset is not None else begins - time.time_ns()

    def now_ns(self) -> int:
        return time.time_ns() + self._offset

    def monotonic_s(self) -> float:
        return time.monotonic()

    def uptime_ns(self) -> int:
        return time.monotonic_ns()


async def measure(device: Device, times: int, truth: list[int], stream: str) -> None:
    """Take samples whose value is the true time, and let the server have each."""
    for _ in range(times):
        now = time.time_ns()
        await device.send(at_s=now / NS, stream=stream)
        await device.flush(15)
        truth.append(now)
        await asyncio.sleep(0.6)


async def live(platform: Any, directory: Path, name: str, clock: WrongClock, times: int) -> list[int]:
    truth: list[int] = []
    stream = "frequent" if name in ("slow", "year-1970") else "main"
    async with Device(
        name, "127.0.0.1", platform.mqtt, spool=directory / f"{name}.spool", streams=STREAMS, clock=clock
    ) as device:
        await measure(device, times, truth, stream)
    return truth


def errors(platform: Any, name: str) -> list[tuple[float, str]]:
    """Return of each stored reading how far from the truth its time is, in seconds, and its quality."""
    found = json.loads(platform.get(f"/api/v1/devices/{name}/telemetry?from=2000-01-01T00:00:00Z&readings=at_s"))[
        "columns"
    ]
    times = [time_of(each) for each in found["time"]]
    both = zip(times, found["value"], found["quality"], found["seq"], strict=True)
    return [(stored - true, quality) for stored, true, quality, _ in sorted(both, key=lambda each: each[3])]


def time_of(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def test_wrong_clocks_are_found_out_and_put_right(tmp_path: Path, platform_class: Callable[..., Any]) -> None:
    platform = platform_class(tmp_path / "data").start()
    clocks = {name: WrongClock(offset) for name, offset in CLOCKS.items()}
    clocks |= {name: WrongClock(None, begins) for name, begins in UNSET.items()}

    async def fleet(names: list[str], times: int) -> None:
        await asyncio.gather(*(live(platform, tmp_path, name, clocks[name], times) for name in names))

    try:
        asyncio.run(fleet(list(clocks), 4))
        for name in clocks:
            *_, (error, quality) = errors(platform, name)
            assert (abs(error) < NEAR_NS / NS, quality) == (True, "good"), (name, errors(platform, name))
        reported = {each["deviceId"]: each for each in json.loads(platform.get("/api/v1/clocks"))["items"]}
        assert set(reported) == set(clocks)
        for name, offset in CLOCKS.items():
            assert abs(reported[name]["offsetNs"] - offset) <= reported[name]["uncertaintyNs"] + NS // 100
            assert reported[name]["isCorrected"] == (offset != 0)
        refused = json.loads(platform.get("/api/v1/devices/days-ahead/ledger"))["quarantined"]
        assert list(refused) == ["time-in-future"], "before it was compared"
        platform.kill()  # SIGKILL
        platform.start()
        assert json.loads(platform.get("/api/v1/devices/slow/clock"))["isCorrected"] is True
        asyncio.run(fleet(["slow"], 1))
        assert abs(errors(platform, "slow")[-1][0]) < NEAR_NS / NS, "known from before, without another exchange"
    finally:
        platform.kill()
