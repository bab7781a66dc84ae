"""What a spool is made of."""

from enum import StrEnum
from typing import Final, NamedTuple

ITEM_BYTES: Final = 32
"""What an item weighs besides its payload, in the bound and in `Depth`: about what the file needs for it."""

EVICTED_SIZE: Final = "evicted-size"
EVICTED_AGE: Final = "evicted-age"
REFUSED: Final = "refused"
DAMAGED: Final = "damaged"


class Durability(StrEnum):
    """What an append promises once it has returned (ADR 6)."""

    FULL = "full"
    """The item survives a power cut."""
    NORMAL = "normal"
    """The item survives the end of the process; a power cut takes at most what is younger than `sync_every_ms`."""
    MEMORY = "memory"
    """The item is gone with the process."""


class Track(NamedTuple):
    """One stream in one epoch: the scope of sequence numbers. There are several epochs after damage or power cuts."""

    stream: str
    epoch: str


class Item(NamedTuple):
    """A payload with its number; `time` is ns as the appender stamped it."""

    seq: int
    time: int
    payload: bytes
    epoch: str


class Gap(NamedTuple):
    """Numbers `first` to `last`, inclusive, that will never be sent, and why."""

    stream: str
    epoch: str
    first: int
    last: int
    reason: str


class Depth(NamedTuple):
    """How much waits. `bytes` counts payloads and `ITEM_BYTES` for each; `oldest` is a stamp in ns."""

    items: int
    bytes: int
    oldest: int | None


EMPTY: Final = Depth(0, 0, None)
