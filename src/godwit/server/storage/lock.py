"""One platform a data directory: a lock that the kernel gives back when the process ends, however it ends."""

import fcntl
import os
from pathlib import Path

from godwit.contract.errors import RejectedError


class DataDirLock:
    """Held from construction to `release`. Raises RejectedError (`data-dir-in-use`) when another process holds it."""

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self._file = (data_dir / "lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            holder = self._file.read().strip()
            self._file.close()
            raise RejectedError(
                f"another godwit (process {holder or 'unknown'}) already runs on {data_dir}; "
                "stop it, or choose another DATA_DIR",
                code="data-dir-in-use",
            ) from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Let another process have the directory."""
        self._file.close()
