"""Whatever is found at the path, is there a spool afterwards, with what could be read, and a word about the rest?"""

import contextlib
import gc
import os
import random
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
from spools import BIG, Opener, everything, numbers

from godwit.contract.errors import RejectedError
from godwit.spool import Bounds, Durability, Gap, Spool, Track
from godwit.spool.faults import Fault, fault_of
from godwit.spool.salvage import salvage
from godwit.spool.schema import STEPS, VERSION
from godwit.spool.store import Store

PAYLOADS = [os.urandom(60) + b"%d" % n for n in range(2_000)]


def filled(opener: Opener, settled: int = 100) -> Track:
    """Fill two streams, settle a bit, close."""
    spool = opener({"a": 1, "b": 0})
    for stream in ("a", "b"):
        spool.append_many(stream, [(n, payload) for n, payload in enumerate(PAYLOADS)])
        spool.settle(stream, settled - 1)
    spool.close()
    return Track("a", spool.epoch)


def check(spool: Spool, old: Track, settled: int = 100) -> int:
    """All that is left of the old epoch is what was appended, and the rest is in a gap; returns how much is left."""
    left = 0
    gaps = spool.gaps()
    for stream in ("a", "b"):
        items = everything(spool, Track(stream, old.epoch))
        assert all((item.time, item.payload) == (item.seq, PAYLOADS[item.seq]) for item in items)
        lost = {n for gap in gaps if gap.stream == stream for n in range(gap.first, gap.last + 1)}
        assert not lost & {item.seq for item in items}
        assert lost | {item.seq for item in items} == set(range(settled, len(PAYLOADS)))
        left += len(items)
    assert {gap.reason for gap in gaps} <= {"damaged"}
    return left


def is_usable(spool: Spool, old: Track) -> None:
    """New items go to a new epoch, and old ones are served first."""
    assert spool.epoch != old.epoch
    assert spool.append("a", 7, b"new") == 0
    assert [item.payload for item in everything(spool, "a")] == [b"new"]
    spool.rewind()
    served = spool.next_streams()
    assert served[-1] == Track("a", spool.epoch)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_truncated(opener: Opener, path: Path, share: float) -> None:
    old = filled(opener)
    os.truncate(path, int(path.stat().st_size * share) // 4096 * 4096 + 77)
    spool = opener({"a": 1, "b": 0})
    everything(spool, old)  # where damage shows only when it is met
    assert "damaged" in spool.trouble
    assert check(spool, old) >= (len(PAYLOADS) * 2 - 200) * (share - 0.1) / 2
    is_usable(spool, old)
    assert len(list(path.parent.glob("*.damaged-*[0-9]"))) == 1


def test_truncated_and_read_only(opener: Opener, path: Path) -> None:
    """Where nothing can be written, nothing can be mended in a copy either."""
    filled(opener)
    os.truncate(path, path.stat().st_size // 2)
    store = Store(None)
    found = salvage(path, store, is_writable=False)
    assert found.items > 500
    assert found.items + found.lost == 3_800
    store.close()


def test_no_room_for_all_at_once(opener: Opener, path: Path) -> None:
    """What is carried over in two goes is all there, once, and what was delivered in between is no gap."""
    old = filled(opener)
    store = Store(None)
    first = salvage(path, store, bytes_max=150_000)
    assert 1_000 < first.items < 1_900
    lane = store.lanes[old]
    with store.transaction():
        store.delete(lane, [(0, 500)])
    second = salvage(path, store)
    assert (first.items + second.items, second.lost) == (3_800, 0)
    assert store.runs(lane, 0, BIG) == [(501, 1_999)]
    assert store.gaps() == []
    store.close()


@pytest.mark.parametrize("seed", range(12))
def test_random_bytes(opener: Opener, path: Path, seed: int) -> None:
    """Anywhere but in the first page. What is read is right, or it is a gap."""
    old, chance = filled(opener), random.Random(seed)
    with path.open("r+b") as file:
        for _ in range(chance.choice([1, 5, 20])):
            file.seek(chance.randrange(4096, path.stat().st_size - 64))
            file.write(chance.randbytes(chance.choice([1, 16, 64])))
    spool = opener({"a": 1, "b": 0})
    for track in (old, Track("b", old.epoch)):
        everything(spool, track)
    if spool.trouble:
        check(spool, old)
    else:
        assert check(spool, old) == 2 * (len(PAYLOADS) - 100)  # it hit what was free
    spool.append("a", 1, b"new")


def test_a_record_that_says_it_is_huge_is_damage() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100)
        with pytest.raises(sqlite3.DataError) as caught:
            db.execute("SELECT hex(randomblob(90))").fetchone()
    assert fault_of(caught.value, None) is Fault.DAMAGED


def test_one_bit(opener: Opener, path: Path) -> None:
    """One flipped bit in a payload takes one item."""
    old = filled(opener)
    data = bytearray(path.read_bytes())
    data[data.index(PAYLOADS[1_234]) + 30] ^= 1
    path.write_bytes(data)
    spool = opener({"a": 1, "b": 0})
    assert spool.trouble == ""
    found = numbers(spool, old) + numbers(spool, Track("b", old.epoch))
    assert len(found) == 2 * (len(PAYLOADS) - 100) - 1
    [gap] = spool.gaps()
    assert (gap.first, gap.last, gap.reason) == (1_234, 1_234, "damaged")
    assert "3799 items carried over, 1 known to be lost" in spool.trouble
    assert spool.depth.items == len(found)


def test_altered_stamps(opener: Opener, path: Path) -> None:
    old = filled(opener)
    db = sqlite3.connect(path)
    db.execute("UPDATE item SET time = time + 1 WHERE place & 0xfffff BETWEEN 100 AND 150")
    db.commit()
    db.close()
    spool = opener({"a": 1, "b": 0})
    assert [item.seq for item in spool.read(old, -1, items_max=10, bytes_max=BIG)] == list(range(151, 161))
    assert spool.gaps() == [Gap("a", old.epoch, 100, 150, "damaged"), Gap("b", old.epoch, 100, 150, "damaged")]


@pytest.mark.parametrize("content", [b"", b"x" * 10, os.urandom(50_000), b"SQLite format 3\0" + os.urandom(30_000)])
def test_no_spool_at_all(opener: Opener, path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    spool = opener()
    assert [each.read_bytes() for each in path.parent.glob("*.damaged-*[0-9]")] == ([content] if content else [])
    assert (spool.trouble == "") == (content == b"")
    assert "nothing in it could be read" in spool.trouble or not content
    assert (spool.append("a", 1, b"x"), numbers(spool, "a")) == (0, [0])
    spool.close()
    assert opener().trouble == ""


def test_the_first_page_is_gone(opener: Opener, path: Path) -> None:
    old = filled(opener)
    with path.open("r+b") as file:
        file.write(os.urandom(4096))
    spool = opener({"a": 1, "b": 0})
    assert "3800 items carried over, 0 known to be lost" in spool.trouble
    assert check(spool, old) == 3_800
    is_usable(spool, old)


def test_rubbish_in_the_log(opener: Opener, path: Path) -> None:
    """SQLite ends its log where a checksum is wrong; what came before is there."""
    spool = opener(sync_every_ms=60_000)
    for n in range(100):
        spool.append("a", n, b"%d" % n)
    copy = path.parent / "copy"
    log = bytearray(path.with_name(path.name + "-wal").read_bytes())
    log[len(log) // 2] ^= 0xFF
    copy.write_bytes(path.read_bytes())
    copy.with_name("copy-wal").write_bytes(log)
    again = opener(path=copy, boot="boot-2")
    found = numbers(again, Track("a", spool.epoch))
    assert found == list(range(len(found)))
    assert 0 < len(found) < 100
    assert again.epoch != spool.epoch


def test_only_the_last_damaged_file_is_kept(opener: Opener, path: Path) -> None:
    path.parent.mkdir()
    for n in range(3):
        path.with_name(f"spool.sqlite.damaged-{n}").write_bytes(b"old")
    path.write_bytes(b"rubbish")
    opener()
    assert len(list(path.parent.glob("*.damaged-*"))) == 1


def test_damage_that_shows_while_running(opener: Opener, path: Path) -> None:
    old = filled(opener)
    spool = opener({"a": 1, "b": 0})
    assert spool.epoch == old.epoch
    assert spool.append("a", 5, b"same epoch") == len(PAYLOADS)
    spool.sync()
    with path.open("r+b") as file:
        for page in range(5, path.stat().st_size // 4096, 3):
            file.seek(page * 4096)
            file.write(os.urandom(4096))
    spool._store.db.execute("PRAGMA shrink_memory")  # the pages it still has in memory are right
    left = numbers(spool, old)
    assert "damaged" in spool.trouble
    assert 0 < len(left) < len(PAYLOADS)
    assert len(PAYLOADS) in left, "the log held it"
    is_usable(spool, old)
    gc.collect()  # whoever closes a database last deletes the log of that name: that must not be the new one's
    copy = path.with_name("copy")
    for suffix in ("", "-wal"):
        shutil.copy(path.with_name(path.name + suffix), copy.with_name(copy.name + suffix))
    again = opener({"a": 1}, path=copy)
    assert [item.payload for item in everything(again, "a")] == [b"new"]
    assert numbers(again, old) == left


def test_damage_that_only_the_pacer_meets(opener: Opener, path: Path) -> None:
    """The page of the tracks, which no append reads."""
    old = filled(opener)
    spool = opener({"a": 1, "b": 0}, sync_every_ms=1, bounds=Bounds(bytes_max=2**20))
    [(page,)] = spool._store.db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'track'").fetchall()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(os.urandom(4096))
    spool._store.db.execute("PRAGMA shrink_memory")
    ready = threading.Event()
    for n in range(3_000):
        spool.append("a", n, b"x")
        if n % 30 == 0:
            ready.wait(0.005)
        if spool._pacer is None or spool._pacer.damage is not None:
            break
    spool.next_streams()
    assert spool.epoch != old.epoch
    assert "was damaged" in spool.trouble
    assert spool.append("a", 1, b"") == 0
    assert numbers(spool, old)[: len(PAYLOADS) - 100] == list(range(100, len(PAYLOADS)))  # an index had the tracks, too
    assert spool.gaps() == []


# ---------------------------------------------------------------------- versions


def version_1(path: Path) -> None:
    """Write a spool as the first version did: 10 items, of which 3 are settled, and a stream that is all settled."""
    path.parent.mkdir()
    db = sqlite3.connect(path)
    for statement in STEPS[0]:
        db.execute(statement)
    db.execute("PRAGMA user_version = 1")
    db.execute("PRAGMA application_id = 0x676F6477")
    db.execute("INSERT INTO meta VALUES ('epoch', 'first'), ('boot', '')")
    db.execute("INSERT INTO track VALUES (1, 'a', 'first', 1, 6), (2, 'b', 'first', 1, 42)")
    db.executemany("INSERT INTO item VALUES (?, ?, ?)", [(1 << 44 | n, 100 + n, b"%d" % n) for n in range(3, 10)])
    db.commit()
    db.close()


def test_a_file_of_the_first_version(opener: Opener, path: Path) -> None:
    version_1(path)
    spool = opener({"a": 1, "b": 1})
    assert "was of version 1" in spool.trouble
    assert spool.epoch == "first"
    assert [(item.seq, item.time, item.payload) for item in everything(spool, "a")] == [
        (n, 100 + n, b"%d" % n) for n in range(3, 10)
    ]
    assert (spool.depth.items, spool.append("a", 1, b"x"), spool.append("b", 1, b"x")) == (7, 10, 42)
    spool.settle("a", 8)
    spool.close()
    spool = opener({"a": 1, "b": 1})
    assert (spool.trouble, numbers(spool, "a"), spool.depth.items) == ("", [9, 10], 3)


def test_a_broken_file_of_the_first_version(opener: Opener, path: Path) -> None:
    version_1(path)
    db = sqlite3.connect(path)
    db.execute("DROP TABLE meta")
    db.commit()
    db.close()
    spool = opener()
    assert "damaged" in spool.trouble
    assert numbers(spool, Track("a", "first")) == list(range(3, 10))


def test_a_newer_version_is_set_aside_and_taken_up_again(opener: Opener, path: Path) -> None:
    """A device that was rolled back works, and loses nothing when it is updated again."""
    old = filled(opener)
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    spool = opener()
    assert f"newer godwit (version {VERSION + 1}" in spool.trouble
    assert spool.epoch != old.epoch
    aside = path.with_name(f"spool.sqlite.version-{VERSION + 1}")
    assert aside.exists()
    spool.append("a", 1, b"while rolled back")
    spool.close()
    shutil.move(aside, aside.with_name(f"spool.sqlite.version-{VERSION}"))  # as if this were the newer program
    db = sqlite3.connect(aside.with_name(f"spool.sqlite.version-{VERSION}"))
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.close()
    spool = opener()
    assert "taken up again" in spool.trouble
    assert check(spool, old) == 2 * (len(PAYLOADS) - 100)
    assert [item.payload for item in everything(spool, "a")] == [b"while rolled back"]
    assert not list(path.parent.glob("*.version-*"))


# ---------------------------------------------------------------------- no place for a spool


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="is a directory: name a file") as caught:
        Spool.open(tmp_path)
    assert caught.value.code == "spool-path"


def test_no_ordinary_file() -> None:
    with pytest.raises(RejectedError, match="is no ordinary file"):
        Spool.open(Path(os.devnull))


def test_somebody_elses_database(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "theirs")
    db.execute("CREATE TABLE item (x)")
    db.close()
    with pytest.raises(RejectedError, match="is a SQLite database, but no spool") as caught:
        Spool.open(tmp_path / "theirs")
    assert caught.value.code == "spool-path"
    assert [each.name for each in tmp_path.iterdir() if not each.name.endswith(".lock")] == ["theirs"]


def test_nowhere_to_make_a_directory() -> None:
    spool = Spool.open(Path("/proc/self/nothing/spool"))
    assert "cannot be written" in spool.trouble
    assert spool.durability is Durability.MEMORY
    spool.declare("a", 1)
    assert spool.append("a", 1, b"x") == 0
    spool.close()
