"""The connection of a device, for as long as it runs: when to be there, what to send, what to do when it breaks.

The cores decide (`power`, `uplink`, `reconnect`); this shell has the socket and the waiting. The MQTT session is one
across connections, so what was under way when one broke is sent again on the next.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import msgspec

from godwit.contract import notices, stored
from godwit.contract.errors import GodwitError, MalformedError, RejectedError, UnavailableError
from godwit.contract.ids import DeviceId
from godwit.contract.notices import CloneDetected, GapWanted, NewAuthorities, Notice, RenewalWanted
from godwit.contract.topics import Channel, DeviceTopic, EnrollmentStep, enrollment_topic, topics_for
from godwit.device.access import Access
from godwit.device.power import PowerPolicy, Waiting
from godwit.device.reconnect import Plan, Reconnect
from godwit.device.timekeeper import Timekeeper
from godwit.device.uplink import REFUSED_FROM, Uplink
from godwit.mqtt import packets as p
from godwit.mqtt import reasons
from godwit.mqtt.client import MqttClient
from godwit.mqtt.client_session import ClientSession, Delivered
from godwit.mqtt.reasons import ReasonError, reason_name
from godwit.runtime.clock import Clock
from godwit.spool import Spool

log = logging.getLogger(__name__)

GOODBYE_S: Final = 2.0
ANOTHER_WAY_S: Final = 1.0
"""Between two credentials."""
PROMISE: Final = ("godwit-ack", "stored")
"""The user property of CONNACK by which a server says that its acknowledgement means stored."""
MESSAGES_A_TURN: Final = 8
"""Then the loop serves others: a backlog does not freeze the application."""
ALIASES_MAX: Final = 4


class Address(NamedTuple):
    """Where the server is."""

    host: str
    port: int
    keep_alive: int = 60
    version: int = 5


class Owner(Protocol):
    """Whose connection it is."""

    def status(self, state: str, *, reason: str | None = None, with_health: bool = False) -> bytes:
        """Return a status message."""
        ...

    def settled(self) -> None:
        """Note that more is stored."""
        ...

    def read_notice(self, payload: bytes) -> Notice:
        """Read what the server has to say. Raises MalformedError or RejectedError."""
        ...

    def noticed(self, notice: Notice) -> None:
        """Hear what the server has to say."""
        ...

    def report(self, code: str, message: str = "", severity: str | None = None) -> None:
        """Note that something is wrong."""
        ...


class Link:
    """See the module."""

    def __init__(
        self,
        device_id: DeviceId,
        address: Address,
        access: Access,
        owner: Owner,
        *,
        spool: Spool,
        uplink: Uplink,
        power: PowerPolicy,
        status_every_s: float | None,
        clock: Clock,
        times: Timekeeper,
        chance: Callable[[], float],
    ) -> None:
        self.device_id = device_id
        self._address, self._access, self._owner = address, access, owner
        self._spool, self._uplink, self._power = spool, uplink, power
        self._status_every_s = status_every_s
        self._clock, self._times, self._chance = clock, times, chance
        self._topics = topics_for("native")
        self.trouble = "not connected yet"
        """Empty while we are connected, else why not."""
        self.is_stuck = False
        """Whether a person has to change something before we get in."""
        self._session = self._new_session()
        self._reconnect = Reconnect()
        self._client: MqttClient | None = None
        self._server: tuple[str, int | None] | None = None
        """Where the server told us to go."""
        self._numbers: dict[int, int] = {}
        """Packet id -> number of the uplink's message."""
        self._subscribing = self._saying = 0
        """Packet ids of a subscription and a status that are not answered yet."""
        self._status_due = 0.0
        self._news = asyncio.Event()
        self._last_word = self._now()
        self._off_since = float("-inf")
        self._is_leaving = self._is_asleep = self._is_changing = self._has_another_way = False

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client is not None

    def wake(self) -> None:
        """Note that there is more to send."""
        self._news.set()

    def added(self, stream: str) -> None:
        """Note that there is more of a stream."""
        self._uplink.added(stream, self._now())
        self._news.set()

    def leave(self) -> None:
        """Note that the goodbye of the connection is for good."""
        self._is_leaving = True

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _new_session(self) -> ClientSession:
        address = self._address
        will = p.Will(self._topic(Channel.STATUS), self._owner.status("offline", reason="lost"), qos=1, retain=True)
        connect = p.Connect(
            self.device_id,
            version=address.version,
            clean_start=False,
            keep_alive=address.keep_alive,
            will=will,
            session_expiry_interval=self._power.session_s,
        )
        return ClientSession(connect, aliases_max=ALIASES_MAX)

    def _topic(self, channel: Channel) -> str:
        return self._topics.build(DeviceTopic(self.device_id, channel))

    async def run(self) -> None:
        """Connect when the power policy says so, until closed."""
        while True:
            await self._until_wanted()
            plan = await self._connection()
            self.is_stuck = plan.is_for_person
            if self._is_asleep or self._is_changing:
                continue
            if plan.is_older_version and self._address.version == 5:
                self._address = self._address._replace(version=4)
                self._session = self._new_session()
                self._uplink.forget()
            elif plan.wait_s:
                log.info("device %s tries again in %.1f s: %s", self.device_id, plan.wait_s, self.trouble)
                await asyncio.sleep(plan.wait_s)

    async def _until_wanted(self) -> None:
        """Wait until there is a reason to be connected."""
        while True:
            self._news.clear()
            decision = self._power.decide(self._waiting(), self._clock.now_ns() / 1e9)
            due_s = self._access.due_s
            if decision.is_on or due_s <= 0.0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(decision.again_s, due_s)):
                    await self._news.wait()

    def _waiting(self) -> Waiting:
        depth, now = self._spool.depth, self._now()
        urgent = self._power.urgent_priority
        return Waiting(
            samples=depth.items,
            oldest_s=0.0 if depth.oldest is None else self._times.age_s(depth.oldest),
            has_urgent=urgent is not None and self._uplink.has_urgent(urgent),
            quiet_s=0.0 if self._uplink.under_way else now - self._last_word,
            off_s=0.0 if self._client is not None else max(1e-9, now - self._off_since),
        )

    async def _connection(self) -> Plan:
        """Go through one connection, from its making to its end; returns what to do then."""
        began, lasted_s, reason, reference = self._now(), 0.0, None, None
        self._is_asleep = self._is_changing = self._has_another_way = False
        host, port = self._address.host, self._address.port
        if self._server is not None:
            host, port = self._server[0], self._server[1] or port
        try:
            client = await self._connect(host, port)
        except ReasonError as error:
            reason, reference = error.reason_code, error.server_reference
            self._lost(f"{host}:{port} refuses us: {error}")
        except (RejectedError, MalformedError) as error:  # a person has to do something first
            self._lost(str(error))
            return self._reconnect.after(reasons.NOT_AUTHORIZED, self._chance())._replace(advice="")
        except (OSError, UnavailableError) as error:
            self._lost(f"no way to {host}:{port}: {error}")
        else:
            try:
                await self._work(client)
            except (OSError, UnavailableError, ReasonError) as error:
                self._lost(str(error))
            except asyncio.CancelledError:
                await self._goodbye(client)
                raise
            finally:
                lasted_s, reason, reference = self._now() - began, client.reason_code, client.server_reference
                self._client = None
                self._off_since = self._now()
                self._uplink.close()
                client.abort()
        return self._plan(reason, lasted_s, reference)

    def _plan(self, reason: int | None, lasted_s: float, reference: str | None) -> Plan:
        """Return what to do after a connection."""
        plan = self._reconnect.after(reason, self._chance(), lasted_s=lasted_s, server_reference=reference)
        self._server = plan.server
        if reason is None:
            plan = plan._replace(wait_s=min(plan.wait_s, self._access.patience_s))
        if self._has_another_way:
            plan = plan._replace(wait_s=min(plan.wait_s, ANOTHER_WAY_S), is_for_person=False)
        if plan.advice:
            self.trouble = f"{self.trouble} ({plan.advice})"
        return plan

    async def _connect(self, host: str, port: int) -> MqttClient:
        """Get in, by whatever credential we have."""
        login = await self._access.login()
        session = self._session
        session.connect = msgspec.structs.replace(session.connect, username=login.username, password=login.password)
        try:
            return await MqttClient.connect(
                host,
                port,
                session.connect,
                tls=login.tls,
                session=session,
                on_delivered=self._delivered,
                inspect=login.inspect,
            )
        except (OSError, UnavailableError, ReasonError) as error:
            reason = error.reason_code if isinstance(error, ReasonError) else None
            self._has_another_way = await self._access.refused(reason)
            raise

    def _lost(self, why: str) -> None:
        if why != self.trouble:
            log.warning("device %s: %s", self.device_id, why)
        self.trouble = why

    async def _work(self, client: MqttClient) -> None:
        """Subscribe, say that we are here, and send until the connection ends or is wanted no longer."""
        self._client, self.trouble, self.is_stuck = client, "", False
        loop = asyncio.get_running_loop()
        listening, attending = loop.create_task(self._listen(client)), loop.create_task(self._attend(client))
        try:
            wanted = [self._topic(each) for each in (Channel.TELEMETRY_STORED, Channel.NOTICES)]
            self._subscribing = self._session.subscribe(tuple(p.Subscription(each, 1) for each in wanted))
            self._say_status(client)
            ack = client.ack
            self._uplink.open(
                self._now(),
                is_promised=PROMISE in ack.user_properties,
                # 3.1.1 has no properties to promise anything: `telemetry/stored` is what counts, which QoS 0 asks for
                qos_max=1 if self._address.version == 5 else 0,
                bytes_max=ack.maximum_packet_size,
            )
            self._last_word = self._now()
            await self._send_all(client)
            for each in (listening, attending):
                if each.done():
                    each.result()  # it ends with the connection, or by a bug, which is ours to raise
        finally:
            listening.cancel()
            attending.cancel()

    async def _attend(self, client: MqttClient) -> None:
        """Let the access do its work beside; afterwards another connection is wanted, if this one still stands."""
        try:
            await self._access.accepted()
            await self._access.attend(client)
            self._is_changing = client.is_open
        finally:
            self._news.set()

    async def _send_all(self, client: MqttClient) -> None:
        while client.is_open:
            self._news.clear()
            if self._is_changing:
                await client.disconnect()  # without a word: we are back in a moment
                return
            pause = self._pump(client)
            if pause == 0.0:
                await asyncio.sleep(0)
                await client.wait_writable()
                continue
            if not self._power.is_always_on:
                decision = self._power.decide(self._waiting(), self._clock.now_ns() / 1e9)
                if not decision.is_on and self._access.due_s > 0.0:
                    self._is_asleep = True
                    await self._goodbye(client)
                    return
                pause = min(pause, decision.again_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._news.wait()
        if client.why_closed:
            self._lost(client.why_closed)

    def _pump(self, client: MqttClient) -> float:
        """Send what may be sent now; returns the seconds until there may be more, 0: at once."""
        now = self._now()
        if self._status_every_s is not None and now >= self._status_due:
            self._say_status(client)
        for _ in range(MESSAGES_A_TURN):
            if not client.can_write:
                return 0.0
            message = self._uplink.next(now)
            if message is None:
                break
            self._last_word = now
            publish = p.Publish(self._topic(message.channel), message.payload, message.qos)
            try:
                packet_id = self._session.publish(publish)
            except ReasonError as refused:
                self._uplink.delivered(message.number, refused.reason_code, str(refused), now)
                continue
            if packet_id:
                self._numbers[packet_id] = message.number
        else:
            client.flush_soon()
            return 0.0
        client.flush_soon()
        due = [each for each in (self._uplink.next_timer(), self._status_due) if each is not None]
        return max(0.001, min(due) - now)

    def _delivered(self, answer: Delivered) -> None:
        number = self._numbers.pop(answer.packet_id, None)
        if number is None:
            self._answered(answer)
            return
        self._last_word = now = self._now()
        self._uplink.delivered(number, answer.reason_codes[0], answer.reason_string, now)
        self._note_refusals()
        self._owner.settled()
        self._news.set()

    def _answered(self, answer: Delivered) -> None:
        """Take the answer to a status or a subscription."""
        if answer.packet_id == self._saying:
            self._saying = 0
        elif answer.packet_id == self._subscribing and max(answer.reason_codes) >= REFUSED_FROM:
            refused = reason_name(max(answer.reason_codes))
            self._lost(f"the server does not let us hear what is stored: {refused}")
            self._owner.report("subscription-refused", self.trouble)

    def _note_refusals(self) -> None:
        for stream, samples, reason in self._uplink.refused:
            log.warning("device %s: the server refused %d samples of %s: %s", self.device_id, samples, stream, reason)
            self._owner.report("refused", f"{samples} samples of {stream}: {reason}")
        self._uplink.refused.clear()

    async def _listen(self, client: MqttClient) -> None:
        async for publish in client.messages():
            self._last_word = self._now()
            try:
                await self._hear(publish)
            except GodwitError as error:
                log.warning("device %s cannot read what came on %s: %s", self.device_id, publish.topic, error)
            self._news.set()
        self._news.set()  # the connection has ended

    async def _hear(self, publish: p.Publish) -> None:
        topic = self._topics.parse(publish.topic)
        if topic is None:
            if publish.topic == enrollment_topic(self.device_id, EnrollmentStep.GRANT):
                self._access.hear_grant(publish.payload)
            return
        if topic.channel is Channel.TELEMETRY_STORED:
            told = stored.decode(publish.payload)
            self._times.told(told)
            self._access.hear_time(told.server_sent)
            self._uplink.stored(told)
            self._owner.settled()
        elif topic.channel is Channel.NOTICES:
            notice = self._owner.read_notice(publish.payload)
            details = notices.details_of(notice)
            if isinstance(details, GapWanted):
                self._uplink.wanted(details.stream, details.epoch, details.ranges)
            elif isinstance(details, CloneDetected) and self._uplink.begin_epoch(details.epoch):
                why = f"samples of another device come under our numbers ({details.stream} {details.first})"
                log.warning("device %s: %s", self.device_id, why)
                self._owner.report("clone-detected", why, "error")
            elif isinstance(details, NewAuthorities):
                if await self._access.hear_authorities(details):
                    log.info("device %s trusts another authority: %s", self.device_id, details.announced)
                self._status_due = 0.0  # it says whom we trust
            elif isinstance(details, RenewalWanted):
                self._access.hear_renewal(details)
            self._owner.noticed(notice)

    async def _goodbye(self, client: MqttClient) -> None:
        with contextlib.suppress(GodwitError, OSError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                why = "closed" if self._is_leaving else "sleeping"
                offline = self._owner.status("offline", reason=why, with_health=True)
                await client.publish(self._topic(Channel.STATUS), offline, qos=1, retain=True)
                await client.disconnect()

    def _say_status(self, client: MqttClient) -> None:
        if not self._saying:  # else the session says that one again
            status = self._owner.status("online", with_health=True)
            self._saying = self._session.publish(p.Publish(self._topic(Channel.STATUS), status, 1, True))  # noqa: FBT003
        client.flush_soon()
        self._status_due = self._now() + (self._status_every_s or 86_400.0)
