"""What joins the group commit without a connection that waits for it."""

from collections.abc import Callable
from typing import Protocol

from godwit.server.ingest.arrival import Arrival


class Serving(Protocol):
    """What a posting needs of the broker."""

    def settle_posting(self, arrival: Arrival) -> None:
        """Serve a message that no client waits for."""
        ...


class Posting:
    """A message of the server's own, and who waits for it."""

    __slots__ = ("_broker", "_done")

    def __init__(self, broker: Serving, done: Callable[[], None] | None) -> None:
        self._broker = broker
        self._done = done

    def settle(self, arrival: Arrival) -> None:
        """Serve the message, which is durable."""
        self._broker.settle_posting(arrival)
        if self._done is not None:
            self._done()


class Barrier:
    """Nothing but a place in the group commit: `done` is called when all before it is durable."""

    __slots__ = ("_done",)

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done

    def settle(self, arrival: Arrival) -> None:
        """Say that all before it is durable."""
        del arrival
        self._done()
