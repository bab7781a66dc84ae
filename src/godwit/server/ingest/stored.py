"""`telemetry/stored`: tells a device up to which number its stream is stored.

Coalesced to one message a track and flush.

Sent for QoS 0 streams and after `online`; at QoS 1 the acknowledgement says the same.
"""

from collections.abc import Callable
from typing import Final

from godwit.contract.stored import StoredUpTo, encode
from godwit.contract.topics import Channel, DeviceTopic, Topics
from godwit.server.ingest.directory import Directory, Entry

EVERY_NS: Final = 250_000_000


class StoredNotices:
    """Devices whose tracks advanced, until the group that advanced them is committed."""

    def __init__(self, directory: Directory, topics: Topics) -> None:
        self._directory = directory
        self._topics = topics
        self._open: set[str] = set()
        self._told_at = 0
        self.send: Callable[[str, bytes], None] | None = None
        """Publishes (topic, payload) at QoS 1 to whoever is there."""

    def note(self, entry: Entry) -> None:
        """Remember to tell this device."""
        if entry.tracks:
            self._open.add(entry.device_id)

    def committed(self, now: int) -> None:
        """Tell, now that all that was noted is durable; not more often than every 250 ms."""
        if not self._open or self.send is None or now - self._told_at < EVERY_NS:
            return
        self._told_at = now
        devices, self._open = self._open, set()
        for device_id in devices:
            entry = self._directory.entries.get(device_id)
            for track in entry.tracks.values() if entry else ():
                notice = StoredUpTo(
                    stream=track.stream,
                    epoch=track.epoch,
                    seq=track.low - 1,
                    device_sent=track.device_sent,
                    server_received=track.received,
                    server_sent=now,
                )
                assert entry is not None
                topic = DeviceTopic(entry.device_id, Channel.TELEMETRY_STORED)  # type: ignore[arg-type]
                self.send(self._topics.build(topic), encode(notice))
