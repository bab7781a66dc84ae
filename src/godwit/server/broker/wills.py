"""Wills that wait for their delay (MQTT 5, 3.1.3.2.2), in the journal too: a crash of the server does not lose them.

A will is struck out with the group in which its message is laid by, so that it is sent once however the server ends.
The will of a client that was connected when the server died is not among them: its delay had not begun.
"""

from collections.abc import Callable

from godwit.server.broker.journal import Journal, LeftWill
from godwit.server.broker.refusals import Denial
from godwit.server.broker.schedule import Schedule

Still = Callable[[], Denial | None]


class Wills:
    """The wills of clients that are gone, by client id, each with the time when it is due."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: Schedule[LeftWill] = Schedule()
        self.asked: dict[str, Still] = {}
        """Client id -> asks in a thread whether its credential still counts, where nobody tells."""

    def load(self) -> None:
        """Take back, at start, what the journal kept."""
        for client_id, due, left in self._journal.load_wills():
            self._waiting.put(client_id, due, left)

    def put(self, client_id: str, due: int, left: LeftWill, still: Still | None = None) -> None:
        """Have a will come up at `due`, ns UTC."""
        self._waiting.put(client_id, due, left)
        self._journal.put_will(client_id, due, left)
        if still is not None:
            self.asked[client_id] = still

    def take(self, client_id: str) -> LeftWill | None:
        """Take away a client's will, due or not."""
        found = self._waiting.take(client_id)
        if found is not None:
            self._strike(client_id)
        return found

    def deny(self, client_id: str, still: Still) -> LeftWill | None:
        """Take away a will of which `still` said that it does not count; None: there is another one by now."""
        return self.take(client_id) if self.asked.get(client_id) is still else None

    def due(self, now: int) -> list[LeftWill]:
        """Take what is due."""
        found = self._waiting.due(now)
        for client_id, _ in found:
            self._strike(client_id)
        return [left for _, left in found]

    def _strike(self, client_id: str) -> None:
        self.asked.pop(client_id, None)
        self._journal.drop_will(client_id)
