"""The files of a spool beside the database itself: the lock, the reserve, and what was set aside."""

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

from godwit.contract.errors import RejectedError
from godwit.runtime.files import sync_directory

_ROOM_BYTES = 512 * 1024
"""With less the disk counts as full: half of it is what deleting and then appending in the place of it take."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return what tells one run of the operating system from another; empty where nothing does."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


class Lock:
    """One process a spool: held until `release`, or until the process ends, however it ends.

    A file of its own: SQLite's locks on the database vanish when anybody in the process closes another handle on it.
    """

    def __init__(self, spool: Path) -> None:
        """Take it. Raises RejectedError (`spool-in-use`): another process has it; OSError: nothing can be written."""
        self._handle = os.open(spool.with_name(spool.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._handle, 20).decode(errors="replace").strip()
            os.close(self._handle)
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise
            raise RejectedError(
                f"{spool} is in use by process {holder or 'unknown'}: stop it, or give this one a spool of its own",
                code="spool-in-use",
            ) from None
        # Whoever reads it wants a name for the sentence above; on a full disk there is none.
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let another process have the spool."""
        os.close(self._handle)


class Reserve:
    """Room on the disk that is given up when the disk is full, so that deliveries can still be struck out.

    Deleting needs room in SQLite's log before it gives any back; without this a full disk would be full for ever.
    """

    def __init__(self, spool: Path, size: int) -> None:
        self._path = spool.with_name(spool.name + ".reserve")
        self._size = size
        self.is_held = False

    def take(self) -> bool:
        """Take the room; where there is little, half of it, because the log needs some, too.

        Returns whether there is so much that the database may grow: it must not grow into what deleting will need.
        """
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return True
        try:
            free = _free_bytes(self._path)
            os.posix_fallocate(handle, 0, min(self._size, free // 2))
            self.is_held = True
        except OSError:
            self.release()
            return True
        finally:
            os.close(handle)
        return free >= _ROOM_BYTES

    def release(self) -> None:
        """Give the room up."""
        self.is_held = False
        with contextlib.suppress(OSError):
            self._path.unlink()


def log_of(path: Path) -> Path:
    """Return the path of SQLite's write-ahead log."""
    return path.with_name(path.name + "-wal")


def set_aside(path: Path, mark: str) -> Path:
    """Rename a spool and its log, so that a new one can be made; returns the new path. Raises OSError."""
    to = path.with_name(f"{path.name}.{mark}")
    for suffix in ("-wal", ""):  # the database last: until it is renamed, nothing has happened
        source = path.with_name(path.name + suffix)
        if source.exists():
            source.rename(to.with_name(to.name + suffix))
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    sync_directory(path.parent)
    return to


def set_aside_damaged(path: Path) -> Path:
    """Rename a damaged spool; returns the new path. Raises OSError.

    Of earlier ones none is kept: a disk that rots must not fill up as well.
    """
    for old in path.parent.glob(f"{path.name}.damaged-*"):
        old.unlink()
    return set_aside(path, f"damaged-{time.time_ns() // 10**9}")


def is_out_of_room(path: Path) -> bool:
    """Whether the disk is full; SQLite says "I/O error" in some places where it met that."""
    try:
        return _free_bytes(path) < 256 * 1024
    except OSError:
        return False


def _free_bytes(path: Path) -> int:
    room = os.statvfs(path.parent)
    return room.f_bavail * room.f_frsize
