"""What blocks, asked in threads of its own, and answered on the broker loop."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from godwit.contract.errors import GodwitError

log = logging.getLogger(__name__)

T = TypeVar("T")
THREADS: Final = 4


class Aside:
    """See the module. Made on the loop that the answers are for."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(THREADS, "door")
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, question: Callable[[], T], done: Callable[[T | None], None]) -> None:
        """Have `done` called with the answer; None where it could not be found out."""
        task = self._loop.create_task(self._ask(question, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, question: Callable[[], T], done: Callable[[T | None], None]) -> None:
        try:
            answer = await self._loop.run_in_executor(self._threads, question)
        except GodwitError as error:
            log.warning("nobody could answer a client: %s", error)
            done(None)
        else:
            done(answer)

    def close(self) -> None:
        """Ask nothing any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def do(self, work: Callable[[], None]) -> None:
        """Have something done that nobody waits for."""
        self.ask(work, lambda _nothing: None)
