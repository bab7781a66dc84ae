"""Programs that listen while a test does something, and are gone when it is over."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator["subprocess.Popen[Any]"]:
    """Run a program that would not end by itself; options are those of `Popen`.

    It is killed, not asked: `mosquitto_sub` that was disconnected comes back for ever, whatever signals say.
    """
    with subprocess.Popen(command, **options) as program:
        try:
            yield program
        finally:
            program.kill()
