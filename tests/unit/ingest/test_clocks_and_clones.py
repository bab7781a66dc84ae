"""Is a sample the same one after its clock was found out to be wrong? And late only if it is?"""

import pytest

from godwit.contract import codes

NS = 1_000_000_000
MS = NS // 1_000
T0 = 1_700_000_000 * NS


class Device:
    """Speaks with a clock that is `offset` ahead, or counts from a boot that was `-offset` after 1970."""

    def __init__(self, road, offset, boot=None):
        self.road, self.offset, self.boot = road, offset, boot
        self.peer = road.peer()

    def now(self):
        return self.road.now + self.offset

    def send(self, seq, times, *, commit=True, **more):
        document = {
            "stream": "s", "epoch": "e", "seq": seq, "sentAt": self.now(),
            "samples": [{"timestamp": each, "readings": {"v": float(seq + at)}} for at, each in enumerate(times)],
        }  # fmt: skip
        if self.boot is not None:
            document |= {"clock": "uptime", "bootId": self.boot}
        arrival = self.road.send(document | more, peer=self.peer)
        if commit:
            self.road.commit()
            self.road.later(1)
        return arrival

    def compare(self, seq):
        """Let an exchange happen, by two samples."""
        self.send(seq, [self.now()], sync=[])
        said = [each for topic, each in self.road.told if topic.endswith("/stored")][-1]
        sync = [said["deviceSent"], said["serverReceived"], said["serverSent"], said["serverSent"] + self.offset]
        self.send(seq + 1, [self.now()], sync=sync)


@pytest.mark.parametrize(("offset", "boot"), [(-3_600 * NS, None), (-T0 + 1_000 * NS, "b1")])
def test_what_comes_again_after_its_clock_was_compared_is_the_same(road, offset, boot):
    device = Device(road, offset, boot)
    times = [device.now() - 3 * NS, device.now() - 2 * NS, device.now() - NS]
    device.send(0, times)
    device.compare(3)

    def repeat(again):
        device.road = again
        device.send(0, times)
        device.send(2, [times[2]])
        assert (again.ledger().cloned, again.ledger().gaps) == (0, 0)
        assert again.ledger().accepted == 5

    repeat(road)
    for again in road.restarts():
        repeat(again)
    device.send(0, [*times[:2], times[2] + 1])
    assert device.road.ledger().cloned, "the same numbers with other times are another's"


def test_what_is_corrected_twice_differently_is_the_same(road):
    device = Device(road, -3_600 * NS)
    device.compare(0)
    times = [device.now()]
    device.send(2, times)
    road.later(600)
    device.offset += 20 * MS
    device.compare(3)
    device.send(2, times)
    times = [device.now() - NS // 2]
    device.send(5, times, commit=False)
    device.send(5, times)
    assert road.ledger().cloned == 0
    assert road.ledger().duplicate == 2


def test_a_clock_that_was_days_ahead_makes_nothing_late_once_it_is_corrected(road):
    device = Device(road, 2 * 86_400 * NS)
    assert device.send(0, [device.now()]).code == codes.TIME_IN_FUTURE
    device.compare(1)
    device.send(3, [device.now()])
    for again in road.restarts():
        device.road = again
        assert device.send(again.track().high, [device.now()]).code == ""
        assert again.ledger().late == 0
