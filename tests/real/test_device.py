"""Does a device get everything to a real platform, once, whatever happens to either, or to a broker between them?"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from godwit.contract.errors import MalformedError, RejectedError, UnavailableError
from godwit.device import Bounds, Device, Reading, Stream
from godwit.device.blocking import Device as BlockingDevice
from godwit.mqtt.tls import client_context

pytestmark = pytest.mark.real


def values_of(platform: Any, device: str, reading: str = "n") -> list[float]:
    path = f"/api/v1/devices/{device}/telemetry?readings={reading}&from=2020-01-01T00:00:00Z&to=2099-01-01T00:00:00Z"
    values: list[float] = platform.json(f"{path}&limit=100000")["columns"]["value"]
    return values


def ledger_of(platform: Any, device: str) -> dict[str, Any]:
    ledger: dict[str, Any] = platform.json(f"/api/v1/devices/{device}/ledger")
    return ledger


def run_device(platform: Any, spool: Path, *arguments: str, name: str = "press-7") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "godwit.cli.main", "device", "run", name, "--port", str(platform.mqtt), "--spool",
         str(spool), *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {},
    )  # fmt: skip


def test_readings_events_and_health_arrive(platform: Any, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    async def live() -> None:
        async with Device(
            "press-7",
            port=platform.mqtt,
            spool=tmp_path / "s",
            firmware_version="1.2.3",
            streams=(Stream("fast", qos=0),),
        ) as device:
            await device.send(temperature=Reading(21.5, "Cel"), mode="eco", on=True, n=7, wait="stored")
            assert platform.json("/api/v1/devices/press-7/telemetry/latest")["readings"]["mode"]["value"] == "eco"
            assert device.depth.items == 0
            await device.send({"a.b c": 1}, at="2026-01-01T00:00:00Z")
            await device.send(n=8, stream="fast", wait="stored")
            await device.event("door-open", severity="warning", details={"door": 2})
            device.report("fan", "the fan is slow")
            await device.flush(5)
            assert device.is_connected
            with pytest.raises(MalformedError):
                await device.send(temperature=float("nan"))
            with pytest.raises(RejectedError):
                await device.send(n=1, stream="nobody-named-it")

    asyncio.run(asyncio.wait_for(live(), 90))
    latest = platform.json("/api/v1/devices/press-7/telemetry/latest")["readings"]
    assert (latest["temperature"]["value"], latest["temperature"]["unit"]) == (21.5, "Cel")
    assert latest["n"]["value"] == 8
    (event,) = platform.json("/api/v1/devices/press-7/events")["items"]
    assert json.loads(event["payload"])["event"] == "door-open"
    there = eventually(lambda: platform.json("/api/v1/devices/press-7")["presence"]["status"])
    assert eventually(lambda: platform.json("/api/v1/devices/press-7")["presence"]["online"] is False)
    assert there["firmwareVersion"] == "1.2.3"
    ledger = ledger_of(platform, "press-7")
    assert (ledger["accepted"], ledger["duplicate"], ledger["gaps"]) == (3, 0, 0)


def test_the_blocking_one_over_tls(platform_in: Callable[..., Any], tmp_path: Path) -> None:
    platform = platform_in(MQTT_USERNAME="fleet", MQTT_PASSWORD="secret").start()
    trust = client_context(authority=platform.data_dir / "tls" / "ca.crt")
    more = {"tls": trust, "username": "fleet", "spool": tmp_path / "s"}
    platform.post("/api/v1/devices", {"deviceId": "script-1"})
    with BlockingDevice("script-1", "localhost", platform.mqtts, password="secret", **more) as device:
        sent = device.send(n=1, wait="stored")
        assert (sent.stream, sent.seq) == ("main", 0)
        assert device.is_connected
        assert device.depth.items == 0
    with BlockingDevice("script-1", "localhost", platform.mqtts, password="wrong", **more) as device:
        device.send(n=2)
        with pytest.raises(UnavailableError, match=r"not authorized|password"):
            device.flush(1.5)
        assert device.depth.items == 1
    with BlockingDevice("script-1", "localhost", platform.mqtts, password="secret", **more) as device:
        device.flush(10)
    assert values_of(platform, "script-1") == [1, 2]


def test_a_device_and_a_platform_are_killed_in_the_middle(
    platform: Any, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    for turn in range(3):
        process = run_device(platform, tmp_path / "s", "--quiet")
        assert process.stdin is not None
        for number in range(turn * 1_000, (turn + 1) * 1_000):
            process.stdin.write(f'{{"n": {number}, "turn{turn}": 1}}\n')
        process.stdin.flush()
        eventually(lambda name=f"turn{turn}": values_of(platform, "press-7", name), within_s=20)
        if turn == 1:
            platform.kill()
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if turn == 1:
            platform.start()
    process = run_device(platform, tmp_path / "s")
    _, err = process.communicate("", timeout=30)
    assert process.returncode == 0, err
    found = values_of(platform, "press-7")
    assert found == sorted(set(found)), "doubled, or not in order"
    for turn in range(3):  # what stood in the pipe when it was killed was never taken; all before it was
        taken = [number for number in found if number // 1_000 == turn]
        assert taken == list(range(turn * 1_000, turn * 1_000 + len(taken)))
        assert taken
    ledger = ledger_of(platform, "press-7")
    assert (ledger["accepted"], ledger["gaps"]) == (len(found), 0)


def test_while_the_platform_is_away_everything_is_kept(platform_in: Callable[..., Any], tmp_path: Path) -> None:
    platform = platform_in()
    lines = "".join(f"{1_760_000_000 + number},{number},{number / 7:.2f}\n" for number in range(20_000))
    away = run_device(platform, tmp_path / "s", "--wait", "1")
    out, err = away.communicate(f"time,n,t\n{lines}not a line\n", timeout=60)
    assert away.returncode == 1
    assert "20,000 samples taken, 0 stored" in out
    assert "wait in the spool" in out
    assert "line 20002: 1 fields, the header has 3" in err
    platform.start()
    back = run_device(platform, tmp_path / "s")
    out, err = back.communicate("", timeout=60)
    assert back.returncode == 0, (out, err)
    assert values_of(platform, "press-7") == list(range(20_000))
    assert ledger_of(platform, "press-7")["messages"] < 200


def test_nothing_is_lost_at_qos_0_behind_a_broker_that_dies(
    platform_in: Callable[..., Any], mosquitto_in: Callable[..., Any], tmp_path: Path
) -> None:
    broker = mosquitto_in().start()
    platform = platform_in(
        MQTT_BROKER="external", MQTT_HOST="127.0.0.1", MQTT_PORT=str(broker.port), MQTT_REGISTER_DEVICES="true"
    ).start()

    async def live() -> None:
        async with Device(
            "far-1", port=broker.port, spool=tmp_path / "s", streams=(Stream("fast", qos=0), Stream("sure", qos=1))
        ) as device:
            for number in range(600):
                await device.send(n=number, stream="fast")
                await device.send(m=number, stream="sure")
                if number == 300:
                    await device.send(n=-1, stream="fast", wait="stored")
                    await asyncio.to_thread(broker.kill)
                if number == 400:
                    await asyncio.to_thread(broker.start)
                await asyncio.sleep(0.002)
            await device.flush(60)

    asyncio.run(asyncio.wait_for(live(), 90))
    found = values_of(platform, "far-1")
    assert sorted(found) == sorted(set(range(600)) | {-1})
    assert values_of(platform, "far-1", "m") == list(range(600))


def test_a_full_spool_says_what_it_lost(platform: Any, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    async def live() -> None:
        async with Device("small-1", spool=tmp_path / "s", port=1, bounds=Bounds(bytes_max=20_000)) as device:
            for number in range(2_000):
                await device.send(n=number)
            assert device.gaps
            with pytest.raises(UnavailableError, match="not stored yet"):
                await device.flush(0.2)
        async with Device("small-1", spool=tmp_path / "s", port=platform.mqtt) as device:
            await device.flush(10)
            await asyncio.to_thread(eventually, lambda: not device.gaps)

    asyncio.run(asyncio.wait_for(live(), 90))
    ledger = ledger_of(platform, "small-1")
    assert sum(ledger["lost"].values()) + ledger["accepted"] == 2_000
    assert ledger["gaps"] == 0
    assert values_of(platform, "small-1")[-1] == 1_999


def test_two_servers_have_what_each_was_sent_and_know_of_the_rest(
    platform_in: Callable[..., Any], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    servers = [platform_in("a").start(), platform_in("b").start()]

    async def live(platform: Any, first: int) -> None:
        async with Device("mover-1", port=platform.mqtt, spool=tmp_path / "s") as device:
            for number in range(first, first + 5):
                await device.send(n=number)
            await device.flush(20)
            await asyncio.to_thread(eventually, lambda: not ledger_of(platform, "mover-1")["gaps"], within_s=20)

    for first, platform in ((0, servers[0]), (5, servers[1]), (10, servers[0])):
        asyncio.run(asyncio.wait_for(live(platform, first), 60))
    assert values_of(servers[0], "mover-1") == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert ledger_of(servers[0], "mover-1")["lost"] == {"deleted": 5}
    assert values_of(servers[1], "mover-1") == [5, 6, 7, 8, 9]
    assert ledger_of(servers[1], "mover-1")["lost"] == {"deleted": 5}


def test_a_second_process_is_refused_with_one_sentence(platform: Any, tmp_path: Path) -> None:
    first = run_device(platform, tmp_path / "s")
    assert first.stdin is not None
    first.stdin.write('{"n": 1}\n')
    first.stdin.flush()
    while not (tmp_path / "s").exists():
        time.sleep(0.05)
    time.sleep(0.3)
    second = run_device(platform, tmp_path / "s")
    _, err = second.communicate("", timeout=20)
    assert second.returncode == 1
    assert len(err.strip().splitlines()) == 1
    assert "process" in err
    first.communicate("", timeout=20)
    assert first.returncode == 0
