"""How often something may happen: a bucket of tokens for each name. Pure: the time is given."""

import threading
from typing import Final

NAMES_MAX: Final = 10_000
_NS: Final = 1_000_000_000


class Throttle:
    """Lets `burst` happen at once, and `per_s` each second from then on. Thread-safe."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._left: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def _now(self, name: str, now: int) -> float:
        left, at = self._left.get(name, (self._burst, now))
        return min(self._burst, left + max(0, now - at) / _NS * self._per_s)

    def is_open(self, name: str, now: int) -> bool:
        """Whether it may happen; takes nothing."""
        with self._lock:
            return self._now(name, now) >= 1

    def take(self, name: str, now: int) -> bool:
        """Take one; False where there is none."""
        with self._lock:
            left = self._now(name, now)
            is_there = left >= 1
            if name not in self._left and len(self._left) >= NAMES_MAX:
                self._forget(now)
            self._left[name] = (left - is_there, now)
            return is_there

    def _forget(self, now: int) -> None:
        """Drop whoever has all again; where that is nobody, the ones that were longest away."""
        full = [name for name in self._left if self._now(name, now) >= self._burst]
        oldest = sorted(self._left, key=lambda name: self._left[name][1])[: NAMES_MAX // 10]
        for name in full or oldest:
            del self._left[name]
