"""The road of MQTT messages into the platform: its own broker, or one that is already there.

One protocol for both, so that nothing above asks which it is.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from time import time_ns
from typing import Final, Protocol, TypeVar

from godwit.contract.errors import RejectedError, UnavailableError
from godwit.contract.ids import DeviceId
from godwit.contract.topics import Topics
from godwit.mqtt.packets import Connect, Publish
from godwit.mqtt.server_connection import Limits
from godwit.mqtt.tls import fleet_context
from godwit.runtime.hosts import is_loopback
from godwit.runtime.supervise import OnFailure, supervise
from godwit.server.accounts.refusal_tally import Refusal
from godwit.server.accounts.room import Accounts
from godwit.server.broker.aside import Aside
from godwit.server.broker.authentication import Desk, FleetAuthenticator, PasswordAuthenticator
from godwit.server.broker.broker import Broker
from godwit.server.broker.client import Client
from godwit.server.broker.door import ThreadSafeDoor
from godwit.server.broker.enrolling import Enrolling
from godwit.server.broker.journal import Journal, LeftWill
from godwit.server.broker.limits import Quotas
from godwit.server.broker.listener import Server as MqttServer
from godwit.server.broker.redirect import redirect_to
from godwit.server.broker.refusals import Denial
from godwit.server.broker.rights import LOCAL, LOOPBACK, WEBSOCKET
from godwit.server.broker.switches import switches_of
from godwit.server.broker.sys_topics import SysTopics
from godwit.server.foreign.bridge import Bridges
from godwit.server.foreign.bridge_file import load_bridges
from godwit.server.foreign.road import ForeignRoad
from godwit.server.identity.model import Authority, Change
from godwit.server.identity.room import Identity
from godwit.server.identity.server_certificate import ServerCertificate
from godwit.server.ingest.arrival import Participant, SeesDevices
from godwit.server.ingest.commit import GroupCommit
from godwit.server.ingest.service import Ingest
from godwit.server.ingest.trace import Trace
from godwit.server.platform import BrokerDoor
from godwit.server.registry.model import Device, DeviceType, TenantQuota
from godwit.server.registry.presence import PresenceBoard
from godwit.server.registry.tenants import Tenants
from godwit.server.settings import Settings
from godwit.server.workers.crew import Crew
from godwit.server.workers.frames import TlsTerms

log = logging.getLogger(__name__)

T = TypeVar("T")
ASK_AGAIN_S: Final = 0.5
LOOK_AGAIN_S: Final = 1.0
"""When files of the server's certificate that could not be read are read again."""


class Road(Protocol):
    """What `main` needs of either. Everything but `door` is called on the broker loop, or before it runs."""

    participants: list[Participant]
    """What of it is made durable with each group."""
    addresses: dict[str, str]
    """Where devices come in: listener -> host:port."""
    is_storing_before_ack: bool
    """Whether a device's PUBACK means stored; else it is told by `telemetry/stored`."""
    inside: MqttServer | None
    """Once open: what takes in connections that were made inside this process; None where there are none."""

    @property
    def presence(self) -> SeesDevices:
        """Who hears what devices say of themselves."""
        ...

    @property
    def connected(self) -> int:
        """How many connections (or, where these are not seen, devices) are there."""
        ...

    async def open(self, intake: Ingest, group: GroupCommit, on_failure: OnFailure) -> None:
        """Let messages come. Raises RejectedError or OSError saying what to do."""
        ...

    async def close(self) -> None:
        """Take no more messages."""
        ...

    def shut(self) -> None:
        """Close the files, after the last commit."""
        ...

    def renew_tls(self) -> None:
        """Have the listeners take the server's certificate from its files again, for new connections."""
        ...

    def post(self, publish: Publish, now: int) -> None:
        """Publish as the platform."""
        ...

    def tell(self, topic: str, payload: bytes) -> bool:
        """Tell a device at QoS 1 what need not be durable; False: not now."""
        ...

    def forward(self, publish: Publish) -> None:
        """Hand a message that came by another way to subscribers."""
        ...

    def follow(self, change: Change | Device | DeviceType | DeviceId) -> None:
        """Hear what has changed in identity or registry."""
        ...

    def limit(self, tenants: Tenants) -> None:
        """Hold each tenant to its quota. On the broker's loop, once it is open."""
        ...

    def trouble(self) -> list[str]:
        """Return why messages do not come, if so."""
        ...

    def door(self, loop: asyncio.AbstractEventLoop) -> BrokerDoor:
        """Return the broker as other rooms see it."""
        ...


class EmbeddedRoad:
    """The platform's own broker and its listeners."""

    is_storing_before_ack = True

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
        if settings.local_listener and not is_loopback(settings.mqtt_host):
            raise RejectedError(
                f"MQTT_HOST={settings.mqtt_host}: the plaintext listener is for loopback only; fleets use the TLS "
                "listener (MQTTS_HOST, MQTTS_PORT)",
                code="invalid-setting",
            )
        self._redirect = (
            redirect_to(settings.server_reference, is_permanent=settings.server_moved)
            if settings.server_reference
            else None
        )
        self._settings = settings
        self._topics = topics
        self._certificate = certificate
        self._trace = trace
        self._identity, self._accounts = identity, accounts
        self.presence = board
        self.addresses: dict[str, str] = {}
        self._journal = Journal(settings.data_dir / "broker.sqlite")
        self.participants: list[Participant] = [self._journal]
        self.inside: MqttServer | None = None
        self._crew: Crew | None = None
        self._bridges = Bridges(load_bridges(settings.bridges), settings.data_dir)

    async def open(self, intake: Ingest, group: GroupCommit, on_failure: OnFailure) -> None:
        """Listen."""
        settings = self._settings
        # The device learns from CONNACK that PUBACK means stored here (design, contract).
        limits = Limits(
            packet_bytes_max=packet_bytes_max(settings),
            keep_alive_s_max=settings.keep_alive_max,
            user_properties=(("godwit-ack", "stored"),),
        )
        enrollment = self._identity.enrollment
        authenticator = FleetAuthenticator(
            self._identity.roster,
            self._may_answer,
            PasswordAuthenticator(settings.mqtt_username, settings.mqtt_password),
            switches_of(settings),
            Desk(enrollment.credential_of_claim, enrollment.take_in, self._accounts.known),
            seen=self._identity.revocation.seen,
            find_token=self._identity.device_tokens.find,
        )
        self._broker = Broker(
            self._topics,
            intake,
            group,
            self._journal,
            authenticator,
            judge=authenticator,
            limits=limits,
            quotas=quotas_of(settings),
            tenant_of=intake.tenant_of,
            trace=self._trace,
            redirect=self._redirect,
            now=time_ns(),
        )
        self._broker.presence = self.presence
        broker = self._broker
        aside = Aside()
        broker.reception.aside = aside.ask
        broker.reception.on_denied = self._note_denied
        broker.on_forbidden = self._note_forbidden
        broker.on_withheld = self._note_withheld
        broker.enrolling = Enrolling(
            enrollment,
            aside.ask,
            lambda publish: broker.post(publish, time_ns()),
            lambda publish: broker.announce(publish.topic, publish.payload, time_ns(), qos=2, retain=False),
        )
        broker.on_turned_away = self._note_turned_away
        self._aside = aside
        self._asking = supervise(self._ask_again(), "rights of applications", on_failure)
        ticks = [SysTopics(self._broker, time_ns()).tick]
        # Bridges and WebSockets of the console's port come in by none of the listeners, which may be the workers'.
        self.inside = MqttServer(self._broker, () if settings.workers else ticks)
        if settings.workers:
            await self._listen_with_workers(ticks)
        else:
            await self._listen(self.inside)
        self._bridges.start(self.inside, on_failure)

    async def _listen(self, server: MqttServer) -> None:
        settings = self._settings
        if settings.local_listener:
            host = settings.mqtt_host
            await server.listen(LOCAL, host, settings.mqtt_port)
            if settings.mqtt_ws_port:
                port, frame_bytes_max = settings.mqtt_ws_port, packet_bytes_max(settings)
                await server.listen(WEBSOCKET, host, port, frame_bytes_max=frame_bytes_max)
        await server.listen("tls", settings.mqtts_host, settings.mqtts_port, self._context())
        self.addresses = server.addresses

    async def _listen_with_workers(self, ticks: Sequence[Callable[[int], None]]) -> None:
        settings = self._settings
        crew = self._crew = Crew(
            self._broker, settings.workers, settings.topic_layout, ticks, tls=TlsTerms(*self._tls_terms())
        )
        if settings.local_listener:
            host = settings.mqtt_host
            crew.listen(LOCAL, host, settings.mqtt_port)
            if settings.mqtt_ws_port:
                crew.listen(WEBSOCKET, host, settings.mqtt_ws_port, frame_bytes_max=packet_bytes_max(settings))
        crew.listen("tls", settings.mqtts_host, settings.mqtts_port, is_tls=True)
        await crew.start()
        self.addresses = crew.addresses

    def _tls_terms(self) -> tuple[str, str, str, str]:
        certificate, key = self._certificate
        vouching = self._identity.roster.trusted() if self._settings.device_certificates else []
        authorities = "".join(each.row.certificate for each in vouching)
        return str(certificate), str(key), authorities, self._settings.tls_minimum

    def _context(self) -> ssl.SSLContext:
        certificate, key, authorities, minimum = self._tls_terms()
        return fleet_context(Path(certificate), Path(key), authorities, minimum)

    def renew_tls(self) -> None:
        """Shake hands anew from now on: our certificate, or whom we trust, has changed."""
        if self._crew is not None:
            self._crew.trust(TlsTerms(*self._tls_terms()))
        elif self.inside is not None:
            try:
                self.inside.trust(self._context())
            except OSError as error:  # half replaced by its owner at this moment
                log.warning("the TLS listener goes on as before: %s", error)
                asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self.renew_tls)

    def follow(self, change: Change | Device | DeviceType | DeviceId) -> None:
        """Hear what has changed in identity or registry: sessions end, and what is delivered to whom changes."""
        if not hasattr(self, "_broker"):
            return
        self._broker.guard.follow(change)
        if isinstance(change, Authority):
            self.renew_tls()
        elif isinstance(change, Device | str):
            self._broker.rights_changed()

    def _may_answer(self, client_id: str, device_id: str) -> bool:
        """Whether a client may be told by a device: it sees the device anyway."""
        session = self._broker.sessions.get(client_id)
        return session is not None and (session.rights is None or session.rights.sees(device_id))

    async def _ask_again(self) -> None:
        """End the sessions of applications whose tokens are revoked: nobody tells."""
        guard, wills, is_said = self._broker.guard, self._broker.wills, False
        while True:
            await asyncio.sleep(ASK_AGAIN_S)
            asked = list(guard.asked.items())
            absent = [((client_id, still), still) for client_id, still in wills.asked.items()]
            try:
                answers = await asyncio.to_thread(_answers, asked) if asked else []
                gone = await asyncio.to_thread(_answers, absent) if absent else []
            except UnavailableError as error:  # the database is away: nobody is thrown out for that
                if not is_said:
                    log.warning("nobody can say now whether the tokens of applications still count: %s", error)
                is_said = True
                continue
            is_said = False
            guard.deny((client, denial) for client, denial in answers if denial is not None)
            for (client_id, still), denial in gone:
                left = wills.deny(client_id, still) if denial is not None else None
                if left is not None and denial is not None:
                    self._note_withheld(left, denial.code)

    def _note_denied(self, client: Client, packet: Connect, denial: Denial) -> None:
        self._note(client, "mqtt.refuse", packet.client_id, denial.code)

    def _note_forbidden(self, client: Client, topic: str, code: str) -> None:
        self._note(client, "mqtt.forbid", topic, code)

    def _note_turned_away(self, code: str, detail: str, address: str) -> None:
        self._write(Refusal("unknown", "mqtt.refuse", "handshake", code, address, detail=detail))

    def _note_withheld(self, left: LeftWill, code: str) -> None:
        who = left.peer.identity or left.peer.client_id
        tenant = left.credential.tenant if left.credential is not None else ""
        self._write(Refusal(who, "mqtt.forbid", left.will.topic, code, tenant=tenant))

    def _note(self, client: Client, what: str, about: str, code: str) -> None:
        if client.listener in LOOPBACK and what == "mqtt.forbid":
            return  # its owner finds the message in quarantine
        who = client.peer.identity or client.peer.client_id or "unknown"
        self._write(Refusal(who, what, about, code, client.address, client.tenant))

    def _write(self, refusal: Refusal) -> None:
        """Have a refusal written into the audit log, in a thread; the same one once a minute, with how often."""
        refusals = self._accounts.refusals
        if refusals.is_new(refusal):
            self._aside.do(lambda: refusals.write(refusal))

    async def close(self) -> None:
        """Stop listening; everybody is told."""
        if hasattr(self, "_asking"):
            self._asking.cancel()
            self._aside.close()
        await self._bridges.close()
        if self.inside is not None:
            await self.inside.close()
        if self._crew is not None:
            await self._crew.close()

    def shut(self) -> None:
        """Close the journal, after the last commit."""
        self._journal.close()

    @property
    def connected(self) -> int:
        """How many connections there are."""
        return self._broker.connections

    def post(self, publish: Publish, now: int) -> None:
        """Publish as the platform."""
        self._broker.post(publish, now)

    def tell(self, topic: str, payload: bytes) -> bool:
        """Tell a device at QoS 1 what need not be durable."""
        self._broker.announce(topic, payload, time_ns(), qos=1, retain=False)
        return True

    def forward(self, publish: Publish) -> None:
        """Hand a message that came by another way to subscribers."""
        self._broker.announce(publish.topic, publish.payload, time_ns(), qos=1, retain=False)

    def limit(self, tenants: Tenants) -> None:
        """Hold each tenant to its quota; a change counts at once."""
        gate, clients, loop = self._broker.gate, self._broker.clients, asyncio.get_running_loop()
        gate.limit_tenants(tenants.quota_of)

        def changed(tenant: str, _quota: TenantQuota) -> None:
            loop.call_soon_threadsafe(lambda: gate.quota_changed(tenant, clients.values(), time_ns()))

        tenants.on_quota(changed)

    def trouble(self) -> list[str]:
        """Return nothing: what can fail here fails loudly."""
        return []

    def door(self, loop: asyncio.AbstractEventLoop) -> ThreadSafeDoor:
        """Return the broker as other rooms see it."""
        return ThreadSafeDoor(self._broker, self.addresses, loop, self._bridges.stats)


def _answers(asked: Sequence[tuple[T, Callable[[], Denial | None]]]) -> list[tuple[T, Denial | None]]:
    return [(whom, still()) for whom, still in asked]


def packet_bytes_max(settings: Settings) -> int:
    """Return the largest packet that the broker takes: a payload, and room for topic and properties."""
    return settings.payload_bytes_max + 65_536


def quotas_of(settings: Settings) -> Quotas:
    """Return the broker's limits as the settings have them."""
    return Quotas(
        connections=settings.connections_max,
        connections_per_tenant=settings.tenant_connections_max,
        connects_per_s=settings.connects_per_s,
        messages_per_s=settings.client_messages_per_s,
        bytes_per_s=settings.client_bytes_per_s,
        subscriptions=settings.client_subscriptions_max,
        tenant_messages_per_s=settings.tenant_messages_per_s,
        tenant_bytes_per_s=settings.tenant_bytes_per_s,
        total_messages_per_s=settings.total_messages_per_s,
        total_bytes_per_s=settings.total_bytes_per_s,
        retained_bytes=settings.retained_bytes_max,
        retained_bytes_per_tenant=settings.tenant_retained_bytes_max,
        queued_bytes=settings.queued_bytes_max,
    )


ROADS: Final[dict[str, type[EmbeddedRoad] | type[ForeignRoad]]] = {"embedded": EmbeddedRoad, "external": ForeignRoad}
"""By MQTT_BROKER."""
