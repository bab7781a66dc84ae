"""Ingest as other rooms use it: first station of the broker, participant of the group commit, door for the API.

The pipeline decides; this shell gives it arrivals, hands its columns to the store and tells the news afterwards.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Final

import msgspec

from godwit.contract import codes, events, status
from godwit.contract.errors import MalformedError, RejectedError, UnavailableError
from godwit.contract.ids import DEFAULT_TENANT
from godwit.contract.telemetry import Metadata
from godwit.contract.topics import Channel, DeviceTopic, Topics
from godwit.mqtt.packets import Publish, PublishProperties
from godwit.runtime.clock import Clock, SystemClock
from godwit.server.ingest import delta
from godwit.server.ingest.account import gaps_of, ledger_of
from godwit.server.ingest.arrival import Arrival, Peer, SeesDevices
from godwit.server.ingest.batch import MESSAGE_WIDTH, Batch
from godwit.server.ingest.clock_drift import THRESHOLD_NS, ClockDrift
from godwit.server.ingest.clock_report import ClockReport
from godwit.server.ingest.commit import GroupCommit
from godwit.server.ingest.contents import KEPT
from godwit.server.ingest.directory import Directory, Entry
from godwit.server.ingest.door import DeviceLedger, Freshness, Gap, IngestStats, Latest, Outcome, RawMessage, Sealing
from godwit.server.ingest.freshness import FleetFreshness
from godwit.server.ingest.late import recover_newest
from godwit.server.ingest.news import readings_of
from godwit.server.ingest.pipeline import Pipeline
from godwit.server.ingest.stored import StoredNotices
from godwit.server.ingest.trace import Trace
from godwit.server.ingest.waiter import Waiter
from godwit.server.telemetry.latest import LatestValues
from godwit.server.telemetry.ledger import Ledger
from godwit.server.telemetry.live import LiveFeed
from godwit.server.telemetry.model import Commit, Document, StateRow
from godwit.server.telemetry.store import TelemetryStore

log = logging.getLogger(__name__)

FOLD_COMMITS: Final = 5_000
FOLD_S: Final = 60.0
RAW_BYTES: Final = 4_096
QUALITIES: Final = ("good", "uncertain", "bad")
NS: Final = 1_000_000_000


class Ingest:
    """The room's service. Lives on the broker loop; the methods of `IngestDoor` may be called from anywhere."""

    def __init__(
        self,
        store: TelemetryStore,
        directory: Directory,
        topics: Topics,
        presence: SeesDevices,
        live: LiveFeed,
        *,
        trace: Trace | None = None,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        clock_threshold_ns: int = THRESHOLD_NS,
    ) -> None:
        self.store = store
        self.directory = directory
        self.clock_drift = ClockDrift(clock_threshold_ns)
        self.pipeline = Pipeline(directory, self.clock_drift)
        self.ledger_book = Ledger()
        self.latest_values = LatestValues()
        self._freshness = FleetFreshness(directory, self.latest_values)
        self.group: GroupCommit | None = None
        self.forward: Callable[[Publish], None] | None = None
        """Hands messages that did not come by MQTT to the broker's subscribers."""
        self.stored = StoredNotices(directory, topics)
        self.stored.told = self.clock_drift.offered
        self._topics = topics
        self._presence = presence
        self._live = live
        self._trace = trace or Trace()
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._number = 0
        self._sealed: Batch | None = None
        self._dirty = delta.Dirty()
        self._commits_since_fold = 0
        self._folded_at = self._clock.monotonic_s()
        self._is_fold_wanted = False
        self._messages = self._readings = self._duplicates = self._quarantined = self._late = 0
        self._history: deque[tuple[float, int, int]] = deque(maxlen=11)

    # --- start -------------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Take up the state that the store holds."""
        recovered = self.store.recover()
        self.directory.restore(recovered)
        self.ledger_book.restore(recovered.state)
        self.latest_values.restore(recovered.state)
        for row in recovered.state:
            delta.restore(row, self.directory)
        for _number, data in recovered.deltas:
            if data:
                delta.replay(data, self.directory, self.ledger_book, self._dirty)
        self.latest_values.advance(self.store.newest())
        self.pipeline.clones.contents.enter(self.store.last_samples(KEPT))
        recover_newest(self.directory, self.latest_values)
        self.pipeline.notices.gap_requests.recover(self.directory, self._clock.now_ns())
        self._number = recovered.number
        self.pipeline.quarantine_number = recovered.quarantine_number
        self.measure_quarantine()

    def measure_quarantine(self) -> None:
        """Look how much is in quarantine: at start, and after something left."""
        self.pipeline.room.restore(self.store.quarantine_sizes(), self.directory.entries)

    def attach(self, loop: asyncio.AbstractEventLoop, group: GroupCommit) -> None:
        """Bind to the broker loop and its group commit."""
        self._loop, self.group = loop, group
        group.on_committed.append(self._after_commit)

    # --- first station -----------------------------------------------------------------------------------------

    def receive(self, arrival: Arrival) -> None:
        """Take a message of the contract down the road; sets code, detail, accepted and duplicate."""
        topic = arrival.topic
        self._messages += 1
        if arrival.code or topic is None:  # refused at the door: a topic with an impossible device id
            known = self.directory.entries.get(topic.device_id) if topic is not None else None
            self.pipeline.quarantine(arrival, arrival.code or codes.INVALID_DEVICE_ID, arrival.detail, known)
            return
        if self._trace.devices and topic.device_id in self._trace.devices:
            arrival.source = self._trace.begin(arrival, lambda: self._number)
        try:
            entry = self.pipeline.walk(arrival) if topic.channel is Channel.TELEMETRY else self._receive_other(arrival)
        except (MalformedError, RejectedError) as error:
            arrival.code, arrival.detail = error.code, str(error)
            known = self.directory.entries.get(topic.device_id)
            self.pipeline.quarantine(arrival, error.code, str(error), known)
            if known is not None:
                self._remember(known, arrival)
            return
        self._presence.seen(entry.device_id, arrival.received)
        self._remember(entry, arrival)
        if topic.channel is Channel.TELEMETRY and (
            arrival.publish.qos == 0 or self.stored.is_always_told or arrival.wants_times
        ):
            self.stored.note(entry)

    def turn_away(self, arrival: Arrival) -> None:
        """Count a message that is refused for a limit in its device's ledger."""
        known = self.directory.entries.get(arrival.topic.device_id) if arrival.topic is not None else None
        device_no = self.directory.number(known) if known is not None and known.is_known else -1
        self.pipeline.batch.refusals.append((device_no, arrival.code))

    def _remember(self, entry: Entry, arrival: Arrival) -> None:
        payload = arrival.publish.payload
        if len(payload) > RAW_BYTES:
            payload = payload[:RAW_BYTES]
        entry.raw.append(RawMessage(arrival.received, arrival.publish.topic, payload, arrival.code))

    def _receive_other(self, arrival: Arrival) -> Entry:
        topic = arrival.topic
        assert topic is not None
        payload, content_type = self.pipeline.seals.content(arrival, self.directory.entries.get(topic.device_id))
        entry = self.pipeline.speaker(arrival)
        if arrival.sealed is not None and self.pipeline.is_known(arrival, entry):
            return entry
        if topic.channel is Channel.STATUS:
            if not payload:  # an empty retained status clears the document (MQTT 5, 3.3.1.3); nothing was said
                return entry
            document = status.decode(payload, content_type)
            if document.device_id is not None and document.device_id != entry.device_id:
                raise RejectedError(
                    f"the payload says device {document.device_id[:64]!r}, the topic {entry.device_id!r}",
                    code=codes.DEVICE_MISMATCH,
                )
            self._presence.status(entry.device_id, msgspec.to_builtins(document), arrival.received)
            if document.status != "offline":
                self.stored.note(entry, is_all=True)
                self.pipeline.notices.gap_requests.online(entry, arrival.received)
        elif topic.channel is Channel.EVENTS:
            events.decode(payload, content_type)
        self.pipeline.batch.documents.append(
            Document(self.directory.number(entry), str(topic.channel), arrival.received, arrival.received, payload)
        )
        arrival.accepted = 1
        entry.seen = arrival.received
        return entry

    # --- participant of the group commit -----------------------------------------------------------------------

    def seal(self) -> "tuple[Commit, list[StateRow] | None] | None":
        """Close the open batch and return its commit."""
        self.stored.seal()
        batch, directory = self.pipeline.batch, self.directory
        if batch.is_empty and not directory.new_devices and not self._is_fold_wanted:
            return None
        self.pipeline.batch = Batch()
        self.pipeline.notices.seal()
        data, devices, amounts = delta.encode(batch)
        self.ledger_book.add(devices, amounts)
        for device_no, code in batch.refusals:
            self.ledger_book.refuse(device_no, code)
        points = batch.points()
        if points is not None:
            self.latest_values.advance(points)
            self.pipeline.clones.contents.enter(points)
        self._dirty.mark(batch)
        self._count(batch)
        self._number += 1
        commit = Commit(
            self._number,
            points,
            directory.new_devices,
            directory.new_series,
            directory.new_tracks,
            batch.documents,
            batch.quarantined,
            batch.released,
            data,
        )
        directory.new_devices, directory.new_series, directory.new_tracks = [], [], []
        self._sealed = batch
        return commit, self._fold_rows()

    def _count(self, batch: Batch) -> None:
        self._readings += len(batch.series)
        self._duplicates += sum(batch.messages[3::MESSAGE_WIDTH])
        self._late += sum(batch.messages[4::MESSAGE_WIDTH])
        self._quarantined += len(batch.quarantined)

    def _fold_rows(self) -> list[StateRow] | None:
        self._commits_since_fold += 1
        if (
            not self._is_fold_wanted
            and self._commits_since_fold < FOLD_COMMITS
            and self._clock.monotonic_s() - self._folded_at < FOLD_S
        ):
            return None
        self._commits_since_fold, self._folded_at, self._is_fold_wanted = 0, self._clock.monotonic_s(), False
        return self.ledger_book.dump() + self.latest_values.dump() + self._dirty.dump(self.directory)

    async def fold(self) -> None:
        """Fold now; returns once durable.

        Sealing wants it: latest values of hot rows are found by looking, of sealed not.
        """
        self._is_fold_wanted = True
        await self._purge([])

    def write(self, work: object) -> None:
        """Commit, and fold when it is time. Called in the commit thread."""
        assert isinstance(work, tuple)
        commit, rows = work
        self.store.commit(commit)
        if rows:
            self.store.fold(commit.number, rows)

    def _after_commit(self) -> None:
        batch, self._sealed = self._sealed, None
        if batch is not None and self._live.has_listeners:
            self._live.publish(readings_of(batch, self.directory, self._live))
        now = self._clock.now_ns()
        self.stored.committed(now)
        self.pipeline.notices.committed(now, self.notify)

    def notify(self, device_id: str, payload: bytes) -> None:
        """Tell a device something; on the broker loop."""
        topic = self._topics.build(DeviceTopic(device_id, Channel.NOTICES))  # type: ignore[arg-type]
        if self.stored.send is not None:
            self.stored.send(topic, payload)

    # --- door: in -------------------------------------------------------------------------------------------------

    async def submit(
        self, device_id: str, channel: Channel, payload: bytes, *, content_type: str | None = None, peer: str = "http"
    ) -> Outcome:
        """Ingest one message; returns after the commit. Raises UnavailableError when the store does not take it."""
        outcome: Outcome = await self._on_loop(self._submit(device_id, channel, payload, content_type, peer))
        return outcome

    async def _submit(
        self, device_id: str, channel: Channel, payload: bytes, content_type: str | None, peer: str
    ) -> Outcome:
        assert self.group is not None
        if self.group.stalled or self.group.is_congested:
            raise UnavailableError(self.group.stalled or "more is waiting than can be stored now", code="store-stalled")
        topic = DeviceTopic(device_id, channel)  # type: ignore[arg-type]  # checked by the pipeline
        publish = Publish(self._topics.build(topic), payload, properties=PublishProperties(content_type=content_type))
        waiter = Waiter(self.forward)
        arrival = Arrival(waiter, publish, Peer(peer, peer), self._clock.now_ns(), topic)
        self.receive(arrival)
        self.group.join(arrival)
        return await waiter.done

    async def replay(self, number: int) -> Outcome:
        """Send a quarantined message down the road again; it leaves quarantine if it is accepted now."""
        outcome: Outcome = await self._on_loop(self._replay(number))
        return outcome

    async def _replay(self, number: int) -> Outcome:
        assert self.group is not None
        kept = await asyncio.to_thread(self.store.quarantined, number)
        if kept is None:
            raise RejectedError(f"nothing in quarantine has number {number}", code="not-found")
        publish = Publish(
            kept.topic, kept.payload, properties=PublishProperties(content_type=kept.content_type or None)
        )
        waiter = Waiter(None)
        topic = self._topics.parse(kept.topic)
        arrival = Arrival(waiter, publish, Peer("replay", "replay"), kept.received, topic)
        try:
            if topic is None:
                raise RejectedError(f"{kept.topic!r} is no topic of the contract", code=codes.UNKNOWN_SHAPE)
            if topic.channel is Channel.TELEMETRY:
                self.pipeline.revisit(arrival, kept.sample)
            else:
                self._receive_other(arrival)
        except (MalformedError, RejectedError) as error:
            return Outcome(0, 0, error.code, str(error))
        self.pipeline.batch.released.append(number)
        self.group.join(arrival)
        return await waiter.done

    async def purge(self, numbers: list[int]) -> int:
        """Remove quarantined messages; returns how many there were."""
        purged: int = await self._on_loop(self._purge(numbers))
        return purged

    async def _purge(self, numbers: list[int]) -> int:
        assert self.group is not None
        self.pipeline.batch.released.extend(numbers)
        waiter = Waiter(None)
        self.group.join(Arrival(waiter, Publish("purge"), Peer("purge", "purge"), self._clock.now_ns()))
        await waiter.done
        if numbers:
            sizes = await asyncio.to_thread(self.store.quarantine_sizes)
            self.pipeline.room.restore(sizes, self.directory.entries)
        return len(numbers)

    async def erase(self, device_id: str) -> int:
        """Remove all telemetry, state and quarantine of a device; returns the points removed."""
        erased: int = await self._on_loop(self._erase(device_id))
        return erased

    async def _erase(self, device_id: str) -> int:
        entry = self.directory.entries.get(device_id)
        if entry is None or entry.device_no < 0:
            return 0
        numbers = list(entry.series.values())
        self.directory.forget(device_id)
        self.ledger_book.forget(entry.device_no)
        self.latest_values.forget(numbers)
        self.clock_drift.forget(device_id)
        return await asyncio.to_thread(self.store.erase, entry.device_no)

    async def _on_loop(self, coroutine: Any) -> Any:
        loop = self._loop
        assert loop is not None
        if asyncio.get_running_loop() is loop:
            return await coroutine
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))

    # --- door: looks ----------------------------------------------------------------------------------------------

    def ledger(self, device_id: str) -> DeviceLedger | None:
        """Return the account of a device, None when it is not known."""
        entry = self.directory.entries.get(device_id)
        return ledger_of(entry, self.ledger_book) if entry is not None else None

    def gaps(self, device_id: str) -> list[Gap]:
        """Return what is missing of a device, and what is known as lost; the first thousand ranges."""
        entry = self.directory.entries.get(device_id)
        return gaps_of(entry) if entry is not None else []

    def latest(self, device_id: str) -> list[Latest]:
        """Return the newest value of each reading of a device."""
        entry = self.directory.entries.get(device_id)
        found = []
        for name, series in list(entry.series.items()) if entry else []:
            newest = self.latest_values.get(series)
            if newest is not None:
                time, value, quality, received = newest
                unit = self.directory.series[series][2]
                found.append(Latest(series, name, unit, time, value, QUALITIES[quality], received))
        return found

    def raw(self, device_id: str) -> list[RawMessage]:
        """Return the last messages of a device, newest first."""
        entry = self.directory.entries.get(device_id)
        return list(entry.raw)[::-1] if entry else []

    def sealing(self, device_id: str) -> Sealing | None:
        """Return what a device's messages have to be, and what its last telemetry was; None when it is not known."""
        entry = self.directory.entries.get(device_id)
        return Sealing.of(entry.protection, entry.sealed) if entry else None

    def metadata(self, device_id: str) -> Metadata | None:
        """Return what a device said of itself with its newest telemetry since the platform started."""
        entry = self.directory.entries.get(device_id)
        return entry.metadata if entry else None

    def clock(self, device_id: str) -> ClockReport | None:
        """Return what is known of a device's clock, None before it was compared with ours."""
        entry = self.directory.entries.get(device_id)
        clocks = entry.clocks if entry is not None else None
        return self.clock_drift.report(device_id, clocks, self._clock.now_ns()) if clocks is not None else None

    def clocks(self, tenants: Collection[str] | None = None) -> list[ClockReport]:
        """Return what is known of the clocks of all devices, or of those of some tenants."""
        now = self._clock.now_ns()
        found = [
            self.clock_drift.report(entry.device_id, entry.clocks, now)
            for entry in list(self.directory.entries.values())
            if entry.clocks is not None and entry.is_known and (tenants is None or entry.tenant in tenants)
        ]
        return [each for each in found if each is not None]

    def series_of(self, device_id: str) -> dict[str, int]:
        """Return reading name -> series number of a device."""
        entry = self.directory.entries.get(device_id)
        return dict(entry.series) if entry else {}

    def series_named(self, name: str, tenants: Collection[str] | None = None) -> dict[str, int]:
        """Return device id -> series number of all devices (of some tenants) with a reading `name`."""
        return {
            each.device_id: each.series[name]
            for each in list(self.directory.entries.values())
            if name in each.series and (tenants is None or (each.is_known and each.tenant in tenants))
        }

    def is_of(self, tenants: Collection[str] | None, device_id: str) -> bool:
        """Whether a device is registered, and one of these tenants' (None: of all)."""
        entry = self.directory.entries.get(device_id)
        return entry is not None and entry.is_known and (tenants is None or entry.tenant in tenants)

    def may_speak_for(self, tenants: Collection[str] | None, device_id: str) -> bool:
        """Whether a name is not that of a device of another tenant: `is_of`, or nobody's."""
        entry = self.directory.entries.get(device_id)
        return tenants is None or entry is None or not entry.is_known or entry.tenant in tenants

    def tenant_of(self, device_id: str) -> str:
        """Return the tenant of a device; of one that is not known, the default tenant."""
        entry = self.directory.entries.get(device_id)
        return entry.tenant if entry is not None else DEFAULT_TENANT

    def name_of(self, series: int) -> tuple[str, str, str]:
        """Return (device id, reading name, unit) of a series."""
        entry, name, unit = self.directory.series[series]
        return entry.device_id, name, unit

    def device_no(self, device_id: str) -> int | None:
        """Return the store's number of a device, None before its first message."""
        entry = self.directory.entries.get(device_id)
        return entry.device_no if entry is not None and entry.device_no >= 0 else None

    def device_of(self, device_no: int) -> tuple[str, str] | None:
        """Return (device id, tenant) of the store's number of a device, None when it was erased."""
        by_no = self.directory.by_no
        entry = by_no[device_no] if device_no < len(by_no) else None
        return (entry.device_id, entry.tenant) if entry is not None and entry.is_known else None

    def tick(self) -> None:
        """Note the counters once a second, for the rates; tell what is stored where no further message came."""
        now = self._clock.now_ns()
        self.stored.flush(now)
        self.pipeline.notices.ask(now, self.notify)
        self._history.append((self._clock.monotonic_s(), self._messages, self._readings))

    def freshness(self, tenants: Collection[str] | None = None) -> Freshness:
        """Return how fresh the data of the live devices (of some tenants) are, at most a second old."""
        return self._freshness.look(tenants=None if tenants is None else frozenset(tenants))

    def stats(self) -> IngestStats:
        """Return counters, rates and the state of the road."""
        history, group = list(self._history), self.group
        span = history[-1][0] - history[0][0] if len(history) > 1 else 0.0
        stations = {name: spent / count / 1_000 for name, (spent, count) in self.pipeline.timed.items()}
        if group is not None and group.committed_messages:
            stations["commit"] = group.commit_cpu_ns / group.committed_messages / 1_000
        return IngestStats(
            messages=self._messages,
            readings=self._readings,
            duplicates=self._duplicates,
            quarantined=self._quarantined,
            late=self._late,
            commits=group.commits if group else 0,
            messages_per_s=(history[-1][1] - history[0][1]) / span if span else 0.0,
            readings_per_s=(history[-1][2] - history[0][2]) / span if span else 0.0,
            pending_messages=group.pending_messages if group else 0,
            pending_bytes=group.pending_bytes if group else 0,
            stalled=group.stalled if group else "",
            stations_us=stations,
            full=self.directory.full(self._clock.now_ns()),
            quarantine_bytes=self.pipeline.room.of_tenants(),
        )
