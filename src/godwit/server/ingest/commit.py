"""Group commit: the point of acknowledgement. Commits at once when idle, else whatever arrived meanwhile.

Every publish joins the open group. The participants (telemetry, registry, the broker's journal) hand over what
gathered,
one thread makes it durable in their order, then the arrivals are settled in the order in which they came. A participant
that cannot write stalls the road: acknowledgements wait, publishers are slowed, nothing is lost.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import thread_time_ns
from typing import Final

from godwit.contract.errors import UnavailableError
from godwit.server.ingest.arrival import Arrival, Participant

log = logging.getLogger(__name__)

PENDING_BYTES_MAX: Final = 64 * 1024 * 1024
PENDING_MESSAGES_MAX: Final = 100_000
OVERHEAD_BYTES: Final = 600
"""What an arrival holds beside its payload, about."""
GROUP_MESSAGES_MAX: Final = 5_000
RETRY_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class GroupCommit:
    """The open group, and the loop that commits one group after the other."""

    def __init__(self, participants: Sequence[Participant]) -> None:
        self._participants = participants
        self._open: list[Arrival] = []
        self._wake = asyncio.Event()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._pending_bytes = 0
        self._pending_messages = 0
        self._stalled = ""
        self._is_closing = False
        self.commits = 0
        self.commit_cpu_ns = 0
        self.committed_messages = 0
        self.on_committed: list[Callable[[], None]] = []
        """Called on the loop after each group's arrivals were settled."""

    @property
    def pending_bytes(self) -> int:
        """What waits for its commit."""
        return self._pending_bytes

    @property
    def pending_messages(self) -> int:
        """How many messages wait for their commit."""
        return self._pending_messages

    @property
    def is_congested(self) -> bool:
        """Whether more is waiting than the bounds allow: sockets should go unread."""
        return self._pending_bytes > PENDING_BYTES_MAX or self._pending_messages > PENDING_MESSAGES_MAX

    @property
    def stalled(self) -> str:
        """Empty, or the sentence that says why nothing can be stored now."""
        return self._stalled

    def join(self, arrival: Arrival) -> None:
        """Queue `arrival`: it is settled after the commit of all that was sealed with it."""
        if not self._open:
            self._wake.set()
        self._open.append(arrival)
        self._pending_bytes += len(arrival.publish.payload) + OVERHEAD_BYTES
        self._pending_messages += 1

    def nudge(self) -> None:
        """Commit what participants gathered although no arrival waits for it."""
        self._wake.set()

    async def run(self) -> None:
        """Commit group after group until closed."""
        while not (self._is_closing and not self._open):
            await self._wake.wait()
            # One turn of the loop: sockets that are ready now ride along.
            await asyncio.sleep(0)
            self._wake.clear()
            arrivals, self._open = self._open, []
            works = [(each, work) for each in self._participants if (work := each.seal()) is not None]
            if works:
                await self._write(works)
            self._settle(arrivals)

    async def _write(self, works: list[tuple[Participant, object]]) -> None:
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            try:
                await loop.run_in_executor(self._executor, self._write_in_thread, works)
            except UnavailableError as error:
                if not self._stalled:
                    log.warning("nothing can be stored: %s", error)
                self._stalled = str(error)
                await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                attempt += 1
            else:
                if self._stalled:
                    log.warning("storing again")
                self._stalled = ""
                return

    def _write_in_thread(self, works: list[tuple[Participant, object]]) -> None:
        before = thread_time_ns()
        while works:
            participant, work = works[0]
            participant.write(work)
            works.pop(0)  # what is written is not written again when a later one fails
        self.commit_cpu_ns += thread_time_ns() - before

    def _settle(self, arrivals: list[Arrival]) -> None:
        settled_bytes = 0
        for arrival in arrivals:
            settled_bytes += len(arrival.publish.payload) + OVERHEAD_BYTES
            arrival.source.settle(arrival)
        self._pending_bytes -= settled_bytes
        self._pending_messages -= len(arrivals)
        self.commits += 1
        self.committed_messages += len(arrivals)
        for listener in self.on_committed:
            listener()

    async def close(self) -> None:
        """Let the open group finish; nothing new may join."""
        self._is_closing = True
        self._wake.set()

    def shut(self) -> None:
        """End the commit thread."""
        self._executor.shutdown(wait=True)
