"""Asking devices for samples that are missing: exactly these, not at once, and not for ever as often. Pure.

A hole that closes by itself within a moment is the network's reordering. After that the device is asked, again and
again with growing pauses, as long as it is heard of; and at once when it says that it is online.
"""

from collections.abc import Iterator
from typing import Final

from godwit.contract.notices import RANGES_MAX, GapWanted
from godwit.server.ingest.directory import Directory, Entry
from godwit.server.ingest.tracks import Track

NS: Final = 1_000_000_000
PATIENCE_NS: Final = 3 * NS
"""Younger holes may close by themselves."""
PAUSES_NS: Final = (5 * NS, 10 * NS, 30 * NS, 60 * NS, 300 * NS, 900 * NS, 3_600 * NS)
"""Between one request and the next; the last one for ever."""
VAIN_REQUESTS: Final = 3
"""So many unanswered ones, and a hole may be given up where there is no room for another."""


class _Request:
    """A track with holes, and how often its device was asked."""

    __slots__ = ("asked_at", "attempts", "due", "entry", "first", "track")

    def __init__(self, entry: Entry, track: Track, due: int, asked_at: int = 0) -> None:
        self.entry, self.track, self.due, self.asked_at = entry, track, due, asked_at
        self.attempts = 0
        self.first = -1
        """The oldest missing number when the device was asked last."""


class GapRequests:
    """Tracks with holes, until they are closed."""

    def __init__(self) -> None:
        self._requests: dict[int, _Request] = {}
        self.is_urgent = False
        """Whether a device that has just come waits for its requests."""

    def __len__(self) -> int:
        return len(self._requests)

    def note(self, entry: Entry, track: Track, now: int) -> None:
        """Look after a track that has holes, perhaps."""
        if track.track_no not in self._requests and track.forks is None and track.has_holes:
            self._requests[track.track_no] = _Request(entry, track, now + PATIENCE_NS)

    def recover(self, directory: Directory, now: int) -> None:
        """Look after tracks that had holes when the server stopped; their devices are asked once they are heard of."""
        for known in directory.tracks:
            if known is not None and known[1].has_holes and known[1].forks is None:
                self._requests[known[1].track_no] = _Request(*known, now, now)

    def online(self, entry: Entry, now: int) -> None:
        """Ask at once for what is missing: the device is back."""
        for track in entry.tracks.values():
            if track.has_holes and track.forks is None:
                request = self._requests.setdefault(track.track_no, _Request(entry, track, now))
                request.due, request.asked_at = max(now, min(request.due, request.asked_at + NS)), 0
                self.is_urgent = True

    def due(self, now: int) -> Iterator[tuple[str, GapWanted]]:
        """Yield (device id, request) of what is to be asked now; what is yielded counts as asked."""
        self.is_urgent = False
        for track_no, request in list(self._requests.items()):
            entry, track = request.entry, request.track
            if not track.has_holes or track.forks is not None or not entry.is_known:
                del self._requests[track_no]
            elif now >= request.due and entry.seen >= request.asked_at:  # else nobody is there to answer
                yield entry.device_id, self._ask(request, now)

    def _ask(self, request: _Request, now: int) -> GapWanted:
        track = request.track
        holes = track.holes(RANGES_MAX)
        if holes[0][0] > request.first:  # the device answers
            request.attempts = 0
        request.first = holes[0][0]
        request.attempts += 1
        if request.attempts > VAIN_REQUESTS:
            track.unanswered_below = holes[-1][1]
        request.asked_at, request.due = now, now + PAUSES_NS[min(request.attempts, len(PAUSES_NS)) - 1]
        return GapWanted(track.stream, track.epoch, [(first, stop - 1) for first, stop in holes])
