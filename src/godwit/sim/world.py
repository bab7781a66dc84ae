"""A world from one seed: devices, the network between, a platform; and what befalls them.

Everything is real but time, network and disks: the device SDK with its spool, the broker with its sessions and journal,
the ingest pipeline with its group commit, and the store in memory with the semantics of a crash. After the story the
world is healed, everybody comes to rest, and the books are compared: the store holds exactly what the applications had
handed over, once and in order per stream, or a gap record says what the bound of a spool evicted.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from godwit.contract.errors import UnavailableError
from godwit.contract.ids import parse_device_id
from godwit.contract.topics import topics_for
from godwit.device.client import Device
from godwit.device.streams import Stream
from godwit.mqtt.server_connection import Limits
from godwit.server.broker.authentication import PasswordAuthenticator
from godwit.server.broker.broker import Broker
from godwit.server.broker.journal import Journal
from godwit.server.broker.listener import Server
from godwit.server.broker.rights import LOCAL
from godwit.server.ingest.account import LOST, clones_of, gaps_of
from godwit.server.ingest.commit import GroupCommit
from godwit.server.ingest.directory import Directory
from godwit.server.ingest.door import Gap
from godwit.server.ingest.service import Ingest
from godwit.server.registry.model import Device as Registered
from godwit.server.telemetry.live import LiveFeed
from godwit.server.telemetry.memory import MemoryStore
from godwit.server.telemetry.model import Commit
from godwit.sim.network import Network
from godwit.sim.virtual import LoopClock, VirtualLoop, run
from godwit.spool import Bounds, Durability, Spool

STREAMS: Final = (Stream("main"), Stream("urgent", priority=0), Stream("frequent", priority=7, qos=0))
QUIET_S_MAX: Final = 4 * 3_600.0
TICK_S: Final = 1.0
SYNC_EVERY_MS: Final = 10**9
"""No thread gets a turn: killed processes lose nothing by it, and power is not cut in this world."""


class Happening(msgspec.Struct, frozen=True):
    """One thing that befalls the world. `who` is a device's id, or empty: the platform."""

    at_s: float
    kind: str
    who: str = ""
    for_s: float = 0.0


class Story(msgspec.Struct, frozen=True):
    """Everything that a run depends on."""

    seed: int
    devices: int
    samples: int
    lasts_s: float
    spool_bytes: int
    happenings: tuple[Happening, ...]


class Unheard:
    """Presence that nobody asks for."""

    def seen(self, device_id: str, now: int) -> None:
        """Pass over."""

    def status(self, device_id: str, document: dict[str, Any], now: int) -> None:
        """Pass over."""


class Platform:
    """The server's process: started, killed, and started again over what was durable."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.store = MemoryStore()
        self._journal_path = world.directory / "broker.sqlite"
        self.faults = 0
        self.starts = 0
        self._faulty_until = 0.0

    def start(self) -> None:
        """Start over what is durable."""
        self.starts += 1
        loop, clock = self._world.loop, LoopClock(self._world.loop)
        self.store.fault = self._fault
        topics, directory = topics_for("native"), Directory()
        self.ingest = Ingest(self.store, directory, topics, Unheard(), LiveFeed(), clock=clock)
        self.ingest.recover()
        for device in self._world.names:
            directory.learn(Registered(parse_device_id(device)))
        self._journal = Journal(self._journal_path)
        self._group = GroupCommit([self.ingest, self._journal])
        self.ingest.attach(loop, self._group)
        self.broker = Broker(
            topics, self.ingest, self._group, self._journal, PasswordAuthenticator(),
            limits=Limits(user_properties=(("godwit-ack", "stored"),)), now=clock.now_ns(),
        )  # fmt: skip
        self.ingest.stored.send = lambda topic, payload: self._tell(topic, payload, clock.now_ns())
        self._server = Server(self.broker, now_ns=clock.now_ns)
        self._tasks = [loop.create_task(self._group.run()), loop.create_task(self._tick())]
        self._world.network.server = lambda: self._server.accept(LOCAL)

    def _tell(self, topic: str, payload: bytes, now: int) -> bool:
        self.broker.announce(topic, payload, now, qos=1, retain=False)
        return True

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.ingest.tick()

    def _fault(self, _commit: Commit, is_durable: bool) -> None:  # noqa: FBT001 - the store's call
        """Fail a write, before or after it is durable, while the disk is bad."""
        if self._world.loop.time() < self._faulty_until and self._world.random.random() < 0.5:
            self.faults += 1
            raise UnavailableError(f"the disk failed {'after' if is_durable else 'before'} the commit")

    def fail_writes(self, seconds: float) -> None:
        """Have the disk fail for a while."""
        self._faulty_until = self._world.loop.time() + seconds

    def heal(self) -> None:
        """Have the disk work again."""
        self._faulty_until = 0.0

    def kill(self) -> None:
        """End as `kill -9` does: nothing more is written, and nobody is told."""
        self._world.network.server = None
        self._world.network.drop_all()
        self._server.halt()
        for task in self._tasks:
            task.cancel()
        self.store = self.store.crash()
        self._journal.abandon()

    def lost(self, device: str, stream: str, epoch: str) -> set[int]:
        """Return the numbers that the platform knows will never come."""
        entry = self.ingest.directory.entries[device]
        return {
            number
            for each in gaps_of(entry)
            if (each.stream, each.epoch) == (stream, epoch) and each.state == LOST
            for number in range(each.first, each.last + 1)
        }

    def open_gaps(self) -> list[Gap]:
        """Return what the platform still waits for."""
        entries = self.ingest.directory.entries.values()
        return [each for entry in entries for each in gaps_of(entry) if each.state != LOST]

    def clones(self) -> int:
        """Return how many clones the platform believes to have seen."""
        return sum(len(clones_of(entry)) for entry in self.ingest.directory.entries.values())

    def rows(self) -> Iterator[tuple[str, str, str, int, float]]:
        """Yield (device, stream, epoch, number, value) of every point of the store."""
        directory = self.ingest.directory
        points = self.store.range(list(range(len(directory.series))), 0, 2**62)
        for series, track, seq, value in zip(points.series, points.track, points.seq, points.value, strict=True):
            found = directory.tracks[int(track)]
            device = directory.series[int(series)][0].device_id
            stream, epoch = (found[1].stream, found[1].epoch) if found is not None else ("", "")
            yield device, stream, epoch, int(seq), float(value)


class Application:
    """What runs on a device: it measures, and hands over what it measured. It may be killed at any moment."""

    def __init__(self, world: "World", name: str) -> None:
        self._world = world
        self.name = name
        self.sent: dict[tuple[str, str], dict[int, float]] = {}
        """(stream, epoch) -> number -> value of all that `send` returned for."""
        self.promised = 0
        """How many samples were waited for until they were stored."""
        self.refused = 0
        self.kills = 0
        self._value = 0.0
        self._left = world.story.samples
        self.device: Device | None = None
        self._task: asyncio.Task[None] | None = None
        self.is_done = False

    def start(self) -> None:
        """Switch the device on."""
        if self._task is None:
            self._task = self._world.loop.create_task(self._live())

    async def _live(self) -> None:
        world, story = self._world, self._world.story
        clock = LoopClock(world.loop, offset_s=world.random.uniform(-2, 2))
        self._spool = Spool.open(
            world.directory / f"{self.name}.spool", durability=Durability.NORMAL, sync_every_ms=SYNC_EVERY_MS,
            bounds=Bounds(bytes_max=story.spool_bytes), clock=clock, random=lambda: f"{world.random.getrandbits(64):x}",
        )  # fmt: skip
        async with Device(
            self.name, self.name, spool=self._spool, streams=STREAMS, health_every_s=600.0, clock=clock,
            chance=world.random.random,
        ) as self.device:  # fmt: skip
            while self._left:
                self._left -= 1
                await asyncio.sleep(world.random.expovariate(story.samples / story.lasts_s))
                await self._measure(self.device)
            self.is_done = True
            await asyncio.Event().wait()

    async def _measure(self, device: Device) -> None:
        stream = self._world.random.choice(("main", "main", "main", "urgent", "frequent"))
        self._value += 1
        value = self._value
        try:
            place = await device.send(value=value, stream=stream)
        except UnavailableError:
            self.refused += 1
            return
        self.sent.setdefault((stream, place.epoch), {})[place.seq] = value

    def kill(self) -> None:
        """Switch it off at once."""
        if self._task is None or self.device is None:
            return
        self.kills += 1
        for wire in self._world.network.of(self.name):
            wire.lose(ConnectionResetError("the process is gone"))
        self._spool.abandon()
        self._task.cancel()
        self._task = self.device = None


class World:
    """See the module."""

    def __init__(self, story: Story, directory: Path) -> None:
        self.story = story
        self.directory = directory
        self.random = Random(story.seed)
        self.loop = VirtualLoop(Random(story.seed + 1))
        self.network = Network(self.loop, Random(story.seed + 2))
        self.loop.network = self.network
        self.names = [f"device-{number}" for number in range(story.devices)]
        self.platform = Platform(self)
        self.applications = {name: Application(self, name) for name in self.names}

    def run(self) -> "Books":
        """Live through the story; returns the books. Raises AssertionError when they do not agree."""
        return run(self.loop, self._run())

    async def _run(self) -> "Books":
        self.platform.start()
        for application in self.applications.values():
            application.start()
        for happening in sorted(self.story.happenings, key=lambda each: each.at_s):
            await asyncio.sleep(max(0.0, happening.at_s - self.loop.time()))
            self._befall(happening)
        await asyncio.sleep(max(0.0, self.story.lasts_s - self.loop.time()))
        self._heal()
        return await self._settle()

    def _befall(self, happening: Happening) -> None:
        later, name = self.loop.call_later, happening.who
        if happening.kind == "kill-platform":
            if self.network.server is not None:
                self.platform.kill()
                later(happening.for_s, self._restart)
        elif happening.kind == "bad-disk":
            self.platform.fail_writes(happening.for_s)
        elif happening.kind == "kill-device":
            self.applications[name].kill()
            later(happening.for_s, self.applications[name].start)
        elif happening.kind == "cut":
            self.network.cut(name)
        elif happening.kind == "partition":
            self.network.leave(name)
            later(happening.for_s, self.network.come_back, name)
        elif happening.kind == "stall":
            self.network.stall(name, happening.for_s)
        else:
            raise ValueError(happening.kind)

    def _restart(self) -> None:
        if self.network.server is None:
            self.platform.start()

    def _heal(self) -> None:
        self.platform.heal()
        self.network.heal()
        self._restart()
        for application in self.applications.values():
            application.start()

    async def _settle(self) -> "Books":
        """Wait until nothing is left to be sent."""
        until = self.loop.time() + QUIET_S_MAX
        while self.loop.time() < until:
            await asyncio.sleep(10)
            if all(each.is_done and each.device and not each.device.depth.items for each in self.applications.values()):
                await asyncio.sleep(60)
                return self._compare()
        left = {
            each.name: (each.is_done, each.device and (each.device.depth.items, each.device.trouble))
            for each in self.applications.values()
        }
        raise AssertionError(f"not at rest after {QUIET_S_MAX:.0f} s: {left}")

    def _compare(self) -> "Books":
        """Compare what was handed over with what is stored."""
        found: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
        for device, stream, epoch, seq, value in self.platform.rows():
            found.setdefault((device, stream, epoch), []).append((seq, value))
        books = Books()
        for application in self.applications.values():
            books.refused += application.refused
            books.kills += application.kills
            for (stream, epoch), sent in application.sent.items():
                rows = found.pop((application.name, stream, epoch), [])
                counts = Counter(seq for seq, _ in rows)
                doubled = sorted(seq for seq, count in counts.items() if count > 1)
                assert not doubled, f"{application.name} {stream}: stored twice: {doubled[:10]}"
                lost = self.platform.lost(application.name, stream, epoch)
                missing = sorted(seq for seq in sent if seq not in counts and seq not in lost)
                assert not missing, f"{application.name} {stream}: lost {len(missing)}: {missing[:10]}"
                wrong = [seq for seq, value in rows if seq in sent and sent[seq] != value]
                assert not wrong, f"{application.name} {stream}: other values under {wrong[:10]}"
                ordered = [value for _, value in sorted(rows)]
                assert ordered == sorted(ordered), f"{application.name} {stream}: not in order"
                books.sent += len(sent)
                books.stored += len(rows)
                books.given_up += len(set(sent) & lost)
        assert not self.platform.clones(), "the platform takes a device for its own clone"
        assert not self.platform.open_gaps(), f"gaps that nobody answered: {self.platform.open_gaps()[:3]}"
        books.commits, books.starts = self.platform.ingest._number, self.platform.starts  # noqa: SLF001
        books.cuts, books.faults = self.network.cuts, self.platform.faults
        books.seconds = self.loop.time()
        return books


class Books(msgspec.Struct):
    """What a run came to."""

    sent: int = 0
    stored: int = 0
    given_up: int = 0
    refused: int = 0
    kills: int = 0
    starts: int = 0
    cuts: int = 0
    faults: int = 0
    commits: int = 0
    seconds: float = 0.0


def invent(seed: int) -> Story:
    """Return the story of a seed."""
    random = Random(f"story {seed}")
    devices, lasts_s = random.randint(1, 4), random.choice((60.0, 600.0, 7_200.0))
    names = [f"device-{number}" for number in range(devices)]
    happenings = [_happen(random, names, lasts_s) for _ in range(random.randint(0, 14))]
    return Story(
        seed, devices, random.choice((20, 60, 200)), lasts_s, random.choice((1 << 20, 1 << 20, 20_000)),
        tuple(happenings),
    )  # fmt: skip


def _happen(random: Random, names: Sequence[str], lasts_s: float) -> Happening:
    kind = random.choice(
        ("cut", "cut", "cut", "partition", "stall", "kill-device", "kill-device", "kill-platform", "bad-disk")
    )
    who = "" if kind in ("kill-platform", "bad-disk") else random.choice(names)
    longest = min(lasts_s, random.choice((1.0, 20.0, 300.0)))
    return Happening(round(random.uniform(0, lasts_s), 3), kind, who, round(random.uniform(0.01, longest), 3))


def shrink(story: Story, fails: "Fails") -> Story:
    """Return the shortest story that still fails: happenings are left out, then devices and samples made fewer."""
    changed = True
    while changed:
        changed = False
        for shorter in _shorter(story):
            if fails(shorter):
                story, changed = shorter, True
                break
    return story


class Fails:
    """Whether a story goes wrong; each in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tries = 0

    def __call__(self, story: Story) -> str:
        """Return what is wrong, empty: nothing."""
        self._tries += 1
        directory = self._directory / f"try-{self._tries}"
        directory.mkdir(parents=True)
        logging.disable(logging.CRITICAL)
        try:
            World(story, directory).run()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is what we look for
            return f"{type(error).__name__}: {error}"
        finally:
            logging.disable(logging.NOTSET)
            with contextlib.suppress(OSError):
                for path in sorted(directory.rglob("*"), reverse=True):
                    path.unlink()
                directory.rmdir()
        return ""


def _shorter(story: Story) -> Iterator[Story]:
    """Yield stories that are a little shorter, the boldest first."""
    count = len(story.happenings)
    size = count
    while size > 0:
        for start in range(0, count, size):
            kept = story.happenings[:start] + story.happenings[start + size :]
            yield msgspec.structs.replace(story, happenings=kept)
        size //= 2
    if story.devices > 1:
        last = f"device-{story.devices - 1}"
        kept = tuple(each for each in story.happenings if each.who != last)
        yield msgspec.structs.replace(story, devices=story.devices - 1, happenings=kept)
    if story.samples > 1:
        yield msgspec.structs.replace(story, samples=story.samples // 2)
