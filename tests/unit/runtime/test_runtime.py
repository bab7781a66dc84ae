"""Clocks, backoff, files, supervision."""

import asyncio
import stat
import time

import pytest

from godwit.runtime.backoff import Backoff
from godwit.runtime.clock import Clock, SystemClock, VirtualClock
from godwit.runtime.files import write_whole
from godwit.runtime.supervise import supervise


def test_backoff_doubles_up_to_its_maximum_and_spreads_over_all_of_it():
    backoff = Backoff(1.0, s_max=10.0)
    assert [backoff.next_s(0.5) for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert backoff.next_s(0.0) == 0.0
    backoff.reset()
    assert backoff.next_s(0.999) == pytest.approx(0.999)
    for _ in range(5_000):
        assert backoff.next_s(0.5) <= 5.0


def test_the_systems_clock():
    clock: Clock = SystemClock()
    assert abs(clock.now_ns() - time.time_ns()) < 1e9
    assert clock.monotonic_s() <= clock.monotonic_s()


def test_a_virtual_clock_goes_when_told_and_its_time_of_day_may_be_set():
    clock = VirtualClock(1_000)
    clock.advance(1.5)
    clock.set_now_ns(7)
    clock.advance(0.5)
    assert (clock.now_ns(), clock.monotonic_s()) == (500_000_007, 2.0)
    with pytest.raises(ValueError, match="go back"):
        clock.advance(-1)


def test_a_file_is_written_whole_and_private_where_asked(tmp_path):
    path = tmp_path / "token"
    path.write_text("old")
    write_whole(path, b"secret", mode=0o600)
    assert path.read_bytes() == b"secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["token"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "kept"
    path.write_text("old")
    (tmp_path / "kept.new").mkdir()
    with pytest.raises(OSError, match=r"kept\.new"):
        write_whole(path, b"new")
    assert path.read_text() == "old"


def test_a_supervised_task_ends_loudly(caplog):
    told = []

    async def broken():
        raise KeyError("bug")

    async def endless():
        await asyncio.Event().wait()

    async def main():
        failing = supervise(broken(), "broken", lambda name, error: told.append((name, error)))
        waiting = supervise(endless(), "endless", lambda name, error: told.append((name, error)))
        await failing
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(main())
    ((name, error),) = told
    assert name == "broken"
    assert isinstance(error, KeyError)
    assert "broken ended by a bug" in caplog.text
