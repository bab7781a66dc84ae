"""Bridges: messages from here to another broker and back, by rules, durable on both sides.

A bridge is a client of both brokers, with a session that outlives connections and processes: the embedded broker's
journal keeps what waits for a remote broker that is away, the remote broker what waits for us. A message is
acknowledged where it came from after it was acknowledged where it went, so it crosses at least once, and in order.

Loops: neither side sends us our own messages (No Local), and what crossed carries the bridge's name in a user property,
so that it is known when it comes round by other bridges, and crosses no second time.
"""

import asyncio
import logging
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import structs

from godwit.mqtt import packets as p
from godwit.mqtt.client_session import Delivered
from godwit.mqtt.reasons import ReasonError, reason_name
from godwit.runtime.files import write_whole
from godwit.runtime.supervise import OnFailure, supervise
from godwit.server.broker.listener import Server as MqttServer
from godwit.server.broker.rights import INSIDE
from godwit.server.foreign.bridge_file import Bridge, Rule
from godwit.server.foreign.link import Link
from godwit.server.foreign.terms import Terms

log = logging.getLogger(__name__)

VIA: Final = "godwit-via"
WINDOW: Final = 100
"""Messages in hand in each direction; the others wait on the disk of the broker that they come from."""
_REFUSED: Final = 0x80


class Lane:
    """One direction: takes messages of one link, hands them to the other, acknowledges when that has acknowledged."""

    def __init__(self, bridge: str, rules: Sequence[Rule], name: str) -> None:
        self.crossed = 0
        self.refused = 0
        """Messages that the other side refused for good: they are acknowledged, so that others can pass."""
        self._bridge, self._rules, self._via = bridge, rules, (VIA, f"{name}/{bridge}")
        self._in_hand: dict[int, p.Publish] = {}
        self._late: list[p.Publish] = []
        """Acknowledged by the other side while the source was away."""

    def join(self, source: Link, target: Link) -> None:
        """Bind to both ends."""
        self._source, self._target = source, target
        target.on_delivered = self._delivered
        source.on_up = self._acknowledge_late

    @property
    def is_full(self) -> bool:
        """Whether no more is to be read for now."""
        return len(self._in_hand) >= WINDOW

    def subscriptions(self) -> list[p.Subscription]:
        """Return what to subscribe to where messages come from."""
        return [
            p.Subscription(each.source, each.qos, no_local=True, retain_as_published=True, retain_handling=1)
            for each in self._rules
        ]

    def take(self, publish: p.Publish) -> None:
        """Take a message of the source; whatever is not for the other side is acknowledged at once."""
        onward = self._onward(publish)
        if onward is None:
            self._acknowledge(publish)
            return
        try:
            packet_id = self._target.session.publish(onward)
        except ReasonError as refusal:
            self._refuse(publish, str(refusal))
            return
        if packet_id:
            self._in_hand[packet_id] = publish
        elif self._target.client is not None:
            self.crossed += 1
        if self._target.client is not None:
            self._target.client.flush_soon()

    def _onward(self, publish: p.Publish) -> p.Publish | None:
        said = publish.properties
        if self._via in said.user_properties:
            return None  # it crossed before
        for rule in self._rules:
            topic = rule.rewrite(publish.topic)
            if topic is not None:
                via = (*said.user_properties, self._via)
                properties = structs.replace(said, subscription_ids=(), user_properties=via)
                return p.Publish(topic, publish.payload, publish.qos, publish.retain, properties=properties)
        return None  # of a subscription that an earlier file had

    def _delivered(self, answer: Delivered) -> None:
        publish = self._in_hand.pop(answer.packet_id, None)
        if publish is None:
            return
        code = answer.reason_codes[0]
        if code >= _REFUSED:
            self._refuse(publish, answer.reason_string or reason_name(code))
            return
        self.crossed += 1
        self._acknowledge(publish)

    def _refuse(self, publish: p.Publish, why: str) -> None:
        self.refused += 1
        log.warning("bridge %s: %s is refused on the other side: %s", self._bridge, publish.topic, why)
        self._acknowledge(publish)

    def _acknowledge(self, publish: p.Publish) -> None:
        if self._source.client is not None:
            self._source.client.acknowledge_all((publish,))
        else:
            self._late.append(publish)

    def _acknowledge_late(self) -> None:
        late, self._late = self._late, []
        if self._source.client is not None:
            self._source.client.acknowledge_all(late)


class RunningBridge:
    """Both ends of a bridge and both lanes."""

    def __init__(self, bridge: Bridge, name: str, server: MqttServer) -> None:
        self.name = bridge.name
        self._server = server
        terms = bridge.terms()
        here = Terms(host="here", port=0, client_id=f"$bridge/{bridge.name}", keep_alive=0)
        self.out = Lane(bridge.name, bridge.rules("out"), name)
        self.into = Lane(bridge.name, bridge.rules("in"), name)
        connect = structs.replace(here.connect(), receive_maximum=WINDOW)
        self._local = Link(here, connect, self.out.subscriptions(), self.out.take, dial=self._dial)
        self.remote = Link(terms, terms.connect(), self.into.subscriptions(), self.into.take)
        self.out.join(self._local, self.remote)
        self.into.join(self.remote, self._local)
        self.remote.is_congested = lambda: self.into.is_full

    async def _dial(self) -> socket.socket:
        """Connect to the embedded broker without a listener that others could reach."""
        ours, theirs = socket.socketpair()
        for each in (ours, theirs):
            each.setblocking(False)  # noqa: FBT003 - the standard library's own
        await self._server.adopt(INSIDE, theirs)
        return ours

    def start(self, on_failure: OnFailure) -> "list[asyncio.Task[None]]":
        """Keep both ends up."""
        return [supervise(each.run(), f"bridge {self.name}", on_failure) for each in (self._local, self.remote)]


class Bridges:
    """All bridges of a platform."""

    def __init__(self, bridges: Sequence[Bridge], data_dir: Path) -> None:
        self._bridges = bridges
        self._name_file = data_dir / "bridge-name"
        self._running: list[RunningBridge] = []
        self._tasks: list[asyncio.Task[None]] = []
        for each in bridges:
            each.terms()  # refuses at start what cannot work

    def start(self, server: MqttServer, on_failure: OnFailure) -> None:
        """Run them."""
        if not self._bridges:
            return
        name = self._name()
        self._running = [RunningBridge(each, name, server) for each in self._bridges]
        for each in self._running:
            self._tasks += each.start(on_failure)

    def _name(self) -> str:
        """Return the name by which this installation knows its own messages again."""
        if not self._name_file.is_file():
            write_whole(self._name_file, secrets.token_hex(8).encode())
        return self._name_file.read_text().strip()

    def stats(self) -> dict[str, str]:
        """Return name -> `connected`, or the sentence that says why not."""
        return {each.name: each.remote.trouble or "connected" for each in self._running}

    async def close(self) -> None:
        """End them; what was not acknowledged stays where it came from."""
        for each in self._tasks:
            each.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
