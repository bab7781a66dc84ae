"""Is what was appended there, once, in order, under its number, until it was settled; and is nothing else?"""

import os
import threading
from pathlib import Path

import pytest
from spools import BIG, Opener, everything, numbers

from godwit.contract.errors import RejectedError, UnavailableError
from godwit.runtime.clock import NS, VirtualClock
from godwit.spool import Bounds, Depth, Durability, Gap, Item, Spool, Track
from godwit.spool.model import ITEM_BYTES
from godwit.spool.store import GAPS_MAX

KINDS = [Durability.NORMAL, Durability.FULL, Durability.MEMORY]


@pytest.mark.parametrize("durability", KINDS)
def test_the_life_of_an_item(opener: Opener, durability: Durability) -> None:
    spool = opener({"a": 1, "event": 0}, durability=durability)
    assert [spool.append("a", 100 + n, b"%d" % n) for n in range(3)] == [0, 1, 2]
    assert spool.append_many("a", [(103, b"3"), (104, b"")]) == range(3, 5)
    assert spool.append("event", 200, b"!") == 0
    [event, a] = spool.next_streams()
    assert (event, a) == (Track("event", spool.epoch), Track("a", spool.epoch))
    assert spool.read(a, -1, items_max=2, bytes_max=BIG) == [
        Item(0, 100, b"0", spool.epoch), Item(1, 101, b"1", spool.epoch)
    ]  # fmt: skip
    assert spool.read("a", 1, items_max=9, bytes_max=2) == [
        Item(2, 102, b"2", spool.epoch), Item(3, 103, b"3", spool.epoch), Item(4, 104, b"", spool.epoch)
    ]  # fmt: skip
    assert spool.next_streams() == [event]
    assert spool.settle(a, 1) == 2
    assert spool.depth == Depth(4, 3 + 4 * ITEM_BYTES, 102)
    assert spool.depth_of("a") == Depth(3, 2 + 3 * ITEM_BYTES, 102)
    assert spool.settle_some(a, [3, 3, 1, 77]) == 1
    spool.rewind()
    assert spool.next_streams() == [event, a]
    assert numbers(spool, a) == [2, 4]
    assert spool.missing(a, 0, 6) == [(0, 1), (3, 3), (5, 6)]
    assert spool.settle("a", 10**9) == 2
    assert (spool.highest("a"), spool.highest("event"), spool.highest("nothing")) == (4, 0, -1)
    assert spool.settle("event", 0) == 1
    assert (spool.depth, spool.next_streams(), spool.gaps()) == (Depth(0, 0, None), [], [])


def test_numbers_are_never_used_twice(opener: Opener) -> None:
    spool = opener()
    epoch = spool.epoch
    spool.append_many("a", [(0, b"x")] * 5)
    spool.settle("a", 4)
    spool.close()
    spool = opener()
    assert (spool.epoch, spool.highest("a"), spool.depth.items) == (epoch, 4, 0)
    assert spool.append("a", 0, b"x") == 5


def test_reading_gives_at_least_one_and_else_keeps_its_limits(opener: Opener) -> None:
    spool = opener()
    spool.append_many("a", [(n, b"x" * 10) for n in range(9)])
    assert [len(spool.read("a", -1, items_max=9, bytes_max=limit)) for limit in (0, 19, 20, 29, 30)] == [1, 1, 2, 2, 3]
    assert len(spool.read("a", -1, items_max=4, bytes_max=BIG)) == 4
    assert len(spool.read("a", -1, items_max=0, bytes_max=0)) == 1
    assert spool.read("a", 8, items_max=9, bytes_max=BIG) == []
    assert spool.read("unknown", -1, items_max=9, bytes_max=BIG) == []
    assert spool.read(Track("a", "unknown"), -1, items_max=9, bytes_max=BIG) == []


def test_another_stream_is_not_touched(opener: Opener) -> None:
    spool = opener({"a": 1, "b": 1, "c": 1})
    for stream in "abc":
        spool.append_many(stream, [(n, b"x") for n in range(3)])
    assert spool.settle_some("b", [-1, -(2**44), 2**44, 2**50]) == 0
    assert spool.settle("b", -5) == 0
    assert spool.settle("b", 2**62) == 3
    spool.refuse("a", -(2**50), 2**62)
    assert spool.gaps() == [Gap("a", spool.epoch, 0, 2, "refused")]
    assert numbers(spool, "c") == [0, 1, 2]


def test_a_closed_and_an_undeclared_one_say_so(opener: Opener) -> None:
    spool = opener()
    with pytest.raises(LookupError, match="'b' was not declared"):
        spool.append("b", 0, b"")
    spool.close()
    spool.close()
    for use in (lambda: spool.append("a", 0, b""), lambda: spool.settle("a", 1), spool.next_streams, spool.gaps):
        with pytest.raises(UnavailableError) as caught:
            use()
        assert caught.value.code == "spool-closed"


def test_all_or_none_of_a_batch(opener: Opener) -> None:
    spool = opener()
    spool.append("a", 1, b"x")
    with pytest.raises(TypeError):
        spool.append_many("a", [(2, b"y"), (3, None)])  # type: ignore[list-item]
    with pytest.raises(OverflowError):
        spool.append("a", 2**63, b"")
    assert (spool.append("a", 4, b"z"), spool.depth.items) == (1, 2)


# ---------------------------------------------------------------------- bounds

ITEM = 100 + ITEM_BYTES


@pytest.mark.parametrize("durability", [Durability.NORMAL, Durability.MEMORY])
def test_full_of_what_is_important(opener: Opener, durability: Durability) -> None:
    spool = opener({"low": 2, "high": 0}, bounds=Bounds(bytes_max=10 * ITEM), durability=durability)
    for n in range(5):
        spool.append("low", n, b"x" * 100)
    for n in range(7):
        spool.append("high", n, b"x" * 100)
    assert (numbers(spool, "low"), numbers(spool, "high")) == ([2, 3, 4], list(range(7)))
    for n in range(7, 12):
        spool.append("high", n, b"x" * 100)
    assert (numbers(spool, "low"), numbers(spool, "high")) == ([], list(range(2, 12)))
    spool.append("low", 99, b"x" * 100)  # itself what has to leave
    assert (numbers(spool, "low"), spool.highest("low")) == ([], 5)
    assert spool.gaps() == [
        Gap("low", spool.epoch, 0, 5, "evicted-size"), Gap("high", spool.epoch, 0, 1, "evicted-size")
    ]  # fmt: skip
    assert spool.depth.bytes <= 10 * ITEM


def test_an_item_larger_than_the_spool(opener: Opener) -> None:
    spool = opener(bounds=Bounds(bytes_max=1_000))
    spool.append("a", 0, b"x")
    with pytest.raises(RejectedError) as caught:
        spool.append("a", 0, b"x" * 1_000)
    assert (caught.value.code, spool.depth.items) == ("spool-item-too-large", 1)


def test_what_the_server_has_is_no_gap(opener: Opener) -> None:
    spool = opener(bounds=Bounds(bytes_max=10 * ITEM))
    spool.append_many("a", [(n, b"x" * 100) for n in range(10)])
    spool.settle_some("a", [1, 2])
    spool.append_many("a", [(n, b"x" * 100) for n in range(10, 15)])
    left = numbers(spool, "a")
    assert 3 < left[0] < 7  # a little more than needed leaves at once
    assert spool.gaps() == [
        Gap("a", spool.epoch, 0, 0, "evicted-size"), Gap("a", spool.epoch, 3, left[0] - 1, "evicted-size")
    ]  # fmt: skip


def test_narrower_bounds_at_the_next_start(opener: Opener) -> None:
    spool = opener()
    spool.append_many("a", [(n, b"x" * 100) for n in range(100)])
    spool.close()
    spool = opener(bounds=Bounds(bytes_max=10 * ITEM))
    assert spool.depth == Depth(9, 9 * ITEM, 91)
    assert spool.gaps() == [Gap("a", spool.epoch, 0, 90, "evicted-size")]


def test_what_is_too_old_leaves(opener: Opener) -> None:
    clock = VirtualClock(1_700_000_000 * NS)
    spool = opener(bounds=Bounds(age_s_max=60), clock=clock)
    for _ in range(50):
        spool.append("a", clock.now_ns(), b"")
        clock.advance(2)
    assert 29 <= len(numbers(spool, "a")) <= 31
    clock.advance(30)
    spool.next_streams()
    assert len(numbers(spool, "a")) <= 16
    [gap] = spool.gaps()
    assert gap == Gap("a", spool.epoch, 0, numbers(spool, "a")[0] - 1, "evicted-age")


@pytest.mark.parametrize("year_s", [0, 4_102_444_800])
def test_a_silly_clock_throws_nothing_away(opener: Opener, year_s: int) -> None:
    """Set to 1970 or 2100, while running or before the start."""
    clock = VirtualClock(1_700_000_000 * NS)
    spool = opener(bounds=Bounds(age_s_max=600), clock=clock)
    for stop in (True, False):
        for _ in range(5):
            spool.append("a", clock.now_ns(), b"")
            clock.advance(2)
        clock.set_now_ns(year_s * NS)
        if stop:
            spool.close()
            spool = opener(bounds=Bounds(age_s_max=600), clock=clock)
        clock.advance(2)
        spool.append("a", clock.now_ns(), b"")
        clock.set_now_ns(1_700_000_060 * NS)
        clock.advance(2)
        spool.next_streams()
    assert numbers(spool, "a") == list(range(12))


def test_the_file_stays_within_its_bound(opener: Opener, path: Path) -> None:
    """A long outage at full rate: three streams, one of them rare, almost three times what fits."""
    bound = 6 * 2**20
    spool = opener({"a": 1, "b": 1, "rare": 0}, bounds=Bounds(bytes_max=bound), sync_every_ms=20)
    largest = 0
    for n in range(150):
        for stream in ("a", "b"):
            spool.append_many(stream, [(n, os.urandom(80 + k % 40)) for k in range(400)])
        spool.append("rare", n, b"x" * 300)
        size = sum(each.stat().st_size for each in path.parent.glob("spool.sqlite*") if each.exists())
        largest = max(largest, size)
    assert spool.depth.bytes <= bound
    assert largest <= 1.3 * bound, largest / bound
    assert {gap.stream for gap in spool.gaps()} == {"a", "b"}
    assert len(spool.gaps()) == 2
    lost = sum(gap.last - gap.first + 1 for gap in spool.gaps())
    assert lost + spool.depth.items == 150 * 801
    assert (spool.depth_of("rare").items, numbers(spool, "rare")) == (150, list(range(150)))


def test_the_file_shrinks_when_all_is_delivered(opener: Opener, path: Path) -> None:
    spool = opener(sync_every_ms=1)
    spool.append_many("a", [(n, b"x" * 1_000) for n in range(10_000)])
    spool.settle("a", 10_000)
    ready = threading.Event()
    for _ in range(500):
        if path.stat().st_size < 2**20:
            break
        ready.wait(0.01)
    assert path.stat().st_size < 2**20


# ---------------------------------------------------------------------- gaps


def test_gaps_join_and_are_struck_out_when_told(opener: Opener) -> None:
    spool = opener()
    epoch = spool.epoch
    spool.append_many("a", [(n, b"") for n in range(20)])
    spool.refuse("a", 3, 4)
    spool.refuse("a", 8, 8)
    spool.refuse("a", 5, 7)
    spool.refuse("a", 5, 7)
    [gap] = spool.gaps()
    assert gap == Gap("a", epoch, 3, 8, "refused")
    spool.refuse("a", 9, 10)
    spool.refuse("a", 2, 2)
    spool.gap_told(gap)
    assert spool.gaps() == [Gap("a", epoch, 2, 2, "refused"), Gap("a", epoch, 9, 10, "refused")]
    spool.close()
    spool = opener()
    for gap in spool.gaps():
        spool.gap_told(gap)
    assert spool.gaps() == []
    assert numbers(spool, "a") == [0, 1, *range(11, 20)]


def test_gaps_are_bounded(opener: Opener) -> None:
    spool = opener(durability=Durability.MEMORY)
    spool.append_many("a", [(n, b"") for n in range(2 * GAPS_MAX + 20)])
    for n in range(0, 2 * GAPS_MAX + 20, 2):
        spool.refuse("a", n, n)
    gaps = spool.gaps()
    assert len(gaps) == GAPS_MAX
    covered = {n for gap in gaps for n in range(gap.first, gap.last + 1)}
    assert covered.issuperset(range(0, 2 * GAPS_MAX + 20, 2))  # too much may be called lost, never too little


# ---------------------------------------------------------------------- epochs


def test_after_a_power_cut_numbers_are_of_another_epoch(opener: Opener, path: Path) -> None:
    spool = opener()
    spool.append_many("a", [(n, b"%d" % n) for n in range(5)])
    old = Track("a", spool.epoch)
    copy = path.parent / "after-the-cut"
    for suffix in ("", "-wal"):
        copy.with_name(copy.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    spool = opener(path=copy, boot="boot-2")
    assert spool.epoch != old.epoch
    assert "ended without closing the spool" in spool.trouble
    assert spool.append("a", 1, b"new") == 0
    new = Track("a", spool.epoch)
    assert spool.next_streams() == [old, new]
    assert numbers(spool, old) == [0, 1, 2, 3, 4]
    assert everything(spool, "a") == [Item(0, 1, b"new", new.epoch)]
    assert spool.settle(old, 4) == 5
    assert spool.depth_of("a").items == 1
    spool.close()
    spool = opener(path=copy, boot="boot-3")  # it was closed: nothing can be lost
    assert (spool.epoch, spool.trouble, spool.append("a", 2, b"")) == (new.epoch, "", 1)


def test_a_restart_in_order_or_by_a_signal_keeps_the_epoch(opener: Opener, path: Path) -> None:
    spool = opener()
    spool.append("a", 0, b"")
    copy = path.parent / "killed"
    for suffix in ("", "-wal"):
        copy.with_name(copy.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    again = opener(path=copy)
    assert (again.epoch, again.trouble, again.append("a", 0, b"")) == (spool.epoch, "", 1)


def test_full_needs_no_new_epoch(opener: Opener, path: Path) -> None:
    spool = opener(durability=Durability.FULL)
    spool.append("a", 0, b"")
    copy = path.parent / "after-the-cut"
    for suffix in ("", "-wal"):
        copy.with_name(copy.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    again = opener(path=copy, boot="boot-2", durability=Durability.FULL)
    assert (again.epoch, again.trouble, again.append("a", 0, b"")) == (spool.epoch, "", 1)


def test_a_log_cut_anywhere_holds_a_prefix(opener: Opener, path: Path) -> None:
    """What a power cut leaves of the log that was not synced."""
    spool = opener(sync_every_ms=60_000)
    for n in range(200):
        spool.append("a", n, b"%d" % n)
    log, copy = path.with_name(path.name + "-wal").read_bytes(), path.parent / "cut"
    last = -1
    for cut in range(0, len(log) + 1, len(log) // 20):
        copy.write_bytes(path.read_bytes())
        copy.with_name("cut-wal").write_bytes(log[:cut])
        again = opener({}, path=copy, boot="boot-2")
        [*tracks] = again.next_streams()
        found = numbers(again, tracks[0]) if tracks else []
        assert found == list(range(len(found)))
        assert len(found) >= last
        last = len(found)
        again.close()
        for each in path.parent.glob("cut*"):
            each.unlink()
    assert last >= 180


def test_streams_of_an_earlier_program_are_delivered(opener: Opener) -> None:
    spool = opener({"gone": 3})
    spool.append("gone", 0, b"x")
    spool.close()
    spool = opener({"a": 1})
    assert [track.stream for track in spool.next_streams()] == ["gone"]


# ---------------------------------------------------------------------- threads, idleness


def test_many_threads(opener: Opener) -> None:
    spool = opener({"a": 1, "b": 1}, sync_every_ms=1)

    def write(stream: str) -> None:
        for n in range(300):
            spool.append(stream, n, b"x")

    def deliver() -> None:
        while any(thread.is_alive() for thread in writers) or spool.depth.items:
            for track in spool.next_streams():
                items = spool.read(track, -1, items_max=50, bytes_max=BIG)
                assert [item.seq for item in items] == list(range(items[0].seq, items[-1].seq + 1))
                delivered[track.stream] += spool.settle(track, items[-1].seq)

    delivered = {"a": 0, "b": 0}
    writers = [threading.Thread(target=write, args=(stream,)) for stream in ("a", "a", "b", "b")]
    for thread in writers:
        thread.start()
    deliver()
    for thread in writers:
        thread.join()
    assert delivered == {"a": 600, "b": 600}


def test_an_idle_spool_has_no_thread_and_a_busy_one_a_single_one(opener: Opener) -> None:
    def threads() -> int:
        return sum(thread.name == "godwit-spool" for thread in threading.enumerate())

    before = threads()
    spool = opener()
    spool.next_streams()
    spool.settle("a", 5)
    spool.append("a", 0, b"")
    assert threads() == before + 1
    spool.close()
    assert threads() == before


def test_opening_twice(opener: Opener, path: Path) -> None:
    opener()
    with pytest.raises(RejectedError, match=f"in use by process {os.getpid()}") as caught:
        Spool.open(path)
    assert caught.value.code == "spool-in-use"
