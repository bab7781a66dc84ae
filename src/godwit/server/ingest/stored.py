"""`telemetry/stored`: tells a device up to which number its stream is stored.

Coalesced to one message a track and flush. What it says is the state of the track as the committed group left it: more
may have arrived meanwhile, which is not durable yet. Below the number that is told everything is durable, or known as
lost.

Sent for QoS 0 streams and after `online`; at QoS 1 the acknowledgement says the same, but for a foreign broker's.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from msgspec import structs

from godwit.contract.stored import StoredUpTo, encode
from godwit.contract.topics import Channel, DeviceTopic, Topics
from godwit.server.ingest.directory import Directory, Entry, is_derived
from godwit.server.ingest.tracks import Track

EVERY_NS: Final = 250_000_000
Untold: TypeAlias = tuple[StoredUpTo, str]
"""A notice, and the clock that its `device_sent` is of."""


class StoredNotices:
    """Devices whose tracks advanced, until the group that advanced them is committed and they were told."""

    def __init__(self, directory: Directory, topics: Topics) -> None:
        self._directory = directory
        self._topics = topics
        self._open: dict[str, bool] = {}
        self._sealed: dict[tuple[str, int], Untold] = {}
        self._durable: dict[tuple[str, int], Untold] = {}
        self._told_at = 0
        self.is_always_told = False
        """Whether devices are told whatever the QoS: a foreign broker acknowledges for itself."""
        self.send: Callable[[str, bytes], bool] | None = None
        """Publishes (topic, payload) at QoS 1 to whoever is there; False: not now, it is to be tried again."""
        self.told: Callable[[str, str, StoredUpTo], None] = lambda _device_id, _clock, _notice: None
        """Called with each notice that went out, its device, and the clock that `device_sent` is of."""

    def note(self, entry: Entry, *, is_all: bool = False) -> None:
        """Remember to tell this device of the tracks that it has sent to since; `is_all`: of every track."""
        if entry.tracks:
            self._open[entry.device_id] = is_all or self._open.get(entry.device_id, False)

    def seal(self) -> None:
        """Keep what the group that is closed now says of the devices that were noted."""
        if not self._open:
            return
        devices, self._open = self._open, {}
        for device_id, is_all in devices.items():
            entry = self._directory.entries.get(device_id)
            for track in entry.tracks.values() if entry else ():
                branches = (track, *(track.forks or ()))
                is_touched = any(each.received != each.told for each in branches)
                if (is_all or is_touched) and entry is not None and not is_derived(entry, track):
                    self._sealed[device_id, track.track_no] = _stored_up_to(branches)

    def committed(self, now: int) -> None:
        """Tell what the group said, now that it is durable."""
        if self._sealed:
            self._durable.update(self._sealed)
            self._sealed = {}
        self.flush(now)

    def flush(self, now: int) -> None:
        """Tell what is durable and was not told; not more often than every 250 ms."""
        if not self._durable or self.send is None or now - self._told_at < EVERY_NS:
            return
        self._told_at = now
        untold: dict[tuple[str, int], Untold] = {}
        for key, (notice, clock) in self._durable.items():
            topic = DeviceTopic(key[0], Channel.TELEMETRY_STORED)  # type: ignore[arg-type]
            told = structs.replace(notice, server_sent=now)
            if self.send(self._topics.build(topic), encode(told)):
                self.told(key[0], clock, told)
            else:
                untold[key] = (notice, clock)
        self._durable = untold


def _stored_up_to(branches: Sequence[Track]) -> Untold:
    """Say what is stored of a track, whoever asks: of clones, the one with less must not believe the other's number."""
    for each in branches:
        each.told = each.received
    track, heard = branches[0], max(branches, key=lambda each: each.received)
    notice = StoredUpTo(
        stream=track.stream,
        epoch=track.epoch,
        seq=min(each.low for each in branches) - 1,
        device_sent=heard.device_sent,
        server_received=heard.received,
    )
    return notice, heard.clock
