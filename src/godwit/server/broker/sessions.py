"""Which sessions there are, from the CONNECT that makes one to its end: at once, or when its expiry is over."""

from typing import Final

from godwit.mqtt.packets import Connect
from godwit.mqtt.server_session import NEVER_EXPIRES, QueueRoom, Session
from godwit.server.broker.drops import Drops
from godwit.server.broker.journal import Journal
from godwit.server.broker.rights import Grant
from godwit.server.broker.routes import Routes
from godwit.server.broker.schedule import Schedule

NS: Final = 1_000_000_000


class Sessions:
    """The sessions by client id. Times are ns UTC."""

    def __init__(self, journal: Journal, routes: Routes, drops: Drops, expiry_s_max: int, room: QueueRoom) -> None:
        self.by_id: dict[str, Session] = {}
        self.room = room
        self.expired = 0
        """Sessions that ended because their client stayed away, since start."""
        self._journal, self._routes, self._drops, self._expiry_s_max = journal, routes, drops, expiry_s_max
        self._ends: Schedule[Session] = Schedule()

    def restore(self, session: Session, now: int) -> None:
        """Take back, at start, a session that the journal kept."""
        self.by_id[session.client_id] = session
        session.join(self.room)
        session.tally, session.may_have = self._drops, self._routes.may_receive
        for held in list(session.subscriptions.values()):
            del session.subscriptions[held.options.topic_filter]
            self._routes.subscribe(session, held)
        self._count_down(session, now)

    def open(self, client_id: str, packet: Connect, grant: Grant) -> tuple[Session, bool]:
        """Find or make the session of a client that connects; True if it is resumed (3.1.2.4)."""
        if packet.version == 4:
            expiry_s = 0 if packet.clean_start else NEVER_EXPIRES
        else:
            expiry_s = packet.session_expiry_interval
        expiry_s = 0 if _is_shared(grant) else min(expiry_s, self._expiry_s_max)
        session = self.by_id.get(client_id)
        self._ends.take(client_id)
        if session is not None and (packet.clean_start or _is_shared(grant) or _has_changed_hands(session, grant)):
            self.end(session)
            session = None
        is_resumed = session is not None
        if session is None:
            session = self.by_id[client_id] = Session(client_id, room=self.room)
            session.tally, session.may_have = self._drops, self._routes.may_receive
        owner, is_changed = grant.identity or "", session.terms != grant.terms
        session.owner, session.terms, session.rights = owner, grant.terms, grant.rights
        if is_changed:
            self._routes.refresh()
        if expiry_s and (is_changed or not session.is_stored or session.expiry_s != expiry_s or session.ends_at):
            session.expiry_s, session.ends_at = expiry_s, 0
            self._journal.put_session(session)
            self._routes.refresh()
        elif not expiry_s:
            session.expiry_s = session.ends_at = 0
            self._journal.end_session(session)
        return session, is_resumed

    def leave(self, session: Session, now: int) -> None:
        """Note that its client is away: it is kept as long as it asked for."""
        if session.is_persistent:
            self._count_down(session, now)
        else:
            self.end(session)

    def _count_down(self, session: Session, now: int) -> None:
        if session.expiry_s == NEVER_EXPIRES:
            session.ends_at = 0
        else:
            session.ends_at = session.ends_at or now + session.expiry_s * NS
            self._ends.put(session.client_id, session.ends_at, session)
        self._journal.put_session(session)

    def end(self, session: Session) -> None:
        """End a session."""
        self._journal.end_session(session)
        session.discard()
        for topic_filter in list(session.subscriptions):
            self._routes.unsubscribe(session, topic_filter)
        if self.by_id.get(session.client_id) is session:
            del self.by_id[session.client_id]
        self._drops.forget(session)

    def end_due(self, now: int) -> list[str]:
        """End the sessions whose clients stayed away for too long; returns their client ids."""
        ended = []
        for client_id, session in self._ends.due(now):
            if session.connection is None:
                self.end(session)
                self.expired += 1
                ended.append(client_id)
        return ended


def _is_shared(grant: Grant) -> bool:
    """Whether who comes now under a client id may be another than who came before: nothing waits for either."""
    return grant.credential is not None and grant.credential.is_shared


def _has_changed_hands(session: Session, grant: Grant) -> bool:
    """Whether a device's session is from the time when it was another tenant's: what waits there is not its own."""
    is_device = (grant.identity or "").startswith("device:")
    return is_device and session.terms not in ("", grant.terms)  # older files say nothing
