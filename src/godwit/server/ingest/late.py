"""Late: a sample that is much older than what its stream had before it, whatever the epoch.

A backlog that comes in order after an outage is not late: each of its samples is the newest that its stream has then.
"""

from typing import Final

from godwit.server.ingest.directory import Directory
from godwit.server.telemetry.latest import LatestValues

LATE_NS: Final = 300 * 1_000_000_000
"""So much older."""


def recover_newest(directory: Directory, latest: LatestValues) -> None:
    """Know again, after a start, how far each stream was.

    Streams without numbers are told by the newest reading of their device.
    """
    for known in directory.tracks:
        if known is not None:
            entry, track = known
            entry.newest[track.stream] = max(track.newest, entry.newest.get(track.stream, 0))
    for number, (entry, _name, _unit) in enumerate(directory.series):
        newest = None if entry.tracks else latest.time_of(number)
        if newest is not None:
            entry.newest[""] = max(newest, entry.newest.get("", 0))
