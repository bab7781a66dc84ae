"""Exponential backoff with full jitter (Brooker 2015, "Exponential Backoff and Jitter").

Pure: chance is an argument.
"""


class Backoff:
    """How long to wait before the next try. Full jitter spreads a fleet that lost its server at one moment."""

    def __init__(self, first_s: float = 0.5, factor: float = 2.0, s_max: float = 60.0) -> None:
        self._first_s, self._factor, self._s_max = first_s, factor, s_max
        self._tries = 0

    def next_s(self, chance: float) -> float:
        """Return the wait in seconds; `chance` is uniform in [0, 1)."""
        ceiling = min(self._s_max, self._first_s * self._factor ** min(self._tries, 64))
        self._tries += 1
        return ceiling * chance

    def reset(self) -> None:
        """Start over after a success."""
        self._tries = 0
