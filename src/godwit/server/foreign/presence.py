"""Who is there, behind a foreign broker: no connection is seen, so devices are believed what they say of themselves.

A device that said `online` is there until it says `offline`, or its last will does. One that says nothing is there for
a while after each message, as anywhere.
"""

from typing import Any

from godwit.server.registry.presence import PresenceBoard


class StatedPresence:
    """The presence board, told of statements instead of connections."""

    def __init__(self, board: PresenceBoard) -> None:
        self._board = board
        self._online: set[str] = set()

    def __len__(self) -> int:
        return len(self._online)

    def __contains__(self, device_id: str) -> bool:
        return device_id in self._board

    def seen(self, device_id: str, now: int) -> None:
        """Note that a device sent a message."""
        self._board.seen(device_id, now)

    def status(self, device_id: str, document: dict[str, Any], now: int) -> None:
        """Note a device's status document."""
        if document.get("status") == "offline":
            if device_id in self._online:
                self._online.discard(device_id)
                self._board.disconnected(device_id, "status offline", now)
        elif device_id not in self._online or device_id not in self._board:
            self._online.add(device_id)
            self._board.connected(device_id, now)
        self._board.status(device_id, document, now)
