"""Who is told when something of identity has changed: the broker ends sessions, others drop what they keep."""

from collections.abc import Callable

from godwit.server.identity.model import Change


class News:
    """Listeners are called in the writing thread, after the commit."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Change], None]] = []

    def on_change(self, listener: Callable[[Change], None]) -> None:
        """Have `listener` told."""
        self._listeners.append(listener)

    def tell(self, change: Change) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            listener(change)
