"""What is to happen later: delayed wills (3.1.3.2.2) and the end of sessions (3.1.2.11.2). Asked once a second."""

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")


class Schedule(Generic[T]):
    """Things by client id, each with the time when it is due. Setting one again replaces it."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []
        self._due: dict[str, tuple[int, T]] = {}

    def __len__(self) -> int:
        return len(self._due)

    def put(self, client_id: str, due: int, thing: T) -> None:
        """Have `thing` come up at `due`."""
        self._due[client_id] = (due, thing)
        heapq.heappush(self._heap, (due, client_id))

    def take(self, client_id: str) -> T | None:
        """Take away what was set for a client, due or not."""
        found = self._due.pop(client_id, None)
        return None if found is None else found[1]

    def due(self, now: int) -> list[tuple[str, T]]:
        """Take what is due."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            due, client_id = heapq.heappop(self._heap)
            entry = self._due.get(client_id)
            if entry is not None and entry[0] == due:
                del self._due[client_id]
                found.append((client_id, entry[1]))
        return found
