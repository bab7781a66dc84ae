"""The composition root: builds the rooms, wires their events, runs them on two loops, takes them down in order.

The broker loop (a thread of its own) has sockets, sessions, ingest and the group commit; the front thread serves API
and console. Nothing here decides anything.
"""

import asyncio
import datetime as dt
import gc
import logging
import os
import sys
import threading
from functools import partial
from time import monotonic, time_ns
from typing import Any, Final, NamedTuple

import msgspec

from godwit import __version__
from godwit.contract.heartbeat import SystemHeartbeat, encode
from godwit.contract.ids import DeviceId
from godwit.contract.notices import MESSAGE_KEYS, RenewalWanted, encode_renewal_wanted
from godwit.contract.times import format_time
from godwit.contract.topics import HEARTBEAT_TOPIC, Channel, DeviceTopic, topics_for
from godwit.mqtt.packets import Publish
from godwit.runtime.hosts import is_loopback
from godwit.runtime.supervise import supervise
from godwit.server import upgrade
from godwit.server.accounts.oidc_settings import OidcSettings, oidc_settings
from godwit.server.accounts.room import Accounts
from godwit.server.api.app import create_api
from godwit.server.api.encoder import Encoders
from godwit.server.broker.authentication import FleetAuthenticator
from godwit.server.broker.rights import WEBSOCKET, WEBSOCKET_HTTP, WEBSOCKET_TLS
from godwit.server.broker.switches import switches_of
from godwit.server.broker_loop import BrokerLoop
from godwit.server.console.app import mount
from godwit.server.device_port.app import create_app
from godwit.server.device_port.credentials import Doorkeeper
from godwit.server.device_port.enrollment import REQUEST_BYTES_MAX
from godwit.server.device_port.port import DevicePort
from godwit.server.device_port.refusals import Refusals
from godwit.server.device_port.rooms import Rooms
from godwit.server.device_port.trust import Trust
from godwit.server.front import Front
from godwit.server.housekeeping import Housekeeping
from godwit.server.identity import clockwork
from godwit.server.identity.registrars import Registrars
from godwit.server.identity.room import open_identity
from godwit.server.identity.server_certificate import Given
from godwit.server.ingest.commit import GroupCommit
from godwit.server.ingest.directory import Directory
from godwit.server.ingest.quarantine_room import QuarantineRoom
from godwit.server.ingest.registration import Registration
from godwit.server.ingest.seal_keys import SealKeys
from godwit.server.ingest.service import Ingest
from godwit.server.ingest.trace import Trace
from godwit.server.logs import configure_logs
from godwit.server.platform import Platform
from godwit.server.registry.model import Device, DeviceType
from godwit.server.registry.presence import PresenceBoard
from godwit.server.registry.service import Change, Registry
from godwit.server.roads import ROADS, Road, packet_bytes_max
from godwit.server.settings import Settings
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine
from godwit.server.storage.lock import DataDirLock
from godwit.server.telemetry.duckdb import DuckDBStore
from godwit.server.telemetry.live import LiveFeed

log = logging.getLogger(__name__)

SWITCH_S: Final = 0.001
"""How long a thread keeps the interpreter while another waits: the broker is not to wait 5 ms behind a page."""


class Running(NamedTuple):
    """Where a started server is, and how long it took."""

    console_url: str
    sign_in_url: str
    mqtt_address: str
    mqtts_address: str
    websocket_addresses: list[str]
    """Where MQTT over WebSocket is, as clients are told it."""
    device_address: str
    """Of the HTTPS port of devices; empty: there is none."""
    foreign_address: str
    """Of the broker that the platform is behind, if it is."""
    trouble: list[str]
    """Why it is not ready after all."""
    seconds: float


class Server:
    """One platform in this process. `start`, `wait`, `stop` are called from one thread; `stop` also from a signal."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stopping = threading.Event()
        self._is_waiting = False
        self._is_down = True
        self._failed = ""

    # --- up -------------------------------------------------------------------------------------------------------

    def start(self) -> Running:
        """Open everything; returns when it is ready. Raises RejectedError or UnavailableError saying what to do."""
        began = monotonic()
        settings = self.settings
        configure_logs(settings.log_level)
        sys.setswitchinterval(SWITCH_S)
        self._lock = DataDirLock(settings.data_dir)
        self._is_down = False
        self._open_rooms()
        self._loop = BrokerLoop()
        try:
            self._loop.call(self._start_broker())
            self._start_front()
            self._start_device_port()
        except BaseException:
            self.stop()
            raise
        # What is loaded now stays: a full collection over it would stop the broker for a tenth of a second.
        gc.freeze()
        addresses = self._road.addresses
        base = self._front.url
        websockets = [f"ws://{addresses[WEBSOCKET]}{upgrade.PATH}"] if WEBSOCKET in addresses else []
        if self._road.inside is not None:
            websockets.append(f"{base.replace('http', 'ws', 1)}{upgrade.PATH}")
        return Running(
            base,
            f"{base}/sign-in?token={self._platform.sign_in_token}",
            addresses.get("local", ""),
            addresses.get("tls", ""),
            websockets,
            self._device_port.address if settings.device_port else "",
            addresses.get("foreign", ""),
            self._platform.trouble(),
            monotonic() - began,
        )

    def _open_rooms(self) -> None:
        settings = self.settings
        self._database = Database(open_engine(settings.database_url, settings.data_dir))
        self._accounts = Accounts(
            self._database,
            settings.data_dir,
            session_idle_s=settings.session_idle_s,
            session_longest_s=settings.session_s_max,
            oidc=_oidc_of(settings),
        )
        self._registry = Registry(self._database)
        self._identity = open_identity(
            self._database,
            self._registry,
            settings.data_dir,
            passphrase=settings.key_passphrase,
            passphrase_file=settings.key_passphrase_file,
            credentials=os.environ.get("CREDENTIALS_DIRECTORY"),
            lifetime=lifetime_of(settings),
            given=given_of(settings),
            refusals=self._accounts.refusals,
            grace_days=settings.renewal_grace_days,
        )
        self._certificate = self._identity.server.ensure()
        self._store = DuckDBStore(
            settings.data_dir / "telemetry",
            memory=settings.store_memory,
            query_memory=settings.query_memory,
            hot_rows_max=settings.hot_rows_max,
            seal_after_s=settings.seal_after_s,
            disk_free_bytes_min=settings.disk_free_bytes_min,
        )
        self._topics = topics_for(settings.topic_layout)
        self._board = PresenceBoard(self._registry.load_presence(), time_ns())
        self._live = LiveFeed()
        self._trace = Trace()
        self._directory = Directory()
        self._road: Road = ROADS[settings.mqtt_broker](
            settings,
            self._topics,
            self._board,
            self._certificate,
            self._trace,
            identity=self._identity,
            accounts=self._accounts,
        )
        self._ingest = Ingest(
            self._store, self._directory, self._topics, self._road.presence, self._live, trace=self._trace,
            clock_threshold_ns=settings.clock_error_ms_max * 1_000_000,
        )  # fmt: skip
        self._ingest.pipeline.room = QuarantineRoom(
            total=settings.quarantine_bytes_max,
            tenant=settings.quarantine_bytes_max // 2,
            device=settings.quarantine_device_bytes_max,
            tenant_max_of=lambda tenant: self._registry.tenancy.quota_of(tenant).quarantine_bytes,
        )
        self._directory.devices_max_of = lambda tenant: self._registry.tenancy.quota_of(tenant).devices
        self._ingest.recover()
        self._seal_keys = SealKeys(self._directory, self._ingest.pipeline.seals, self._identity.message_keys)
        self._seal_keys.load(self._registry.policies)
        devices, types = self._registry.load_all()
        for device_type in types:
            self._directory.learn(device_type)
        for device in devices:
            self._directory.learn(device)
            self._identity.roster.learn(device)
        self._identity.news.on_change(lambda change: self._loop.soon(self._road.follow, change))
        self._registry.on_change(self._on_registry_change)
        self._identity.enrollment.on_configured = self._publish_configuration
        self._started = time_ns()

    def _publish_configuration(self, device_id: DeviceId, configuration: dict[str, Any]) -> None:
        """Let a device find its first configuration as retained desired state; empty: it is taken away."""
        topic = self._topics.build(DeviceTopic(device_id, Channel.TWIN_DESIRED))
        publish = Publish(topic, msgspec.json.encode(configuration) if configuration else b"", 2, retain=True)
        self._loop.soon(lambda: self._road.post(publish, time_ns()))

    def _on_registry_change(self, changed: Change) -> None:
        def follow() -> None:
            self._directory.learn(changed)
            self._road.follow(changed)
            if not isinstance(changed, Device | DeviceType):
                self._board.forget(changed)
                self._ingest.pipeline.seals.forget(changed)

        self._loop.soon(follow)

    async def _start_broker(self) -> None:
        road = self._road
        self._group = GroupCommit([Registration(self._directory, self._registry), self._ingest, *road.participants])
        self._ingest.attach(asyncio.get_running_loop(), self._group)
        stored = self._ingest.stored
        stored.send, stored.is_always_told = road.tell, not road.is_storing_before_ack
        self._ingest.forward = road.forward
        self._identity.campaigns.tell = partial(self._loop.soon, self._ingest.notify)
        self._housekeeping = Housekeeping(
            self._ingest, self._board, self._registry, self._store, self._live, self._beat
        )
        self._housekeeping.chores += [
            self._seal_keys.write, partial(self._seal_keys.audit, self._database), self._accounts.refusals.tell_more
        ]  # fmt: skip
        wanted = encode_renewal_wanted(RenewalWanted(MESSAGE_KEYS))
        self._identity.message_keys.on_removed = lambda device_id: self._loop.soon(
            self._ingest.notify, device_id, wanted
        )
        self._seal_keys.follow(self._identity.news, self._registry, self._loop.soon)
        await road.open(self._ingest, self._group, self._on_failure)
        road.limit(self._registry.tenancy)
        self._tasks = [
            supervise(self._group.run(), "group commit", self._on_failure),
            supervise(self._housekeeping.run(), "housekeeping", self._on_failure),
            supervise(clockwork.run(self._identity), "identity", self._on_failure),
        ]
        self._identity.server.on_change(road.renew_tls)

    def _start_front(self) -> None:
        settings = self.settings
        self._platform = Platform(
            settings=settings,
            registry=self._registry,
            database=self._database,
            identity=self._identity,
            accounts=self._accounts,
            store=self._store,
            ingest=self._ingest,
            live=self._live,
            broker=self._road.door(self._loop.loop),
            started=self._started,
            admin_token=self._accounts.admin_token,
            sign_in_token=self._accounts.issue_sign_in(),
            trace=self._trace,
        )
        self._encoders = Encoders()
        app = create_api(self._platform, self._accounts, self._encoders)
        mount(app, self._platform, self._accounts)
        self._front = Front(
            app,
            settings.server_host,
            settings.server_port,
            self._certificate,
            self._open_console_to_mqtt(),
            tls_minimum=settings.tls_minimum,
        )
        self._identity.server.on_change(self._front.renew_tls)
        self._front.start()

    def _start_device_port(self) -> None:
        settings, identity = self.settings, self._identity
        if not settings.device_port:
            return
        trust = Trust(identity.authorities, self._certificate, minimum=settings.tls_minimum)
        trust.follow(identity.news)
        refusals = Refusals(self._accounts.refusals)
        fleet = FleetAuthenticator(
            identity.roster, lambda _device, _topic: False, None, switches_of(settings),
            seen=identity.revocation.seen, find_token=identity.device_tokens.find,
        )  # fmt: skip
        rooms = Rooms(
            identity=identity,
            ingest=self._ingest,
            doorkeeper=Doorkeeper(identity, fleet),
            enroller=identity.enrollment,
            registrars=Registrars(self._database, identity.vault, identity.authorities),
            refusals=refusals,
            payload_bytes_max=settings.payload_bytes_max,
        )
        self._device_port = DevicePort(
            create_app(rooms, self._platform), settings.device_host, settings.device_port, trust, refusals,
            body_bytes_max=max(settings.payload_bytes_max, REQUEST_BYTES_MAX),
        )  # fmt: skip
        self._device_port.start()
        identity.server.on_change(self._device_port.renew_tls)

    def _open_console_to_mqtt(self) -> Any:
        """Return what takes the WebSockets of the console's port; MQTT is among them where the broker is ours."""
        settings, inside = self.settings, self._road.inside
        if inside is None:
            return "websockets-sansio"
        name = WEBSOCKET_HTTP if is_loopback(settings.server_host) else WEBSOCKET_TLS
        self._road.addresses[name] = f"{settings.server_host}:{settings.server_port}{upgrade.PATH}"
        door = upgrade.Door(
            self._loop.loop, inside.adopt, packet_bytes_max(settings), is_trusting=settings.local_listener
        )
        return partial(upgrade.Upgrade, door)

    def _beat(self, now: int) -> None:
        trouble = ([self._group.stalled] if self._group.stalled else []) + self._road.trouble()
        beat = SystemHeartbeat(
            timestamp=format_time(now),
            status="degraded" if trouble else "healthy",
            version=__version__,
            uptime=(now - self._started) / 1e9,
            connected_devices=self._road.connected,
            messages_per_second=round(self._ingest.stats().messages_per_s, 3),
            trouble=trouble,
        )
        self._road.post(Publish(HEARTBEAT_TOPIC, encode(beat), 0, retain=True), now)

    def _on_failure(self, name: str, error: BaseException) -> None:
        """End the process loudly: what runs on without its group commit would acknowledge nothing."""
        self._failed = f"{name} ended: {error!r}"
        self._stopping.set()

    # --- down -----------------------------------------------------------------------------------------------------

    def wait(self) -> None:
        """Block until `stop` is called or a room fails; then take everything down.

        Raises RuntimeError after a failure.
        """
        self._is_waiting = True
        self._stopping.wait()
        self._is_waiting = False
        self._take_down()
        if self._failed:
            raise RuntimeError(self._failed)

    def stop(self) -> None:
        """Stop; safe to call again, and from a signal handler while another frame waits."""
        self._stopping.set()
        if not self._is_waiting:
            self._take_down()

    def _take_down(self) -> None:
        if self._is_down:
            return
        self._is_down = True
        if hasattr(self, "_device_port"):
            self._device_port.stop()
        if hasattr(self, "_front"):
            self._front.stop()
            self._encoders.close()
        if hasattr(self, "_loop"):
            self._loop.call(self._stop_broker())
            self._loop.stop()
        if hasattr(self, "_accounts"):
            self._accounts.close()
        self._store.close()
        self._lock.release()
        gc.unfreeze()  # else DuckDB's types outlive their module at exit, and it says so on stderr

    async def _stop_broker(self) -> None:
        await self._road.close()
        if not hasattr(self, "_tasks"):
            return
        committing, *others = self._tasks
        for each in others:
            each.cancel()
        await self._group.close()
        await asyncio.wait([committing], timeout=3)
        committing.cancel()
        await self._housekeeping.finish()
        self._housekeeping.close()
        await asyncio.to_thread(self._registry.write_presence, self._board.due(time_ns()))
        self._group.shut()
        self._road.shut()


def lifetime_of(settings: Settings) -> dt.timedelta:
    """Return how long the certificates of devices live: days, or seconds for those who renew all the time."""
    seconds = settings.device_certificate_s
    return dt.timedelta(seconds=seconds) if seconds else dt.timedelta(days=settings.device_certificate_days)


def given_of(settings: Settings) -> Given:
    """Return what the settings say of this server's certificate: its names first, then where it listens."""
    names = [each.strip() for each in settings.public_host.split(",")]
    listening = [settings.mqtts_host, settings.device_host, settings.server_host]
    return Given(
        tuple(dict.fromkeys([*(each for each in names if each), *listening])),
        settings.tls_certificate,
        settings.tls_key,
    )


def _oidc_of(settings: Settings) -> OidcSettings | None:
    return oidc_settings(
        settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret, name=settings.oidc_name,
        claim=settings.oidc_claim, grants=settings.oidc_grants, admit=settings.oidc_admit,
        session_s_max=settings.oidc_session_s_max,
    )  # fmt: skip
