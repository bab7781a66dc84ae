"""What leaves a store without having been delivered, and the gap that says so. Inside a transaction of the caller's."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Final

from godwit.spool.model import EVICTED_AGE, EVICTED_SIZE
from godwit.spool.policy import Holding, leaving
from godwit.spool.schema import SEQ_MASK
from godwit.spool.store import Lane, Store

SPARE_BYTES_MAX: Final = 256 * 1024
"""What may leave at once beyond what has to."""


def give_up(store: Store, lane: Lane, runs: list[tuple[int, int]], reason: str) -> None:
    """Delete items, and record the gap."""
    store.delete(lane, runs)
    for first, last in runs:
        store.add_gap(lane, first, last, reason)


def evict_over(store: Store, bytes_max: int) -> None:
    """Let leave what the policy says until the store is within its bound."""
    over = store.bytes - bytes_max
    if over <= 0:
        return
    lanes: dict[str, list[Lane]] = {}
    for lane in sorted(store.lanes.values(), key=lambda lane: lane.number):
        if lane.items:
            lanes.setdefault(lane.track.stream, []).append(lane)
    with contextlib.ExitStack() as open_cursors:
        heads = {
            stream: [open_cursors.enter_context(contextlib.closing(store.heads(lane))) for lane in each]
            for stream, each in lanes.items()
        }
        holdings = {
            stream: Holding(lanes[stream][0].priority, ((head.time, head.bytes) for head in itertools.chain(*each)))
            for stream, each in heads.items()
        }
        counts = leaving(holdings, over, min(bytes_max // 64, SPARE_BYTES_MAX))
    for stream, count in counts.items():
        for lane, here in _shares(lanes[stream], count):
            give_up(store, lane, store.runs(lane, 0, SEQ_MASK, here), EVICTED_SIZE)


def _shares(lanes: list[Lane], count: int) -> Iterator[tuple[Lane, int]]:
    for lane in lanes:
        here = min(count, lane.items)
        if here:
            yield lane, here
        count -= here


def evict_old(store: Store, limit: int) -> None:
    """Let leave what is in front and was stamped before `limit`."""
    for lane in store.lanes.values():
        if lane.oldest is not None and lane.oldest < limit:
            with contextlib.closing(store.heads(lane)) as heads:
                count = sum(1 for _ in itertools.takewhile(lambda head: head.time < limit, heads))
            give_up(store, lane, store.runs(lane, 0, SEQ_MASK, count), EVICTED_AGE)
