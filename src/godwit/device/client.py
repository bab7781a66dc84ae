"""A device: what an application holds. It takes readings, keeps them safe, and gets them to the server when it can.

Nothing that the application does waits for the network, unless it asks to (`wait="stored"`, `flush`). The cores decide
what is sent when; this shell has the clock, the connection and the waiting.
"""

import asyncio
import heapq
import logging
import os
import random
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

import msgspec

from godwit.contract import notices
from godwit.contract.compression import Compression
from godwit.contract.credentials import AUDIENCE
from godwit.contract.errors import MalformedError, RejectedError, UnavailableError
from godwit.contract.ids import parse_device_id
from godwit.contract.notices import Notice
from godwit.contract.samples import Location, Metadata, Reading, Value
from godwit.contract.status import DeviceError, DeviceStatus
from godwit.contract.times import parse_time
from godwit.contract.topics import Channel
from godwit.device.access import Access, Pinned, Plain, Server, Token, jwt_of
from godwit.device.certified import Certified
from godwit.device.clock import is_believable
from godwit.device.enrollment import HTTPS_PORT
from godwit.device.health import Machine
from godwit.device.identity import Identity
from godwit.device.identity_file import State
from godwit.device.keys import Key, KeyProvider
from godwit.device.link import Address, Link
from godwit.device.message_keys import PERIOD_DAYS, MessageKeys, Protection
from godwit.device.power import ALWAYS_ON, PowerPolicy
from godwit.device.sealing import Sealing
from godwit.device.streams import EVENTS, MAIN, STREAM_EVENTS, STREAM_MAIN, Sent, Stream
from godwit.device.telemetry import encode_event, encode_readings
from godwit.device.timekeeper import Timekeeper
from godwit.device.uplink import Uplink
from godwit.device.watchdog import Watchdog
from godwit.runtime.clock import Clock, SystemClock
from godwit.spool import Bounds, Depth, Durability, Gap, Spool, Track

log = logging.getLogger(__name__)

PORT: Final = 1883
TLS_PORT: Final = 8883
ERRORS_MAX: Final = 20

Wait = Literal["spooled", "stored"]
Time = float | int | str | None


def spool_path(device_id: str) -> Path:
    """Return where a spool stands if nobody says."""
    return _state_directory() / f"{device_id}.spool"


def identity_path(device_id: str) -> Path:
    """Return where an identity stands if nobody says."""
    return _state_directory() / f"{device_id}.identity"


def _state_directory() -> Path:
    """Return systemd's state directory, else that of the user (XDG)."""
    base = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "godwit"


class Device:
    """See the module. Use it as `async with Device(...) as device`.

    `tls`: a context, or true for one that trusts the system's authorities; the port follows. `spool`: the file, None
    for the usual place, or one that is open, which then is ours; `durability` says what it survives. `on_notice` hears
    what the server has to say to us. `sealing` protects telemetry and events end to end: "sign" or "encrypt" (which
    signs, too) by keys that are made and kept with the identity, or a `Sealing` with keys of the application.
    They are made anew after `message_key_days` (0: never). `on_configuration` hears of the configuration that comes
    with a grant.

    Getting in: `claim` enrolls (by MQTT, or `is_https`), into the directory `identity`; once enrolled it is enough to
    name that, or to say True for the usual place. `keys`: where keys are, if not in files. `ca` (PEM file)
    or `ca_fingerprint` (SHA-256) say whom to trust before the platform does. Or: `token`, `jwt_key` (a PEM file; the
    platform is called `jwt_audience`), or `username` and `password`.
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
        identity: Identity | Path | str | bool = False,
        claim: str | None = None,
        keys: KeyProvider | None = None,
        ca: Path | str | None = None,
        ca_fingerprint: str | None = None,
        is_https: bool = False,
        https_port: int = HTTPS_PORT,
        token: str | None = None,
        jwt_key: Key | Path | str | None = None,
        jwt_audience: str = AUDIENCE,
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
        sealing: Sealing | Protection | Literal["sign", "encrypt"] | None = None,
        message_key_days: float = PERIOD_DAYS,
        watchdog: Path | None = None,
        on_notice: Callable[[Notice], None] | None = None,
        on_configuration: Callable[[dict[str, Any]], None] | None = None,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._clock, self._chance = clock, chance
        self.device_id = parse_device_id(device_id)
        context = ssl.create_default_context() if tls is True else tls or None
        is_known = bool(identity or claim)
        is_secured = context is not None or is_known or ca is not None or ca_fingerprint is not None
        self._address = Address(host, port or (TLS_PORT if is_secured else PORT), keep_alive, version)
        self._server = Server(host, self._address.port, https_port, version, Path(ca) if ca else None, ca_fingerprint)
        self._claim, self._is_https = claim, is_https
        self._identity: Identity | None = identity if isinstance(identity, Identity) else None
        self._identity_at = Path(identity) if isinstance(identity, Path | str) else identity_path(device_id)
        self._keys = keys
        secret = token if jwt_key is None else jwt_of(self.device_id, jwt_key, jwt_audience)
        self._access = None if is_known else self._other_access(context, username, password, secret)
        self._given = spool if isinstance(spool, Spool) else None
        self._where = Path(spool) if isinstance(spool, Path | str) else spool_path(device_id)
        self._durability, self._bounds = Durability(durability), bounds
        self._streams = {each.name: each for each in (STREAM_EVENTS, STREAM_MAIN, *streams)}
        self._power, self._compression = power, Compression(compression)
        self.location = location
        """Sent with the telemetry; change it when the device moves."""
        self.metadata = Metadata(firmware_version=firmware_version)
        """Sent with the telemetry."""
        self._health_every_s = health_every_s
        self._machine, self._watchdog = Machine(self._where), Watchdog(watchdog)
        self._on_notice, self._on_configuration = on_notice, on_configuration
        self._protection = _protection_of(sealing, has_identity=is_known)
        self._message_keys: MessageKeys | None = None
        self._message_key_days = message_key_days
        self.errors: dict[str, DeviceError] = {}
        """What is wrong, by code; reported with the status."""
        self._waiters: dict[Track, list[tuple[int, int, asyncio.Future[None]]]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    # ------------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        """Open the spool and begin to connect. Raises UnavailableError where another process has the spool."""
        self._spool = await asyncio.to_thread(self._open_spool)
        if self._spool.trouble:
            log.warning("%s", self._spool.trouble)
            self.report("spool", self._spool.trouble)
        if self._access is None:
            try:
                self._access = await asyncio.to_thread(self._open_identity)
            except BaseException:
                await asyncio.to_thread(self._spool.close)
                raise
        self._times = Timekeeper(self._clock, self._spool)
        self._uplink = Uplink(
            self._spool, self._streams.values(), compression=self._compression, run=self._times.run,
            place=self._times.place, fields=self._message_fields, seal=self._seal,
        )  # fmt: skip
        self._link = Link(
            self.device_id, self._address, self._access, self, spool=self._spool, uplink=self._uplink,
            power=self._power, status_every_s=self._health_every_s, clock=self._clock, times=self._times,
            chance=self._chance,
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(each) for each in (self._link.run(), self._watchdog.run())]
        for task in self._tasks:
            task.add_done_callback(self._ended)
        return self

    def _other_access(
        self, context: ssl.SSLContext | None, username: str | None, password: str | None,
        token: str | Callable[[int], str] | None,
    ) -> Access:  # fmt: skip
        if token is not None:
            return Token(self.device_id, self._server, context, self._clock, token)
        if context is None and (self._server.ca is not None or self._server.ca_fingerprint is not None):
            secret = None if password is None else password.encode()
            return Pinned(self._server, self._clock, username, secret)
        return Plain(context, username, None if password is None else password.encode())

    def _open_identity(self) -> Access:
        """Open the identity. Raises RejectedError: somebody else has it, or it is another device's."""
        if self._identity is None:
            self._identity = Identity(self._identity_at, self.device_id, self._keys)
        identity = self._identity
        if identity.trouble:
            log.warning("%s", identity.trouble)
            self.report("identity", identity.trouble)
        if self._protection is not None:
            self._message_keys = MessageKeys(identity, self._protection, self._clock, self._say, self._message_key_days)
        return Certified(
            identity, self._server, claim=self._claim, is_https=self._is_https, clock=self._clock,
            chance=self._chance, report=self._say, messages=self._message_keys, configured=self._on_configuration,
        )  # fmt: skip

    def _say(self, code: str, message: str) -> None:
        """Report what is wrong with the access, or (nothing) that it is in order."""
        if message:
            self.report(code, message)
        else:
            self.clear(code)

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
            self._link.trouble = f"ended by a bug: {task.exception()!r}"

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Say goodbye. What is not stored yet stays in the spool; `flush` before waits for it."""
        self._link.leave()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter[2].done():
                    waiter[2].set_exception(UnavailableError("the device was closed; the sample is in its spool"))
                    waiter[2].exception()
        self._times.keep()
        if self._access is not None:
            await asyncio.to_thread(self._access.close)
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
        self._link.added(stream)
        if self._waiters:
            self.settled()  # room may have been made for this one
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
        now = self._clock.now_ns()
        self.errors[code] = DeviceError(code, message, timestamp=now if is_believable(now) else None, severity=severity)
        while len(self.errors) > ERRORS_MAX:
            del self.errors[next(iter(self.errors))]

    def clear(self, code: str) -> None:
        """Say that it is in order again."""
        self.errors.pop(code, None)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._link.is_connected

    @property
    def trouble(self) -> str:
        """Empty while we are connected, else why not."""
        return self._link.trouble

    @property
    def is_settled(self) -> bool:
        """Whether we are connected, by the certificate that is to be used from now on."""
        identity = self._identity
        return self.is_connected and (identity is None or identity.state in {State.SETTLED, State.RENEWING})

    @property
    def is_stuck(self) -> bool:
        """Whether a person has to change something: `trouble` says what. The device asks again now and then."""
        return self._link.is_stuck

    @property
    def configuration(self) -> dict[str, Any] | None:
        """What the platform gave with the identity, kept with it; None where there is none."""
        return None if self._identity is None else self._identity.kept.configuration

    @property
    def depth(self) -> Depth:
        """What waits in the spool."""
        return self._spool.depth

    @property
    def gaps(self) -> list[Gap]:
        """What was given up and the server has not been told of yet."""
        return self._spool.gaps()

    def _stamp(self, at: Time) -> int:
        """Return the stamp of a sample."""
        return self._times.stamp() if at is None else parse_time(at)[0]

    # ------------------------------------------------------------------ what the link asks of it

    def settled(self) -> None:
        """Tell those who wait what is stored now."""
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
        known = (*self._spool.gaps(), *self._uplink.given_up)
        gaps = (each for each in known if (each.stream, each.epoch) == track)
        return next((each.reason for each in gaps if each.first <= seq <= each.last), "")

    def noticed(self, notice: Notice) -> None:
        """Hand on what the server has to say."""
        if self._on_notice is not None:
            self._on_notice(notice)

    def read_notice(self, payload: bytes) -> Notice:
        """Return what the server has to say. Raises MalformedError, RejectedError where it is sealed by another."""
        sealing = self._sealing
        return notices.decode(payload) if sealing is None else sealing.notice(self.device_id, payload)

    @property
    def _sealing(self) -> Sealing | None:
        if self._message_keys is not None:
            return self._message_keys.sealing
        return self._protection if isinstance(self._protection, Sealing) else None

    def _seal(self, channel: Channel, payload: bytes) -> bytes:
        sealing = self._sealing
        if sealing is not None:
            return sealing.seal(self.device_id, channel, payload)
        assert self._protection is None, "nothing leaves before there are keys"
        return payload

    def status(self, state: str, *, reason: str | None = None, with_health: bool = False) -> bytes:
        """Return a status message."""
        said = DeviceStatus(
            state,
            timestamp=None if reason == "lost" else self._times.utc(),  # a will does not know when
            health=self._machine.look(spool_depth=self._spool.depth.items, clock_offset=self._times.offset_s)
            if with_health
            else None,
            errors=list(self.errors.values()) or None,
            firmware_version=self.metadata.firmware_version,
            reason=reason,
            trusts=None if self._access is None or reason == "lost" else self._access.trusts,
        )
        return msgspec.json.encode(said)

    def _message_fields(self, boot_id: str) -> dict[str, object]:
        fields = self._times.fields(boot_id)
        metadata = {key: value for key, value in msgspec.to_builtins(self.metadata).items() if value is not None}
        if metadata:
            fields["metadata"] = metadata
        if self.location is not None:
            fields["location"] = msgspec.to_builtins(self.location)
        return fields


def _plain(value: Value | Reading | None) -> Value | Reading | None:
    """Return numbers of other libraries (numpy's scalars) as Python's."""
    item = getattr(value, "item", None)
    return item() if callable(item) else value


def _protection_of(
    wanted: Sealing | Protection | Literal["sign", "encrypt"] | None, *, has_identity: bool
) -> Sealing | Protection | None:
    if wanted is None or isinstance(wanted, Sealing):
        return wanted
    if not has_identity:
        raise RejectedError(
            "keys to sign and encrypt with are kept with an identity: name it, or give a claim", code="identity-needed"
        )
    return Protection(wanted)
