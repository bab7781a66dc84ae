"""Clones: two devices, or two lives of one, that use the same numbers of a stream for different samples.

A device copied with its spool, or restored from an image of its disk, goes on with numbers that were used. What comes
under a used number with other content is kept apart, in a track derived from the first (`epoch~2`), and so is what
follows it. Which of the two a message belongs to is decided by its content, then by the connection that it came by,
then by its number. Pure.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from godwit.contract import codes
from godwit.contract.errors import RejectedError
from godwit.contract.events import DeviceEvent
from godwit.contract.notices import CloneDetected
from godwit.contract.samples import Sample
from godwit.server.ingest.contents import Contents, Verdict
from godwit.server.ingest.directory import Directory, Entry
from godwit.server.ingest.tracks import Track

FORKS_MAX: Final = 32
"""Tracks derived from one. A device that counts anew at each start, without a new epoch, makes one each time."""


RIVAL_TURNS: Final = 3
"""So often one connection speaks between messages of another, and they are two devices."""


class Place(NamedTuple):
    """Where samples of a message belong."""

    track: Track
    first: int
    length: int


class Found(NamedTuple):
    """A clone that was not known before, or that speaks by a new connection."""

    entry: Entry
    track: Track
    fork: Track
    first: int
    is_new: bool


class Clones:
    """Finds for each message out of the order the track, or tracks, that it belongs to."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.contents = Contents()
        self.found: list[Found] = []
        """Whom the device and its owner have to hear of."""

    def place(self, entry: Entry, track: Track, first: int, samples: Sequence[Sample], voice: object) -> list[Place]:
        """Return where the samples belong: mostly one place, more where the message holds known samples and new ones.

        `voice` is the connection, None where devices share one. Raises RejectedError (`too-many-clones`).
        """
        if track.forks is None and not self._is_clones(entry, track, first, samples, voice):
            track.voice = voice
            return [Place(track, first, len(samples))]
        places: list[Place] = []
        while samples:
            part = self._place_some(entry, track, first, samples, voice)
            places += part
            done = sum(each.length for each in part)
            first, samples = first + done, samples[done:]
        return places

    def _is_clones(self, entry: Entry, track: Track, first: int, samples: Sequence[Sample], voice: object) -> bool:
        """Whether not all of the samples fit a track that has no clones yet."""
        if first >= track.high:
            return False
        verdicts = self.contents.judge(track, first, samples, entry.series)
        if Verdict.UNKNOWN in verdicts and voice is not None and track.voice is not voice:
            track.turns = track.turns + 1 if track.rival is voice else 1
            track.rival = voice
        return Verdict.OTHER in verdicts or (Verdict.UNKNOWN in verdicts and _is_rival(track, voice))

    def _place_some(
        self, entry: Entry, track: Track, first: int, samples: Sequence[Sample], voice: object
    ) -> list[Place]:
        """Return where the first of the samples belong, as many as belong together."""
        judged = self._judge(entry, track, first, samples)
        if _is_rival(track, voice):
            judged[track] = [Verdict.OTHER if each is Verdict.UNKNOWN else each for each in judged[track]]
        best, count = _choose(judged, first, len(samples), voice)
        if best is None:
            return [self._derive(entry, track, first, len(samples), voice)]
        if best.voice is not voice and best is not track:
            self.found.append(Found(entry, track, best, first, is_new=False))
        best.voice = voice
        skip = min(count, max(0, best.start - first))
        own_place = Place(best, first + skip, count - skip)
        return [Place(track, first, skip), own_place] if skip else [own_place]

    def _judge(self, entry: Entry, track: Track, first: int, samples: Sequence[Sample]) -> dict[Track, list[Verdict]]:
        """Return what each branch says of the samples; what lies before its start is for the first one to say."""
        judged: dict[Track, list[Verdict]] = {}
        for branch in (track, *(track.forks or ())):
            skip = max(0, branch.start - first)
            if skip < len(samples):
                own = self.contents.judge(branch, first + skip, samples[skip:], entry.series)
                judged[branch] = [*judged[track][:skip], *own] if skip else own
        return judged

    def _derive(self, entry: Entry, track: Track, first: int, length: int, voice: object) -> Place:
        """Begin a track for what fits none."""
        if len(track.forks or ()) >= FORKS_MAX:
            raise RejectedError(
                f"the numbers of stream {track.stream!r}, epoch {track.epoch!r} were used {FORKS_MAX + 1} times "
                "already: a device that counts anew begins a new epoch",
                code=codes.TOO_MANY_CLONES,
            )
        fork = self._directory.derive(entry, track)
        fork.begin(first)
        fork.voice = voice
        self.found.append(Found(entry, track, fork, first, is_new=True))
        return Place(fork, first, length)


def _is_rival(track: Track, voice: object) -> bool:
    """Whether two connections speak by turns, and this one repeats what is long known: no device does so."""
    return voice is not None and track.rival is voice and track.turns >= RIVAL_TURNS


def _choose(judged: dict[Track, list[Verdict]], first: int, count: int, voice: object) -> tuple[Track | None, int]:
    """Return the branch to which samples belong, and how many of them; None: none of them to any."""
    # Who knows the first one has it; else who fits best; else who knows at least one before what is another's.
    candidates = [branch for branch in judged if judged[branch][0] is Verdict.SAME]
    if not candidates:
        scores = {branch: _score(branch, first, count, verdicts, voice) for branch, verdicts in judged.items()}
        best = max(scores, key=lambda branch: scores[branch])
        if scores[best] >= 0:
            return best, _own(judged, best, count)
    best = max(candidates or judged, key=lambda branch: _known(judged[branch]))
    count = _fitting(judged[best])
    return (best, _own(judged, best, count)) if count else (None, 0)


def _known(verdicts: Sequence[Verdict]) -> int:
    """Return how many samples, up to the last that is known to be the same, come before one that is another."""
    other = verdicts.index(Verdict.OTHER) if Verdict.OTHER in verdicts else len(verdicts)
    return max((at + 1 for at in range(other) if verdicts[at] is Verdict.SAME), default=0)


def _fitting(verdicts: Sequence[Verdict]) -> int:
    """Return how many samples belong to the branch: all, or up to the last known one before one that is another."""
    return _known(verdicts) if Verdict.OTHER in verdicts else len(verdicts)


def _own(judged: dict[Track, list[Verdict]], best: Track, count: int) -> int:
    """Return how many of the first `count` samples come before one that only another branch knows."""
    for at in range(1, count):
        if judged[best][at] is not Verdict.SAME and any(each[at] is Verdict.SAME for each in judged.values()):
            return at
    return count


def _score(branch: Track, first: int, count: int, verdicts: Sequence[Verdict], voice: object) -> int:
    """Say how well samples fit a branch; -1: not at all."""
    if Verdict.OTHER in verdicts:
        return -1
    if Verdict.SAME in verdicts:
        return 3
    if voice is not None and branch.voice is voice:
        return 2
    return 1 if first <= branch.high < first + count else 0


def event_of_clone(detected: CloneDetected) -> bytes:
    """Return the event by which the owner hears of a clone, as JSON."""
    return msgspec.json.encode(
        DeviceEvent(
            "clone-detected",
            severity="warning",
            message=f"sample {detected.first} of stream {detected.stream!r} came twice with different content: two "
            f"devices speak under this name, or one was restored from an image; kept apart as {detected.kept_as!r}",
            details=msgspec.to_builtins(detected),
        )
    )
