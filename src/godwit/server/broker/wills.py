"""Wills that wait for their delay (MQTT 5, 3.1.3.2.2), in the journal too: a crash of the server does not lose them.

A will is struck out with the group in which its message is laid by, so that it is sent once however the server ends.
The will of a client that was connected when the server died is not among them: its delay had not begun.
"""

from godwit.mqtt.packets import Will
from godwit.server.broker.journal import Journal
from godwit.server.broker.schedule import Schedule
from godwit.server.ingest.arrival import Peer


class Wills:
    """The wills of clients that are gone, by client id, each with the time when it is due."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: Schedule[tuple[Will, Peer]] = Schedule()

    def load(self) -> None:
        """Take back, at start, what the journal kept."""
        for client_id, due, will, peer in self._journal.load_wills():
            self._waiting.put(client_id, due, (will, peer))

    def put(self, client_id: str, due: int, will: Will, peer: Peer) -> None:
        """Have `will` come up at `due`, ns UTC."""
        self._waiting.put(client_id, due, (will, peer))
        self._journal.put_will(client_id, due, will, peer)

    def take(self, client_id: str) -> tuple[Will, Peer] | None:
        """Take away a client's will, due or not."""
        found = self._waiting.take(client_id)
        if found is not None:
            self._journal.drop_will(client_id)
        return found

    def due(self, now: int) -> list[tuple[Will, Peer]]:
        """Take what is due."""
        found = self._waiting.due(now)
        for client_id, _ in found:
            self._journal.drop_will(client_id)
        return [will for _, will in found]
