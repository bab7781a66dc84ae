"""Is everything that a device was told is stored there, once, whatever moment the platform is killed at?

Devices send numbered samples, forget what is acknowledged and send the rest again; a device begins a new epoch now and
then. The platform is real but for its store, which is in memory and dies in the midst of a commit, just before it is
durable or just after. These stories have to fail when the acknowledgement leaves before the commit, when deduplication
is not part of it, and when the epoch is forgotten: tests/chaos/test_mutations.py sees to that.
"""

import asyncio
import random
from contextlib import suppress

import pytest
from tests.unit.ingest.conftest import Road, samples

from godwit.server.ingest.commit import GroupCommit

SAMPLES = 120


class Device:
    """Keeps what is not acknowledged. `life` is the run of the platform that it talks to."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self.name = name
        self._chance = chance
        self.epoch = 0
        self.measured = [0]
        """Samples of each epoch."""
        self._spool: list[tuple[int, int]] = []
        self._unsent: list[tuple[int, int]] = []

    @property
    def is_done(self) -> bool:
        return sum(self.measured) >= SAMPLES and not self._spool

    def value(self, epoch: int, number: int) -> float:
        return epoch * 1_000.0 + number

    def measure(self) -> None:
        if sum(self.measured) >= SAMPLES:
            return
        if self.measured[-1] and self._chance.random() < 0.03:
            self.measured.append(0)
        sample = (len(self.measured) - 1, self.measured[-1])
        self.measured[-1] += 1
        self._spool.append(sample)
        self._unsent.append(sample)

    def connect(self) -> None:
        """Send all again that is not acknowledged."""
        self._unsent = list(self._spool)

    def send(self, road: Road, group: GroupCommit) -> None:
        if not self._unsent:
            return
        epoch, first = self._unsent[0]
        most = self._chance.randrange(1, 6)
        run = [each for each in self._unsent[:most] if each[0] == epoch]
        del self._unsent[: len(run)]
        message = samples(first, len(run), epoch=f"e{epoch}", value=lambda n: self.value(epoch, n))
        arrival = road.send(message, device=self.name)
        arrival.source = Acknowledgement(self, run)
        group.join(arrival)

    def forget(self, run: list[tuple[int, int]]) -> None:
        self._spool = [each for each in self._spool if each not in run]


class Acknowledgement:
    def __init__(self, device: Device, run: list[tuple[int, int]]) -> None:
        self._device, self._run = device, run

    def settle(self, arrival) -> None:
        assert not arrival.code, arrival.detail
        self._device.forget(self._run)


async def live(road: Road, devices: list[Device], chance: random.Random) -> Road | None:
    """Run a platform until it is killed, or all is done; returns the one that starts next."""
    group = GroupCommit([road.ingest])
    road.ingest.attach(asyncio.get_running_loop(), group)
    dies_at, dies_when_durable = chance.randrange(1, 25), chance.random() < 0.5
    left: list[Road] = []

    def fault(commit, is_durable) -> None:
        nonlocal dies_at
        dies_at -= not is_durable
        if dies_at <= 0 and is_durable == dies_when_durable and not left:
            left.append(road.crash())

    road.store.fault = fault
    running = asyncio.create_task(group.run())
    for each in devices:
        each.connect()
    while not left and not all(each.is_done for each in devices):
        device = chance.choice(devices)
        device.measure()
        device.send(road, group)
        if chance.random() < 0.02:
            road.ingest._is_fold_wanted = True
        await asyncio.sleep(0 if chance.random() < 0.7 else 0.0005)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    group.shut()
    return left[0] if left else None


@pytest.mark.parametrize("seed", range(12))
def test_what_was_acknowledged_is_stored_once_whenever_the_platform_dies(seed):
    chance = random.Random(seed)
    devices = [Device(name, chance) for name in ("a", "b", "c")]
    road, next_road, lives = Road(), None, 0
    while (next_road := asyncio.run(live(road, devices, chance))) is not None:
        road, lives = next_road, lives + 1
    assert lives >= 1
    for each in devices:
        assert road.values(each.name) == {
            ("s", f"e{epoch}"): [(n, each.value(epoch, n)) for n in range(count)]
            for epoch, count in enumerate(each.measured)
        }
        ledger = road.ledger(each.name)
        assert (ledger.accepted, ledger.gaps, ledger.cloned) == (SAMPLES, 0, 0)
