"""The clock of a device: what a sample is stamped with, and what is known of the server's time. Pure.

The caller reads the clocks: *uptime* is ns since boot, suspension included (CLOCK_BOOTTIME); *wall* is the time of day,
ns UTC, None where there is none. A wall clock is believed from the day on which this software was made until 2100.
While it is not, samples are stamped with uptime and the boot's id, and go out so: the server, which is told of every
exchange, gives them their time. Here uptime is compared with the server too, since it never steps: to know the time of
day, and how far the wall clock is off. What was learnt of a boot is kept (`keep`) over the next one.

A stamp is one number: ns UTC, or above 2^62 (no time before 2116) the boot's number and its uptime in microseconds.
"""

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Final, NamedTuple

import msgspec

from godwit.contract.clock import DRIFT_PPM_MAX, NS, ClockEstimate, ClockFilter, Exchange
from godwit.contract.stored import StoredUpTo
from godwit.contract.times import EARLIEST_NS, LATEST_NS

BUILT_NS: Final = 1_767_225_600 * NS
"""2026-01-01. No clock that is right can say less: this was not written then."""
UNCERTAIN_NS: Final = NS
"""What would be further off is not said to be the time."""
SET_NS_MIN: Final = 20_000_000
"""A wall clock that leaps by less was not set: two clocks cannot be read at once."""
SENT_MAX: Final = 256
BOOTS_MAX: Final = 16
SYNC_EVERY_NS: Final = 64 * NS
EAGER: Final = 4
"""So many exchanges are taken as they come, then one a second."""

_UPTIME: Final = 2**62
_NUMBER_SHIFT: Final = 50
_NUMBERS: Final = 2**12
_US: Final = 1_000


def is_believable(wall: int | None, built: int = BUILT_NS) -> bool:
    """Whether a time of day can be true, of what was built then."""
    return wall is not None and built <= wall < LATEST_NS


class Boot(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a boot, to be kept over the next one. `lasted` is the last uptime that was noted, ns."""

    number: int
    boot_id: str
    lasted: int
    estimate: ClockEstimate | None = None
    compared: tuple[int, int] | None = None
    """Uptime at which the wall clock was compared last, as the server was told, and wall clock minus uptime then."""


class Placed(NamedTuple):
    """A stamp as UTC, or (with `boot_id`) as ns since that boot."""

    boot_id: str
    time: int


class Run(NamedTuple):
    """The first of some stamps, as they go out in one message: ns UTC, or (with `boot_id`) ns since that boot."""

    boot_id: str
    times: list[int]


class Head(msgspec.Struct, rename="camel", omit_defaults=True):
    """Fields of a telemetry message that concern the clock."""

    sent_at: int | None = None
    clock: str | None = None
    boot_id: str | None = None
    sync: list[int] | None = None


class _Sent(msgspec.Struct, frozen=True, gc=False):
    uptime: int
    wall: int | None


class DeviceClock:
    """Stamps samples, answers the server's timestamps, and translates.

    `boot_id` tells boots apart (Linux: /proc/sys/kernel/random/boot_id); where a platform has none, an uptime that is
    less than what was kept of the same id begins a new boot.
    """

    def __init__(self, boot_id: str, uptime: int, kept: Iterable[Boot] = (), *, built: int = BUILT_NS) -> None:
        self._built = built
        self._earlier = {each.number: each for each in kept}
        name = self._name(boot_id, uptime)
        self._before = next((each for each in self._earlier.values() if each.boot_id == name), None)
        if self._before is not None:
            del self._earlier[self._before.number]
            self._number = self._before.number
        else:
            self._number = max(self._earlier, default=-1) + 1
        self.boot_id = name
        self._uptime = uptime
        self._ahead: int | None = None
        """Wall clock minus uptime, when the wall clock was believed last."""
        self._compared = self._before.compared if self._before is not None else None
        self._filter = ClockFilter()
        self._sent: dict[int, _Sent] = {}
        self._exchanges = self._asks = self._echoes = 0
        self._taken = self._asked = self._echoed = uptime - NS
        """When that happened last, by uptime."""
        self._answer: tuple[list[int], tuple[int, int] | None] | None = None
        """An exchange that the server was not told of yet; uptime and (wall clock minus uptime) at its end."""

    def _name(self, boot_id: str, uptime: int) -> str:
        """Return the boot's id, or one made from it where another boot had that already."""
        lasted = {each.boot_id: each.lasted for each in self._earlier.values()}
        name, number = boot_id or "boot", 1
        while lasted.get(name, 0) > uptime:
            number += 1
            name = f"{boot_id or 'boot'}-{number}"
        return name

    # --- stamping --------------------------------------------------------------------------------------------------

    def is_believable(self, wall: int | None) -> bool:
        """Whether a time of day can be true."""
        return is_believable(wall, self._built)

    def _note(self, uptime: int, wall: int | None) -> int | None:
        """Note a reading of both clocks; returns the wall clock's where it is believed."""
        self._uptime = max(self._uptime, uptime)
        if wall is None or not self.is_believable(wall):
            return None
        self._ahead = wall - uptime
        return wall

    def stamp(self, uptime: int, wall: int | None) -> int:
        """Return what a sample that is taken now is stamped with."""
        believed = self._note(uptime, wall)
        if believed is not None:
            return believed
        return _UPTIME | (self._number % _NUMBERS) << _NUMBER_SHIFT | uptime // _US

    # --- sending ---------------------------------------------------------------------------------------------------

    @property
    def estimate(self) -> ClockEstimate | None:
        """The uptime of this boot, against the server's time; None before the first exchange."""
        kept = self._before.estimate if self._before is not None else None
        return self._filter.estimate or kept

    def run(self, stamps: Sequence[int]) -> Run:
        """Return as many of the first `stamps` as may go out in one message: it names one clock for all its times.

        Nothing is translated: a sample that is sent twice has to say the same twice, and what we know may have changed.
        """
        if stamps[0] < _UPTIME:
            return Run("", list(takewhile(lambda each: each < _UPTIME, stamps)))
        boot = stamps[0] >> _NUMBER_SHIFT
        uptimes = [_unpacked(each)[1] for each in takewhile(lambda each: each >> _NUMBER_SHIFT == boot, stamps)]
        return Run(self._boot_of(boot)[0], uptimes)

    def _boot_of(self, number: int) -> tuple[str, ClockEstimate | None]:
        """Return (id, estimate) of a boot by the last bits of its number."""
        number %= _NUMBERS
        if number == self._number % _NUMBERS:
            return self.boot_id, self.estimate
        boot = next((each for each in self._earlier.values() if each.number % _NUMBERS == number), None)
        return (boot.boot_id, boot.estimate) if boot is not None else (f"boot-{number}", None)

    def place(self, stamp: int) -> Placed:
        """Return a stamp as UTC where that is known well enough, else with its boot's id. Not for samples."""
        if stamp < _UPTIME:
            return Placed("", stamp)
        number, uptime = _unpacked(stamp)
        boot_id, estimate = self._boot_of(number)
        time = _by(estimate, uptime) if estimate is not None else None
        if estimate is None and boot_id == self.boot_id and self._ahead is not None:
            time = uptime + self._ahead
        return Placed(boot_id, uptime) if time is None else Placed("", time)

    def head(self, boot_id: str, uptime: int, wall: int | None) -> Head:
        """Return the fields of a message that is sent now and whose samples were placed in `boot_id`."""
        believed = self._note(uptime, wall)
        head = Head()
        if boot_id:
            head.clock, head.boot_id, head.sent_at = "uptime", boot_id, self._ran(boot_id, uptime)
        else:
            head.sent_at = believed
            head.clock = "set" if believed is not None and not self._is_steady(self._compared, uptime) else None
        if boot_id in ("", self.boot_id) and head.sent_at is not None:
            self._sent[head.sent_at] = _Sent(uptime, believed if not boot_id else None)
            while len(self._sent) > SENT_MAX:
                del self._sent[next(iter(self._sent))]
            head.sync = self._sync(uptime, is_wanted=head.clock == "set")
            if head.sync and self._compared is not None and believed is not None:
                head.clock = None  # it is compared herewith
        return head

    def _is_steady(self, then: tuple[int, int] | None, uptime: int) -> bool:
        """Whether nobody has set the wall clock since; `then`: an uptime, and wall clock minus uptime at it."""
        if then is None or self._ahead is None:
            return False
        return abs(self._ahead - then[1]) <= SET_NS_MIN + round(max(0, uptime - then[0]) * (DRIFT_PPM_MAX / 1e6))

    def _ran(self, boot_id: str, uptime: int) -> int | None:
        """Return how long ago a boot began: exactly of this one, at least of an earlier one."""
        if boot_id == self.boot_id:
            return uptime
        first = next((each.number for each in self._earlier.values() if each.boot_id == boot_id), None)
        if first is None:
            return None
        return uptime + sum(each.lasted for each in self._earlier.values() if each.number >= first)

    def _sync(self, uptime: int, *, is_wanted: bool) -> list[int] | None:
        """Return the last exchange for the server, or the wish for one, where it is time for that."""
        answer = self._answer
        if answer is not None and answer[1] is not None and not self._is_steady(answer[1], uptime):
            answer = self._answer = None  # it was about a clock that has been set since
        if answer is not None and _is_due(0 if is_wanted else self._echoes, self._echoed, uptime):
            self._answer = None
            self._echoed, self._echoes = uptime, self._echoes + 1
            self._compared = answer[1]
            return answer[0]
        compared = max(self._asked, self._taken)
        if answer is None and _is_due(0 if is_wanted else max(self._asks, self._exchanges), compared, uptime):
            self._asked, self._asks = uptime, self._asks + 1
            return []
        return None

    # --- hearing ---------------------------------------------------------------------------------------------------

    def told(self, notice: StoredUpTo, uptime: int, wall: int | None) -> Exchange | None:
        """Take up the timestamps of a `telemetry/stored`; returns the exchange if it was one, and taught something.

        It has to answer a message of this boot that was sent by this very clock (RFC 5905, 8: the origin timestamp).
        """
        sent = self._sent.pop(notice.device_sent, None) if notice.device_sent is not None else None
        if sent is None or notice.device_sent is None:
            return None
        believed = self._note(uptime, wall)
        passed = uptime - sent.uptime
        if self._exchanges >= EAGER and uptime - self._taken < NS:
            return None
        if not self._filter.add(Exchange(sent.uptime, notice.server_received, notice.server_sent, uptime)):
            return None
        self._exchanges += 1
        self._taken = uptime
        exchange = Exchange(notice.device_sent, notice.server_received, notice.server_sent, notice.device_sent + passed)
        if sent.wall is None:
            self._answer = list(msgspec.structs.astuple(exchange)), None
        elif believed is not None and self._is_steady((sent.uptime, sent.wall - sent.uptime), uptime):
            self._answer = list(msgspec.structs.astuple(exchange)), (uptime, believed - uptime)
        return exchange

    # --- looks -----------------------------------------------------------------------------------------------------

    def now(self, uptime: int) -> int | None:
        """Return the server's time, None before the first exchange."""
        return self.estimate.to_server(uptime) if self.estimate is not None else None

    def offset(self, uptime: int, wall: int | None) -> int | None:
        """Return wall clock minus server's time, ns; None where either is not known. For the device's health."""
        now = self.now(uptime)
        return None if now is None or wall is None else wall - now

    def age(self, stamp: int, uptime: int, wall: int | None) -> int:
        """Return how long ago something was stamped, ns; of an earlier boot: at least so long."""
        if stamp < _UPTIME:
            now = wall if wall is not None and self.is_believable(wall) else self.now(uptime)
            return 0 if now is None else now - stamp
        number, then = _unpacked(stamp)
        if number == self._number % _NUMBERS:
            return uptime - then
        later = [each for each in self._earlier.values() if each.number % _NUMBERS >= number]
        return uptime + sum(each.lasted for each in later) - then

    def keep(self) -> list[Boot]:
        """Return what is to be kept over the next boot, oldest first: after an exchange, and now and then."""
        this = Boot(self._number, self.boot_id, self._uptime, self.estimate, self._compared)
        boots = [*self._earlier.values(), this]
        return boots[-BOOTS_MAX:]


def _unpacked(stamp: int) -> tuple[int, int]:
    """Return (number of the boot, its uptime in ns) of a stamp that is no UTC."""
    return stamp >> _NUMBER_SHIFT & _NUMBERS - 1, stamp % (1 << _NUMBER_SHIFT) * _US


def _by(estimate: ClockEstimate, uptime: int) -> int | None:
    """Return an uptime as UTC, None where that would be too far off, or no time at all."""
    time = estimate.to_server(uptime)
    is_good = EARLIEST_NS <= time < LATEST_NS and estimate.uncertainty_at(time) <= UNCERTAIN_NS
    return time if is_good else None


def _is_due(done: int, last: int, uptime: int) -> bool:
    """Whether it is time to do something again: after 1, 2, 4 ... s, then every SYNC_EVERY_NS."""
    return uptime - last >= min(NS << min(done, 30), SYNC_EVERY_NS)
