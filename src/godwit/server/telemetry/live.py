"""The live feed: committed readings, as they are committed, for pages and WebSockets.

A listener that does not keep up loses the oldest of its own news (counted), never anybody's data: what it shows is in
the store. Publishing costs nothing while nobody listens. Thread-safe.
"""

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

NEWS_MAX = 2_000


class Reading(NamedTuple):
    """One committed reading. `time` and `received` in ns; `quality` good, uncertain or bad."""

    device_id: str
    name: str
    unit: str
    time: int
    value: float | int | bool | str
    quality: str
    received: int


class Presence(NamedTuple):
    """A device came or went."""

    device_id: str
    online: bool
    since: int


News = Reading | Presence


class Listener:
    """A bounded queue of news for one page or socket. `wake` is called (from any thread) when news arrive."""

    def __init__(
        self,
        feed: "LiveFeed",
        devices: frozenset[str] | None,
        wake: Callable[[], None],
        may_see: Callable[[str], bool] | None = None,
    ) -> None:
        self._feed = feed
        self._news: deque[News] = deque(maxlen=NEWS_MAX)
        self.devices = devices
        self._may_see = may_see
        self.wake = wake
        self.lost = 0

    def wants(self, device_id: str) -> bool:
        """Whether it listens to this device, and may."""
        if self.devices is not None and device_id not in self.devices:
            return False
        return self._may_see is None or self._may_see(device_id)

    @property
    def is_choosy(self) -> bool:
        """Whether it does not want everything."""
        return self.devices is not None or self._may_see is not None

    def put(self, news: list[News]) -> None:
        """Add news; the oldest leave when there are too many."""
        self.lost += max(0, len(self._news) + len(news) - NEWS_MAX)
        self._news.extend(news)
        self.wake()

    def take(self) -> list[News]:
        """Return and forget what has arrived."""
        taken: list[News] = []
        while self._news:
            try:
                taken.append(self._news.popleft())
            except IndexError:  # another thread was quicker
                break
        return taken

    def close(self) -> None:
        """Stop listening."""
        self._feed.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class LiveFeed:
    """Fans committed readings out to listeners."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()

    @property
    def has_listeners(self) -> bool:
        """Whether anybody listens: without, nobody builds news."""
        return bool(self._listeners)

    def wants(self, device_id: str) -> bool:
        """Whether anybody listens to this device."""
        return any(each.wants(device_id) for each in self._listeners)

    def listen(
        self,
        wake: Callable[[], None],
        devices: frozenset[str] | None = None,
        may_see: Callable[[str], bool] | None = None,
    ) -> Listener:
        """Listen to `devices` (None: all), as far as `may_see` lets; it is asked for every item, from any thread."""
        listener = Listener(self, devices, wake, may_see)
        with self._lock:
            self._listeners = (*self._listeners, listener)
        return listener

    def remove(self, listener: Listener) -> None:
        """Forget a listener."""
        with self._lock:
            self._listeners = tuple(each for each in self._listeners if each is not listener)

    def publish(self, news: list[News]) -> None:
        """Hand news to whoever wants them."""
        for listener in self._listeners:
            mine = [each for each in news if listener.wants(each.device_id)] if listener.is_choosy else news
            if mine:
                listener.put(mine)
