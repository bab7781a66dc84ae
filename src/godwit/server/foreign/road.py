"""The platform behind a foreign broker: the same contract, ingest and group commit; the broker is a client's peer.

What comes is acknowledged to the foreign broker after its commit, so that a kill loses nothing it had handed to us.
Towards the device that broker acknowledges for itself; `telemetry/stored` tells it what is really stored.
"""

import asyncio
import logging
from concurrent.futures import Future
from time import time_ns
from typing import Final

import msgspec

from godwit.contract import status
from godwit.contract.errors import MalformedError, RejectedError, UnavailableError
from godwit.contract.ids import DeviceId
from godwit.contract.topics import Channel, DeviceTopic, Topics
from godwit.mqtt import packets as p
from godwit.mqtt.client_session import Delivered
from godwit.mqtt.packets import Publish
from godwit.mqtt.reasons import ReasonError, reason_name
from godwit.runtime.supervise import OnFailure, supervise
from godwit.server.accounts.room import Accounts
from godwit.server.broker.inspection import Inspection
from godwit.server.broker.listener import Server as MqttServer
from godwit.server.broker.redirect import Redirect
from godwit.server.broker.routes import SHARE_PREFIX, UP
from godwit.server.broker.stats import BrokerStats
from godwit.server.foreign.link import Link
from godwit.server.foreign.memory import RetainedMemory
from godwit.server.foreign.presence import StatedPresence
from godwit.server.foreign.terms import terms_of
from godwit.server.identity.model import Change
from godwit.server.identity.room import Identity
from godwit.server.identity.server_certificate import ServerCertificate
from godwit.server.ingest.arrival import Arrival, Intake, Participant, Peer
from godwit.server.ingest.commit import GroupCommit
from godwit.server.ingest.trace import Trace
from godwit.server.registry.model import Device, DeviceType
from godwit.server.registry.presence import PresenceBoard
from godwit.server.registry.tenants import Tenants
from godwit.server.settings import Settings

log = logging.getLogger(__name__)

FIRST_TRY_S_MAX: Final = 3.0
"""How long a start waits to be able to say whether the foreign broker is there."""
PACKET_ROOM: Final = 65_536
LISTENER: Final = "foreign"
REFUSED: Final = 0x80


class ForeignRoad:
    """See the module. Lives on the broker loop."""

    is_storing_before_ack = False

    def __init__(
        self,
        settings: Settings,
        topics: Topics,
        board: PresenceBoard,
        certificate: ServerCertificate,
        trace: Trace,
        *,
        identity: Identity,
        accounts: Accounts,
    ) -> None:
        del certificate, trace, identity, accounts  # nobody connects to us; what ingest sees is traced there
        if settings.bridges:
            raise RejectedError(
                "BRIDGES are for the embedded broker; with MQTT_BROKER=external let that broker bridge",
                code="invalid-setting",
            )
        self._settings = settings
        self._topics = topics
        self._terms = terms_of(settings)
        self.presence = StatedPresence(board)
        self.addresses = {LISTENER: self._terms.address}
        self.inside: MqttServer | None = None
        self._memory = RetainedMemory(settings.data_dir / "foreign.sqlite")
        self.participants: list[Participant] = [self._memory]
        self._peer = Peer(
            settings.mqtt_client_id, LISTENER, may_register=settings.mqtt_register_devices, is_shared=True
        )
        self._settled: list[Publish] = []
        self._has_refused = False
        self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0

    # ------------------------------------------------------------------ up and down

    async def open(self, intake: Intake, group: GroupCommit, on_failure: OnFailure) -> None:
        """Connect; returns once it is known whether the broker is there. The platform starts without it, too."""
        self._intake, self._group = intake, group
        connect = self._terms.connect(packet_bytes_max=self._settings.payload_bytes_max + PACKET_ROOM)
        self._link = Link(self._terms, connect, self._subscriptions(), self._take)
        self._link.on_session = self._on_session
        self._link.on_up = self._acknowledge
        self._link.on_delivered = self._note_refusal
        self._link.is_congested = lambda: group.is_congested
        group.on_committed.append(self._acknowledge)
        if self._settings.mqtt_clean_session:
            log.warning(
                "MQTT_CLEAN_SESSION=true: what devices send while the platform is down, the broker at %s does not keep",
                self._terms.address,
            )
        self._running = supervise(self._link.run(), "the link to the foreign broker", on_failure)
        try:
            await asyncio.wait_for(self._link.has_tried.wait(), FIRST_TRY_S_MAX)
        except TimeoutError:
            log.warning("the broker at %s does not answer yet", self._terms.address)

    def _subscriptions(self) -> list[p.Subscription]:
        """Return what the platform wants to hear: what devices say, not what it says itself."""
        group = self._settings.mqtt_share_group
        filters = self._topics.filters(UP)
        if group:  # no_local is forbidden there (MQTT 5, 3.8.3-4), and nothing retained is sent
            return [p.Subscription(f"{SHARE_PREFIX}{group}/{each}", 1) for each in filters]
        return [p.Subscription(each, 1, no_local=True, retain_as_published=True, retain_handling=1) for each in filters]

    def _on_session(self, is_new: bool) -> None:  # noqa: FBT001 - called by the link
        if is_new:
            self._memory.expect_all()

    def renew_tls(self) -> None:
        """Do nothing: nobody connects to us."""

    def follow(self, change: Change | Device | DeviceType | DeviceId) -> None:
        """Do nothing: who may come in there, that broker decides."""

    async def close(self) -> None:
        """Part from the broker."""
        if not hasattr(self, "_running"):
            return
        self._link.is_over = True
        client = self._link.client
        if client is not None:
            await client.disconnect(0 if self._terms.is_clean else None)
        self._running.cancel()
        await asyncio.wait([self._running])

    def shut(self) -> None:
        """Close the files, after the last commit."""
        self._memory.close()

    # ------------------------------------------------------------------ in

    def _take(self, publish: Publish) -> None:
        """Take a message from the broker on its road."""
        self.messages_in += 1
        self.bytes_in += len(publish.payload)
        now = time_ns()
        arrival = Arrival(self, publish, self._peer, now)
        try:
            arrival.topic = self._topics.parse(publish.topic)
        except MalformedError as error:
            arrival.code, arrival.detail = error.code, str(error)
        if publish.retain and self._memory.is_repeated(publish):
            self._hear_again(arrival.topic, publish, now)
        elif arrival.topic is not None or arrival.code:
            self._intake.receive(arrival)
            if publish.retain:
                self._memory.put(publish)
        self._group.join(arrival)

    def _hear_again(self, topic: DeviceTopic | None, publish: Publish, now: int) -> None:
        """Learn from a status that was taken in before who is there, after a restart of ours; store nothing."""
        if topic is None or topic.channel is not Channel.STATUS or topic.device_id not in self.presence:
            return
        try:
            document = status.decode(publish.payload)
        except MalformedError:
            return
        self.presence.status(topic.device_id, msgspec.to_builtins(document), now)

    def settle(self, arrival: Arrival) -> None:
        """Note that a message is durable: it is acknowledged with the others of its group."""
        if arrival.publish.qos:
            self._settled.append(arrival.publish)

    def _acknowledge(self) -> None:
        client = self._link.client
        if client is not None and self._settled:  # else at the next connection: what comes again is answered by that
            settled, self._settled = self._settled, []
            client.acknowledge_all(settled)

    # ------------------------------------------------------------------ out

    def _send(self, publish: Publish) -> bool:
        client = self._link.client
        if client is None:
            return False
        try:
            is_sent = client.send(publish)
        except (RejectedError, UnavailableError) as error:
            log.warning("the broker at %s does not take %s: %s", self._terms.address, publish.topic, error)
            return False
        if is_sent:
            self.messages_out += 1
            self.bytes_out += len(publish.payload)
        return is_sent

    def _note_refusal(self, answer: Delivered) -> None:
        code = answer.reason_codes[0]
        if code >= REFUSED and not self._has_refused:
            self._has_refused = True  # once: what is refused now is refused every ten seconds
            log.warning(
                "the broker at %s refuses what the platform publishes: %s; it needs the right to write devices/# and "
                "system/heartbeat",
                self._terms.address,
                answer.reason_string or reason_name(code),
            )

    def post(self, publish: Publish, now: int) -> None:
        """Publish as the platform; lost while the broker is away."""
        del now
        # At QoS 1 a missing right is answered; at QoS 0 Mosquitto hangs up.
        self._send(msgspec.structs.replace(publish, qos=max(1, publish.qos)))

    def tell(self, topic: str, payload: bytes) -> bool:
        """Tell a device what is stored; False: not now."""
        return self._send(Publish(topic, payload, 1))

    def forward(self, publish: Publish) -> None:
        """Hand a message that came by another way to the broker's subscribers."""
        if not self._settings.mqtt_share_group:  # there we would get it back
            self._send(publish)

    async def publish(self, publish: Publish) -> None:
        """Publish as the platform; returns once the broker has acknowledged.

        Raises UnavailableError while it is away, RejectedError when it refuses.
        """
        client = self._link.client
        if client is None:
            raise UnavailableError(self._link.trouble or f"the broker at {self._terms.address} is away")
        try:
            code = await client.publish(publish.topic, publish.payload, qos=publish.qos, retain=publish.retain)
        except ReasonError as error:
            raise RejectedError(f"the broker at {self._terms.address} refuses {publish.topic}: {error}") from error
        if code >= REFUSED:
            raise RejectedError(f"the broker at {self._terms.address} refuses {publish.topic}: {reason_name(code)}")
        self.messages_out += 1
        self.bytes_out += len(publish.payload)

    # ------------------------------------------------------------------ looks

    @property
    def connected(self) -> int:
        """How many devices said that they are there."""
        return len(self.presence)

    def limit(self, tenants: Tenants) -> None:
        """Do nothing: connections and rates are the other broker's."""

    def trouble(self) -> list[str]:
        """Return why messages do not come, if so."""
        return [self._link.trouble] if self._link.trouble else []

    def door(self, loop: asyncio.AbstractEventLoop) -> "ForeignDoor":
        """Return the broker as other rooms see it."""
        return ForeignDoor(self, loop)

    def stats(self) -> BrokerStats:
        """Return counters: of the platform's one connection, not of the broker behind it."""
        is_connected = int(self._link.client is not None)
        return BrokerStats(
            connections=is_connected,
            sessions=is_connected,
            subscriptions=is_connected * len(self._topics.filters(UP)),
            retained=0,
            messages_in=self.messages_in,
            messages_out=self.messages_out,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            dropped=0,
            forbidden=0,
            pending_bytes=self._group.pending_bytes,
            listeners=dict(self.addresses),
        )


_ELSEWHERE: Final = "MQTT_BROKER=external: connections belong to the broker there; ask it"


class ForeignDoor:
    """Implements `BrokerDoor`."""

    def __init__(self, road: ForeignRoad, loop: asyncio.AbstractEventLoop) -> None:
        self._road = road
        self._loop = loop

    def stats(self) -> BrokerStats:
        """Return counters. Read without a lock: each is one number."""
        return self._road.stats()

    def limit(self, tenants: Tenants) -> None:
        """Do nothing: connections and rates are the other broker's."""

    def trouble(self) -> list[str]:
        """Return sentences that say why messages do not come; empty when they do."""
        return self._road.trouble()

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish as the platform; returns once the broker has acknowledged."""
        work = self._road.publish(Publish(topic, payload, qos, retain))
        try:
            answer: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError as error:
            work.close()
            raise UnavailableError("the platform is going down") from error
        await asyncio.wrap_future(answer)

    @property
    def inspection(self) -> Inspection:
        """Refuse: connections are the foreign broker's to tell."""
        raise RejectedError(_ELSEWHERE, code="foreign-broker")

    async def kick(self, client_id: str) -> bool:
        """Refuse: connections are the foreign broker's to end."""
        del client_id
        raise RejectedError(_ELSEWHERE, code="foreign-broker")

    @property
    def redirect(self) -> Redirect | None:
        """Refuse: where clients are sent is the foreign broker's to say."""
        raise RejectedError(_ELSEWHERE, code="foreign-broker")

    async def set_redirect(self, redirect: Redirect | None) -> int:
        """Refuse, too."""
        del redirect
        raise RejectedError(_ELSEWHERE, code="foreign-broker")

    async def redirect_client(self, client_id: str, redirect: Redirect) -> bool:
        """Refuse, too."""
        del client_id, redirect
        raise RejectedError(_ELSEWHERE, code="foreign-broker")
