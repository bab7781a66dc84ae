"""The account of a device, put together for a look at it: counters of the ledger, gaps and clones of its tracks."""

from collections import Counter
from typing import Final

from godwit.server.ingest.directory import Entry, is_derived
from godwit.server.ingest.door import Clone, DeviceLedger, Gap
from godwit.server.telemetry.ledger import Account, Ledger

GAPS_LISTED_MAX: Final = 1_000
MISSING: Final = "missing"
LOST: Final = "lost"


def ledger_of(entry: Entry, book: Ledger) -> DeviceLedger:
    """Return the account of a device. Safe to call while the broker loop goes on."""
    tracks = list(entry.tracks.values())
    counted = book.account(entry.device_no) if entry.device_no >= 0 else [0] * len(Account)
    lost: Counter[str] = Counter()
    for track in tracks:
        lost.update(track.lost_counts)
    clones = clones_of(entry)
    return DeviceLedger(
        entry.device_id,
        messages=counted[Account.MESSAGES],
        accepted=counted[Account.ACCEPTED],
        readings=counted[Account.READINGS],
        duplicate=counted[Account.DUPLICATE],
        late=counted[Account.LATE],
        gaps=sum(track.gaps for track in tracks),
        lost=dict(lost),
        cloned=sum(each.samples for each in clones),
        clones=clones,
        refused=counted[Account.REFUSED],
        quarantined=book.refusals(entry.device_no) if entry.device_no >= 0 else {},
    )


def clones_of(entry: Entry) -> list[Clone]:
    """Return what came under used numbers with other content, and is kept apart."""
    return [
        Clone(track.stream, track.epoch, fork.epoch, fork.start, fork.arrived, fork.received)
        for track in list(entry.tracks.values())
        for fork in track.forks or ()
        if not is_derived(entry, track)
    ]


def gaps_of(entry: Entry) -> list[Gap]:
    """Return what is missing, and what is known as lost, of each track in the order of its numbers."""
    found: list[Gap] = []
    for track in list(entry.tracks.values()):
        ranges = [(first, stop, "") for first, stop in track.missing[:GAPS_LISTED_MAX]] + track.lost
        found += [
            Gap(track.stream, track.epoch, first, stop - 1, stop - first, LOST if reason else MISSING, reason)
            for first, stop, reason in sorted(ranges)
        ]
    return found[:GAPS_LISTED_MAX]
