"""What subscribers did not get, in sum and by session."""

from godwit.mqtt.server_session import Session
from godwit.server.broker.stats import Counters


class Drops:
    """Counts for all sessions, and knows those that dropped anything."""

    def __init__(self, counters: Counters) -> None:
        self.sessions: dict[str, Session] = {}
        self._counters = counters

    def dropped(self, session: Session) -> None:
        """Count one message that `session` dropped."""
        self._counters.dropped += 1
        self.sessions[session.client_id] = session

    def forget(self, session: Session) -> None:
        """Note that `session` has ended. The sum stays."""
        if self.sessions.get(session.client_id) is session:
            del self.sessions[session.client_id]
