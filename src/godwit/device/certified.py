"""The access of a device that has a certificate: enrolled by a claim, renewed over the open session, its roots kept.

It is the shell around the cores: `identity` (what is on disk), `enrollment` (what is asked and granted), `renewal`
(when), `trust` (dates and roots).
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec

from godwit.contract import codes
from godwit.contract.credentials import RENEWAL_USER
from godwit.contract.enrollment import EnrollmentGrant, EnrollmentRequest, decode_grant, encode
from godwit.contract.errors import GodwitError, RejectedError, UnavailableError
from godwit.contract.notices import MESSAGE_KEYS, NewAuthorities, RenewalWanted
from godwit.contract.topics import ENROLLMENT_QOS, EnrollmentStep, enrollment_topic
from godwit.device.access import Login, Server, Wire, first_roots
from godwit.device.enrollment import ask_by_https, ask_by_mqtt, ask_over, is_for, read_grant, read_roots
from godwit.device.identity import Identity
from godwit.device.identity_file import Held, State, fingerprint
from godwit.device.message_keys import MessageKeys
from godwit.device.renewal import Renewal
from godwit.device.trust import Seen, TimeGuard, Trust
from godwit.mqtt import packets as p
from godwit.mqtt import reasons
from godwit.mqtt.client import MqttClient
from godwit.mqtt.reasons import ReasonError, reason_name
from godwit.runtime.clock import NS, Clock

log = logging.getLogger(__name__)

REFUSED_FROM: Final = 0x80
KEYS_REFUSED: Final = frozenset((codes.KEY_RETIRED, codes.KEY_REMOVED))
FOR_ONE: Final = frozenset(("operator", MESSAGE_KEYS))
"""Reasons of a wish that one device is told, and not a fleet."""
GRANTS_MAX: Final = 16
WRITE_AGAIN_S: Final = 60.0
PATIENCE_S_MIN: Final = 1.0
LOOK_EVERY_S: Final = 600.0
"""A clock may be set: what is due is looked at again."""
SESSION_S: Final = 86_400
"""What waits for us on the platform stays there, while we tell it our keys."""
KEEP_TIME_NS: Final = 3_600 * NS
"""How far time goes on before it is written down again."""


class Certified:
    """A certificate of our own: enrolled where there is none, renewed in time. See `identity` for its states.

    `messages`: keys of messages, which go with every request. `is_https`: enroll by HTTPS. `configured` hears of the
    configuration of a grant.
    """

    def __init__(
        self,
        identity: Identity,
        server: Server,
        *,
        claim: str | None,
        is_https: bool,
        clock: Clock,
        chance: Callable[[], float],
        report: Callable[[str, str], None],
        messages: MessageKeys | None = None,
        configured: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.identity, self._server, self._claim, self._is_https = identity, server, claim, is_https
        self._chance, self._report = chance, report
        self._messages, self._configured = messages, configured
        self._telling: dict[str, str] = {}
        """The keys of messages that the last request carried."""
        self._guard = TimeGuard(clock, identity.kept.time)
        self._trust = Trust(self._guard)
        self._seen: Seen | None = None
        self._held: Held | None = None
        """What the connection is made with."""
        self._is_newest_refused = self._is_shut_out = self._has_tried_late = False
        self._renewal: Renewal | None = None
        self._grants: asyncio.Queue[EnrollmentGrant] = asyncio.Queue(GRANTS_MAX)
        self._news = asyncio.Event()
        self._is_enrolled_by_claim = False

    # ------------------------------------------------------------------ connections

    async def login(self) -> Login:
        """Return what to connect with; enrolls first where there is no certificate."""
        await asyncio.to_thread(self._pin)
        self._seen = None
        held = self._pick()
        if held is not None and self._is_late(held):
            held = await self._renew_late() or held
        if held is None or self._is_to_be_claimed(held):
            held = await self._enroll()
        elif self._messages is not None and not await asyncio.to_thread(self._is_told):
            held = await self._tell_keys(held)
        if self._messages is not None:
            await asyncio.to_thread(self._messages.refresh)
        self._held = held
        if self._guard.now_ns() >= held.ends:
            self._report(
                "certificate-ended",
                f"the certificate ended on {held.until}, and nobody renews it: the device needs a new claim",
            )
        context = self._trust.context(self.identity.kept.trusted)
        await asyncio.to_thread(self.identity.arm, context, held)
        return Login(context, self._look)

    def _pin(self) -> None:
        """Take up whom to trust, where it is new."""
        if not self.identity.kept.trusted:
            self.identity.pin(first_roots(self._server))
        elif self._server.ca is not None:
            with contextlib.suppress(RejectedError, OSError):  # we can do without that file
                self.identity.pin(first_roots(self._server))

    def _pick(self) -> Held | None:
        """Return the newest certificate, or after it was refused the one before, in turns."""
        kept = self.identity.kept
        if kept.next is not None and kept.current is not None and self._is_newest_refused:
            return kept.current
        return self.identity.newest

    def _is_to_be_claimed(self, held: Held) -> bool:
        """Whether a claim has to help: the certificate has ended, as well as we know."""
        return self._claim is not None and not self._is_enrolled_by_claim and self._guard.now_ns() >= held.ends

    def _is_late(self, held: Held) -> bool:
        """Whether a certificate has ended: as we know, or as it seems, since the platform does not let us in."""
        return self._is_shut_out or self._guard.now_ns() >= held.ends

    def _look(self, wire: Wire) -> None:
        self._seen = self._trust.inspect(wire)

    async def accepted(self) -> None:
        """Settle: the certificate works."""
        while True:
            try:
                await self._settle()
            except OSError as error:
                self._report("identity", f"{self.identity.directory} cannot be written: {error}")
                await asyncio.sleep(WRITE_AGAIN_S)
            else:
                self._report("certificate-ended", "")
                return

    async def _settle(self) -> None:
        """Keep what works. Where the newest was refused and this is the one before, the newest is given up."""
        held, seen, identity = self._held, self._seen, self.identity
        assert held is not None
        if identity.state is State.RENEWED and held == identity.kept.current:
            log.warning("device %s: the new certificate was refused, the old one works", identity.kept.device_id)
            self._plan(held).failed(self._now_s(), self._chance())  # before a wish of the platform can come in
            await asyncio.to_thread(identity.decline)
        else:
            await asyncio.to_thread(identity.connected, held, seen.root if seen is not None else "")
        self._is_newest_refused = self._is_shut_out = self._has_tried_late = False

    async def refused(self, reason: int | None = None) -> bool:
        """Try the other certificate the next time, if the server was there and there is another.

        Where it was there and does not let us in, our certificate may have ended, whatever our clock says.
        """
        was_there, self._seen = self._seen is not None, None
        if was_there and self.identity.state is State.RENEWED:
            self._is_newest_refused = self._held == self.identity.kept.next
            if self._is_newest_refused:
                return True
        self._is_shut_out = was_there and reason == reasons.NOT_AUTHORIZED
        return self._is_shut_out and not self._has_tried_late

    # ------------------------------------------------------------------ enrolling

    async def _enroll(self) -> Held:
        identity, server = self.identity, self._server
        if self._claim is None and identity.state is State.EMPTY:
            raise RejectedError(
                f"{identity.trouble or 'the device has no identity yet'}: give it a claim", code="claim-needed"
            )
        asked = await asyncio.to_thread(self._request, self._claim)
        context = self._trust.context(identity.kept.trusted)
        if self._is_https:
            grant = await asyncio.to_thread(
                ask_by_https, server.host, server.https_port, asked, tls=context, inspect=self._look
            )
        else:
            grant = await ask_by_mqtt(
                server.host, server.port, asked, tls=context, inspect=self._look, version=server.version
            )
        held = await self._taken(grant)
        self._is_enrolled_by_claim = True
        log.info("device %s is enrolled", identity.kept.device_id)
        return held

    def _is_told(self) -> bool:
        return self._messages is None or self._messages.is_told

    async def _tell_keys(self, held: Held) -> Held:
        """Renew before anything else, in a connection for that alone: the platform does not know our keys of messages.

        What was signed with a key that it does not know would end in quarantine.
        """
        connect = p.Connect(
            self.identity.kept.device_id, version=self._server.version, clean_start=False, keep_alive=30,
            session_expiry_interval=SESSION_S,
        )  # fmt: skip
        try:
            try:
                return await self._renew_first(held, connect)
            except RejectedError as error:
                if error.code not in KEYS_REFUSED:
                    raise
                return await self._renew_first(held, connect)  # with others
        except ReasonError as error:
            await self.refused(error.reason_code)
            raise
        except (OSError, UnavailableError):
            await self.refused()
            raise

    async def _renew_late(self) -> Held | None:
        """Renew by a certificate that has ended, in a connection that is good for nothing else.

        Returns None where the platform does not: what then helps is a claim. The session of MQTT is not touched.
        """
        kept, self._is_shut_out, self._has_tried_late = self.identity.kept, False, True
        for held in (kept.next, kept.current):
            if held is None:
                continue
            connect = p.Connect("", version=self._server.version, keep_alive=30, username=RENEWAL_USER)
            try:
                return await self._renew_first(held, connect)
            except ReasonError as error:
                if error.reason_code != reasons.NOT_AUTHORIZED:
                    raise
                log.info("device %s: its certificate of %s is not renewed: %s", kept.device_id, held.until, error)
            except RejectedError as error:
                log.warning("device %s: no renewal: %s", kept.device_id, error)
                return None
        return None

    async def _renew_first(self, held: Held, connect: p.Connect) -> Held:
        """Renew in a connection for that alone. Raises OSError, UnavailableError, ReasonError, RejectedError."""
        server, context = self._server, self._trust.context(self.identity.kept.trusted)
        await asyncio.to_thread(self.identity.arm, context, held)
        client = await MqttClient.connect(server.host, server.port, connect, tls=context, inspect=self._look)
        try:
            self._held = held
            await self.accepted()
            grant = await ask_over(client, await asyncio.to_thread(self._request, None))
            return await self._taken(grant)
        except RejectedError as error:
            await self._give_up(error)
            raise
        finally:
            await client.disconnect()

    def _request(self, claim: str | None) -> EnrollmentRequest:
        """Return the request that waits, or a new one; it is on disk."""
        asked = self.identity.ask()
        request = EnrollmentRequest(self.identity.kept.device_id, asked.request, claim, trusts=self.trusts or [])
        if self._messages is None:
            return request
        self._telling = self._messages.publics(self._now_s())
        return msgspec.structs.replace(request, **self._telling)

    async def _taken(self, grant: EnrollmentGrant) -> Held:
        """Keep what was granted, and hand on the configuration. Raises RejectedError, MalformedError."""
        before = self.identity.kept.configuration
        held = await asyncio.to_thread(self._take, grant)
        after = self.identity.kept.configuration
        if self._configured is not None and after is not None and after != before:
            self._configured(after)
        return held

    def _take(self, grant: EnrollmentGrant) -> Held:
        """Keep what was granted. Raises RejectedError, MalformedError."""
        kept = self.identity.kept
        assert kept.asked is not None
        if grant.code in KEYS_REFUSED and self._messages is not None:
            self._messages.refused()
        granted = read_grant(grant, kept.device_id, self.identity.key(kept.asked).public_key())
        latest = self._seen.root_ends if self._seen is not None else 0
        if not self._guard.told(granted.time, latest):
            granted = msgspec.structs.replace(granted, time=self._guard.now_ns())
        if self._messages is None:
            held = self.identity.take(granted)
        else:
            told, is_rotated = self._messages.taken(self._telling, granted.taken)
            held = self.identity.take(granted, told=told, is_rotated=is_rotated)
            self._messages.refresh()
        self._renewal = None
        return held

    # ------------------------------------------------------------------ renewing

    def _now_s(self) -> float:
        return self._guard.now_ns() / NS

    def _plan(self, held: Held) -> Renewal:
        if self._renewal is None:
            self._renewal = Renewal(held.granted / NS, held.ends / NS, self._chance())
            if self._messages is not None:
                self._renewal.no_later_than(self._messages.due_s(self._chance()))
        return self._renewal

    async def attend(self, client: MqttClient) -> None:
        """Renew in time; returns when there is a new certificate to connect with."""
        device_id = self.identity.kept.device_id
        try:
            await client.subscribe(p.Subscription(enrollment_topic(device_id, EnrollmentStep.GRANT), ENROLLMENT_QOS))
        except ReasonError as error:
            self._report("renewal", f"the server does not let us hear of new certificates: {error}")
            await client.wait_closed()
            return
        assert self._held is not None
        plan, has_other_keys = self._plan(self._held), False
        while True:
            await self._until_due(plan)
            try:
                await self._renew(client, plan.answer_s)
            except RejectedError as error:
                if error.code in KEYS_REFUSED and not has_other_keys:
                    has_other_keys = True  # and asks at once, with those
                else:  # before anything is awaited: a wish that comes after it is for at once
                    plan.failed(self._now_s(), self._chance())
                await self._give_up(error)
            except (OSError, UnavailableError, GodwitError) as error:
                if not client.is_open:
                    return
                plan.failed(self._now_s(), self._chance())
                log.warning("device %s: no new certificate yet: %s", device_id, error)
            else:
                return

    async def _until_due(self, plan: Renewal) -> None:
        while not plan.is_due(self._now_s()):
            with contextlib.suppress(OSError):  # the next time, then
                await asyncio.to_thread(self._keep_time)
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_EVERY_S, plan.due - self._now_s())):
                    await self._news.wait()

    async def _renew(self, client: MqttClient, answer_s: float) -> None:
        while not self._grants.empty():
            self._grants.get_nowait()
        asked = await asyncio.to_thread(self._request, None)
        topic = enrollment_topic(asked.device_id, EnrollmentStep.REQUEST)
        try:
            async with asyncio.timeout(answer_s):
                code = await client.publish(topic, encode(asked), qos=ENROLLMENT_QOS)
                if code >= REFUSED_FROM:
                    raise UnavailableError(f"the server takes no request: {reason_name(code)}")
                grant = await self._answer(asked)
        except TimeoutError:
            raise UnavailableError(f"no answer within {answer_s:g} s") from None
        held = await self._taken(grant)
        self._report("renewal", "")
        log.info("device %s has a new certificate, until %d", asked.device_id, held.ends // NS)

    async def _answer(self, asked: EnrollmentRequest) -> EnrollmentGrant:
        """Return the answer to a request; not one to another request, that was given up and is answered late."""
        while True:
            grant = await self._grants.get()
            if is_for(grant, asked):
                return grant
            log.info("device %s: an answer to a request that was given up is passed over", asked.device_id)

    async def _give_up(self, error: RejectedError) -> None:
        """Make another request the next time: this one will not do."""
        log.warning("device %s: its request for a new certificate is refused: %s", self.identity.kept.device_id, error)
        self._report("renewal", f"{error.code}: {error}")
        if self.identity.state is State.RENEWING:
            with contextlib.suppress(OSError):  # then the same request is made once more
                await asyncio.to_thread(self.identity.decline)

    # ------------------------------------------------------------------ what the platform says

    def hear_grant(self, payload: bytes) -> None:
        """Take an answer to a request. Raises MalformedError."""
        grant = decode_grant(payload)
        if not self._grants.full():  # one is asked for: nobody sends so many but to fill us
            self._grants.put_nowait(grant)

    def hear_renewal(self, wanted: RenewalWanted) -> None:
        """Take the platform's wish for a renewal: many are wished for in a rollover."""
        held = self._held
        if wanted.reason == MESSAGE_KEYS and self._messages is not None:
            self._messages.renew()
        if held is not None:
            self._plan(held).wanted(self._now_s(), self._chance(), is_for_all=wanted.reason not in FOR_ONE)
            self._news.set()

    async def hear_authorities(self, new: NewAuthorities) -> bool:
        """Take up whom to trust; returns whether that was news. Raises RejectedError, UnavailableError."""
        try:
            return await asyncio.to_thread(self.identity.trust, read_roots(new.authorities))
        except OSError as error:
            raise UnavailableError(f"{self.identity.directory} cannot be written: {error}") from None

    def hear_time(self, time: int) -> None:
        """Take the platform's time."""
        if self._seen is not None:
            self._guard.told(time, self._seen.root_ends)

    def _keep_time(self, far_ns: int = KEEP_TIME_NS) -> None:
        """Write down how late it is, where that is news."""
        known = self._guard.known_ns
        if known > self.identity.kept.time + far_ns:
            self.identity.told_time(known)

    @property
    def trusts(self) -> list[str] | None:
        """Return the fingerprints of the roots that are trusted."""
        return [fingerprint(each) for each in self.identity.kept.trusted]

    @property
    def due_s(self) -> float:
        """Return the seconds until something is to be asked for, or a new certificate to be tried."""
        held = self.identity.kept.current
        if held is None or self.identity.state is not State.SETTLED:
            return 0.0
        return max(0.0, self._plan(held).due - self._now_s())

    @property
    def patience_s(self) -> float:
        """A part of what is left of the certificate: whoever stays away until it has ended needs a person."""
        held = self.identity.kept.current
        left_s = held.ends / NS - self._now_s() if held is not None else 0.0
        return max(PATIENCE_S_MIN, left_s / 10) if left_s > 0 else float("inf")

    def close(self) -> None:
        """Let another process have the identity."""
        with contextlib.suppress(OSError):
            self._keep_time(0)
        self.identity.close()
