"""A thread that syncs what was written, at a pace, and moves SQLite's log into the database beside the appends.

It sleeps without a timer while nothing is written: an idle device does not wake up.
"""

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from godwit.spool.faults import Fault, fault_of
from godwit.spool.files import log_of

log = logging.getLogger(__name__)

RETRY_S: Final = 5.0
LOG_FACTOR_MAX: Final = 2
"""By so much the log may outgrow what it should be, before whoever writes has to wait."""
WAIT_S_MAX: Final = 5.0


class Pacer:
    """Started by the first write; ends with `stop`."""

    def __init__(
        self, path: Path, *, syncs: bool, every_s: float, pages_max: int, note: Callable[[], None],
        tidy: Callable[[], bool], lock: threading.Lock,
    ) -> None:  # fmt: skip
        """Without `syncs` only the log is moved. `note` is called when the log starts over.

        `tidy` does a little that can wait, and returns whether there is more. Both are called with the lock held.
        """
        self._path, self._syncs, self._every_s, self._pages_max = path, syncs, every_s, pages_max
        self._note, self._tidy, self._lock = note, tidy, lock
        self._log = os.open(log_of(path), os.O_RDONLY | os.O_CLOEXEC)
        self._mover = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._pages = 0
        self._is_due = False
        self._wake, self._hurry, self._stop = threading.Event(), threading.Event(), threading.Event()
        self._free = threading.Event()
        """Not set while the log is being moved: until then SQLite cannot begin it anew, and it grows."""
        self._free.set()
        self._thread: threading.Thread | None = None
        self.trouble = ""
        """Why the last sync or move failed."""
        self.damage: sqlite3.Error | None = None
        """The file is damaged: whoever owns it has to replace it, and this with it."""

    def wrote(self, pages: int) -> None:
        """Take note of a write (the caller holds the lock)."""
        self._pages += pages
        if not self._is_due and (self._syncs or self._pages > self._pages_max):
            self._is_due = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="godwit-spool", daemon=True)
                self._thread.start()
            self._wake.set()
        if self._pages > self._pages_max:
            self._hurry.set()
        if self._pages > LOG_FACTOR_MAX * self._pages_max:  # the disk is slower than what is written: at its pace now
            self._free.wait(WAIT_S_MAX)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if self.trouble:
                self._stop.wait(RETRY_S)
            else:
                self._hurry.wait(self._every_s)
            if self._stop.is_set():
                break
            self._hurry.clear()
            self._wake.clear()
            self._is_due = False  # before the sync: what is written from here on is for the next one
            try:
                if self._syncs:
                    self.sync()
                self._move_and_tidy()
            except (sqlite3.Error, OSError) as error:
                if not self.trouble:
                    log.warning("the spool %s cannot be made durable: %s", self._path, error)
                self.trouble = f"cannot be made durable: {error}"
                if isinstance(error, sqlite3.Error) and fault_of(error, self._path) is Fault.DAMAGED:
                    self.damage = error
                    return
                self._wake.set()
            else:
                self.trouble = ""

    def _move_and_tidy(self) -> None:
        if self._pages > self._pages_max:
            self._move_if_there_is_room()
        while self._is_more():
            self._move_if_there_is_room()

    def _move_if_there_is_room(self) -> None:
        try:
            self.move()
        except sqlite3.Error as error:
            if fault_of(error, self._path) is not Fault.FULL:  # the next append meets that itself, and says so
                raise

    def sync(self) -> None:
        """Make durable what is written. The log is all there is to sync: moving it syncs by itself. Raises OSError."""
        os.fsync(self._log)

    def move(self) -> None:
        """Move the log into the database; the lock is held only for what came meanwhile. Raises sqlite3.Error."""
        self._free.clear()
        try:
            is_done = self._moved()
        finally:
            self._free.set()
        with self._locked() as is_locked:
            if is_locked:
                if not is_done:
                    self._moved()
                # The first write after a move syncs the log's new header: better here than in somebody's append.
                self._pages = 0
                self._note()

    def _moved(self) -> bool:
        with contextlib.closing(self._mover.execute("PRAGMA wal_checkpoint(PASSIVE)")) as rows:
            _, pages, moved = rows.fetchone()
        return bool(pages == moved)

    def _is_more(self) -> bool:
        with self._locked() as is_locked:
            return is_locked and self._tidy()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold the lock, unless the end has come: whoever stops the thread may have the lock."""
        while not self._stop.is_set():
            if self._lock.acquire(timeout=0.05):
                try:
                    yield True
                finally:
                    self._lock.release()
                return
        yield False

    def stop(self) -> None:
        """End the thread and let go of the files, whether or not the lock is held."""
        for each in (self._stop, self._hurry, self._wake):
            each.set()
        if self._thread is not None:
            self._thread.join()
        self._mover.close()
        os.close(self._log)
