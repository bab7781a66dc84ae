"""Answers that many open pages share: asked once, told to all for a moment. Thread-safe."""

import threading
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")


class Cached(Generic[T]):
    """Remembers what `ask` said for `keep_s`. Callers of the same key wait for one answer instead of asking twice."""

    def __init__(self, keep_s: float, now: Callable[[], float] = monotonic) -> None:
        self._keep_s = keep_s
        self._now = now
        self._lock = threading.Lock()
        self._known: dict[Hashable, tuple[float, T]] = {}

    def get(self, key: Hashable, ask: Callable[[], T], younger_s: float | None = None) -> T:
        """Return the answer for `key`, of the last `younger_s` seconds where that is less than it is kept."""
        keep_s = self._keep_s if younger_s is None else min(self._keep_s, younger_s)
        with self._lock:
            known = self._known.get(key)
            if known is None or self._now() - known[0] >= keep_s:
                known = (self._now(), ask())
                self._known[key] = known
            return known[1]
