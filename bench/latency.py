"""How long an acknowledgement takes, alone and while the rest of the platform is busy.

Busy means: 20 device pages that follow the live feed (their WebSockets), 3 exports of a large series that never
pause, and 1,000 TLS handshakes, all from processes of their own. The publishers pace themselves, so that both runs see
the same load.
"""

import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.process import Load, Target, godwit

PAGES = 20
EXPORTS = ("text/csv", "application/json", "application/vnd.apache.parquet")
HANDSHAKES = 1_000
GOAL_RATIO = 2.0


def paced(target: Target, *, rate: int, messages: int, prefix: str) -> dict[str, float]:
    """Publish at a rate; returns the latencies."""
    load = Load(target, "paced", connections=50, messages=messages, rate=rate, prefix=prefix)
    return load.run()


def _export(target: Target, kind: str, stop: threading.Event, count: list[int]) -> None:
    # the load's clock begins an hour ago
    end = datetime.now(UTC) + timedelta(hours=6)
    window = f"from={end - timedelta(hours=12):%Y-%m-%dT%H:%M:%SZ}&to={end:%Y-%m-%dT%H:%M:%SZ}"
    while not stop.is_set():
        target.get(f"/api/v1/devices/big0/telemetry?{window}", kind)
        count.append(1)


def run(directory: Path, *, quick: bool) -> dict[str, object]:
    """Measure alone, then busy."""
    rate, messages = (200, 1_000) if quick else (1_000, 20_000)
    with godwit(directory / "latency") as target:
        Load(target, "closed", connections=1, in_flight=200, messages=20_000 if quick else 200_000, prefix="big").run()
        paced(target, rate=rate, messages=messages // 4, prefix="lat")
        alone = paced(target, rate=rate, messages=messages, prefix="lat")
        stop = threading.Event()
        exported: list[int] = []
        exports = [threading.Thread(target=_export, args=(target, kind, stop, exported)) for kind in EXPORTS]
        command = [sys.executable, "-m", "bench.pages", str(target.http_port), target.token(), str(PAGES)]
        pages = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert pages.stdout is not None
        pages.stdout.readline()
        for each in exports:
            each.start()
        handshakes = Load(target, "handshakes", tls=True, messages=100 if quick else HANDSHAKES)
        time.sleep(0.2)
        busy = paced(target, rate=rate, messages=messages, prefix="lat")
        shaken = handshakes.result()
        stop.set()
        news = int(pages.communicate(b"stop\n")[0].split()[-1])
        for each in exports:
            each.join()
    ratio = busy["p99_ms"] / alone["p99_ms"]
    return {
        "rate_per_s": rate, "messages": messages, "pages": PAGES, "news_on_pages": news, "exports": len(exported),
        "handshakes": shaken["handshakes"], "handshakes_s": shaken["seconds"],
        "alone_p50_ms": alone["p50_ms"], "alone_p99_ms": alone["p99_ms"],
        "busy_p50_ms": busy["p50_ms"], "busy_p99_ms": busy["p99_ms"], "ratio_p99": ratio, "goal_ratio": GOAL_RATIO,
    }  # fmt: skip
