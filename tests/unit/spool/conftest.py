"""A spool in a fresh directory, opened as often as a test likes."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from godwit.spool import Spool

sys.path.insert(0, str(Path(__file__).parents[2] / "spool"))

from spools import Opener, names


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the spool is."""
    return tmp_path / "spool" / "spool.sqlite"


@pytest.fixture
def opener(path: Path) -> Iterator[Opener]:
    """Open the spool, again and again; all are closed at the end. One run of the operating system, unless said."""
    opened: list[Spool] = []
    source = names()

    def open_spool(streams: dict[str, int] | None = None, **options: Any) -> Spool:
        spool = Spool.open(options.pop("path", path), **({"random": source, "boot": "boot-1"} | options))
        opened.append(spool)
        for stream, priority in (streams if streams is not None else {"a": 1}).items():
            spool.declare(stream, priority)
        return spool

    yield open_spool
    for spool in opened:
        spool.close()
