"""The datum's road: Received -> Decoded -> Admitted -> Fresh -> laid into the open group, or Quarantined.

Each station takes the type that the one before returns, so that storing a reading which nobody authorised, or twice,
does not type-check. Pure but for the state it keeps (directory, open batch): no I/O; `arrival.received` is now.
"""

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, Final

from godwit.contract import codes, telemetry
from godwit.contract.cose import is_sealed
from godwit.contract.errors import MalformedError, RejectedError
from godwit.contract.gaps import GapRecord
from godwit.contract.ids import DEFAULT_TENANT
from godwit.contract.notices import CloneDetected, encode_clone_detected
from godwit.contract.telemetry import Sample, Telemetry
from godwit.contract.topics import Channel
from godwit.server.ingest.arrival import Arrival
from godwit.server.ingest.batch import SAMPLE_WIDTH, Batch
from godwit.server.ingest.clock_drift import UTC, ClockDrift, DeviceClocks, clock_of
from godwit.server.ingest.clones import Clones, event_of_clone
from godwit.server.ingest.device_notices import DeviceNotices
from godwit.server.ingest.directory import SERIES_PER_DEVICE_MAX, Directory, Entry
from godwit.server.ingest.late import LATE_NS
from godwit.server.ingest.quarantine_room import STRANGERS, QuarantineRoom
from godwit.server.ingest.seals import Seals
from godwit.server.ingest.stations import Admitted, Decoded, Fresh, words_of
from godwit.server.ingest.trace import TracedMessage
from godwit.server.ingest.tracks import ISLANDS_MAX, MessageIds, Prints, Track, fingerprint, hash_message_id
from godwit.server.registry.model import Lifecycle, Outside
from godwit.server.telemetry.model import BAD, Document, Quarantined

NS: Final = 1_000_000_000
FUTURE_NS_MAX: Final = 3_600 * NS
"""A clock may be ahead by so much; what is later is refused, since it would be the newest value for ever."""
SAMPLED: Final = 64
"""One message in so many has its stations timed."""


class Pipeline:
    """Walks messages down the road into `batch`, the open group."""

    def __init__(self, directory: Directory, clock_drift: ClockDrift | None = None) -> None:
        self.directory = directory
        self.clock_drift = clock_drift or ClockDrift()
        self.room = QuarantineRoom()
        self.clones = Clones(directory)
        self.notices = DeviceNotices()
        self.seals = Seals()
        self.seals.tell = self.notices.note
        self.batch = Batch()
        self._stations: tuple[tuple[str, Callable[[Any], Any]], ...] = (
            ("decode", self.decode),
            ("admit", self.admit),
            ("sift", self.sift),
            ("lay", self.lay),
        )
        self._walked = 0
        self.quarantine_number = 0
        self.timed: dict[str, tuple[int, int]] = {}
        """Station -> (nanoseconds, messages), of the sampled messages."""

    def walk(self, arrival: Arrival) -> Entry:
        """Take one telemetry message down the road. Raises MalformedError or RejectedError with the reason."""
        self._walked += 1
        if type(arrival.source) is TracedMessage:
            return self._walk_traced(arrival, arrival.source)
        if self._walked % SAMPLED == 0:
            return self._walk_timed(arrival)
        return self.lay(self.sift(self.admit(self.decode(arrival))))

    def _walk_timed(self, arrival: Arrival) -> Entry:
        thing: Any = arrival
        for name, station in self._stations:
            start = perf_counter_ns()
            thing = station(thing)
            spent, count = self.timed.get(name, (0, 0))
            self.timed[name] = (spent + perf_counter_ns() - start, count + 1)
        entry: Entry = thing
        return entry

    def _walk_traced(self, arrival: Arrival, traced: TracedMessage) -> Entry:
        thing: Any = arrival
        laid = len(self.batch.series)
        for name, station in self._stations:
            start = perf_counter_ns()
            try:
                thing = station(thing)
            except (MalformedError, RejectedError) as error:
                traced.station(name, perf_counter_ns() - start, error.code, str(error))
                raise
            spent = perf_counter_ns() - start
            traced.rows = len(self.batch.series) - laid
            traced.station(name, spent, detail=words_of(thing, traced.rows))
        entry: Entry = thing
        return entry

    def decode(self, arrival: Arrival) -> Decoded:
        """Read the payload, by content type, declared codec or first byte."""
        assert arrival.topic is not None
        publish = arrival.publish
        known = self.directory.entries.get(arrival.topic.device_id)
        if publish.payload[:1] != b"{" and is_sealed(publish.payload, publish.properties.content_type):
            opened = self.seals.open(arrival, known)
            codec = known.codec if known else None
            return Decoded(arrival, telemetry.decode(opened.payload, opened.content_type, codec, now=arrival.received))
        if known is not None and (known.is_guarded or known.sealed is not None):
            self.seals.admit_plain(arrival, known)
        read = publish.document
        if type(read) is Telemetry and (known is None or not known.codec):
            return Decoded(arrival, read)  # a worker has read it
        message = telemetry.decode(
            publish.payload, publish.properties.content_type, known.codec if known else None, now=arrival.received
        )
        return Decoded(arrival, message)

    def admit(self, decoded: Decoded) -> Admitted:
        """Check who speaks, that it speaks for itself, and what the device's type declares."""
        arrival, message = decoded.arrival, decoded.telemetry
        entry = self.speaker(arrival)
        if message.device_id is not None and message.device_id != entry.device_id:
            raise RejectedError(
                f"the payload says device {message.device_id[:64]!r}, the topic {entry.device_id!r}",
                code=codes.DEVICE_MISMATCH,
            )
        if message.timing is not None or entry.clocks is not None:
            self._judge_clock(arrival, message, entry)
        latest = arrival.received + FUTURE_NS_MAX
        for sample in message.samples:
            if sample.time is not None and sample.time > latest and not sample.code:
                sample.code = codes.TIME_IN_FUTURE
                sample.detail = f"{_span(sample.time - arrival.received)} ahead of the server's clock"
        if entry.declared:
            for sample in message.samples:
                self._check_declared(entry, sample)
        return Admitted(arrival, message, entry)

    def _judge_clock(self, arrival: Arrival, message: Telemetry, entry: Entry) -> None:
        """Put times right that are of a clock which is known to be wrong, or counts from boot."""
        arrival.wants_times = message.timing is not None and message.timing.sync is not None
        clocks = entry.clocks or DeviceClocks()
        learnt = self.clock_drift.judge(entry.device_id, clocks, message, arrival.received)
        if learnt:
            entry.clocks = clocks
            self.batch.clocks += [(self.directory.number(entry), each) for each in learnt]

    def speaker(self, arrival: Arrival) -> Entry:
        """Return the device that a message of the contract speaks for. Raises RejectedError unless it may speak."""
        topic = arrival.topic
        assert topic is not None
        entry = self.directory.entries.get(topic.device_id)
        if entry is None or not entry.is_known:
            if not arrival.peer.may_register:
                raise RejectedError(f"no device {topic.device_id!r} is registered", code=codes.UNKNOWN_DEVICE)
            entry = self.directory.register(topic.device_id, arrival.received)
        if arrival.peer.is_unproven and entry.lifecycle is not Lifecycle.UNCLAIMED:
            raise RejectedError(
                "the device has an owner: it speaks by TLS, with a credential of its own", code=codes.DEVICE_CLAIMED
            )
        if entry.lifecycle in (Lifecycle.RETIRED, Lifecycle.SUSPENDED):
            raise RejectedError(f"the device is {entry.lifecycle}", code=codes.DEVICE_RETIRED)
        if topic.tenant is not None and (topic.tenant, topic.device_type) != (entry.tenant, entry.device_type):
            raise RejectedError(
                f"the topic says tenant {topic.tenant!r} and type {topic.device_type!r}, the registry {entry.tenant!r} "
                f"and {entry.device_type!r}",
                code=codes.PLACE_MISMATCH,
            )
        if topic.location is not None and topic.location != entry.place:
            raise RejectedError(
                f"the topic says location {topic.location!r}, the registry {entry.place!r}", code=codes.PLACE_MISMATCH
            )
        return entry

    def _check_declared(self, entry: Entry, sample: Sample) -> None:
        assert entry.declared is not None
        for name, value in sample.values.items():
            declared = entry.declared.get(name)
            if declared is None:
                continue
            said = sample.units.get(name) if sample.units else None
            if said and declared.unit and said != declared.unit:
                sample.code = sample.code or codes.UNIT_MISMATCH
                sample.detail = f"{name} is in {said!r}, its type declares {declared.unit!r}"
            if isinstance(value, str | bool):
                continue
            low, high = declared.minimum, declared.maximum
            if (low is not None and value < low) or (high is not None and value > high):
                if declared.outside is Outside.QUARANTINE:
                    sample.code = sample.code or codes.OUT_OF_RANGE
                    sample.detail = f"{name} = {value}, declared {low} to {high}"
                else:
                    sample.qualities = {**(sample.qualities or {}), name: BAD}

    def revisit(self, arrival: Arrival, sample: int) -> Entry:
        """Walk a message that was in quarantine; `sample` >= 0 names the one of its samples that was refused.

        That one was counted as arrived when it was refused, so it is not sifted again. Raises MalformedError or
        RejectedError when it would be refused once more.
        """
        admitted = self.admit(self.decode(arrival))
        message = admitted.telemetry
        samples = message.samples if sample < 0 else message.samples[sample : sample + 1]
        for each in samples:
            if each.code:
                raise RejectedError(each.detail, code=each.code)
        if sample < 0:
            return self.lay(self.sift(admitted))
        numbers, track_no = None, 0
        if message.seq is not None and message.epoch is not None:
            numbers = [message.seq + sample]
            track_no = self.directory.track(admitted.entry, message.stream, message.epoch).track_no
        message.samples = samples
        return self.lay(Fresh(arrival, message, admitted.entry, samples, numbers, track_no))

    def sift(self, admitted: Admitted) -> Fresh:
        """Leave out what has arrived before; refuse it where it was signed long ago: that is a replay."""
        arrival, message, entry = admitted.arrival, admitted.telemetry, admitted.entry
        if arrival.sealed is None:
            return self._sift(admitted)
        self.seals.identify(arrival, message, entry)
        fresh = self._sift(admitted)
        if message.samples and not fresh.samples:
            self.seals.check_repetition(arrival, entry)
        return fresh

    def is_known(self, arrival: Arrival, entry: Entry) -> bool:
        """Whether a sealed message that is no telemetry was here before. Raises RejectedError for an old one."""
        assert arrival.sealed is not None
        self.seals.check_window(arrival, entry)
        arrival.duplicate = int(not self._take_id(arrival.sealed.mark, arrival, entry))
        return bool(arrival.duplicate)

    def _take_id(self, message_id: str, arrival: Arrival, entry: Entry) -> bool:
        hashed, second = hash_message_id(message_id), arrival.received // NS
        if entry.ids is None:
            entry.ids = MessageIds()
        if not entry.ids.take(hashed, second):
            return False
        self.batch.ids.extend((self.directory.number(entry), hashed, second))
        return True

    def _sift(self, admitted: Admitted) -> Fresh:
        """Leave out what has arrived before: by number, by message id, or as a plain redelivery."""
        arrival, message, entry = admitted.arrival, admitted.telemetry, admitted.entry
        batch = self.batch
        if message.gaps is not None:
            self._enter_gaps(arrival, entry, message.gaps)
            if not message.samples:
                return Fresh(arrival, message, entry, [], None)
        if message.seq is not None and message.epoch is not None:
            return self._sift_numbered(admitted)
        samples = message.samples
        if message.message_id is not None:
            if not self._take_id(message.message_id, arrival, entry):
                return Fresh(arrival, message, entry, [], None)
        elif arrival.publish.qos:
            publish = arrival.publish
            mark = fingerprint(arrival.peer.mark, publish.packet_id, publish.payload)
            if entry.prints is None:
                entry.prints = Prints()
            if publish.dup and mark in entry.prints:
                return Fresh(arrival, message, entry, [], None)
            entry.prints.put(mark)
            batch.prints.extend((entry.device_no if entry.device_no >= 0 else self.directory.number(entry), mark))
        return Fresh(arrival, message, entry, samples, None)

    def _sift_numbered(self, admitted: Admitted) -> Fresh:
        arrival, message, entry = admitted.arrival, admitted.telemetry, admitted.entry
        assert message.seq is not None
        assert message.epoch is not None
        track = self.directory.track(entry, message.stream, message.epoch)
        track.device_sent, track.received = message.sent_at, arrival.received
        track.clock = UTC if message.timing is None else clock_of(message.timing)
        first, samples = message.seq, message.samples
        if first != track.high or track.forks is not None:
            return self._sift_disordered(admitted, track, first)
        numbers = track.take(first, len(samples))
        track.voice = arrival.peer
        track.newest = _latest(samples, track.newest)
        self.batch.taken.extend((track.track_no, first, len(samples), track.newest))
        return Fresh(arrival, message, entry, samples, numbers, track.track_no)

    def _sift_disordered(self, admitted: Admitted, track: Track, first: int) -> Fresh:
        """Take numbers that do not just follow the last one: known ones, after a hole, into one, or of a clone."""
        arrival, message, entry = admitted.arrival, admitted.telemetry, admitted.entry
        batch, clones, peer = self.batch, self.clones, arrival.peer
        clones.contents.enter_open(batch)
        places = clones.place(entry, track, first, message.samples, None if peer.is_shared else peer)
        if clones.found:
            self._tell_clones(arrival)
        for each in places:
            self._make_room(each.track, each.first, each.length)
        samples: list[Sample] = []
        numbers: list[int] = []
        tracks: list[int] = []
        for branch, start, count in places:
            fresh = branch.take(start, count)
            if fresh:
                branch.newest = _latest(message.samples[start - first : start - first + count], branch.newest)
                batch.taken.extend((branch.track_no, start, count, branch.newest))
            branch.device_sent, branch.received, branch.clock = message.sent_at, arrival.received, track.clock
            samples += [message.samples[number - first] for number in fresh]
            numbers += fresh
            tracks += [branch.track_no] * len(fresh)
        self.notices.gap_requests.note(entry, track, arrival.received)
        return Fresh(arrival, message, entry, samples, numbers, track.track_no, tracks)

    def _make_room(self, track: Track, first: int, count: int) -> None:
        """Raise RejectedError when the numbers would make one hole too many, unless an old one can be given up."""
        while not track.has_room_for(first, count):
            given_up = track.give_up()
            if given_up is None:
                raise RejectedError(
                    f"stream {track.stream!r}, epoch {track.epoch!r} has {ISLANDS_MAX} holes: they come first",
                    code=codes.TOO_MANY_GAPS,
                )
            self.batch.lost.append((track.track_no, *given_up))

    def _enter_gaps(self, arrival: Arrival, entry: Entry, gaps: list[GapRecord]) -> None:
        """Enter what a device says it has lost; what arrived all the same stays as it is."""
        for gap in gaps:
            track = self.directory.track(entry, gap.stream, gap.epoch)
            for fork in track.forks or ():
                if fork.voice is arrival.peer and not arrival.peer.is_shared:
                    track = fork
            first, stop = gap.first, gap.last + 1
            self._make_room(track, first, stop - first)
            if track.lose(first, stop, gap.reason):
                self.batch.lost.append((track.track_no, first, stop, gap.reason))
            track.received = arrival.received
            self.notices.gap_requests.note(entry, track, arrival.received)

    def _tell_clones(self, arrival: Arrival) -> None:
        """Tell device and owner of clones, and where their tracks begin."""
        for entry, track, fork, first, is_new in self.clones.found:
            detected = CloneDetected(track.stream, track.epoch, first, fork.epoch)
            self.notices.note(entry.device_id, encode_clone_detected(detected))
            if is_new:
                self.batch.lost.append((fork.track_no, fork.start, fork.start, ""))
                self.batch.documents.append(
                    Document(
                        self.directory.number(entry),
                        str(Channel.EVENTS),
                        arrival.received,
                        arrival.received,
                        event_of_clone(detected),
                    )
                )
        self.clones.found.clear()

    def lay(self, fresh: Fresh) -> Entry:
        """Lay fresh samples into the open group's columns, a bad one alone into quarantine."""
        arrival, entry, batch, samples = fresh.arrival, fresh.entry, self.batch, fresh.samples
        device_no = entry.device_no if entry.device_no >= 0 else self.directory.number(entry)
        numbers, track_no, tracks, received = fresh.numbers, fresh.track_no, fresh.tracks, arrival.received
        message = fresh.telemetry
        before = newest = min(entry.newest.get(message.stream, 0), received)
        accepted = late = readings = 0
        for index, sample in enumerate(samples):
            if len(entry.series) + len(sample.values) > SERIES_PER_DEVICE_MAX:
                self._check_series(entry, sample)
            if sample.code:
                self.refuse_sample(arrival, entry, sample, fresh.telemetry.samples)
                continue
            time = received if sample.time is None else sample.time
            count = self._lay_sample(entry, sample)
            if tracks is not None:
                track_no = tracks[index]
            batch.samples.extend((time, -1 if numbers is None else numbers[index], track_no, received, count))
            readings += count
            accepted += 1
            if time > newest:
                newest = time
            elif before - time > LATE_NS:
                late += 1
        if newest > before:
            # A clock that is ahead must not make all that follows late.
            entry.newest[message.stream] = min(newest, received)
        duplicate = len(message.samples) - len(samples)
        batch.messages.extend((device_no, accepted, readings, duplicate, late))
        arrival.accepted, arrival.duplicate = accepted, duplicate
        entry.seen = received
        if message.metadata is not None:
            entry.metadata = message.metadata
        if message.location is not None:
            entry.location = message.location
            self.directory.moved.add(entry.device_id)
        return entry

    def _check_series(self, entry: Entry, sample: Sample) -> None:
        if len(entry.series.keys() | sample.values.keys()) > SERIES_PER_DEVICE_MAX:
            sample.code = sample.code or codes.SERIES_LIMIT
            sample.detail = f"the device has {len(entry.series)} series, at most {SERIES_PER_DEVICE_MAX} are kept"

    def _lay_sample(self, entry: Entry, sample: Sample) -> int:
        """Append a sample's readings; returns how many."""
        batch, values, known = self.batch, sample.values, entry.series
        try:
            series = [known[name] for name in values]
        except KeyError:
            series = [known[name] if name in known else self.directory.series_no(entry, name, "") for name in values]
        if sample.units or sample.qualities:
            self._note_extras(entry, sample)
        if sample.offset:
            batch.offsets.append((len(batch.samples) // SAMPLE_WIDTH, sample.offset))
        batch.series.extend(series)
        if sample.is_floats:
            batch.values.extend(values.values())  # type: ignore[arg-type]  # as the flag says
        else:
            for value in values.values():
                batch.add_value(value)
        return len(series)

    def _note_extras(self, entry: Entry, sample: Sample) -> None:
        if sample.units:
            for name, unit in sample.units.items():
                if name in sample.values:
                    self.directory.series_no(entry, name, unit)
        if sample.qualities:
            start = len(self.batch.values)
            for index, name in enumerate(sample.values):
                quality = sample.qualities.get(name, 0)
                if quality:
                    self.batch.qualities.append((start + index, quality))

    def refuse_sample(self, arrival: Arrival, entry: Entry, sample: Sample, all_samples: list[Sample]) -> None:
        """Put one bad sample into quarantine, with the message it came in; the others are not held up."""
        is_alone = len(all_samples) == 1
        if is_alone:
            arrival.code, arrival.detail = sample.code, sample.detail
        index = next(at for at, each in enumerate(all_samples) if each is sample)
        self.quarantine(arrival, sample.code, sample.detail, entry, index)

    def quarantine(self, arrival: Arrival, code: str, detail: str, entry: Entry | None, sample: int = -1) -> None:
        """Keep a refused message whole, with its reason, and count it."""
        known = entry if entry is not None and entry.is_known else None
        topic, publish = arrival.topic, arrival.publish
        device_no = self.directory.number(known) if known else -1
        tenant, holder = (known.tenant, known.device_id) if known else (DEFAULT_TENANT, STRANGERS)
        if not self.room.take(tenant, holder, len(publish.payload)):
            self.batch.refusals.append((device_no, codes.QUARANTINE_FULL))
            return
        self.quarantine_number += 1
        self.batch.quarantined.append(
            Quarantined(
                number=self.quarantine_number,
                device_id=entry.device_id if entry else (topic.device_id if topic else ""),
                tenant=tenant,
                topic=publish.topic,
                code=code,
                detail=detail,
                content_type=publish.properties.content_type or "",
                received=arrival.received,
                payload=publish.payload,
                sample=sample,
            )
        )
        self.batch.refusals.append((device_no, code))


def _latest(samples: list[Sample], newest: int) -> int:
    """Return the latest time of all, by the device's clock, whatever becomes of the samples."""
    for sample in samples:
        time = sample.time
        if time is not None and time + sample.offset > newest:
            newest = time + sample.offset
    return newest


def _span(ns: int) -> str:
    seconds = ns // NS
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
