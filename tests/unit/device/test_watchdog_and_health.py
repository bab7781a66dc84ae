"""Is the watchdog fed by the loop, and only then, and is the machine's health read as it is?"""

import asyncio
import socket
import time
from pathlib import Path

import pytest

from godwit.device.health import Machine
from godwit.device.watchdog import Watchdog, notify, period_s


def test_systemd_is_told_and_fed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        assert period_s() == 0.01

        async def live() -> None:
            loop = asyncio.get_running_loop()
            task = asyncio.ensure_future(Watchdog().run())
            while heard.count("WATCHDOG=1") < 3:  # however long a busy machine takes for it
                heard.append((await loop.sock_recv(systemd, 100)).decode())
            task.cancel()
            await asyncio.wait([task])

        heard: list[str] = []
        began = time.monotonic()
        asyncio.run(asyncio.wait_for(live(), 20))
        assert time.monotonic() - began >= 0.02, "it is fed in its time, not as fast as can be"
        while True:
            try:
                heard.append(systemd.recv(100).decode())
            except BlockingIOError:
                break
    assert heard[0] == "READY=1"
    assert set(heard[1:-1]) == {"WATCHDOG=1"}
    assert heard[-1] == "STOPPING=1"


def test_the_hardware_is_fed_and_told_goodbye(tmp_path: Path) -> None:
    (tmp_path / "watchdog").write_bytes(b"")

    async def live() -> None:
        task = asyncio.ensure_future(Watchdog(tmp_path / "watchdog").run())
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(live())
    assert (tmp_path / "watchdog").read_bytes() == b"\0V"  # the magic close: ending on purpose reboots nobody


@pytest.mark.parametrize(
    ("environment", "period"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_how_often_systemd_wants_to_be_fed(environment: dict[str, str], period: float | None) -> None:
    assert period_s(environment) == period


def test_without_systemd_nothing_happens(tmp_path: Path) -> None:
    assert not notify("READY=1", {})
    assert not notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    asyncio.run(Watchdog().run())


def test_health_is_read_from_proc(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "stat").write_text("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 1 1 1\n")
    (proc / "meminfo").write_text("MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    250 kB\n")
    (proc / "uptime").write_text("12345.67 99999.00\n")
    machine = Machine(tmp_path / "not" / "there", proc)
    (proc / "stat").write_text("cpu  130 0 110 860 0 0 0 0 0 0\n")
    health = machine.look(spool_depth=7, clock_offset=0.5)
    assert (health.cpu, health.memory, health.uptime, health.spool_depth) == (40.0, 75.0, 12_345.67, 7)
    assert health.disk is not None
    assert 0 <= health.disk <= 100


def test_where_there_is_no_proc_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    health = Machine(tmp_path, tmp_path / "none").look(spool_depth=0, clock_offset=None)
    assert (health.cpu, health.memory) == (None, None)
