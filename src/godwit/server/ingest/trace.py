"""Following one device live: its packets, and what each station of the road made of its messages.

A tap for people who look for a fault. While nobody follows anybody, the road pays a look at `devices`, which is empty.
A follower that does not keep up loses the oldest of its own events (counted), never anybody's data. Followers come and
go on any thread; events are made on the broker loop.
"""

import threading
from collections import deque
from collections.abc import Callable
from time import time_ns
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from godwit.server.ingest.arrival import Arrival, Settles

EVENTS_MAX: Final = 1_000
PAYLOAD_BYTES: Final = 1_024
"""How much of a payload an event shows."""


class Traced(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Something that happened to a device's packet or message. `at` is ns UTC."""

    kind: str
    """`packet`, `station`, `committed`, `connection`."""
    at: int
    device_id: str
    client_id: str = ""
    direction: str = ""
    """Of a packet: `in` or `out`."""
    name: str = ""
    """The packet's type, or the station's name."""
    message: int = 0
    """Numbers the messages of a device, so that stations of one message can be told from those of the next."""
    topic: str = ""
    qos: int | None = None
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    size: int | None = None
    """Payload bytes."""
    payload: str = ""
    """The beginning of it, readable."""
    outcome: str = ""
    """`passed`, or the code of the refusal; of a commit `stored`, `duplicate` or `quarantined`."""
    detail: str = ""
    reason_code: int | None = None
    samples: int | None = None
    rows: int | None = None
    """Readings that were laid into the store."""
    duplicates: int | None = None
    micros: float | None = None
    """What the station took; of a commit the time since the message came."""
    commit: int | None = None


class Follower:
    """A bounded queue of one follower's events. `wake` is called (from any thread) when there are some."""

    def __init__(self, trace: "Trace", device_id: str, wake: Callable[[], None]) -> None:
        self._trace = trace
        self._events: deque[Traced] = deque(maxlen=EVENTS_MAX)
        self.device_id = device_id
        self.wake = wake
        self.lost = 0

    def put(self, event: Traced) -> None:
        """Add an event; the oldest leaves when there are too many."""
        self.lost += len(self._events) == EVENTS_MAX
        self._events.append(event)
        self.wake()

    def take(self) -> list[Traced]:
        """Return and forget what has happened."""
        return [self._events.popleft() for _ in range(len(self._events))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._trace.leave(self)


class Trace:
    """Who follows whom."""

    def __init__(self) -> None:
        self.devices: frozenset[str] = frozenset()
        """The devices that somebody follows."""
        self._lock = threading.Lock()
        self._followers: tuple[Follower, ...] = ()
        self._messages = 0

    def follow(self, device_id: str, wake: Callable[[], None]) -> Follower:
        """Begin to follow a device, known or not; leave with `with`."""
        follower = Follower(self, device_id, wake)
        with self._lock:
            self._set((*self._followers, follower))
        return follower

    def leave(self, follower: Follower) -> None:
        """Follow no longer."""
        with self._lock:
            self._set(tuple(each for each in self._followers if each is not follower))

    def _set(self, followers: tuple[Follower, ...]) -> None:
        self._followers = followers
        self.devices = frozenset(each.device_id for each in followers)

    def tell(self, event: Traced) -> None:
        """Hand an event to those who follow its device."""
        for each in self._followers:
            if each.device_id == event.device_id:
                each.put(event)

    def begin(self, arrival: Arrival, commit_number: Callable[[], int]) -> "TracedMessage":
        """Begin to trace a message that comes down the road. `commit_number` tells, once it is durable, by which."""
        self._messages += 1
        return TracedMessage(self, arrival, self._messages, commit_number)


class TracedMessage:
    """One message on its way. It stands before its source, to see it settled."""

    def __init__(self, trace: Trace, arrival: Arrival, number: int, commit_number: Callable[[], int]) -> None:
        assert arrival.topic is not None
        self._trace, self._number = trace, number
        self._device_id = arrival.topic.device_id
        self._source: Settles = arrival.source
        self.rows = 0
        self._commit_number = commit_number
        publish = arrival.publish
        self._tell(
            "station", arrival.received, name="receive", client_id=arrival.peer.client_id, topic=publish.topic,
            qos=publish.qos, retain=publish.retain, dup=publish.dup, size=len(publish.payload), outcome="passed",
            payload=readable(publish.payload), detail=f"by the listener {arrival.peer.listener}",
        )  # fmt: skip

    def _tell(self, kind: str, at: int, **what: Any) -> None:
        self._trace.tell(Traced(kind, at, self._device_id, message=self._number, **what))

    def station(self, name: str, nanoseconds: int, outcome: str = "passed", detail: str = "", **what: Any) -> None:
        """Tell what a station said."""
        self._tell("station", time_ns(), name=name, outcome=outcome, detail=detail, micros=nanoseconds / 1e3, **what)

    def settle(self, arrival: Arrival) -> None:
        """Tell that it is durable, and let its source go on."""
        now = time_ns()
        outcome = "quarantined" if arrival.code else "stored"
        if not arrival.code and not arrival.accepted and arrival.duplicate:
            outcome = "duplicate"
        self._tell(
            "committed", now, outcome=outcome, detail=f"{arrival.code}: {arrival.detail}" if arrival.code else "",
            samples=arrival.accepted, rows=self.rows, duplicates=arrival.duplicate, commit=self._commit_number(),
            micros=(now - arrival.received) / 1e3,
        )  # fmt: skip
        self._source.settle(arrival)


def readable(payload: bytes) -> str:
    """Return the beginning of a payload as text, of a binary one in hex."""
    cut = payload[:PAYLOAD_BYTES]
    try:
        text = cut.decode("utf-8", "strict" if len(payload) <= PAYLOAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return f"0x{cut[: PAYLOAD_BYTES // 4].hex()}"
    if any(ord(each) < 32 and each not in "\t\r\n" for each in text):
        return f"0x{cut[: PAYLOAD_BYTES // 4].hex()}"
    return text
