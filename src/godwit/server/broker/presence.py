"""Who is told that a device came or went."""

from typing import Protocol


class PresenceSink(Protocol):
    """Told on the broker loop; must not block. `now` is ns UTC."""

    def connected(self, device_id: str, now: int) -> None:
        """Note that a connection speaks for the device: it published on its topics, or has a will there."""
        ...

    def disconnected(self, device_id: str, reason: str, now: int) -> None:
        """Note that the connection that spoke for the device is gone."""
        ...


class NoPresence:
    """Nobody wants to know."""

    def connected(self, device_id: str, now: int) -> None:
        """Do nothing."""

    def disconnected(self, device_id: str, reason: str, now: int) -> None:
        """Do nothing."""
