"""Do a new user's first minutes go well: one box, links that work, a clean end, sentences where something is taken?"""

import http.client
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real

STOP_S_MAX = 2.0


def read_box(process: "subprocess.Popen[str]") -> str:
    """Read what is printed until the box is closed."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line.startswith("+") and "Console" in text:
            return text
    pytest.fail(f"no box:\n{text}")


@pytest.fixture
def demo(platform_in: Callable[..., Any]) -> Iterator[tuple[Any, "subprocess.Popen[str]", str, float]]:
    """Start what `make up` starts; gives (paths and ports, process, box, seconds to the box)."""
    where = platform_in()
    begin = time.monotonic()
    with where.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "godwit.cli.main", "demo"], env=where.environment, stdout=subprocess.PIPE,
            stderr=log, text=True,
        )  # fmt: skip
    try:
        box = read_box(process)
        yield where, process, box, time.monotonic() - begin
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def test_the_demo_shows_twelve_devices_and_ends_cleanly_at_ctrl_c(demo: Any, eventually: Callable[..., Any]) -> None:
    where, process, box, seconds = demo
    assert seconds < 10  # 5 on a machine that has nothing else to do; the bench measures it
    assert box.isascii()  # not a terminal

    counts = eventually(lambda: (c := where.json("/api/v1/devices?limit=100"))["total"] >= 12 and c, within_s=15)
    assert counts["total"] == 12
    eventually(lambda: len(where.json("/api/v1/devices/weather-1/telemetry/latest")["readings"]) >= 4, within_s=15)

    line = re.search(r"mosquitto_pub.*$", box, re.MULTILINE)
    assert line
    subprocess.run(shlex.split(line.group().rstrip(" |")), check=True, timeout=10)
    latest = eventually(lambda: where.json("/api/v1/devices/my-first-device/telemetry/latest")["readings"], within_s=1)
    assert latest["temperature"]["value"] == 21.5

    children = children_of(process.pid)
    assert children
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert time.monotonic() - begin < STOP_S_MAX + 1  # a crowded machine gets a second more
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert where.log.read_text() == ""


def children_of(pid: int) -> list[int]:
    """Return the processes whose parent is `pid`."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and parent_of(entry) == pid]


def parent_of(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # gone meanwhile
        return 0


def test_the_sign_in_link_works_once(demo: Any) -> None:
    _, _, box, _ = demo
    link = re.search(r"Sign in\s+(http\S+)", box)
    assert link
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(link.group(1), timeout=10) as page:
        assert page.status == 200
        assert "sign-in" not in page.url
    stranger = http.client.HTTPConnection(link.group(1).split("/")[2], timeout=10)
    stranger.request("GET", "/" + link.group(1).split("/", 3)[3])
    answer = stranger.getresponse()
    assert not answer.getheader("Set-Cookie", "").startswith("godwit") or answer.status >= 400
    stranger.close()


def test_a_killed_demo_takes_its_fleet_with_it(demo: Any, eventually: Callable[..., Any]) -> None:
    _, process, _, _ = demo
    fleet = eventually(lambda: children_of(process.pid), within_s=10)
    process.kill()
    process.wait(10)
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in fleet), within_s=5)


def test_up_refuses_a_taken_port_and_the_demo_takes_the_next(platform_in: Callable[..., Any]) -> None:
    where = platform_in()
    with socket.create_server(("127.0.0.1", where.mqtt)), socket.create_server(("127.0.0.1", where.websocket)):
        done = subprocess.run(
            [sys.executable, "-m", "godwit.cli.main", "up"], check=False, env=where.environment, capture_output=True,
            text=True,
            timeout=20,
        )  # fmt: skip
        assert done.returncode == 1
        (sentence,) = done.stderr.strip().splitlines()
        assert str(where.mqtt) in sentence
        assert "MQTT_PORT" in sentence
        assert "ss -ltnp" in sentence

        process = subprocess.Popen(
            [sys.executable, "-m", "godwit.cli.main", "demo", "--simulate", "0"], env=where.environment,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            box = read_box(process)
        finally:
            process.terminate()
            assert process.wait(10) == 0
            assert process.stdout is not None
            process.stdout.close()
    used = re.search(r"MQTT\s+127\.0\.0\.1:(\d+)", box)
    assert used
    assert where.mqtt < int(used.group(1)) < where.mqtt + 200
    used = re.search(r"MQTT, WebSocket\s+ws://127\.0\.0\.1:(\d+)/mqtt", box)
    assert used
    assert where.websocket < int(used.group(1)) < where.websocket + 200


def test_up_simulates_when_it_is_asked_to(platform_in: Callable[..., Any], eventually: Callable[..., Any]) -> None:
    platform = platform_in().start("--simulate", "3")
    eventually(lambda: platform.json("/api/v1/devices")["total"] == 3, within_s=15)
    assert platform.stop(signal.SIGTERM) == 0


def test_make_up_is_the_demo(repository: Path) -> None:
    recipe = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "up"], cwd=repository, capture_output=True, text=True, check=True,
        env=os.environ | {"MAKEFLAGS": ""},
    )  # fmt: skip
    assert recipe.stdout.strip().endswith(".venv/bin/godwit demo")
