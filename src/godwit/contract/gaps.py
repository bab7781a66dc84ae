"""Gap records: what a device says of samples that it cannot send, because they were evicted, damaged or deleted.

They travel on the telemetry channel, since they are entered where the samples would have been, in the same transaction.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from godwit.contract import codes
from godwit.contract.errors import MalformedError
from godwit.contract.limits import EPOCH_CHARACTERS_MAX, GAPS_PER_MESSAGE_MAX, SEQUENCE_MAX, STREAM_CHARACTERS_MAX

EVICTED: Final = "evicted"
"""The spool was full, by bytes or by age."""
DAMAGED: Final = "damaged"
"""The spool could not be read there."""
REFUSED: Final = "refused"
"""The disk, or a policy of the device, did not take it."""
DELETED: Final = "deleted"
"""The platform had said that it was stored; a platform restored from a backup may ask for it all the same."""
UNKNOWN: Final = "unknown"
"""The device does not know."""

_REASON_CHARACTERS_MAX: Final = 32
_REASON_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


class WireGap(msgspec.Struct, gc=False, rename="camel"):
    """Samples `first` to `last` of `(stream, epoch)` do not exist any more; these two may stand in the message."""

    first: int
    last: int
    reason: str = UNKNOWN
    stream: str | None = None
    epoch: str | int | None = None


class GapRecord(msgspec.Struct, array_like=True, gc=False):
    """Samples `first` to `last` of `(stream, epoch)` are lost, for a reason."""

    stream: str
    epoch: str
    first: int
    last: int
    reason: str


def records_of(gaps: Sequence[WireGap], stream: str | None, epoch: str | int | None) -> list[GapRecord]:
    """Return the checked records of a message. Raises MalformedError."""
    if len(gaps) > GAPS_PER_MESSAGE_MAX:
        raise MalformedError(f"more than {GAPS_PER_MESSAGE_MAX} gaps in one message", code=codes.TOO_MANY_READINGS)
    return [_record(gap, stream, epoch) for gap in gaps]


def _record(gap: WireGap, stream: str | None, epoch: str | int | None) -> GapRecord:
    stream = (stream or "") if gap.stream is None else gap.stream
    epoch = epoch if gap.epoch is None else gap.epoch
    if epoch is None or not 0 <= gap.first <= gap.last < SEQUENCE_MAX:
        raise MalformedError("a gap has an epoch, and 0 <= first <= last", code=codes.WRONG_TYPE)
    epoch = str(epoch)
    for what, text, longest in (("stream", stream, STREAM_CHARACTERS_MAX), ("epoch", epoch, EPOCH_CHARACTERS_MAX)):
        if len(text) > longest or not text.isprintable():
            raise MalformedError(f"{what} has at most {longest} printable characters", code=codes.INVALID_NAME)
    if not 0 < len(gap.reason) <= _REASON_CHARACTERS_MAX or not _REASON_CHARACTERS.issuperset(gap.reason):
        raise MalformedError(f"a gap's reason has 1 to {_REASON_CHARACTERS_MAX} of a-z 0-9 -", code=codes.INVALID_NAME)
    return GapRecord(stream, epoch, gap.first, gap.last, gap.reason)
