"""Device clocks as the server knows them, and what is done about those that are wrong. Pure: `received` is now.

Knowledge comes from two-way exchanges only: four timestamps of which the inner two are this server's own answer, which
it recognises because it remembers the last few. An answer counts once; one that was made up, or is of before a restart,
is passed over. What a device may claim is its own clock's, so all that it can spoil are the times of its own readings.

A time is corrected where the offset passes a threshold and its own uncertainty, else it is left alone. Readings of a
device that counts from boot have to be given a time: by exchanges where there were any, else by when they arrived, and
then they are `uncertain`. What was taken from a time is kept beside it, so that the device's own is never lost.
"""

from collections.abc import Iterable
from typing import Final, TypeAlias

import msgspec

from godwit.contract import codes
from godwit.contract.clock import NS, SERVER_NS_MAX, ClockEstimate, ClockFilter, Exchange
from godwit.contract.samples import Sample, Telemetry, Timing
from godwit.contract.stored import StoredUpTo
from godwit.contract.times import EARLIEST_NS, LATEST_NS
from godwit.server.ingest.clock_report import ClockReport
from godwit.server.telemetry.model import UNCERTAIN

THRESHOLD_NS: Final = NS
QUANTUM_NS: Final = 1_000_000
"""Corrections are rounded to this: neighbours share one, which costs nothing in the store."""
OFFERS_MAX: Final = 4
CLOCKS_MAX: Final = 5
"""UTC, and the last boots of a device that counts from boot."""
UTC: Final = ""

Lesson: TypeAlias = tuple[str, tuple[int, ...]]
"""(clock, what was learnt of it): an exchange, or how late a boot can have begun."""


class DeviceClocks:
    """The clocks of one device: UTC as it has it, and its boots, the one last heard of at the end."""

    __slots__ = ("begins", "filters", "is_correcting")

    def __init__(self) -> None:
        self.filters: dict[str, ClockFilter] = {}
        self.begins: dict[str, int] = {}
        """Clock of a boot -> the latest server time at which it can have begun."""
        self.is_correcting = False

    def learn(self, clock: str, told: tuple[int, ...]) -> bool:
        """Take up an exchange, or how late a boot can have begun; False if that says nothing new."""
        if len(told) == 1:
            return self._learn_begin(clock, told[0])
        known = self.filters.pop(clock, None) or ClockFilter()
        is_new = known.add(Exchange(*told))
        if known.estimate is not None:
            self.filters[clock] = known
        while len(self.filters) > CLOCKS_MAX:
            del self.filters[next(each for each in self.filters if each != UTC)]
        return is_new

    def _learn_begin(self, clock: str, begin: int) -> bool:
        known = self.begins.pop(clock, None)
        self.begins[clock] = begin if known is None else min(known, begin)
        while len(self.begins) > CLOCKS_MAX:
            del self.begins[next(iter(self.begins))]
        return known is None or begin < known

    def dump(self) -> bytes:
        """Return the state as bytes."""
        filters = [(clock, known.dump()) for clock, known in self.filters.items()]
        return msgspec.msgpack.encode((filters, self.begins, self.is_correcting))

    @classmethod
    def restore(cls, data: bytes) -> "DeviceClocks":
        """Return the clocks that were dumped."""
        filters, begins, is_correcting = msgspec.msgpack.decode(
            data, type=tuple[list[tuple[str, bytes]], dict[str, int], bool]
        )
        restored = cls()
        restored.filters = {clock: ClockFilter.restore(each) for clock, each in filters}
        restored.begins, restored.is_correcting = begins, is_correcting
        return restored

    def is_off(self, estimate: ClockEstimate, now: int, threshold_ns: int) -> bool:
        """Whether UTC as the device has it is to be corrected; once it was, down to half of the threshold."""
        limit = threshold_ns // 2 if self.is_correcting else threshold_ns
        return abs(estimate.offset_at(now)) > max(limit, estimate.uncertainty_at(now))

    def report(self, device_id: str, now: int, threshold_ns: int = THRESHOLD_NS) -> ClockReport | None:
        """Return what is known of the clock that was compared last."""
        known = [(each.estimate.at, clock, each) for clock, each in list(self.filters.items()) if each.estimate]
        if not known:
            return None
        measured, clock, newest = max(known, key=lambda each: each[0])
        estimate, step = newest.estimate, newest.step
        assert estimate is not None
        return ClockReport(
            device_id=device_id,
            clock="utc" if clock == UTC else "uptime",
            boot_id=clock[1:],
            measured=measured,
            offset_ns=estimate.offset_at(now) if clock == UTC else None,
            uncertainty_ns=estimate.uncertainty_at(now),
            drift_ppm=estimate.drift,
            drift_uncertainty_ppm=estimate.drift_uncertainty,
            exchanges=newest.exchanges,
            steps=newest.steps,
            stepped=step.at if step else 0,
            step_ns=step.size if step else 0,
            is_corrected=clock == UTC and self.is_off(estimate, now, threshold_ns),
        )


def clock_of(timing: Timing | None) -> str:
    """Return the name under which the clock of a message is known: UTC, or one of the device's boots."""
    return "@" + timing.boot_id if timing is not None and timing.is_uptime else UTC


class ClockDrift:
    """Judges the times of messages by what is known of their devices' clocks."""

    def __init__(self, threshold_ns: int = THRESHOLD_NS) -> None:
        self._threshold_ns = threshold_ns
        self._offers: dict[str, list[tuple[str, int, int, int]]] = {}
        """Device -> (clock, device sent, server received, server sent) of the last answers to it."""

    def offered(self, device_id: str, clock: str, notice: StoredUpTo) -> None:
        """Remember an answer that went to a device."""
        if notice.device_sent is not None:
            offers = self._offers.setdefault(device_id, [])
            offers.append((clock, notice.device_sent, notice.server_received, notice.server_sent))
            del offers[:-OFFERS_MAX]

    def report(self, device_id: str, clocks: DeviceClocks, now: int) -> ClockReport | None:
        """Return what is known of a device's clock."""
        return clocks.report(device_id, now, self._threshold_ns)

    def forget(self, device_id: str) -> None:
        """Forget what went to an erased device."""
        self._offers.pop(device_id, None)

    def judge(self, device_id: str, clocks: DeviceClocks, message: Telemetry, received: int) -> list[Lesson]:
        """Learn from a message, and put its times right; returns what was learnt, to be made durable."""
        learnt: list[Lesson] = []
        timing = message.timing
        if timing is not None and timing.sync:
            answered = self._own_answer(device_id, timing.sync)
            if answered is not None and clocks.learn(answered, timing.sync):
                learnt.append((answered, timing.sync))
        if timing is None or not timing.is_uptime:
            self._correct(clocks, message, received)
            return learnt
        clock = clock_of(timing)
        known = clocks.filters.get(clock)
        if known is not None:
            self._resolve(known, message.samples, received)
            return learnt
        begin = received - _ran(message)
        if timing.boot_id:
            if clocks.learn(clock, (begin,)):
                learnt.append((clock, (begin,)))
            begin = clocks.begins[clock]
        for each in message.samples:
            if each.time is not None and not each.code:
                _place(each, each.time + begin)
                _doubt(each)
        return learnt

    def _own_answer(self, device_id: str, sync: tuple[int, ...]) -> str | None:
        """Return the clock that an answer of ours was about, None where it is not one of the last; it counts once."""
        offers = self._offers.get(device_id, [])
        for at, (clock, *told) in enumerate(offers):
            if tuple(told) == sync[:3]:
                del offers[: at + 1]
                return clock
        return None

    def _correct(self, clocks: DeviceClocks, message: Telemetry, received: int) -> None:
        """Correct UTC as the device has it, where it is further off than the threshold and than we may be.

        Where the clock was set since it was compared, what we know of it ends with the newest exchange.
        """
        known = clocks.filters.get(UTC)
        if known is None or known.estimate is None:
            return
        now = known.estimate
        clocks.is_correcting = clocks.is_off(now, received, self._threshold_ns)
        limit = self._threshold_ns // 2 if clocks.is_correcting else self._threshold_ns
        until = now.at if _is_set(message, known, received) else SERVER_NS_MAX
        for each in message.samples:
            if each.time is None or (each.code and not each.is_clock_wrong):
                continue
            time, uncertainty = known.resolve(each.time, received)
            if time <= until and abs(each.time - time) > max(limit, uncertainty):
                _place(each, time)
                if uncertainty > self._threshold_ns:
                    _doubt(each)

    def _resolve(self, known: ClockFilter, samples: Iterable[Sample], received: int) -> None:
        """Give a time to readings of a boot that was compared with our clock."""
        for each in samples:
            if each.time is not None and not each.code:
                time, uncertainty = known.resolve(each.time, received)
                _place(each, time)
                if uncertainty > self._threshold_ns:
                    _doubt(each)


def _is_set(message: Telemetry, known: ClockFilter, received: int) -> bool:
    """Whether a clock was set since it was compared: the device says so, or would have sent after we received."""
    if message.timing is not None and message.timing.is_set:
        return True
    if message.sent_at is None:
        return False
    sent, uncertainty = known.resolve(message.sent_at, received)
    return sent - uncertainty > received


def _ran(message: Telemetry) -> int:
    """Return how long a boot had been running, at least, when a message was sent."""
    newest = max((each.time for each in message.samples if each.time is not None), default=0)
    return max(newest, message.sent_at or 0)


def _place(sample: Sample, time: int) -> None:
    """Give a sample about this time; what was impossible before may be possible then, or the other way round."""
    assert sample.time is not None
    if not EARLIEST_NS <= time < LATEST_NS:
        sample.code, sample.detail = codes.TIME_IMPLAUSIBLE, f"{sample.time} ns by a clock that would make it {time}"
        return
    if sample.is_clock_wrong:
        sample.code = sample.detail = ""
    sample.offset = (sample.time - time + QUANTUM_NS // 2) // QUANTUM_NS * QUANTUM_NS
    sample.time -= sample.offset


def _doubt(sample: Sample) -> None:
    """Mark the readings of a sample as uncertain, but for those that are worse."""
    said = sample.qualities or {}
    sample.qualities = {name: max(UNCERTAIN, said.get(name, 0)) for name in sample.values}
