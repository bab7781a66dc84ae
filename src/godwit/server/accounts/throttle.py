"""How long somebody has to wait before the next guess at a password. Pure: the time is given.

Failures count for the account and for the address, each with a wait that doubles. Nobody can lock an account for
its owner: the wait has a limit, and an address from which the account was signed in to before counts by itself.
"""

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple

FREE: Final = 5
"""So many failures cost nothing: people mistype."""
ADDRESS_FREE: Final = 20
"""More people than one may sit behind an address."""
WAIT_S_MAX: Final = 300.0
FORGET_S: Final = 3_600.0
KEPT_MAX: Final = 20_000


class _Count(NamedTuple):
    failures: int
    last: float


def place_of(address: str) -> str:
    """Return whom an address counts for: a household has a whole /64 of IPv6."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        return str(IPv6Address(int(parsed) >> 64 << 64))
    return address


def wait_s(failures: int, free: int) -> float:
    """Return the wait after so many failures."""
    return 0.0 if failures < free else float(min(WAIT_S_MAX, 2.0 ** min(failures - free, 20)))


class Throttle:
    """Counts failures. Not thread-safe; `now` in seconds, of a clock that does not step."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, str], _Count] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], float] = OrderedDict()

    def _keys(self, account: str, address: str) -> list[tuple[tuple[str, str], int]]:
        place = place_of(address)
        if (account, place) in self._known:
            return [((account, place), FREE)]
        return [((account, ""), FREE), (("", place), ADDRESS_FREE)]

    def left(self, account: str, address: str, now: float) -> float:
        """Return the seconds that are left to wait; 0 when a guess may be made."""
        waits = [0.0]
        for key, free in self._keys(account, address):
            count = self._counts.get(key)
            if count is not None and now - count.last < FORGET_S:
                waits.append(count.last + wait_s(count.failures, free) - now)
        return max(waits)

    def guess(self, account: str, address: str, now: float) -> float:
        """Count a guess as wrong before it is looked at; returns the seconds to wait where it may not be made.

        Counted first, so that many at once are not all looked at.
        """
        if (left := self.left(account, address, now)) > 0:
            return left
        for key, _ in self._keys(account, address):
            count = self._counts.pop(key, _Count(0, now))
            failures = count.failures if now - count.last < FORGET_S else 0
            self._counts[key] = _Count(failures + 1, now)
        while len(self._counts) > KEPT_MAX:
            self._counts.popitem(last=False)
        return 0.0

    def succeed(self, account: str, address: str, now: float) -> None:
        """Forget the account's wrong guesses, since this one was right; remember the address as the account's."""
        for key, _ in self._keys(account, address):
            count = self._counts.pop(key, None)
            if not key[0] and count is not None and count.failures > 1:
                self._counts[key] = _Count(count.failures - 1, count.last)
        self._known.pop((account, place_of(address)), None)
        self._known[account, place_of(address)] = now
        while len(self._known) > KEPT_MAX:
            self._known.popitem(last=False)
