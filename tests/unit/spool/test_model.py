"""Against a spool that is a dictionary, whatever is done in whatever order: the same items, numbers and gaps."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from spools import everything, names

from godwit.contract.errors import RejectedError
from godwit.spool import Bounds, Durability, Spool, Track
from godwit.spool.model import ITEM_BYTES

STREAMS = {"event": 0, "a": 1, "b": 1}
STREAM = st.sampled_from(list(STREAMS))
BOUND = 40 * ITEM_BYTES


class AgainstADictionary(RuleBasedStateMachine):
    """What was appended is settled, refused, evicted, or there."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.given: dict[Track, list[tuple[int, bytes]]] = {}
        self.here: dict[Track, set[int]] = {}
        self.settled: dict[Track, set[int]] = {}
        self.told: dict[Track, set[int]] = {}
        self.names: Callable[[], str] = names()
        self.boots, self.clock = 1, 0

    @initialize(durability=st.sampled_from([Durability.NORMAL, Durability.MEMORY]))
    def begin(self, durability: Durability) -> None:
        self.durability = durability
        self.open()

    def open(self) -> None:
        self.spool = Spool.open(
            self.directory / "spool", durability=self.durability, bounds=Bounds(bytes_max=BOUND), random=self.names,
            boot=f"boot-{self.boots}", sync_every_ms=60_000,
        )  # fmt: skip
        for stream, priority in STREAMS.items():
            self.spool.declare(stream, priority)

    def teardown(self) -> None:
        self.spool.close()
        shutil.rmtree(self.directory)

    def track(self, stream: str) -> Track:
        return Track(stream, self.spool.epoch)

    def took(self, stream: str, seq: int, payload: bytes) -> None:
        given = self.given.setdefault(self.track(stream), [])
        assert seq == len(given)
        given.append((self.clock, payload))
        self.here.setdefault(self.track(stream), set()).add(seq)

    @rule(stream=STREAM, payload=st.binary(max_size=2 * ITEM_BYTES))
    def append(self, stream: str, payload: bytes) -> None:
        self.clock += 1
        self.took(stream, self.spool.append(stream, self.clock, payload), payload)

    @rule(stream=STREAM, payloads=st.lists(st.binary(max_size=9), max_size=50))
    def append_many(self, stream: str, payloads: list[bytes]) -> None:
        self.clock += 1
        before = self.spool.depth
        try:
            numbers = self.spool.append_many(stream, [(self.clock, payload) for payload in payloads])
        except RejectedError:
            assert self.spool.depth == before
        else:
            for seq, payload in zip(numbers, payloads, strict=True):
                self.took(stream, seq, payload)

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        track = data.draw(st.sampled_from(sorted(self.here)))
        up_to = data.draw(st.integers(-1, len(self.given[track])))
        gone = {seq for seq in self.here[track] if seq <= up_to}
        assert self.spool.settle(track, up_to) == len(gone)
        self.settled.setdefault(track, set()).update(gone)
        self.here[track] -= gone

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def settle_some(self, data: st.DataObject) -> None:
        track = data.draw(st.sampled_from(sorted(self.here)))
        seqs = data.draw(st.sets(st.integers(0, len(self.given[track]))))
        gone = self.here[track] & seqs
        assert self.spool.settle_some(track, seqs) == len(gone)
        self.settled.setdefault(track, set()).update(gone)
        self.here[track] -= gone

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        track = data.draw(st.sampled_from(sorted(self.here)))
        first = data.draw(st.integers(0, len(self.given[track])))
        last = first + data.draw(st.integers(0, 5))
        self.spool.refuse(track, first, last)
        self.here[track] -= set(range(first, last + 1))

    @rule(which=st.integers(0, 9))
    def tell(self, which: int) -> None:
        for gap in self.spool.gaps()[which : which + 1]:
            self.told.setdefault(Track(gap.stream, gap.epoch), set()).update(range(gap.first, gap.last + 1))
            self.spool.gap_told(gap)

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def ask_for_missing(self, data: st.DataObject) -> None:
        track = data.draw(st.sampled_from(sorted(self.here)))
        self.check_here()
        gone = self.spool.missing(track, 0, len(self.given[track]) + 3)
        numbers = {seq for first, last in gone for seq in range(first, last + 1)}
        assert numbers == set(range(len(self.given[track]) + 4)) - self.here[track]

    @precondition(lambda self: self.durability is Durability.NORMAL)
    @rule()
    def restart(self) -> None:
        before = (self.spool.depth, self.spool.epoch, self.spool.gaps())
        self.spool.close()
        self.open()
        assert (self.spool.depth, self.spool.epoch, self.spool.gaps()) == before

    @precondition(lambda self: self.durability is Durability.NORMAL)
    @rule(is_power_cut=st.booleans())
    def die(self, is_power_cut: bool) -> None:
        """Die without closing; what was written is all there: the cut came late."""
        epoch = self.spool.epoch
        aside = self.directory / "copy"
        for suffix in ("", "-wal"):
            shutil.copy(self.directory / f"spool{suffix}", f"{aside}{suffix}")
        self.spool.close()
        for suffix in ("", "-wal"):
            shutil.move(f"{aside}{suffix}", self.directory / f"spool{suffix}")
        self.boots += is_power_cut
        self.open()
        assert (self.spool.epoch != epoch) == is_power_cut

    @invariant()
    def check(self) -> None:
        if hasattr(self, "spool"):
            self.check_here()
            self.check_gaps()

    def check_here(self) -> None:
        """What is gone without having been settled was evicted: from the front, and within the bound."""
        items = size = 0
        for track, given in self.given.items():
            found = everything(self.spool, track)
            for item in found:
                assert (item.time, item.payload, item.epoch) == (*given[item.seq], track.epoch)
            numbers = {item.seq for item in found}
            evicted = self.here[track] - numbers
            assert numbers <= self.here[track]
            assert not evicted or max(evicted) < min(numbers, default=len(given))
            self.here[track] = numbers
            items += len(found)
            size += sum(len(item.payload) + ITEM_BYTES for item in found)
        assert self.spool.depth[:2] == (items, size)
        assert size <= BOUND
        self.spool.rewind()
        assert set(self.spool.next_streams()) == {track for track, here in self.here.items() if here}

    def check_gaps(self) -> None:
        """Every number given is here, settled, or in a gap that is there or was told; and only once."""
        gaps: dict[Track, set[int]] = {}
        for gap in self.spool.gaps():
            numbers = set(range(gap.first, gap.last + 1))
            known = gaps.setdefault(Track(gap.stream, gap.epoch), set())
            assert not known & numbers
            known |= numbers
        for track, given in self.given.items():
            lost = gaps.get(track, set()) | self.told.get(track, set())
            assert lost == set(range(len(given))) - self.here[track] - self.settled.get(track, set())


TestAgainstADictionary = AgainstADictionary.TestCase
TestAgainstADictionary.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
