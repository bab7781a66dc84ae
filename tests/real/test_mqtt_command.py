"""Can a person without an MQTT client subscribe and publish with `godwit mqtt`, and is told what the broker says?"""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.real


def start(platform: Any, *words: str, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "godwit.cli.main", "mqtt", *words], env=platform.environment,
        cwd=platform.data_dir.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


def ask(platform: Any, *words: str, say: str | None = None) -> tuple[int, str, str]:
    process = start(platform, *words, stdin=subprocess.PIPE)
    out, err = process.communicate(say, timeout=30)
    return process.returncode, out, err


def test_a_retained_message_is_there_for_later_subscribers_and_is_taken_away(platform: Any) -> None:
    assert ask(platform, "pub", "lights/kitchen", "on", "-r", "-q", "1") == (0, "", "")
    assert ask(platform, "sub", "lights/#", "-C", "1", "-W", "10") == (0, "lights/kitchen on\n", "")
    assert ask(platform, "sub", "-t", "lights/+", "-C", "1", "-W", "10", "-V", "311", "-N") == (0, "on", "")
    assert ask(platform, "pub", "-t", "lights/kitchen", "-n", "-r", "-q", "2") == (0, "", "")
    assert ask(platform, "sub", "lights/#", "-W", "0.5")[0] == 27


def test_lines_of_the_input_arrive_in_order_at_qos_2(platform: Any, eventually: Callable[..., Any]) -> None:
    listener = start(platform, "sub", "-t", "lines", "-q", "2", "-C", "2000", "-W", "30", "-i", "reader", "-c")
    eventually(lambda: subscriptions(platform) >= 1)
    assert ask(platform, "pub", "-t", "lines", "-l", "-q", "2", say="".join(f"{n}\n" for n in range(2_000)))[0] == 0
    out, _ = listener.communicate(timeout=30)
    assert [int(each) for each in out.split()] == list(range(2_000))


def subscriptions(platform: Any) -> int:
    metrics = platform.get("/metrics").decode()
    return int(
        float(next(each.split()[-1] for each in metrics.splitlines() if each.startswith("godwit_mqtt_subscriptions ")))
    )


def test_the_broker_says_why_it_refuses(platform: Any) -> None:
    code, _, told = ask(platform, "pub", "devices/cli/telemetry", "rubbish", "-q", "1")
    assert code == 1
    assert "payload format invalid: malformed-" in told
    assert "0x99" in told
    code, _, told = ask(platform, "pub", "$SYS/broker/uptime", "1", "-q", "1")
    assert (code, "not authorized (reason 0x87)" in told) == (1, True)
    code, _, told = ask(platform, "sub", "#", "-p", "1")
    assert (code, "no broker at 127.0.0.1:1: Connection refused" in told) == (1, True)


def test_tls_trusts_the_platforms_own_certificate(platform_in: Callable[..., Any]) -> None:
    platform = platform_in(LOCAL_LISTENER="false", MQTT_USERNAME="me", MQTT_PASSWORD="secret").start()
    code, out, told = ask(platform, "sub", "system/heartbeat", "--json", "-C", "1", "-W", "20")
    assert code == 0, told
    document = json.loads(out)
    assert (document["topic"], document["payload"]["status"]) == ("system/heartbeat", "healthy")
    code, _, told = ask(platform, "sub", "#", "--tls")
    assert (code, "the certificate is not trusted" in told) == (1, True)
    code, _, told = ask(platform, "sub", "#", "-P", "wrong")
    assert (code, "refuses the connection" in told) == (1, True)


def test_a_subscriber_comes_back_after_the_platform_did(platform: Any, eventually: Callable[..., Any]) -> None:
    listener = start(platform, "sub", "-t", "greetings", "-C", "1", "-W", "60", "-q", "1")
    eventually(lambda: subscriptions(platform) >= 1)
    platform.stop()
    platform.start()
    eventually(lambda: subscriptions(platform) >= 1, within_s=20)
    assert ask(platform, "pub", "greetings", "again", "-q", "1")[0] == 0
    out, told = listener.communicate(timeout=30)
    assert out == "again\n"
    assert "the connection is lost (server shutting down" in told


def test_ctrl_c_ends_it_without_a_word(platform: Any, eventually: Callable[..., Any]) -> None:
    listener = start(platform, "sub", "#")
    eventually(lambda: subscriptions(platform) >= 1)
    listener.send_signal(signal.SIGINT)
    _, told = listener.communicate(timeout=10)
    assert (listener.returncode, told) == (0, "")
    speaker = start(platform, "pub", "-t", "a", "-l", stdin=subprocess.PIPE)
    assert speaker.stdin is not None
    speaker.stdin.write("one\n")
    speaker.stdin.flush()
    assert ask(platform, "sub", "system/heartbeat", "-C", "1", "-W", "10")[0] == 0  # it is waiting for a line by now
    speaker.send_signal(signal.SIGINT)
    speaker.wait(10)
    _, told = speaker.communicate()
    assert (speaker.returncode, told) == (0, "")
