"""Is everything that a spool took there, however its process ended, its disk filled up, or its machine lost its power?

A child appends and says each number once `append` has returned; it is killed, its file system is cut off as by a power
cut (the journal of an ext4 is never written, EXT4_IOC_SHUTDOWN), its disk is tiny, or not its to write.
"""

import contextlib
import fcntl
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from godwit.contract.errors import RejectedError, UnavailableError
from godwit.spool import Bounds, Durability, Spool, Track

sys.path.insert(0, str(Path(__file__).parents[1] / "spool"))

from spools import everything, numbers

pytestmark = pytest.mark.real
KILLS = int(os.environ.get("GODWIT_SPOOL_KILLS", "12"))
EXT4_IOC_SHUTDOWN = 0x8004_587D
NO_LOG_FLUSH = b"\2\0\0\0"
SYNC_MS = 300

CHILD = """
import sys, time
from pathlib import Path
from godwit.contract.errors import UnavailableError
from godwit.spool import Bounds, Spool
pause_s = float(sys.argv[3])
bounds = Bounds((64 if pause_s else 4) * 2**20)  # the smaller, the sooner the log is moved
spool = Spool.open(Path(sys.argv[1]), durability=sys.argv[2], sync_every_ms=300, bounds=bounds)
spool.declare("a", 1)
spool.declare("b", 0)
payload = b"x" * 50
print("epoch", spool.epoch, 0, flush=True)
settled = -1
while True:
    try:
        seq = spool.append("a", time.monotonic_ns(), payload)
        print("a", seq, time.monotonic_ns(), flush=True)
        if seq % 7 == 0:
            last = spool.append_many("b", [(seq, b"%d" % n) for n in range(5)])[-1]
            print("b", last, time.monotonic_ns(), flush=True)
        if seq % 50 == 0:
            print("settles", seq - 200, 0, flush=True)
            spool.settle("a", seq - 200)
        time.sleep(pause_s)
    except UnavailableError as error:
        print("error", error.code, 0, flush=True)
        time.sleep(0.01)
"""


class Said:
    """What a child said: the last number of each stream, and when; up to where it may have settled."""

    def __init__(self, lines: list[str], settled: int) -> None:
        self.epoch, self.settled = "", settled
        self.last: dict[str, int] = {"a": -1, "b": -1}
        self.at: list[tuple[str, int, int]] = []
        self.errors: set[str] = set()
        for line in lines:
            what, value, at = line.split()
            if what == "epoch":
                self.epoch = value
            elif what == "error":
                self.errors.add(value)
            elif what == "settles":
                self.settled = max(self.settled, int(value))
            else:
                self.last[what] = int(value)
                self.at.append((what, int(value), int(at)))

    def last_before(self, stream: str, moment: int) -> int:
        """Return the last number of a stream that was given before a moment of the monotonic clock."""
        return max((seq for what, seq, at in self.at if what == stream and at < moment), default=-1)


def run(
    path: Path, durability: Durability, seconds: float, end: Callable[[], None] | None = None, *, settled: int = -1,
    pause_s: float = 0,
) -> Said:  # fmt: skip
    """Let a child append for a while; end it by SIGKILL, after `end`. `settled` is what was before."""
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen([sys.executable, "-c", CHILD, str(path), durability, str(pause_s)], stdout=said) as child,
    ):
        while not os.fstat(said.fileno()).st_size:
            time.sleep(0.01)
        time.sleep(seconds)
        if end is not None:
            end()
            time.sleep(0.05)
        child.kill()
        child.wait()
        said.seek(0)
        return Said(said.read().split("\n")[:-1], settled)  # a line that was cut in two was not said


def is_all_there(spool: Spool, said: Said, at_least: dict[str, int]) -> None:
    """Each stream from what was settled up to what is known to be there, without a hole."""
    for stream, low in (("a", said.settled + 1), ("b", 0)):
        found = numbers(spool, Track(stream, said.epoch))
        assert found == list(range(found[0], found[-1] + 1)) if found else at_least[stream] < low
        if found:
            assert found[0] <= low
            assert found[-1] >= at_least[stream]


@pytest.mark.parametrize("durability", [Durability.NORMAL, Durability.FULL])
def test_killed_at_random_moments(tmp_path: Path, durability: Durability) -> None:
    path, chance = tmp_path / "spool", random.Random(7)
    highest = {"a": -1, "b": -1}
    epoch, settled = "", -1
    for _ in range(KILLS):
        said = run(path, durability, chance.uniform(0.01, 0.4), settled=settled)
        settled = said.settled
        assert epoch in {"", said.epoch}
        epoch = said.epoch
        first = next((seq for what, seq, _ in said.at if what == "a"), None)
        assert first is None or first in {highest["a"] + 1, highest["a"] + 2}  # one may be there that nobody heard of
        spool = Spool.open(path, durability=durability)
        spool.declare("a", 1)
        spool.declare("b", 0)
        assert (spool.epoch, spool.trouble) == (epoch, "")
        is_all_there(spool, said, said.last)
        assert spool.depth.items == len(everything(spool, "a")) + len(everything(spool, "b"))
        highest = {stream: spool.highest(stream) for stream in highest}
        spool.close()
    assert highest["a"] > 5 * KILLS


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount something on a directory; all is unmounted at the end."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    places: list[Path] = []

    def mount(*options: str, at: str = "disk") -> Path:
        place = tmp_path / at
        place.mkdir(exist_ok=True)
        if subprocess.run(["mount", *options, str(place)], check=False, capture_output=True).returncode:
            pytest.skip("this machine lets nobody mount")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", "--lazy", str(place)], check=False, capture_output=True)


@pytest.mark.parametrize("durability", [Durability.FULL, Durability.NORMAL])
def test_power_cuts(tmp_path: Path, mounted: Callable[..., Path], durability: Durability) -> None:
    """`full` has all that `append` returned for. `normal` has all but the last moments, and goes on in a new epoch."""
    make = shutil.which("mkfs.ext4", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if make is None:
        pytest.skip("no mkfs.ext4")
    image, chance = tmp_path / "image", random.Random(3)
    with image.open("wb") as file:
        file.truncate(48 * 2**20)
    subprocess.run([make, "-q", str(image)], check=True)
    gone = 0
    for cut in range(4):
        disk = mounted("-o", "loop", str(image))
        moment = 0

        def cut_off(disk: Path = disk) -> None:
            nonlocal moment
            moment = time.monotonic_ns()
            handle = os.open(disk, os.O_RDONLY)
            fcntl.ioctl(handle, EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH)
            os.close(handle)

        # Slowly in `normal`: moving the log syncs it, too, and it is the syncs at their pace that are on trial.
        pause_s = 0.004 if durability is Durability.NORMAL else 0
        said = run(disk / "spool", durability, chance.uniform(0.7, 1.2), cut_off, pause_s=pause_s)
        assert said.errors <= {"spool-unwritable"}
        subprocess.run(["umount", str(disk)], check=True)
        disk = mounted("-o", "loop", str(image))
        spool = Spool.open(disk / "spool", durability=durability, boot=f"boot-{cut}")
        if durability is Durability.FULL:
            assert (spool.epoch, spool.trouble) == (said.epoch, "")
            is_all_there(spool, said, {stream: said.last_before(stream, moment) for stream in "ab"})
        else:
            assert spool.epoch != said.epoch
            assert "ended without closing" in spool.trouble
            safe = moment - (SYNC_MS + 200) * 1_000_000  # the pace, and the time that a sync takes on a busy machine
            is_all_there(spool, said, {stream: said.last_before(stream, safe) for stream in "ab"})
            gone += said.last["a"] > max(numbers(spool, Track("a", said.epoch)), default=-1)
        for track in spool.next_streams():
            spool.settle(track, 2**40)
        spool.close()
        subprocess.run(["umount", str(disk)], check=True)
    assert gone or durability is Durability.FULL, "no cut ever took anything: is this a power cut at all?"


def fill(spool: Spool) -> None:
    """Append until something is raised."""
    while True:
        spool.append("a", 1, os.urandom(500))


def test_a_full_disk(mounted: Callable[..., Path], eventually: Callable[..., object]) -> None:
    """Appending says so; what is there can be delivered and struck out, which makes room again."""
    disk = mounted("-t", "tmpfs", "-o", "size=3m", "tmpfs")
    spool = Spool.open(disk / "spool", bounds=Bounds(bytes_max=64 * 2**20), sync_every_ms=10)
    spool.declare("a", 1)
    for _ in range(3):
        with pytest.raises(UnavailableError, match="is full: free some room") as caught:
            fill(spool)
        assert caught.value.code == "spool-full"
        highest, depth = spool.highest("a"), spool.depth
        found = numbers(spool, "a")
        assert (found[-1], len(found)) == (highest, depth.items)
        with contextlib.suppress(UnavailableError):
            while True:  # moving the log may have made room for some meanwhile
                highest, depth = spool.highest("a"), spool.depth
                spool.append_many("a", [(1, os.urandom(500))] * 1_000)
        assert (spool.depth, spool.highest("a")) == (depth, highest)
        for seq in found[: len(found) // 2 : 20]:
            spool.settle("a", seq)
        assert spool.append("a", 1, os.urandom(500)) == highest + 1  # it took its room back
    spool.settle("a", 2**40)
    # A quarter of this disk stays in reserve; the log, and freed pages that are too few to move, wait for what comes.
    assert eventually(lambda: os.statvfs(disk).f_bavail * 4096 > 2**20), "the disk has its room back"
    assert spool.append_many("a", [(1, os.urandom(500))] * 1_000)
    spool.close()


def test_a_disk_that_was_full_at_the_start(mounted: Callable[..., Path]) -> None:
    disk = mounted("-t", "tmpfs", "-o", "size=3m", "tmpfs")
    spool = Spool.open(disk / "spool")
    spool.declare("a", 1)
    for n in range(500):
        spool.append("a", 1, b"%d" % n)
    spool.close()
    subprocess.run(["dd", "if=/dev/zero", f"of={disk / 'rubbish'}", "bs=4096"], check=False, capture_output=True)
    assert os.statvfs(disk).f_bavail == 0
    spool = Spool.open(disk / "spool")
    assert spool.durability is Durability.NORMAL, spool.trouble
    spool.declare("a", 1)
    assert numbers(spool, "a") == list(range(500))
    assert spool.settle("a", 499) == 500
    spool.close()
    (disk / "rubbish").unlink()
    spool = Spool.open(disk / "spool")
    spool.declare("a", 1)
    assert spool.append("a", 1, b"") == 500
    spool.close()


def test_a_disk_without_any_room(mounted: Callable[..., Path]) -> None:
    """Where there is no room even for an empty spool, there is one in memory."""
    disk = mounted("-t", "tmpfs", "-o", "size=16k", "tmpfs")
    spool = Spool.open(disk / "spool")
    assert "the spool is in memory, and is lost with the process" in spool.trouble
    assert spool.durability is Durability.MEMORY
    spool.declare("a", 1)
    assert spool.append("a", 1, b"") == 0
    spool.close()


def test_a_read_only_disk(mounted: Callable[..., Path]) -> None:
    """The spool is in memory; what the file held unsent is sent all the same."""
    disk = mounted("-t", "tmpfs", "-o", "size=8m", "tmpfs")
    spool = Spool.open(disk / "spool")
    spool.declare("a", 1)
    spool.append_many("a", [(n, b"%d" % n) for n in range(2_000)])
    old = Track("a", spool.epoch)
    spool.close()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for _ in range(2):
        spool = Spool.open(disk / "spool")
        assert "cannot be written" in spool.trouble
        assert "2000 unsent items of the file are sent all the same" in spool.trouble
        spool.declare("a", 1)
        assert spool.append("a", 1, b"new") == 0
        assert spool.next_streams() == [old, Track("a", spool.epoch)]
        assert numbers(spool, old) == list(range(2_000))
        spool.close()
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    spool = Spool.open(disk / "spool")
    assert (spool.trouble, spool.epoch, spool.depth.items) == ("", old.epoch, 2_000)
    spool.close()


def test_a_disk_that_goes_away(mounted: Callable[..., Path], tmp_path: Path) -> None:
    image = tmp_path / "image"
    make = shutil.which("mkfs.ext4", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if make is None:
        pytest.skip("no mkfs.ext4")
    with image.open("wb") as file:
        file.truncate(16 * 2**20)
    subprocess.run([make, "-q", str(image)], check=True)
    disk = mounted("-o", "loop", str(image))
    spool = Spool.open(disk / "spool", sync_every_ms=10)
    spool.declare("a", 1)
    assert spool.append("a", 1, b"before") == 0
    handle = os.open(disk, os.O_RDONLY)
    fcntl.ioctl(handle, EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH)
    os.close(handle)
    with pytest.raises(UnavailableError) as caught:
        spool.append("a", 1, b"after")
    assert caught.value.code == "spool-unwritable"
    with pytest.raises(UnavailableError) as caught:  # this disk cannot even be read any more
        everything(spool, "a")
    assert caught.value.code == "spool-unwritable"
    assert (spool.highest("a"), spool.depth.items) == (0, 1)
    spool.close()


def test_no_right_to_write(tmp_path: Path) -> None:
    """As a user whom neither file nor directory belongs to."""
    if os.geteuid() != 0:
        pytest.skip("becoming somebody else needs root")
    spool = Spool.open(tmp_path / "spool")
    spool.declare("a", 1)
    spool.append("a", 1, b"x")
    spool.close()
    for mode in (0o755, 0o777):  # the directory's; the file is never theirs
        for each in tmp_path.parents:
            if each == Path(tempfile.gettempdir()):
                break
            each.chmod(0o755)
        tmp_path.chmod(mode)
        for each in tmp_path.iterdir():
            each.chmod(0o644)
        child = os.fork()
        if not child:
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                other = Spool.open(tmp_path / "spool")
                os._exit(0 if other.durability is Durability.MEMORY and other.depth.items == 1 else 3)
            finally:
                os._exit(4)  # or it would run the other tests, as a second pytest
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_two_processes(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "spool"), "normal", "0"], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(RejectedError, match=f"in use by process {child.pid}: stop it, or give") as caught:
            Spool.open(tmp_path / "spool")
        assert caught.value.code == "spool-in-use"
        child.kill()
    Spool.open(tmp_path / "spool").close()


def test_an_idle_spool_sleeps(tmp_path: Path) -> None:
    """No timer: after the last sync its thread is not woken once."""
    before = set(threading.enumerate())
    spool = Spool.open(tmp_path / "spool", sync_every_ms=20)
    spool.declare("a", 1)
    spool.append("a", 1, b"x")
    time.sleep(0.3)
    [thread] = set(threading.enumerate()) - before

    def switches() -> int:
        status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
        return int(status.partition("voluntary_ctxt_switches:")[2].split()[0])

    rested = switches()
    time.sleep(1)
    assert switches() == rested
    spool.close()


def test_the_cost_of_an_append(tmp_path: Path) -> None:
    """At least 20,000 a second, one by one, in `normal`: measured in CPU, because others use this machine."""
    spool = Spool.open(tmp_path / "spool")
    spool.declare("a", 1)
    payload = os.urandom(60)
    begin = time.process_time()
    for n in range(20_000):
        spool.append("a", n, payload)
    taken = time.process_time() - begin
    spool.close()
    print(f"{taken / 20_000 * 1e6:.1f} us of CPU an append")
    assert taken < 1.0
