"""Does `godwit trace` show a device's way from its packets to the row, to people and to programs?"""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.real


def follow(platform: Any, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "godwit.cli.main", "trace", "dev-1", *words], env=platform.environment,
        cwd=platform.data_dir.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def publish(platform: Any, payload: str) -> None:
    where = ["-p", str(platform.mqtt), "-i", "dev-1", "-V", "5", "-q", "1", "-t", "devices/dev-1/telemetry"]
    subprocess.run(["mosquitto_pub", *where, "-m", payload], check=True, timeout=10, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_packets_stations_and_rows_are_told(workers: str, platform_in: Callable[..., Any]) -> None:
    platform = platform_in(WORKERS=workers).start()
    people, program = follow(platform, "--for", "5"), follow(platform, "--json", "--for", "5")
    assert people.stdout is not None
    assert people.stdout.readline().startswith("following dev-1 at http://127.0.0.1:")
    other = follow(platform, "--for", "0.5")  # by the time this one has come and gone, the program is there too
    other.communicate(timeout=20)
    publish(platform, '{"sensors": {"temperature": 21.5, "humidity": 40}}')
    subprocess.run(
        ["mosquitto_pub", "-p", str(platform.mqtt), "-V", "5", "-i", "dev-1", "-q", "1", "-t",
         "devices/dev-1/telemetry", "-m", "\x1b[2J"], check=False, timeout=10, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    shown, _ = people.communicate(timeout=20)
    documents = [json.loads(line) for line in program.communicate(timeout=20)[0].splitlines()]
    names = [each["name"] for each in documents if each["kind"] == "packet" and each["direction"] == "in"]
    assert names == ["CONNECT", "PUBLISH", "DISCONNECT"] * 2
    codes = [each["reasonCode"] for each in documents if each.get("name") == "PUBACK"]
    assert codes == [0, 0x99]
    ends = [(each["outcome"], each["rows"]) for each in documents if each["kind"] == "committed"]
    assert ends == [("stored", 2), ("quarantined", 0)]
    assert "└ stored 2 rows, in commit" in shown
    assert "malformed-cbor" in shown
    assert "\x1b" not in shown


def test_what_is_wrong_is_said_in_a_sentence(platform: Any, platform_in: Callable[..., Any]) -> None:
    token = platform.data_dir.parent / "wrong"
    token.write_text("wrong")
    told, _ = follow(platform, "--token-file", str(token)).communicate(timeout=20)
    assert "does not know this token" in told
    told, _ = follow(platform, "--url", "http://127.0.0.1:1").communicate(timeout=20)
    assert "no platform at http://127.0.0.1:1: Connection refused" in told
    told, _ = follow(platform_in("nobody")).communicate(timeout=20)
    assert "cannot be read" in told
