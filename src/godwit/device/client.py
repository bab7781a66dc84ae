"""A device: what an application holds. It takes readings, keeps them safe, and gets them to the server when it can.

Nothing that the application does waits for the network, unless it asks to (`wait="stored"`, `flush`). The cores decide
what is sent when; this shell has the clock, the connection and the waiting.
"""

import asyncio
import contextlib
import heapq
import logging
import os
import random
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

import msgspec

from godwit.contract import notices, stored
from godwit.contract.compression import Compression
from godwit.contract.errors import GodwitError, MalformedError, RejectedError, UnavailableError
from godwit.contract.ids import parse_device_id
from godwit.contract.notices import Notice
from godwit.contract.samples import Location, Metadata, Reading, Value
from godwit.contract.status import DeviceError, DeviceStatus
from godwit.contract.times import parse_time
from godwit.contract.topics import Channel, DeviceTopic, topics_for
from godwit.device.health import Machine
from godwit.device.power import ALWAYS_ON, PowerPolicy, Waiting
from godwit.device.reconnect import Plan, Reconnect
from godwit.device.streams import EVENTS, MAIN, STREAM_EVENTS, STREAM_MAIN, Sent, Stream
from godwit.device.telemetry import encode_event, encode_readings
from godwit.device.uplink import REFUSED_FROM, Uplink
from godwit.device.watchdog import Watchdog
from godwit.mqtt import packets as p
from godwit.mqtt.client import MqttClient
from godwit.mqtt.client_session import ClientSession, Delivered
from godwit.mqtt.reasons import ReasonError, reason_name
from godwit.runtime.clock import Clock, SystemClock
from godwit.spool import Bounds, Depth, Durability, Gap, Spool, Track

log = logging.getLogger(__name__)

PORT: Final = 1883
TLS_PORT: Final = 8883
GOODBYE_S: Final = 2.0
ERRORS_MAX: Final = 20
PROMISE: Final = ("godwit-ack", "stored")
"""The user property of CONNACK by which a server says that its acknowledgement means stored."""
MESSAGES_A_TURN: Final = 8
"""Then the loop serves others: a backlog does not freeze the application."""

Wait = Literal["spooled", "stored"]
Time = float | int | str | None


def spool_path(device_id: str) -> Path:
    """Return where a spool stands if nobody says: systemd's state directory, else that of the user (XDG)."""
    base = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if base:
        return Path(base) / f"{device_id}.spool"
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "godwit" / f"{device_id}.spool"


class Device:
    """See the module. Use it as `async with Device(...) as device`.

    `tls`: a context, or true for one that trusts the system's authorities; the port follows. `spool`: the file, None
    for the usual place, or one that is open, which then is ours; `durability` says what it survives. `on_notice` hears
    what the server has to say to us.
    """

    def __init__(
        self,
        device_id: str,
        host: str = "127.0.0.1",
        port: int | None = None,
        *,
        tls: ssl.SSLContext | bool = False,
        username: str | None = None,
        password: str | None = None,
        spool: Path | str | Spool | None = None,
        durability: Durability | str = Durability.NORMAL,
        bounds: Bounds = Bounds(),  # noqa: B008 - immutable
        streams: tuple[Stream, ...] = (),
        power: PowerPolicy = ALWAYS_ON,
        compression: Compression | str = Compression.DEFLATE,
        firmware_version: str | None = None,
        location: Location | None = None,
        health_every_s: float | None = 60.0,
        keep_alive: int = 60,
        version: int = 5,
        watchdog: Path | None = None,
        on_notice: Callable[[Notice], None] | None = None,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._clock, self._chance = clock, chance
        self.device_id = parse_device_id(device_id)
        self._host, self._tls = host, ssl.create_default_context() if tls is True else tls or None
        self._port = port or (TLS_PORT if self._tls else PORT)
        self._topics = topics_for("native")
        self._credentials = username, None if password is None else password.encode()
        self._given = spool if isinstance(spool, Spool) else None
        self._where = Path(spool) if isinstance(spool, Path | str) else spool_path(device_id)
        self._durability, self._bounds = Durability(durability), bounds
        known = {each.name: each for each in (STREAM_EVENTS, STREAM_MAIN, *streams)}
        self._streams = known
        self._power, self._compression = power, Compression(compression)
        self.location = location
        """Sent with the telemetry; change it when the device moves."""
        self.metadata = Metadata(firmware_version=firmware_version)
        """Sent with the telemetry."""
        self._health_every_s, self._keep_alive, self._version = health_every_s, keep_alive, version
        self._machine = Machine(self._where)
        self._watchdog = Watchdog(watchdog)
        self._on_notice = on_notice
        self.trouble = ""
        """Empty while we are connected, else why not."""
        self.errors: dict[str, DeviceError] = {}
        """What is wrong, by code; reported with the status."""
        self._reconnect = Reconnect()
        self._client: MqttClient | None = None
        self._numbers: dict[int, int] = {}
        self._news = asyncio.Event()
        self._waiters: dict[Track, list[tuple[int, int, asyncio.Future[None]]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._is_leaving = False
        self._server: tuple[str, int | None] | None = None
        """Where the server told us to go."""
        self._subscribing = self._saying = 0
        """Packet ids of a subscription and a status that are not answered yet."""
        self._status_due = 0.0
        self._last_word = 0.0
        self._off_since = 0.0

    # ------------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        """Open the spool and begin to connect. Raises UnavailableError where another process has the spool."""
        self._spool = await asyncio.to_thread(self._open_spool)
        if self._spool.trouble:
            log.warning("%s", self._spool.trouble)
            self.report("spool", self._spool.trouble)
        self._uplink = Uplink(
            self._spool, self._streams.values(), compression=self._compression, fields=self._message_fields
        )
        self._session = ClientSession(self._connect_packet(), aliases_max=4)
        self._off_since = self._now()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(each) for each in (self._run(), self._watchdog.run())]
        for task in self._tasks:
            task.add_done_callback(self._ended)
        return self

    def _open_spool(self) -> Spool:
        if self._given is not None:
            return self._given
        path = None if self._durability is Durability.MEMORY else self._where
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        return Spool.open(path, durability=self._durability, bounds=self._bounds, clock=self._clock)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of device %s ended by a bug", self.device_id, exc_info=task.exception())
            self.trouble = f"ended by a bug: {task.exception()!r}"

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Say goodbye. What is not stored yet stays in the spool; `flush` before waits for it."""
        self._is_leaving = True
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter[2].done():
                    waiter[2].set_exception(UnavailableError("the device was closed; the sample is in its spool"))
                    waiter[2].exception()
        await asyncio.to_thread(self._spool.close)

    # ------------------------------------------------------------------ what the application does

    async def send(
        self,
        readings: Mapping[str, Value | Reading | None] | None = None,
        /,
        *,
        at: Time = None,
        stream: str = MAIN,
        wait: Wait = "spooled",
        **more: Value | Reading | None,
    ) -> Sent:
        """Take a sample: readings at one instant, as keywords, or as a mapping where a name is no identifier.

        `at` is its time, RFC 3339 or a number since 1970; now, if not given. Returns once the sample is safe in the
        spool, as `durability` says; with `wait="stored"` once the server has it.

        Raises MalformedError for readings that cannot be kept, UnavailableError when the spool takes none (a full
        disk), RejectedError when a sample that was waited for was given up.
        """
        item = encode_readings({name: _plain(value) for name, value in ({**(readings or {}), **more}).items()})
        return await self._take(stream, self._stamp(at), item, wait)

    async def event(
        self,
        event: str,
        *,
        severity: str | None = None,
        message: str | None = None,
        details: Mapping[str, Any] | None = None,
        at: Time = None,
        wait: Wait = "spooled",
    ) -> Sent:
        """Say that something happened. It overtakes telemetry, and is safe in the spool when this returns."""
        if not 0 < len(event) <= 128:
            raise MalformedError("an event's name has 1 to 128 characters", code="wrong-type")
        stamp = self._stamp(at)
        item = encode_event(event, time=stamp, severity=severity, message=message, details=details)
        return await self._take(EVENTS, stamp, item, wait)

    async def _take(self, stream: str, stamp: int, item: bytes, wait: Wait) -> Sent:
        if stream not in self._streams:
            raise RejectedError(f"no stream {stream!r}: name it when the device is made", code="unknown-stream")
        if self._durability is Durability.FULL:  # it waits for the disk
            seq = await asyncio.to_thread(self._spool.append, stream, stamp, item)
        else:
            seq = self._spool.append(stream, stamp, item)
        self._uplink.added(stream, self._now())
        self._news.set()
        if self._waiters:
            self._tell_waiters()  # room may have been made for this one
        if wait == "stored":
            await self._until_stored(Track(stream, self._spool.epoch), seq)
        return Sent(stream, self._spool.epoch, seq)

    async def _until_stored(self, track: Track, seq: int) -> None:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters.setdefault(track, []), (seq, id(waiting), waiting))
        await waiting

    async def flush(self, timeout_s: float | None = None) -> None:
        """Wait until everything taken so far is stored. Raises UnavailableError when that takes longer."""
        try:
            async with asyncio.timeout(timeout_s):
                for track, seq in self._uplink.unsettled().items():
                    if seq > self._uplink.settled(track):
                        await self._until_stored(track, seq)
        except TimeoutError:
            depth = self.depth.items
            raise UnavailableError(f"{depth} samples are not stored yet: {self.trouble or 'on their way'}") from None

    def report(self, code: str, message: str = "", severity: str | None = None) -> None:
        """Say that something is wrong: it is in the status until `clear`. At most 20 are kept, the newest."""
        self.errors.pop(code, None)
        self.errors[code] = DeviceError(code, message, timestamp=self._clock.now_ns(), severity=severity)
        while len(self.errors) > ERRORS_MAX:
            del self.errors[next(iter(self.errors))]

    def clear(self, code: str) -> None:
        """Say that it is in order again."""
        self.errors.pop(code, None)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client is not None

    @property
    def depth(self) -> Depth:
        """What waits in the spool."""
        return self._spool.depth

    @property
    def gaps(self) -> list[Gap]:
        """What was given up and the server has not been told of yet."""
        return self._spool.gaps()

    def _stamp(self, at: Time) -> int:
        """Return the time of a sample, ns UTC."""
        if at is None:
            return self._clock.now_ns()
        return parse_time(at)[0]

    # ------------------------------------------------------------------ the connection

    def _topic(self, channel: Channel) -> str:
        return self._topics.build(DeviceTopic(self.device_id, channel))

    def _connect_packet(self) -> p.Connect:
        username, password = self._credentials
        return p.Connect(
            self.device_id,
            version=self._version,
            clean_start=False,
            keep_alive=self._keep_alive,
            username=username,
            password=password,
            will=p.Will(self._topic(Channel.STATUS), self._status("offline", reason="lost"), qos=1, retain=True),
            session_expiry_interval=self._power.session_s,
        )

    async def _run(self) -> None:
        """Connect when the power policy says so, until closed."""
        while True:
            await self._until_wanted()
            plan = await self._connection()
            if plan.is_older_version and self._version == 5:
                self._version = 4
                self._session = ClientSession(self._connect_packet(), aliases_max=4)
                self._uplink.forget()
            elif plan.wait_s:
                log.info("device %s tries again in %.1f s: %s", self.device_id, plan.wait_s, self.trouble)
                await asyncio.sleep(plan.wait_s)

    async def _until_wanted(self) -> None:
        """Wait until there is a reason to be connected."""
        while True:
            self._news.clear()
            decision = self._power.decide(self._waiting(), self._clock.now_ns() / 1e9)
            if decision.is_on:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(decision.again_s):
                    await self._news.wait()

    def _waiting(self) -> Waiting:
        depth, now = self._spool.depth, self._now()
        urgent = self._power.urgent_priority
        return Waiting(
            samples=depth.items,
            oldest_s=0.0 if depth.oldest is None else max(0.0, self._clock.now_ns() / 1e9 - depth.oldest / 1e9),
            has_urgent=urgent is not None and self._uplink.has_urgent(urgent),
            quiet_s=0.0 if self._uplink.under_way else now - self._last_word,
            off_s=0.0 if self._client is not None else max(1e-9, now - self._off_since),
        )

    async def _connection(self) -> Plan:
        """Go through one connection, from its making to its end; returns what to do then."""
        began, lasted_s, reason, reference = self._now(), 0.0, None, None
        host, port = self._host, self._port
        if self._server is not None:
            host, port = self._server[0], self._server[1] or port
        try:
            client = await MqttClient.connect(
                host, port, self._session.connect, tls=self._tls, session=self._session, on_delivered=self._delivered
            )
        except (OSError, UnavailableError) as error:
            self._lost(f"no way to {host}:{port}: {error}")
        except ReasonError as error:
            reason, reference = error.reason_code, error.server_reference
            self._lost(f"{host}:{port} refuses us: {error}")
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
        plan = self._reconnect.after(reason, self._chance(), lasted_s=lasted_s, server_reference=reference)
        self._server = plan.server
        if plan.advice:
            self.trouble = f"{self.trouble} ({plan.advice})"
        return plan

    def _lost(self, why: str) -> None:
        if why != self.trouble:
            log.warning("device %s: %s", self.device_id, why)
        self.trouble = why

    async def _work(self, client: MqttClient) -> None:
        """Subscribe, say that we are here, and send until the connection ends or is wanted no longer."""
        self._client, self.trouble = client, ""
        listening = asyncio.get_running_loop().create_task(self._listen(client))
        listening.add_done_callback(self._ended)
        try:
            wanted = [self._topic(each) for each in (Channel.TELEMETRY_STORED, Channel.NOTICES)]
            self._subscribing = self._session.subscribe(tuple(p.Subscription(each, 1) for each in wanted))
            self._say_status(client)
            ack = client.ack
            self._uplink.open(
                self._now(),
                is_promised=PROMISE in ack.user_properties,
                # 3.1.1 has no properties to promise anything: `telemetry/stored` is what counts, which QoS 0 asks for
                qos_max=1 if self._version == 5 else 0,
                bytes_max=ack.maximum_packet_size,
            )
            self._last_word = self._now()
            await self._send_all(client)
        finally:
            listening.cancel()

    async def _send_all(self, client: MqttClient) -> None:
        while client.is_open:
            self._news.clear()
            pause = self._pump(client)
            if pause == 0.0:
                await asyncio.sleep(0)
                await client.wait_writable()
                continue
            if not self._power.is_always_on:
                decision = self._power.decide(self._waiting(), self._clock.now_ns() / 1e9)
                if not decision.is_on:
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
        if self._health_every_s is not None and now >= self._status_due:
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
        self._tell_waiters()
        self._news.set()

    def _answered(self, answer: Delivered) -> None:
        """Take the answer to a status or a subscription."""
        if answer.packet_id == self._saying:
            self._saying = 0
        elif answer.packet_id == self._subscribing and max(answer.reason_codes) >= REFUSED_FROM:
            refused = reason_name(max(answer.reason_codes))
            self._lost(f"the server does not let us hear what is stored: {refused}")
            self.report("subscription-refused", self.trouble)

    def _note_refusals(self) -> None:
        for stream, samples, reason in self._uplink.refused:
            log.warning("device %s: the server refused %d samples of %s: %s", self.device_id, samples, stream, reason)
            self.report("refused", f"{samples} samples of {stream}: {reason}")
        self._uplink.refused.clear()

    def _tell_waiters(self) -> None:
        for track, waiters in self._waiters.items():
            settled = self._uplink.settled(track)
            while waiters and waiters[0][0] <= settled:
                seq, _, waiting = heapq.heappop(waiters)
                if waiting.done():
                    continue
                reason = self._given_up(track, seq)
                if reason:
                    waiting.set_exception(RejectedError(f"the sample was given up: {reason}", code=reason))
                else:
                    waiting.set_result(None)

    def _given_up(self, track: Track, seq: int) -> str:
        """Return why a sample will never be stored; empty: it is."""
        gaps = (each for each in self._spool.gaps() if (each.stream, each.epoch) == track)
        return next((each.reason for each in gaps if each.first <= seq <= each.last), "")

    async def _listen(self, client: MqttClient) -> None:
        async for publish in client.messages():
            self._last_word = self._now()
            try:
                self._hear(publish)
            except GodwitError as error:
                log.warning("device %s cannot read what came on %s: %s", self.device_id, publish.topic, error)
            self._news.set()

    def _hear(self, publish: p.Publish) -> None:
        topic = self._topics.parse(publish.topic)
        if topic is None:
            return
        if topic.channel is Channel.TELEMETRY_STORED:
            self._uplink.stored(stored.decode(publish.payload))
            self._tell_waiters()
        elif topic.channel is Channel.NOTICES:
            self._noticed(notices.decode(publish.payload))

    def _noticed(self, notice: Notice) -> None:
        if self._on_notice is not None:
            self._on_notice(notice)

    async def _goodbye(self, client: MqttClient) -> None:
        with contextlib.suppress(GodwitError, OSError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                offline = self._status("offline", reason="sleeping" if not self._is_leaving else "closed")
                await client.publish(self._topic(Channel.STATUS), offline, qos=1, retain=True)
                await client.disconnect()

    # ------------------------------------------------------------------ what it says of itself

    def _say_status(self, client: MqttClient) -> None:
        if not self._saying:  # else the session says that one again
            status = self._status("online", health=True)
            self._saying = self._session.publish(p.Publish(self._topic(Channel.STATUS), status, 1, True))  # noqa: FBT003
        client.flush_soon()
        self._status_due = self._now() + (self._health_every_s or 86_400.0)

    def _status(self, state: str, *, reason: str | None = None, health: bool = False) -> bytes:
        said = DeviceStatus(
            state,
            timestamp=None if reason == "lost" else self._clock.now_ns(),  # a will does not know when
            health=self._machine.look(spool_depth=self._spool.depth.items, clock_offset=None) if health else None,
            errors=list(self.errors.values()) or None,
            firmware_version=self.metadata.firmware_version,
            reason=reason,
        )
        return msgspec.json.encode(said)

    def _message_fields(self) -> dict[str, object]:
        fields: dict[str, object] = {"sentAt": self._clock.now_ns()}
        metadata = {key: value for key, value in msgspec.to_builtins(self.metadata).items() if value is not None}
        if metadata:
            fields["metadata"] = metadata
        if self.location is not None:
            fields["location"] = msgspec.to_builtins(self.location)
        return fields

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _plain(value: Value | Reading | None) -> Value | Reading | None:
    """Return numbers of other libraries (numpy's scalars) as Python's."""
    item = getattr(value, "item", None)
    return item() if callable(item) else value
