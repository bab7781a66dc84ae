"""Load: how much of something happens in a minute, as moving averages over one, five and fifteen minutes. Pure."""

from collections.abc import Iterator, Mapping
from math import exp
from typing import Final

SPANS: Final = (("1min", 60.0), ("5min", 300.0), ("15min", 900.0))


class Load:
    """Averages of counters that only grow. As in Mosquitto, which has them from Unix."""

    def __init__(self, now_s: float) -> None:
        self._at_s = now_s
        self._before: dict[str, int] = {}
        self._averages: dict[tuple[str, str], float] = {}

    def note(self, counts: Mapping[str, int], now_s: float) -> None:
        """Note where the counters stand now."""
        passed_s = now_s - self._at_s
        if passed_s <= 0:
            return
        self._at_s = now_s
        for name, count in counts.items():
            per_minute = (count - self._before.get(name, 0)) * 60 / passed_s
            self._before[name] = count
            for span, span_s in SPANS:
                kept = exp(-passed_s / span_s)
                before = self._averages.get((name, span), 0.0)
                self._averages[name, span] = per_minute + kept * (before - per_minute)

    def averages(self) -> Iterator[tuple[str, str, float]]:
        """Yield name, span and average."""
        for (name, span), average in self._averages.items():
            yield name, span, average
