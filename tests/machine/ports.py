"""Ports that nobody else takes between being found and being used.

Linux gives connections ports from 32,768 on, so those below are used. Every process of pytest-xdist has a range of its
own, and gives no port twice: a platform that is made but not started yet keeps its ports.
"""

import contextlib
import os
import random
import socket

FIRST, END = 10_000, 32_000

_given: set[int] = set()


def _own_range() -> range:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    width = (END - FIRST) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return range(FIRST + worker * width, FIRST + (worker + 1) * width)


def free_ports(count: int) -> list[int]:
    """Return ports that are free now and that no other test gets."""
    own, found = _own_range(), list[int]()
    while len(found) < count:
        port = random.choice(own)
        if port in _given:
            continue
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            _given.add(port)
            found.append(port)
    return found


def free_port() -> int:
    """Return one."""
    return free_ports(1)[0]
