"""Logging for the processes that are not the server (device, edge, simulator): one line a record, on standard error.

The server has its own way of writing records; both take them from the standard library's `logging`.
"""

import logging
import sys
import time
from typing import Final, TextIO

FORMAT: Final = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s"


def log_to(stream: TextIO | None = None, level: str = "INFO") -> logging.Handler:
    """Write the records of all rooms to `stream` (standard error), times in UTC. Raises ValueError for a wrong level.

    Called again, it replaces what it set before.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    formatter = logging.Formatter(FORMAT, datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    handler.set_name("godwit")
    root = logging.getLogger()
    root.setLevel(level.upper())
    for before in [each for each in root.handlers if each.get_name() == "godwit"]:
        root.removeHandler(before)
    root.addHandler(handler)
    return handler
