"""Does a sample stay in the spool until the server has it, whatever the server says, and does it leave in its order?"""

import zlib

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from godwit.contract import events, telemetry
from godwit.contract.stored import StoredUpTo
from godwit.contract.topics import Channel
from godwit.device.streams import STREAM_EVENTS, STREAM_MAIN, Stream
from godwit.device.telemetry import encode_event, encode_readings
from godwit.device.uplink import ANSWER_S, SAMPLES_MAX, TRY_AGAIN, WINDOW, Message, Uplink
from godwit.mqtt import reasons
from godwit.spool import Bounds, Spool, Track

T = 1_790_000_000_000_000_000
REFUSALS = [
    value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, int) and value >= 0x80
]


class Rig:
    def __init__(self, *streams: Stream, bounds: Bounds | None = None, **more) -> None:
        self.spool = Spool.open(None, bounds=bounds, random=lambda: "e1")
        self.uplink = Uplink(self.spool, [STREAM_MAIN, STREAM_EVENTS, *streams], **more)
        self.now = 100.0

    def open(self, *, is_promised: bool = True, **more) -> None:
        self.uplink.open(self.now, is_promised=is_promised, **more)

    def measure(self, count: int = 1, stream: str = "main") -> None:
        for _ in range(count):
            seq = self.spool.highest(stream) + 1
            item = encode_event(f"e{seq}", time=T) if stream == "events" else encode_readings({"n": seq})
            self.spool.append(stream, T + seq, item)
        self.uplink.added(stream, self.now)

    def send(self) -> list[Message]:
        found = []
        while (message := self.uplink.next(self.now)) is not None:
            found.append(message)
        return found

    def answer(self, message: Message, code: int = 0, text: str | None = None) -> None:
        self.uplink.delivered(message.number, code, text, self.now)

    def depth(self) -> int:
        return self.spool.depth.items


def numbers(*messages: Message) -> list[int]:
    found = []
    for message in messages:
        said = telemetry.decode(message.payload)
        assert [each.values["n"] for each in said.samples] == list(range(said.seq, said.seq + len(said.samples)))
        found += range(said.seq, said.seq + len(said.samples))
    return found


def test_a_sample_leaves_the_spool_when_it_is_acknowledged() -> None:
    rig = Rig()
    rig.measure(3)
    assert rig.send() == []
    rig.open()
    (message,) = rig.send()
    assert numbers(message) == [0, 1, 2]
    assert rig.depth() == 3
    rig.answer(message)
    assert rig.depth() == 0
    assert rig.send() == []
    assert rig.uplink.next_timer() is None


def test_a_backlog_goes_in_batches_a_window_at_a_time() -> None:
    rig = Rig()
    rig.measure(6_500)
    rig.open()
    sent = rig.send()
    assert len(sent) == WINDOW
    assert numbers(*sent) == list(range(WINDOW * SAMPLES_MAX))
    rig.answer(sent[0])
    assert rig.depth() == 5_500
    more = rig.send()
    assert numbers(*more) == list(range(WINDOW * SAMPLES_MAX, (WINDOW + 1) * SAMPLES_MAX))
    for each in (*sent[1:], *more):
        rig.answer(each)
    rest = rig.send()
    assert numbers(*rest)[-1] == 6_499
    for each in rest:
        rig.answer(each)
    assert rig.depth() == 0


def test_an_event_overtakes_a_backlog_and_has_an_id() -> None:
    rig = Rig()
    rig.measure(10_000)
    rig.open()
    rig.send()
    rig.measure(1, "events")
    (event,) = rig.send()
    assert event.channel is Channel.EVENTS
    assert events.decode(event.payload).event_id == "e1-0"
    rig.answer(event)
    assert rig.spool.depth_of("events").items == 0


def test_a_backlog_is_a_third_of_its_json() -> None:
    rig = Rig()
    for seq in range(1_000):
        values = {
            "temperature": 20 + seq % 50 / 10,
            "humidity": 60.5,
            "pressure": 1013.2,
            "battery": 87.0,
            "power": seq,
        }
        rig.spool.append("main", T + seq * 10**9, encode_readings(values))
    rig.uplink.added("main", rig.now)
    rig.open()
    message, *_ = rig.send()
    assert message.payload[:1] == b"\x78"
    assert len(zlib.decompress(message.payload)) > 3 * len(message.payload)


def test_at_qos_0_only_what_the_server_says_is_stored_leaves() -> None:
    rig = Rig(Stream("fast", qos=0))
    rig.measure(10, "fast")
    rig.open()
    (message,) = rig.send()
    assert message.qos == 0
    rig.uplink.stored(StoredUpTo("fast", "e1", 6))
    assert rig.depth() == 3
    assert rig.send() == []
    rig.now += ANSWER_S
    (again,) = rig.send()
    assert numbers(again) == [7, 8, 9]
    rig.uplink.stored(StoredUpTo("fast", "e1", 9))
    assert rig.depth() == 0


def test_a_broker_that_promises_nothing_is_not_believed() -> None:
    rig = Rig()
    rig.measure(5)
    rig.open(is_promised=False)
    (message,) = rig.send()
    rig.answer(message)
    assert rig.depth() == 5
    rig.uplink.stored(StoredUpTo("main", "e1", 4))
    assert rig.depth() == 0


def test_what_another_broker_took_is_sent_again_when_ours_is_back() -> None:
    rig = Rig()
    rig.measure(5)
    rig.open(is_promised=False)
    rig.answer(rig.send()[0])
    rig.uplink.close()
    rig.open(is_promised=True)
    (again,) = rig.send()
    rig.answer(again)
    assert rig.depth() == 0


@pytest.mark.parametrize("code", REFUSALS)
def test_every_refusal_ends_well(code: int) -> None:
    rig = Rig()
    rig.measure(3)
    rig.open()
    (message,) = rig.send()
    rig.answer(message, code, "some reason")
    if code in TRY_AGAIN:
        assert rig.depth() == 3
        assert rig.send() == []
        rig.now = rig.uplink.next_timer()
    elif code != reasons.PACKET_TOO_LARGE:
        assert rig.depth() == 0, "the server has it in quarantine"
        assert rig.uplink.refused
        return
    rig.measure(1)
    while sent := rig.send():
        for each in sent:
            rig.answer(each)
    assert rig.depth() == 0


@pytest.mark.parametrize("code", [each for each in REFUSALS if each != reasons.PACKET_TOO_LARGE])
def test_a_foreign_broker_that_refuses_has_nothing(code: int) -> None:
    rig = Rig()
    rig.measure(3)
    rig.open(is_promised=False)
    rig.answer(rig.send()[0], code)
    assert rig.depth() == 3
    assert rig.send() == []
    rig.now = rig.uplink.next_timer()
    assert numbers(*rig.send()) == [0, 1, 2]


def test_what_is_too_large_is_cut_smaller_and_at_last_given_up() -> None:
    rig = Rig()
    rig.measure(8)
    rig.open()
    sizes = []
    for _ in range(60):
        for message in rig.send():
            if message.stream:
                sizes.append(len(numbers(message)))
                rig.answer(message, reasons.PACKET_TOO_LARGE if 3 in numbers(message) else 0)
            else:
                (gap,) = cbor2.loads(message.payload)["gaps"]
                assert (gap["first"], gap["last"], gap["reason"]) == (3, 3, "refused")
                rig.answer(message)
    assert sizes[0] == 8
    assert 1 in sizes
    assert rig.depth() == 0
    assert rig.spool.gaps() == []


def test_evictions_are_told_once() -> None:
    rig = Rig(bounds=Bounds(bytes_max=4_000))
    rig.measure(500)
    lost = 500 - rig.depth()
    assert lost > 300
    rig.open()
    first, *_ = sent = rig.send()
    (gap,) = telemetry.decode(first.payload).gaps
    assert (gap.stream, gap.epoch, gap.first, gap.last) == ("main", "e1", 0, lost - 1)
    for each in sent:
        rig.answer(each)
    assert rig.send() == []
    assert rig.spool.gaps() == []


def test_a_server_that_knows_less_gets_what_is_here_and_hears_what_is_not() -> None:
    rig = Rig()
    rig.measure(10)
    rig.open()
    rig.answer(rig.send()[0])  # stored, and deleted here
    rig.measure(10)
    rig.send()
    rig.uplink.wanted("main", "e1", [(5, 14)])  # restored from a backup, it had 0 to 4
    gaps, again = rig.send()
    (gap,) = telemetry.decode(gaps.payload).gaps
    assert (gap.first, gap.last, gap.reason) == (5, 9, "deleted")
    assert numbers(again) == [10, 11, 12, 13, 14]
    rig.answer(gaps)
    rig.answer(again)
    assert rig.send() == []
    assert rig.spool.missing("main", 10, 19) == [(10, 14)]


def test_nonsense_from_the_server_deletes_nothing() -> None:
    rig = Rig()
    rig.measure(5)
    rig.open()
    rig.send()
    for notice in (
        StoredUpTo("main", "another", 4), StoredUpTo("none", "e1", 4), StoredUpTo("main", "e1", 5),
        StoredUpTo("main", "e1", -1), StoredUpTo("main", "e1", 2**70),
    ):  # fmt: skip
        rig.uplink.stored(notice)
    rig.uplink.wanted("none", "e1", [(0, 4)])
    rig.uplink.wanted("main", "e1", [(3, 1), (90, 99)])
    rig.answer(Message(999, "main", Channel.TELEMETRY, b"", 1))
    assert rig.depth() == 5


def test_samples_wait_for_company_when_they_may() -> None:
    rig = Rig(Stream("slow", linger_s=10))
    rig.open()
    assert rig.send() == []
    rig.measure(1, "slow")
    assert rig.send() == []
    assert rig.uplink.next_timer() == rig.now + 10
    rig.now += 5
    rig.measure(1, "slow")
    rig.now += 5
    (message,) = rig.send()
    assert numbers(message) == [0, 1]


@given(st.data())
def test_nothing_is_lost_whatever_the_order_of_events(data: st.DataObject) -> None:
    """Everything leaves the spool only when the model server has it, and at the end it has everything."""
    rig = Rig(Stream("fast", qos=0))
    has: dict[str, set[int]] = {"main": set(), "fast": set()}
    under_way: list[Message] = []
    is_open = False
    steps = ("measure", "measure", "send", "answer", "refuse", "lose", "stored", "wait", "cut")
    for step in data.draw(st.lists(st.sampled_from(steps), max_size=60)):
        if step == "measure":
            rig.measure(data.draw(st.integers(1, 5)), data.draw(st.sampled_from(["main", "fast"])))
        elif step == "send":
            if not is_open:
                rig.open()
                is_open = True
            under_way += rig.send()
        elif step == "answer" and under_way:
            message = under_way.pop(0)
            has[message.stream].update(numbers(message))
            if message.qos:
                rig.answer(message)
        elif step == "refuse" and under_way and under_way[0].qos:
            rig.answer(under_way.pop(0), reasons.SERVER_BUSY)
        elif step == "lose" and under_way and not under_way[0].qos:
            under_way.pop(0)
        elif step == "stored":
            low = next(n for n in range(10_000) if n not in has["fast"])
            rig.uplink.stored(StoredUpTo("fast", "e1", low - 1))
        elif step == "wait":
            rig.now += data.draw(st.sampled_from([0.5, 5, 50, 700]))
        elif step == "cut" and is_open:
            rig.uplink.close()
            is_open = False
            under_way = [each for each in under_way if each.qos]  # the MQTT session says those again
        for stream, stored in has.items():
            here = {n for first, last in here_of(rig, stream) for n in range(first, last + 1)}
            assert here | stored >= set(range(rig.spool.highest(stream) + 1))
    for _ in range(50):
        rig.now += 700
        if not is_open:
            rig.open()
            is_open = True
        for message in (*under_way, *rig.send()):
            has[message.stream].update(numbers(message))
            if message.qos:
                rig.answer(message)
        under_way = []
        low = next(n for n in range(10_000) if n not in has["fast"])
        rig.uplink.stored(StoredUpTo("fast", "e1", low - 1))
    assert rig.depth() == 0


def here_of(rig: Rig, stream: str) -> list[tuple[int, int]]:
    end = rig.spool.highest(stream)
    found, at = [], 0
    for first, last in [*rig.spool.missing(stream, 0, end), (end + 1, end + 1)]:
        if at < first:
            found.append((at, first - 1))
        at = last + 1
    return found


def test_a_clone_is_left_the_epoch() -> None:
    names = iter(["e1", "e2", "e3"])
    rig = Rig()
    rig.spool = Spool.open(None, random=lambda: next(names))
    rig.uplink = Uplink(rig.spool, [STREAM_MAIN, STREAM_EVENTS])
    rig.measure(2)
    rig.open()
    assert rig.uplink.begin_epoch("e1")
    assert not rig.uplink.begin_epoch("e1")
    assert rig.spool.append("main", T, encode_readings({"n": 0})) == 0
    rig.uplink.added("main", rig.now)
    old, new = (telemetry.decode(each.payload) for each in rig.send())
    assert (old.epoch, old.seq, len(old.samples)) == ("e1", 0, 2)
    assert (new.epoch, new.seq, len(new.samples)) == ("e2", 0, 1)


def test_what_an_earlier_program_left_goes_too() -> None:
    rig = Rig(Stream("gone"))
    rig.measure(3, "gone")
    uplink = Uplink(rig.spool, [STREAM_MAIN, STREAM_EVENTS])
    uplink.open(rig.now, is_promised=True)
    assert numbers(uplink.next(rig.now)) == [0, 1, 2]


def test_an_earlier_epoch_goes_first_under_its_own_name() -> None:
    rig = Rig()
    assert list(rig.uplink.unsettled()) == []
    rig.measure(2)
    assert rig.uplink.unsettled() == {Track("main", "e1"): 1}
