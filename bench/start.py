"""How long a start takes, and what the idle platform weighs."""

import time
from pathlib import Path

from bench.process import godwit

GOAL_READY_S = 3.0
GOAL_RSS_MB = 180.0


def run(directory: Path, *, quick: bool) -> dict[str, object]:
    """Start on an empty and on a used data directory; let it rest before looking at its memory."""
    ready, sizes = [], []
    for _ in range(2 if quick else 5):
        with godwit(directory / "start") as target:
            ready.append(target.ready_s)
            time.sleep(5)
            sizes.append(target.rss_bytes() / 1e6)
    return {
        "first_ready_s": ready[0],
        "again_ready_s": sorted(ready[1:])[len(ready[1:]) // 2],
        "goal_ready_s": GOAL_READY_S,
        "idle_rss_mb": max(sizes), "goal_rss_mb": GOAL_RSS_MB,
    }  # fmt: skip
