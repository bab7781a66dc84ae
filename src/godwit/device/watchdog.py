"""Watchdogs: who restarts a device that hangs. systemd (sd_notify(3)), and the kernel's /dev/watchdog where asked for.

Both are fed from the event loop: a loop that hangs feeds nobody.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

HARDWARE_S: Final = 10.0
"""The kernel's timeout is a minute where nobody set it (watchdog-api)."""
GOODBYE: Final = b"V"
"""The magic close: whoever ends on purpose is not rebooted."""


def notify(message: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send a message to systemd; False where there is none."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(message.encode(), address)
        return True
    return False


def period_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """Return how often systemd wants to be fed: half of what it allows. None: not at all."""
    pid, limit = environment.get("WATCHDOG_PID", ""), environment.get("WATCHDOG_USEC", "")
    if not limit.isdecimal() or (pid and pid != str(os.getpid())):
        return None
    return int(limit) / 2e6


class Watchdog:
    """Feeds whoever watches. `hardware` is the kernel's device, None: leave it alone."""

    def __init__(self, hardware: Path | None = None) -> None:
        self._hardware = hardware
        self._file: int | None = None

    async def run(self) -> None:
        """Feed until cancelled. Raises OSError where the hardware cannot be opened."""
        if self._hardware is not None:
            self._file = os.open(self._hardware, os.O_WRONLY)
        every = period_s()
        notify("READY=1")
        pause = min(every or HARDWARE_S, HARDWARE_S if self._file is not None else float("inf"))
        try:
            while every is not None or self._file is not None:
                if every is not None:
                    notify("WATCHDOG=1")
                if self._file is not None:
                    os.write(self._file, b"\0")
                await asyncio.sleep(pause)
        finally:
            notify("STOPPING=1")
            if self._file is not None:
                os.write(self._file, GOODBYE)
                os.close(self._file)
