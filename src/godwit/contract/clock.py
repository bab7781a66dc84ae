"""What two sides know of each other's clock, from two-way exchanges of four timestamps. Pure: no clock is read here.

The four timestamps are those of NTP (RFC 5905, section 8): sent by the device, received and sent by the server,
received by the device. *Offset* is the device's clock minus the server's; *drift* is how fast it grows, in ppm.

One exchange says for certain: when the server received, the offset was at least `device_sent - server_received`,
since the message took some time; when the server sent, it was at most `device_received - server_sent`. How the delay
was shared between the two ways does not matter. `ClockFilter` keeps the few exchanges that say most, and asks which
straight lines pass above all the lower and below all the upper bounds (Moon, Skelly, Towsley: "Estimation and Removal
of Clock Skew from Network Delay Measurements", 1999; the intersection of intervals is Marzullo's, which NTP uses too).
The middle of what is left is the estimate, the rest its uncertainty: it holds whatever the delays were. Where no line
is left, the clock was stepped. Older bounds are loosened by PHI, since crystals wander (RFC 5905, 11.1).
"""

from array import array
from typing import Final, TypeAlias

import msgspec

from godwit.contract.times import CLOCK_NS_MAX, CLOCK_NS_MIN

NS: Final = 1_000_000_000
DRIFT_PPM_MAX: Final = 500.0
"""No clock is believed to run further off (RFC 5905, MAXFREQ). One that does is seen to step again and again."""
PHI_PPM: Final = 15.0
"""How far a clock's drift may wander from what it was (RFC 5905, PHI)."""
PRECISION_NS: Final = 1_000_000
"""What reading a clock may be wrong by: small devices count milliseconds (RFC 5905, 11.1: precision)."""
HELD_NS_MAX: Final = 4 * 3_600 * NS
"""An exchange that took longer says next to nothing."""
KEPT_MAX: Final = 12
KEPT_NS_MAX: Final = 24 * 3_600 * NS
STEP_NS_MIN: Final = 128_000_000
"""What is less is no step that anybody would count (RFC 5905, 11.3: STEPT); it is followed all the same."""
PAST_MAX: Final = 3
"""How many estimates of times before a step are kept, for readings of those times."""
SERVER_NS_MAX: Final = 2**62

_PPM: Final = 1_000.0
"""A ppm in ns/s."""
_WIDTH: Final = 4


class Exchange(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Four timestamps in ns: the outer two of the device's clock, the inner two of the server's."""

    device_sent: int
    server_received: int
    server_sent: int
    device_received: int

    @property
    def delay(self) -> int:
        """What both ways took together, ns (RFC 5905: delta)."""
        return (self.device_received - self.device_sent) - (self.server_sent - self.server_received)

    @property
    def offset(self) -> int:
        """The device's clock minus the server's, ns, if both ways took equally long (RFC 5905: -theta)."""
        return (self.device_sent - self.server_received + self.device_received - self.server_sent) // 2

    @property
    def is_plausible(self) -> bool:
        """Whether the four can come from two clocks that run forward, and say something."""
        held = self.server_sent - self.server_received
        slack = 2 * PRECISION_NS + _ppm_of(held, DRIFT_PPM_MAX)
        return (
            CLOCK_NS_MIN <= self.device_sent <= self.device_received < CLOCK_NS_MAX
            and 0 <= self.server_received <= self.server_sent < SERVER_NS_MAX
            and held <= HELD_NS_MAX
            and -slack <= self.delay <= HELD_NS_MAX
        )


class ClockEstimate(msgspec.Struct, frozen=True, array_like=True, rename="camel"):
    """Offset and drift of a clock, with what each may be wrong by. Times in ns of the server's clock, drift in ppm."""

    at: int
    """When it was so: the newest exchange."""
    offset: int
    uncertainty: int
    drift: float
    drift_uncertainty: float
    since: int = 0
    """Nothing is said of times before: the clock was stepped since. 0: it never was, as far as is known."""

    def offset_at(self, time: int) -> int:
        """Return the offset at a time of the server's clock."""
        return self.offset + _ppm_of(time - self.at, self.drift)

    def uncertainty_at(self, time: int) -> int:
        """Return what `offset_at` may be wrong by."""
        return self.uncertainty + _ppm_of(abs(time - self.at), self.drift_uncertainty + PHI_PPM)

    def to_server(self, time: int) -> int:
        """Return the server's time at which the device's clock said `time`."""
        passed = time - self.offset - self.at
        return self.at + passed - round(passed * (self.drift / (1e6 + self.drift)))

    def to_device(self, time: int) -> int:
        """Return what the device's clock says at a time of the server's."""
        return time + self.offset_at(time)


class Step(msgspec.Struct, frozen=True, array_like=True):
    """A clock was set: by so much (ns, forward is positive), seen at a time of the server's clock."""

    at: int
    size: int


Point: TypeAlias = tuple[float, float]
"""(offset in ns, drift in ns/s), relative to the newest exchange."""


class ClockFilter:
    """What is known of one clock, from exchanges in the order in which they were made.

    Bounded: twelve exchanges, close together where they are new, far apart where they are old. An outage of any length
    throws nothing away; the estimate's uncertainty grows with time by itself.
    """

    __slots__ = ("_history", "estimate", "exchanges", "past", "step", "steps")

    def __init__(self) -> None:
        self._history = array("q")
        """(server received, lowest offset then, server sent, highest offset then) of each exchange, oldest first."""
        self.estimate: ClockEstimate | None = None
        self.past: tuple[ClockEstimate, ...] = ()
        """What held before the clock was stepped, newest first; each until the `since` of the next newer one."""
        self.exchanges = 0
        self.steps = 0
        self.step: Step | None = None
        """The newest one."""

    def add(self, exchange: Exchange) -> bool:
        """Take up an exchange; False if it says nothing: impossible, or no newer than the last."""
        before = self.estimate
        if not exchange.is_plausible or (before is not None and exchange.server_sent <= before.at):
            return False
        self.exchanges += 1
        self._remember(exchange)
        estimate = _estimate(self._history, before.since if before else 0)
        if estimate is None:
            assert before is not None
            since = before.at if self._note_step(before, exchange) else before.since
            self._history = self._history[-_WIDTH:]
            estimate = _estimate(self._history, since)
            assert estimate is not None
        self.estimate = estimate
        return True

    def _remember(self, exchange: Exchange) -> None:
        slack = PRECISION_NS + _ppm_of(max(0, exchange.delay), DRIFT_PPM_MAX)
        history = self._history
        history.extend((
            exchange.server_received, exchange.device_sent - exchange.server_received - slack,
            exchange.server_sent, exchange.device_received - exchange.server_sent + slack,
        ))  # fmt: skip
        while len(history) > 2 * _WIDTH and exchange.server_sent - history[_WIDTH + 2] > KEPT_NS_MAX:
            del history[:_WIDTH]  # of two that are old the older; the last one before an outage stays
        if len(history) > KEPT_MAX * _WIDTH:
            self._thin(exchange.server_sent)

    def _thin(self, now: int) -> None:
        """Drop one of the two neighbours that are closest for their age: the one that says less."""
        history = self._history
        times = history[2::_WIDTH]
        ages = range(len(times) - 2)
        at = min(ages, key=lambda each: (times[each + 1] - times[each]) / (now - times[each]))
        widths = [history[row * _WIDTH + 3] - history[row * _WIDTH + 1] for row in (at, at + 1)]
        drop = at if widths[0] > widths[1] else at + 1
        del history[drop * _WIDTH : (drop + 1) * _WIDTH]

    def _note_step(self, before: ClockEstimate, exchange: Exchange) -> bool:
        """Note a step, and what held before; False where it is none to speak of."""
        size = exchange.offset - before.offset_at(exchange.server_sent)
        if abs(size) < STEP_NS_MIN:
            return False
        self.steps += 1
        self.step = Step(exchange.server_sent, size)
        self.past = (before, *self.past[: PAST_MAX - 1])
        return True

    def resolve(self, time: int, received: int) -> tuple[int, int]:
        """Return the server's time at which the clock said `time`, and what that may be wrong by.

        `received` is when the server got it. Where the clock was stepped, the newest estimate counts under which the
        time lies after the step and not after its arrival.
        """
        estimate = self.estimate
        assert estimate is not None
        chosen = estimate
        for each in (estimate, *self.past):
            found = each.to_server(time)
            if found >= each.since and found - each.uncertainty_at(found) <= received:
                chosen = each
                break
        found = chosen.to_server(time)
        return found, chosen.uncertainty_at(found)

    def dump(self) -> bytes:
        """Return the state as bytes."""
        return msgspec.msgpack.encode(
            _Dump(self._history.tobytes(), self.estimate, self.past, self.exchanges, self.steps, self.step)
        )

    @classmethod
    def restore(cls, data: bytes) -> "ClockFilter":
        """Return the filter that was dumped."""
        dump = msgspec.msgpack.decode(data, type=_Dump)
        restored = cls()
        restored._history.frombytes(dump.history)
        restored.estimate, restored.past = dump.estimate, dump.past
        restored.exchanges, restored.steps, restored.step = dump.exchanges, dump.steps, dump.step
        return restored


class _Dump(msgspec.Struct, array_like=True):
    history: bytes
    estimate: ClockEstimate | None
    past: tuple[ClockEstimate, ...]
    exchanges: int
    steps: int
    step: Step | None


def _ppm_of(span: int, ppm: float) -> int:
    return round(span * (ppm / 1e6))


def _estimate(history: "array[int]", since: int) -> ClockEstimate | None:
    """Return the middle of all lines that obey the bounds, None when there is none."""
    at, middle = history[-2], (history[-3] + history[-1]) // 2
    limit = DRIFT_PPM_MAX * _PPM
    reach = float(history[-1] - history[-3] + abs(at - history[-4]) + NS)
    lines: list[Point] = [(-reach, -limit), (reach, -limit), (reach, limit), (-reach, limit)]
    for row in range(len(history) - _WIDTH, -1, -_WIDTH):
        received, low, sent, high = history[row : row + _WIDTH]
        age = (at - received) / NS
        lines = _above(lines, -age, low - middle - age * PHI_PPM * _PPM, 1.0)
        age = (at - sent) / NS
        lines = _above(lines, -age, high - middle + age * PHI_PPM * _PPM, -1.0)
        if not lines:
            return None
    offsets, drifts = [each[0] for each in lines], [each[1] for each in lines]
    low_offset, high_offset, low_drift, high_drift = min(offsets), max(offsets), min(drifts), max(drifts)
    return ClockEstimate(
        at=at,
        offset=middle + round((low_offset + high_offset) / 2),
        uncertainty=round((high_offset - low_offset) / 2) + 1,
        drift=(low_drift + high_drift) / 2 / _PPM,
        drift_uncertainty=(high_drift - low_drift) / 2 / _PPM,
        since=since,
    )


def _above(lines: list[Point], x: float, bound: float, sign: float) -> list[Point]:
    """Cut a convex polygon to `sign * (offset + drift * x) >= sign * bound` (Sutherland, Hodgman)."""
    kept: list[Point] = []
    heights = [sign * (offset + drift * x - bound) for offset, drift in lines]
    for at, (line, height) in enumerate(zip(lines, heights, strict=True)):
        before, height_before = lines[at - 1], heights[at - 1]
        if (height >= 0) != (height_before >= 0):
            share = height_before / (height_before - height)
            kept.append((before[0] + share * (line[0] - before[0]), before[1] + share * (line[1] - before[1])))
        if height >= 0:
            kept.append(line)
    return kept
