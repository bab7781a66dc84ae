"""The simulated fleet of `godwit up --simulate` and `godwit demo`: a process of its own, over the real network."""

import subprocess
import sys
from typing import Final

STOP_S_MAX: Final = 1.5


class FleetProcess:
    """A child that simulates until its standard input closes; it ends with us, however we end."""

    def __init__(self, devices: int, address: str) -> None:
        host, _, port = address.rpartition(":")
        command = [
            sys.executable, "-m", "godwit.cli.main", "simulate", "--devices", str(devices), "--host", host,
            "--port", port, "--quiet", "--until-eof",
        ]  # fmt: skip
        # a session of its own: Ctrl-C reaches us alone, and we take things down in order
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603

    def stop(self) -> None:
        """Close its input, wait a moment, insist. Safe to call again."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
