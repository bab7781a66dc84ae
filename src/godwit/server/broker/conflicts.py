"""Client ids that connections fight for: two devices with one name, or somebody who tries another's. Pure."""

from collections import OrderedDict, deque
from typing import Final

NS: Final = 1_000_000_000
SPAN_NS: Final = 3_600 * NS
TIMES_MAX: Final = 50
"""So many of one client id are counted."""
IDS_MAX: Final = 10_000


class Conflicts:
    """When which client id was taken from a connection that was there, by one from elsewhere. Times are ns UTC."""

    def __init__(self) -> None:
        self._times: OrderedDict[str, deque[int]] = OrderedDict()

    def note(self, client_id: str, now: int) -> None:
        """Note one; the ids whose last was longest ago are forgotten first."""
        times = self._times.pop(client_id, None)
        if times is None:
            times = deque(maxlen=TIMES_MAX)
        times.append(now)
        self._times[client_id] = times
        if len(self._times) > IDS_MAX:
            self._times.popitem(last=False)

    def recent(self, now: int) -> dict[str, int]:
        """Return how many there were of each client id in the last hour."""
        found = {client_id: sum(at > now - SPAN_NS for at in list(times)) for client_id, times in self._copy()}
        return {client_id: count for client_id, count in found.items() if count}

    def _copy(self) -> list[tuple[str, deque[int]]]:
        return list(self._times.items())
