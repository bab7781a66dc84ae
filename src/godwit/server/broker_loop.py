"""The thread on which broker, ingest and group commit live: one uvloop, nothing else on it."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

from godwit.contract.errors import RejectedError

try:
    import uvloop
except ImportError as error:
    # asyncio's own loop would do, at 266 KB instead of 35 for each TLS connection that waits: a fleet would not fit.
    raise RejectedError(
        "the server needs uvloop, which cannot be imported here: pip install 'godwit[server]' "
        "(for Linux and macOS; on Windows run it in WSL or a container)",
        code="uvloop-missing",
    ) from error

STOP_S_MAX: Final = 10.0


class BrokerLoop:
    """A thread that runs a uvloop until it is stopped."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def soon(self, work: Callable[..., object], *arguments: object) -> None:
        """Have the loop call `work`; from any thread."""
        self.loop.call_soon_threadsafe(work, *arguments)

    def stop(self) -> None:
        """End the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(STOP_S_MAX)
