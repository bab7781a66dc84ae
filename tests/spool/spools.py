"""What the tests of the spool share: names for epochs, and a look at all that is in a track."""

import itertools
from collections.abc import Callable

from godwit.spool import Item, Spool, Track

BIG = 2**40


Opener = Callable[..., Spool]


def names() -> Callable[[], str]:
    """Return a source of epochs: e1, e2 ..."""
    numbers = itertools.count(1)
    return lambda: f"e{next(numbers)}"


def everything(spool: Spool, track: str | Track, after: int = -1) -> list[Item]:
    """Read all there is of a track."""
    found: list[Item] = []
    while batch := spool.read(track, found[-1].seq if found else after, items_max=7, bytes_max=BIG):
        found += batch
    return found


def numbers(spool: Spool, track: str | Track) -> list[int]:
    """Return the numbers that are there."""
    return [item.seq for item in everything(spool, track)]
