"""The backlog lane: who flushes a week of readings takes turns with others who do, and delays nobody else.

While more waits for its commit than the lane holds, or anybody waits for his turn, a client with more than its share
under way is left unread. The shell calls `relieve` some fifty times a second: as much room as there is by then is given
to those who wait, first to him whose last turn is longest ago. Who sends a message now and then never has a share under
way, and is not held whatever others do.
"""

import heapq
from typing import Final

from godwit.server.broker.client import Client

TURN_BYTES: Final = 65_536
"""What a client that is read again will bring, about: one read of the socket, with what its messages cost beside."""


class Lane:
    """Those who are held, in turn."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held: list[tuple[int, int, Client]] = []
        """A heap: the number of the client's last turn (0: it had none), how many were held before it, the client."""
        self._turns = self._holds = 0
        self.is_waited_for = False
        """Whether anybody is held."""

    def hold(self, client: Client) -> bool:
        """Leave a client unread until its turn comes; False if it is held already."""
        if client.is_held:
            return False
        client.is_held = True
        self._holds += 1
        heapq.heappush(self._held, (client.turn, self._holds, client))
        self.is_waited_for = True
        client.socket.choke(is_choked=True)
        return True

    def relieve(self, pending_bytes: int) -> None:
        """Have as many read again as there is room for beside the `pending_bytes` that wait for their commit."""
        room = self._bytes_max - pending_bytes
        while room > 0 and self._held:
            _, _, client = heapq.heappop(self._held)
            self._turns += 1
            client.is_held, client.turn = False, self._turns
            if not client.is_over:
                client.socket.choke(is_choked=False)
                room -= TURN_BYTES
        self.is_waited_for = bool(self._held)
