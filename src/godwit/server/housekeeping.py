"""What a running server does by the clock: presence and places to the registry, sealing, retention, heartbeat, rates.

Runs on the broker loop; whatever blocks goes to one thread of its own, so that it never waits behind a commit.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import time_ns
from typing import Final, Protocol

from godwit.contract.errors import UnavailableError
from godwit.contract.ids import DeviceId
from godwit.server.ingest.directory import Directory
from godwit.server.ingest.service import Ingest
from godwit.server.registry.door import RegistryDoor
from godwit.server.registry.model import DeviceType, Presence
from godwit.server.telemetry.live import LiveFeed, News
from godwit.server.telemetry.live import Presence as PresenceNews
from godwit.server.telemetry.model import Retention
from godwit.server.telemetry.store import TelemetryStore

log = logging.getLogger(__name__)

NS: Final = 1_000_000_000
HEARTBEAT_S: Final = 10
SEAL_LOOK_S: Final = 30
CHORES_S: Final = 10
RETAIN_S: Final = 3_600


class Board(Protocol):
    """Presence, as housekeeping drains it."""

    def due(self, now: int) -> list[Presence]:
        """Return rows that changed and were not returned yet."""
        ...


class Housekeeping:
    """The clockwork of one server."""

    def __init__(  # noqa: PLR0917 - the rooms it looks after
        self,
        ingest: Ingest,
        board: Board,
        registry: RegistryDoor,
        store: TelemetryStore,
        live: LiveFeed,
        beat: Callable[[int], None],
    ) -> None:
        self._ingest, self._board, self._registry, self._store, self._live = ingest, board, registry, store, live
        self._beat = beat
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="housekeeping")
        self._places: dict[str, object] = {}
        self.chores: list[Callable[[], None]] = []
        """What other rooms have done every ten seconds, in the thread that may block."""

    async def run(self) -> None:
        """Tick once a second until cancelled."""
        seconds = 0
        while True:
            now = time_ns()
            self._ingest.tick()
            if seconds % HEARTBEAT_S == 0:
                self._beat(now)
            try:
                await self._write_presence(now)
                if seconds % CHORES_S == CHORES_S - 1:
                    for chore in self.chores:
                        await self._in_thread(chore)
                if seconds % SEAL_LOOK_S == SEAL_LOOK_S - 1:
                    await self._seal(now)
                if seconds % RETAIN_S == RETAIN_S - 1:
                    await self._retain(now)
            except UnavailableError as error:
                log.warning("housekeeping waits: %s", error)
            seconds += 1
            await asyncio.sleep(1)

    async def finish(self) -> None:
        """Do the chores a last time: what was counted since is not lost with the process."""
        for chore in self.chores:
            try:
                await self._in_thread(chore)
            except UnavailableError as error:
                log.warning("not written down at the end: %s", error)

    async def _in_thread(self, work: Callable[[], object]) -> object:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def _write_presence(self, now: int) -> None:
        rows = self._board.due(now)
        places = self._moved(self._ingest.directory)
        if rows or places:
            await self._in_thread(lambda: self._write_rows(rows, places))
        if rows and self._live.has_listeners:
            news: list[News] = [PresenceNews(row.device_id, row.online, row.since) for row in rows]
            self._live.publish(news)

    def _write_rows(
        self, rows: Sequence[Presence], places: Sequence[tuple[DeviceId, float, float, float | None]]
    ) -> None:
        self._registry.write_presence(rows)
        self._registry.write_places(places)

    def _moved(self, directory: Directory) -> Sequence[tuple[DeviceId, float, float, float | None]]:
        moved = []
        for device_id in directory.moved:
            entry = directory.entries.get(device_id)
            place = entry.location if entry else None
            if place is not None and self._places.get(device_id) != place:
                self._places[device_id] = place
                moved.append((DeviceId(device_id), place.latitude, place.longitude, place.altitude))
        directory.moved.clear()
        return moved

    async def _seal(self, now: int) -> None:
        if not self._store.is_seal_due(now):
            return
        await self._ingest.fold()
        moved = await self._in_thread(lambda: self._store.seal(now))
        if moved:
            log.info("sealed %d points", moved)

    async def _retain(self, now: int) -> None:
        types = await self._in_thread(lambda: self._registry.load_all()[1])
        assert isinstance(types, list)
        rules = [
            Retention(each.tenant, each.name, int(each.retention_days * 86_400))
            for each in types
            if isinstance(each, DeviceType) and each.retention_days is not None
        ]
        if rules:
            await self._in_thread(lambda: self._store.retain(now, rules))

    def close(self) -> None:
        """End the thread."""
        self._executor.shutdown(wait=True)
