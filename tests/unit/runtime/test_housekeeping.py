"""What is only counted while the server runs is written down when it ends, whatever else cannot be."""

import asyncio
from typing import Any, cast

import pytest

from godwit.contract.errors import UnavailableError
from godwit.server.housekeeping import Housekeeping


def test_chores_are_done_a_last_time(caplog: pytest.LogCaptureFixture) -> None:
    housekeeping, done = Housekeeping(*[cast("Any", None)] * 6), []

    def away() -> None:
        raise UnavailableError("the registry is away", code="registry-unavailable")

    housekeeping.chores += [away, lambda: done.append("counted")]
    asyncio.run(housekeeping.finish())
    housekeeping.close()
    assert done == ["counted"]
    assert "the registry is away" in caplog.text
