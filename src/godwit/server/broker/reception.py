"""CONNECT: who it is, whether it may come in, and which session it gets.

Deciding may take a thread (tokens that only the database knows), and a refusal takes its time on purpose: meanwhile
the client is left unread, and what it had sent already waits with it.
"""

import secrets
from collections import deque
from collections.abc import Callable
from time import time_ns
from typing import Final, Protocol

from godwit.contract.topics import response_prefix
from godwit.mqtt import packets as p
from godwit.mqtt import reasons
from godwit.server.broker.client import Client
from godwit.server.broker.conflicts import Conflicts
from godwit.server.broker.gate import Gate
from godwit.server.broker.guard import Guard
from godwit.server.broker.journal import UNKNOWN_OWNER, LeftWill
from godwit.server.broker.redirect import Redirect
from godwit.server.broker.refusals import NOT_AUTHORISED, Denial, Refusal
from godwit.server.broker.rights import INSIDE, Authenticator, Decision, Grant, Question, is_reserved
from godwit.server.broker.routes import Routes
from godwit.server.broker.sessions import Sessions
from godwit.server.broker.stats import Counters
from godwit.server.broker.wills import Wills
from godwit.server.ingest.arrival import Group, Peer

PENDING_BYTES_MAX: Final = 128 * 1024 * 1024
"""Of all messages that wait for their commit; beyond it nobody is read."""


ASKED_MAX: Final = 1_000
LATE_MAX: Final = 1_000
WAITING_MAX: Final = 64
GUESS_NS: Final = 1_000_000_000
"""How long a wrong password waits for its answer."""
Aside = Callable[[Question, Callable[[Decision | None], None]], None]


class Rooms(Protocol):
    """What is needed of the broker."""

    clients: dict[str, Client]
    kept: Sessions
    routes: Routes
    gate: Gate
    group: Group
    counters: Counters
    wills: Wills
    redirect: Redirect | None
    connections: int
    pending_bytes: int
    on_forbidden: Callable[[Client, str, str], None]

    def disconnect(self, client: Client, now: int, reason: str = ...) -> None:
        """Part from a connection."""
        ...

    def post_will(self, left: LeftWill, now: int) -> None:
        """Publish a will."""
        ...

    def go_on(self, client: Client, now: int) -> None:
        """Take what came while a client waited to be let in."""
        ...

    def note_speaker(self, client: Client, device_id: str, now: int) -> None:
        """Note that a client speaks for a device."""
        ...


class Reception:
    """See the module."""

    def __init__(
        self, rooms: Rooms, authenticator: Authenticator, guard: Guard, now_ns: Callable[[], int] = time_ns
    ) -> None:
        self._rooms = rooms
        self._authenticator = authenticator
        self._guard = guard
        self.conflicts = Conflicts()
        self._now_ns = now_ns
        self.aside: Aside = lambda question, done: done(question())
        """Has a question asked in a thread, and the answer told on the loop."""
        self.asked = 0
        """Questions that wait for their answer."""
        self._late: deque[tuple[int, Client, p.Connect, Denial]] = deque()
        self.on_denied: Callable[[Client, p.Connect, Denial], None] = lambda _client, _packet, _denial: None
        """Who is told of those whom nobody believes."""

    def connect(self, client: Client, packet: p.Connect, now: int) -> None:
        """Answer CONNECT."""
        unfit = _unfit(packet, client.listener)
        if unfit is not None:
            client.core.refuse(*unfit, with_text=unfit[0] != reasons.BAD_AUTHENTICATION_METHOD)
            return
        decision = self._authenticator.authenticate(client.listener, packet, client.certificate, client.address)
        if isinstance(decision, Denial | Grant):
            self._decide(client, packet, decision, now)
        elif self.asked >= ASKED_MAX:
            client.core.refuse(reasons.SERVER_BUSY, "too many ask at once who they are; try again in 5 s or more")
        else:
            self.asked += 1
            self._hold(client)
            self.aside(decision, lambda answer: self._answered(client, packet, answer))

    def _hold(self, client: Client) -> None:
        client.waiting = []
        client.socket.choke(is_choked=True)

    def wait(self, client: Client, came: bytes | list[p.Publish]) -> None:
        """Keep what came while a client waits to be let in. There is little: it is left unread."""
        assert client.waiting is not None
        if len(client.waiting) < WAITING_MAX:
            client.waiting.append(came)
        else:
            client.core.refuse(reasons.QUOTA_EXCEEDED, "too much was sent before CONNACK")

    def _answered(self, client: Client, packet: p.Connect, decision: Decision | None) -> None:
        """Go on with a client when it is known who it is; None: nobody could say."""
        self.asked -= 1
        now = self._now_ns()
        if client.is_over or client.closed is not None:
            return
        if decision is None:
            client.core.refuse(reasons.SERVER_UNAVAILABLE, "nobody can say now who you are; try again in 5 s or more")
        else:
            self._decide(client, packet, decision, now)
        if client.closed is None and client.core.session is not None:
            client.socket.choke(is_choked=False)
            self._rooms.go_on(client, now)

    def _decide(self, client: Client, packet: p.Connect, decision: Decision, now: int) -> None:
        if isinstance(decision, Grant):
            self._admit(client, packet, decision, now)
        elif decision.is_guess and len(self._late) < LATE_MAX:
            if client.waiting is None:
                self._hold(client)
            self._late.append((now + GUESS_NS, client, packet, decision))
        else:
            self._deny(client, packet, decision)

    def _deny(self, client: Client, packet: p.Connect, denial: Denial) -> None:
        self.on_denied(client, packet, denial)
        client.core.refuse(denial.reason_code, denial.text)

    def tick(self, now: int) -> None:
        """Answer those whose guess was wrong a while ago."""
        while self._late and self._late[0][0] <= now:
            _, client, packet, denial = self._late.popleft()
            if not client.is_over and client.closed is None:
                self._deny(client, packet, denial)

    def _admit(self, client: Client, packet: p.Connect, grant: Grant, now: int) -> None:
        rooms, core = self._rooms, client.core
        client.rights = grant.rights
        assigned = None
        client_id = packet.client_id
        if not client_id:
            client_id = assigned = f"auto-{secrets.token_hex(8)}"
        client.peer = Peer(
            client_id, client.listener, grant.identity, grant.may_register, is_unproven=grant.is_unproven
        )
        refused = self._refusal(client, packet, grant.tenant, now)
        if refused is not None:
            core.refuse(refused.reason_code, refused.text, server_reference=refused.server_reference)
            return
        stolen = self._throw_out(client_id, grant, now)
        if stolen is not None:
            self.conflicts.note(client_id, now)
            self._deny(client, packet, stolen)
            return
        before = rooms.clients.get(client_id)
        if before is not None:
            if before.address != client.address or before.certificate != client.certificate:
                self.conflicts.note(client_id, now)
            before.core.close(reasons.SESSION_TAKEN_OVER, "another connection uses this client id")
            rooms.disconnect(before, now)
        session, is_resumed = rooms.kept.open(client_id, packet, grant)
        will = rooms.wills.take(client_id)
        if will is not None and not is_resumed:
            rooms.post_will(will, now)  # the session ended before the delay did (3.1.2-8)
        rooms.clients[client_id], client.since = client, now
        rooms.counters.connects += 1
        rooms.gate.accepted(client, grant.tenant, now)
        self._guard.accepted(client, grant)
        core.accept(
            session,
            now,
            session_present=is_resumed,
            assigned_client_id=assigned,
            response_information=response_prefix(client_id) if packet.request_response_information else None,
        )
        if packet.will is not None:
            place = rooms.routes.route(packet.will.topic).place
            if place is not None:
                rooms.note_speaker(client, place.device_id, now)

    def _throw_out(self, client_id: str, grant: Grant, now: int) -> Denial | None:
        """See that nobody takes over what is another's; a device's own name is nobody's but the device's.

        What somebody without an identity began, on loopback, is nobody's: whoever has one may have the name.
        """
        rooms = self._rooms
        session = rooms.kept.by_id.get(client_id)
        if session is None or session.owner == (grant.identity or ""):
            return None
        if session.owner in (UNKNOWN_OWNER, "") and grant.credential is None:
            return None  # the one user name, which is trusted as loopback is: it finds the session as it was left
        if grant.identity != f"device:{client_id}" and session.owner not in (UNKNOWN_OWNER, ""):
            return Denial(
                "client-id-in-use",
                "another identity uses this client id",
                reasons.CLIENT_IDENTIFIER_NOT_VALID,
            )
        before = rooms.clients.get(client_id)
        if before is not None:
            before.core.close(reasons.ADMINISTRATIVE_ACTION, "the device to which this client id belongs has come")
            rooms.disconnect(before, now)
        session = rooms.kept.by_id.get(client_id)
        if session is not None:
            rooms.kept.end(session)
        return None

    def _refusal(self, client: Client, packet: p.Connect, tenant: str, now: int) -> Refusal | None:
        """Say why a client that may come in cannot, and where else or when it may."""
        if client.listener == INSIDE:
            return None
        rooms = self._rooms
        redirect = rooms.redirect
        if redirect is not None:
            return Refusal(redirect.reason_code, redirect.text, redirect.server_reference)
        if packet.will is not None and self._forbids(client, packet.will.topic):
            rooms.on_forbidden(client, packet.will.topic, NOT_AUTHORISED)
            return Refusal(reasons.NOT_AUTHORIZED, "not authorised to publish the will")
        is_return = packet.client_id in rooms.clients
        return rooms.gate.busy(rooms.group.stalled, rooms.pending_bytes, PENDING_BYTES_MAX) or rooms.gate.refusal(
            tenant, packet.client_id, rooms.connections, now, is_return=is_return
        )

    def _forbids(self, client: Client, topic: str) -> bool:
        place = self._rooms.routes.route(topic).place
        return is_reserved(topic) or (client.rights is not None and bool(client.rights.refusal(topic, place)))


def _unfit(packet: p.Connect, listener: str) -> tuple[int, str] | None:
    """Say why nobody could come in like this."""
    if packet.authentication_method is not None:
        return reasons.BAD_AUTHENTICATION_METHOD, "no extended authentication here"
    if not packet.client_id and packet.version == 4 and not packet.clean_start:
        return reasons.CLIENT_IDENTIFIER_NOT_VALID, "a session without a client id"  # 3.1.3-8
    if packet.client_id.startswith("$") and listener != INSIDE:
        return reasons.CLIENT_IDENTIFIER_NOT_VALID, "client ids that begin with $ are the server's own"
    return None
