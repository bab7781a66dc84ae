"""The road from the spool to the server, decided without I/O: which message leaves next, and when its samples may go.

A sample leaves the spool when the server says that it is stored, and not before: by its acknowledgement, where the
server promises that this means stored, else by `telemetry/stored`. What is not stored in time is sent again; its
numbers tell the server what it has already. Time is in seconds of any clock that never goes back.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from godwit.contract.compression import Compression, compress
from godwit.contract.gaps import DELETED
from godwit.contract.stored import StoredUpTo
from godwit.contract.topics import Channel
from godwit.device.clock import Placed, Run
from godwit.device.streams import Stream
from godwit.device.telemetry import encode_gaps, encode_message, follow_each_other, number_event
from godwit.mqtt import reasons
from godwit.spool import Gap, Item, Spool, Track

SAMPLES_MAX: Final = 1_000
BATCH_BYTES_MAX: Final = 65_536
WINDOW: Final = 4
"""Messages of one stream that may be under way."""
ANSWER_S: Final = 20.0
ANSWER_S_MAX: Final = 600.0
PAUSE_S: Final = 1.0
PAUSE_S_MAX: Final = 300.0
GAPS_MAX: Final = 500
"""Gap records in a message."""
GIVEN_UP_MAX: Final = 256
COMPRESSED_FROM: Final = 256
"""Smaller messages gain nothing."""

TRY_AGAIN: Final = frozenset((
    reasons.UNSPECIFIED_ERROR, reasons.IMPLEMENTATION_SPECIFIC_ERROR, reasons.SERVER_BUSY, reasons.SERVER_UNAVAILABLE,
    reasons.MESSAGE_RATE_TOO_HIGH, reasons.QUOTA_EXCEEDED, reasons.RECEIVE_MAXIMUM_EXCEEDED,
))  # fmt: skip
"""Refusals that pass. Of others the server has kept the message, with its reason (an acknowledgement means stored)."""
REFUSED_FROM: Final = 0x80
"""Reason codes from here on are refusals (MQTT 5, 2.4)."""
KEPT: Final = frozenset(("series-limit", "quarantine-full", "quota-devices"))
"""Reason strings of refusals that look as if they passed, and do not."""


class Message(NamedTuple):
    """A message to send. `number` names it in `delivered`."""

    number: int
    stream: str
    channel: Channel
    payload: bytes
    qos: int


class _Batch:
    """Samples under way."""

    __slots__ = ("first", "is_done", "last", "number", "sent_at", "size")

    def __init__(self, number: int, first: int, last: int, sent_at: float, size: int) -> None:
        self.number, self.first, self.last, self.sent_at, self.size = number, first, last, sent_at, size
        self.is_done = False


class _Lane:
    """One track on its way: all up to `settled` is stored, to `cursor` sent, and what `batches` has may be either."""

    def __init__(self, stream: Stream, track: Track, settled: int) -> None:
        self.stream, self.track = stream, track
        self.settled = self.cursor = settled
        self.batches: deque[_Batch] = deque()
        self.not_before = 0.0
        self.pause_s = PAUSE_S
        self.answer_s = ANSWER_S
        self.samples_max = SAMPLES_MAX
        self.wanted: list[tuple[int, int]] = []
        """Ranges that the server asked for, and that are here."""
        self.ripe_at: float | None = None
        """When the samples that wait for others have waited long enough; None: none wait."""

    def rewind(self, not_before: float) -> None:
        """Send all that is not stored once more."""
        self.cursor = min((each.first for each in self.batches if not each.is_done), default=self.cursor + 1) - 1
        self.batches.clear()
        self.not_before = self.ripe_at = not_before


class Uplink:
    """See the module. `run`, `place` and `fields` know what time it is: see `DeviceClock`.

    `run` makes times of the first stamps, `place` of one, as well as it can; `fields` gives more fields of a message
    that is made now, like `sentAt`. `seal` signs and encrypts what leaves: each time anew, with the time of now.
    """

    def __init__(
        self,
        spool: Spool,
        streams: Iterable[Stream],
        *,
        compression: Compression = Compression.DEFLATE,
        run: Callable[[Sequence[int]], Run] = lambda stamps: Run("", list(stamps)),
        place: Callable[[int], Placed] = lambda stamp: Placed("", stamp),
        fields: Callable[[str], Mapping[str, object]] = lambda _boot_id: {},
        seal: Callable[[Channel, bytes], bytes] = lambda _channel, payload: payload,
        window: int = WINDOW,
    ) -> None:
        self._spool = spool
        self._lanes: dict[Track, _Lane] = {}
        self._order: list[_Lane] = []
        self._by_number: dict[int, tuple[_Lane, _Batch]] = {}
        self._number = 0
        self._compression = compression
        self._run, self._place, self._fields = run, place, fields
        self._seal = seal
        self._window = window
        self._is_open = False
        self._is_promised = False
        self._qos_max = 1
        self.bytes_max = BATCH_BYTES_MAX
        """The largest message that the server takes, where it is smaller than ours."""
        self._gaps_under_way: dict[int, list[Gap]] = {}
        self._gaps_at = self._gaps_not_before = 0.0
        self._deleted: list[Gap] = []
        """What the server asked for, and had said was stored."""
        self.given_up: deque[Gap] = deque(maxlen=GIVEN_UP_MAX)
        """Gaps that the server was told of."""
        self.refused: list[tuple[str, int, str]] = []
        """(stream, samples, reason) of what the server keeps in quarantine; for the application to look at."""
        self.sent_again = 0
        for each in streams:
            self.declare(each)
        for name in sorted({each.stream for each in spool.next_streams()} - {each.stream for each in self._lanes}):
            self.declare(Stream(name))  # an earlier program had it, and what it left has to go

    # ------------------------------------------------------------------ streams

    def declare(self, stream: Stream) -> None:
        """Add a stream, or change how it is sent. What the spool has of it in earlier epochs goes first."""
        self._spool.declare(stream.name, stream.priority)
        self._spool.rewind()
        earlier = [each for each in self._spool.next_streams() if each.stream == stream.name]
        for track in dict.fromkeys((*earlier, Track(stream.name, self._spool.epoch))):
            if track in self._lanes:
                self._lanes[track].stream = stream
            else:
                self._lanes[track] = _Lane(stream, track, self._lowest(track) - 1)
        self._order = sorted(self._lanes.values(), key=lambda each: each.stream.priority)  # epochs stay in their order

    def _lowest(self, track: Track) -> int:
        """Return the first number that is not stored yet."""
        first = self._spool.read(track, -1, items_max=1, bytes_max=1)
        return first[0].seq if first else self._spool.highest(track) + 1

    def added(self, stream: str, now: float) -> None:
        """Note that the spool has more of a stream."""
        lane = self._lanes.get(Track(stream, self._spool.epoch))
        if lane is None:  # a damaged spool was replaced, and has a new epoch
            self._declare_again()
            lane = self._lanes[Track(stream, self._spool.epoch)]
        if lane.ripe_at is None:
            lane.ripe_at = now + lane.stream.linger_s

    def _declare_again(self) -> None:
        for stream in {lane.stream.name: lane.stream for lane in self._order}.values():
            self.declare(stream)

    def begin_epoch(self, epoch: str) -> bool:
        """Leave `epoch` to whoever else uses it; False where we have left it already."""
        if epoch != self._spool.epoch:
            return False
        self._spool.begin_epoch()
        self._declare_again()
        return True

    def unsettled(self) -> dict[Track, int]:
        """Return the tracks that have something which is not stored, and their highest numbers."""
        found = {track: self._spool.highest(track) for track in self._lanes}
        return {track: highest for track, highest in found.items() if highest > self._lanes[track].settled}

    def settled(self, track: Track) -> int:
        """Return up to which number a track is stored, or given up."""
        return self._lanes[track].settled

    def has_urgent(self, priority: int) -> bool:
        """Whether something of this priority, or of a more urgent one, is not stored."""
        return any(self._lanes[each].stream.priority <= priority for each in self.unsettled())

    # ------------------------------------------------------------------ the connection

    def open(self, now: float, *, is_promised: bool, qos_max: int = 1, bytes_max: int | None = None) -> None:
        """Begin with a connection. `is_promised`: the server's acknowledgement means stored.

        What went out at QoS 0 on an earlier connection may be lost, and is sent again.
        """
        self._qos_max = qos_max
        if is_promised != self._is_promised:  # what an acknowledgement meant until now was something else
            self.forget()
        self._is_open, self._is_promised = True, is_promised
        self.bytes_max = min(BATCH_BYTES_MAX, bytes_max or BATCH_BYTES_MAX)
        if qos_max == 0 or not is_promised:
            self._gaps_under_way.clear()
        for lane in self._lanes.values():
            lane.pause_s, lane.answer_s, lane.not_before = PAUSE_S, ANSWER_S, 0.0
            if self.qos_of(lane.stream) == 0:
                lane.rewind(now)
            lane.ripe_at = now  # the spool may have what nobody has told us of

    def close(self) -> None:
        """Note that the connection is gone."""
        self._is_open = False

    def forget(self) -> None:
        """Send everything that is not stored again: the MQTT session that had messages under way is gone."""
        self._by_number.clear()
        self._gaps_under_way.clear()
        for lane in self._lanes.values():
            lane.rewind(0.0)

    def qos_of(self, stream: Stream) -> int:
        """Return the QoS at which a stream is sent now."""
        return min(stream.qos, self._qos_max)

    # ------------------------------------------------------------------ out

    def next(self, now: float) -> Message | None:
        """Return the message that leaves now: of the most urgent stream that has one."""
        if not self._is_open:
            return None
        if (gaps := self._tell_gaps(now)) is not None:
            return gaps
        for lane in self._order:
            self._look_after(lane, now)
            if now < lane.not_before or len(lane.batches) >= self._window:
                continue
            message = self._cut(lane, now)
            if message is not None:
                return message
        return None

    def _tell_gaps(self, now: float) -> Message | None:
        """Return the message about what will never be sent, if there is something to say that is not being said."""
        if now < self._gaps_not_before or (
            self._gaps_under_way and (self._is_promised or now < self._gaps_at + ANSWER_S)
        ):
            return None
        self._gaps_under_way.clear()
        gaps = (self._spool.gaps() + self._deleted)[:GAPS_MAX]
        if not gaps:
            return None
        self._number += 1
        self._gaps_at = now
        self._gaps_under_way[self._number] = gaps
        payload = self._seal(Channel.TELEMETRY, encode_gaps(gaps))
        return Message(self._number, "", Channel.TELEMETRY, payload, min(1, self._qos_max))

    def _gaps_told(self, gaps: Iterable[Gap]) -> None:
        for gap in gaps:
            self.given_up.append(gap)
            if gap in self._deleted:
                self._deleted.remove(gap)
            else:
                self._spool.gap_told(gap)

    def _cut(self, lane: _Lane, now: float) -> Message | None:
        again = bool(lane.wanted)
        if again:
            first, last = lane.wanted[0]
            items = self._read(lane, first - 1)
            items = [each for each in items if each.seq <= last]
            if not items:
                lane.wanted.pop(0)
                return self._cut(lane, now)
        else:
            if lane.ripe_at is None or now < lane.ripe_at:
                return None
            items = self._read(lane, lane.cursor)
            if not items:
                lane.ripe_at = None
                return None
        return self._message(lane, items, now, again=again)

    def _read(self, lane: _Lane, after: int) -> list[Item]:
        items_max = 1 if lane.stream.channel is Channel.EVENTS else lane.samples_max
        return self._spool.read(lane.track, after, items_max=items_max, bytes_max=self.bytes_max * 3 // 4)

    def _message(self, lane: _Lane, items: list[Item], now: float, *, again: bool) -> Message:
        stream = lane.stream
        items = items[: follow_each_other([each.seq for each in items])]
        run = self._run([each.time for each in items])
        items = items[: len(run.times)]
        first, last = items[0].seq, items[-1].seq
        if stream.channel is Channel.EVENTS:
            placed = self._place(items[0].time)
            payload = number_event(items[0].payload, lane.track.epoch, first, placed.time, placed.boot_id)
        else:
            samples = zip(run.times, (each.payload for each in items), strict=True)
            payload = encode_message(stream.name, lane.track.epoch, first, samples, self._fields(run.boot_id))
        if len(payload) >= COMPRESSED_FROM:
            payload = compress(payload, self._compression)
        payload = self._seal(stream.channel, payload)
        self._number += 1
        batch = _Batch(self._number, first, last, now, len(items))
        self._by_number[batch.number] = lane, batch
        if again:
            lane.wanted[0] = (last + 1, lane.wanted[0][1])
        else:
            lane.batches.append(batch)
            lane.cursor = last
        return Message(batch.number, stream.name, stream.channel, payload, self.qos_of(stream))

    def _look_after(self, lane: _Lane, now: float) -> None:
        """Send again what nobody said was stored for too long."""
        if lane.batches and not self._is_awaited(lane) and now >= lane.batches[0].sent_at + lane.answer_s:
            self.sent_again += sum(each.size for each in lane.batches)
            lane.answer_s = min(2 * lane.answer_s, ANSWER_S_MAX)
            lane.rewind(now)

    def _is_awaited(self, lane: _Lane) -> bool:
        """Whether an acknowledgement is still to come that settles the stream: the MQTT session sees to that."""
        return self._is_promised and self.qos_of(lane.stream) > 0

    def next_timer(self) -> float | None:
        """Return when `next` may have something that it has not now; None: only after news."""
        if not self._is_open:
            return None
        due: list[float] = []
        if self._gaps_under_way and not self._is_promised:
            due.append(self._gaps_at + ANSWER_S)
        for lane in self._order:
            if lane.batches and not self._is_awaited(lane):
                due.append(lane.batches[0].sent_at + lane.answer_s)
            if len(lane.batches) < self._window and (lane.ripe_at is not None or lane.wanted):
                due.append(max(lane.not_before, lane.ripe_at or 0.0))
        return min(due, default=None)

    @property
    def under_way(self) -> int:
        """How many messages were sent and are not known as stored."""
        return sum(len(lane.batches) for lane in self._order)

    # ------------------------------------------------------------------ answers

    def delivered(self, number: int, reason_code: int, reason_string: str | None, now: float) -> None:
        """Note what the server answered to a message at QoS 1."""
        if number in self._gaps_under_way:
            if self._is_promised and (reason_code < REFUSED_FROM or reason_code not in TRY_AGAIN):
                self._gaps_told(self._gaps_under_way.pop(number))
            elif self._is_promised:
                self._gaps_under_way.pop(number)
                self._gaps_not_before = now + PAUSE_S_MAX / 10
            return
        lane, batch = self._by_number.pop(number, (None, None))
        if lane is None or batch is None:
            return
        if reason_code == reasons.PACKET_TOO_LARGE:
            self._shrink(lane, batch, now)
        elif reason_code in TRY_AGAIN and reason_string not in KEPT:
            lane.rewind(now + lane.pause_s)
            lane.pause_s = min(2 * lane.pause_s, PAUSE_S_MAX)
        elif self._is_promised or (lane.stream.channel is not Channel.TELEMETRY and reason_code < REFUSED_FROM):
            if reason_code >= REFUSED_FROM:
                self.refused.append((lane.stream.name, batch.size, reason_string or reasons.reason_name(reason_code)))
            self._done(lane, batch)
        elif reason_code >= REFUSED_FROM:  # a broker that is not ours has not kept it
            lane.rewind(now + lane.pause_s)
            lane.pause_s = min(2 * lane.pause_s, PAUSE_S_MAX)

    def _shrink(self, lane: _Lane, batch: _Batch, now: float) -> None:
        """Send less at once; what is too large by itself is given up, and named."""
        if batch.size > 1:
            lane.samples_max = max(1, min(batch.size, lane.samples_max) // 2)
        else:
            self._spool.refuse(lane.track, batch.first, batch.last)
            self.refused.append((lane.stream.name, 1, "packet too large"))
        lane.rewind(now)

    def _done(self, lane: _Lane, batch: _Batch) -> None:
        batch.is_done = True
        if batch not in lane.batches:  # the server had asked for it
            self._spool.settle_some(lane.track, range(batch.first, batch.last + 1))
            return
        upto = -1
        while lane.batches and lane.batches[0].is_done:
            upto = lane.batches.popleft().last
        if upto >= 0:
            self._settle(lane, upto)

    def _settle(self, lane: _Lane, upto: int) -> None:
        self._spool.settle(lane.track, upto)
        lane.settled = max(lane.settled, upto)
        lane.pause_s, lane.answer_s = PAUSE_S, ANSWER_S

    def stored(self, notice: StoredUpTo) -> None:
        """Note up to where a stream is stored."""
        lane = self._lanes.get(Track(notice.stream, notice.epoch))
        if lane is None or not 0 <= notice.seq <= self._spool.highest(lane.track):
            return  # another spool's, or a number that was never given
        while lane.batches and lane.batches[0].last <= notice.seq:
            self._by_number.pop(lane.batches.popleft().number, None)
        lane.cursor = max(lane.cursor, notice.seq)
        self._settle(lane, notice.seq)
        for number, gaps in list(self._gaps_under_way.items()):
            known = [each for each in gaps if (each.stream, each.epoch) == lane.track and each.last <= notice.seq]
            self._gaps_told(known)
            left = [each for each in gaps if each not in known]
            if left:
                self._gaps_under_way[number] = left
            else:
                del self._gaps_under_way[number]

    def wanted(self, stream: str, epoch: str, ranges: Iterable[tuple[int, int]]) -> None:
        """Note that the server misses some numbers. What is still here is sent; of the rest there is a gap record."""
        lane = self._lanes.get(Track(stream, epoch))
        if lane is None:
            return
        lane.wanted = []
        for first, end in ranges:
            last = min(end, lane.cursor)  # what comes after is on its way
            if first > last:
                continue
            at = first
            for gone_first, gone_last in self._spool.missing(lane.track, first, last):
                if at < gone_first:
                    lane.wanted.append((at, gone_first - 1))
                at = gone_last + 1
                gap = Gap(stream, epoch, gone_first, gone_last, DELETED)
                if gap not in self._deleted and len(self._deleted) < GAPS_MAX:
                    self._deleted.append(gap)
            if at <= last:
                lane.wanted.append((at, last))
