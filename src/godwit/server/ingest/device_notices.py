"""Notices on their way to devices: told once the group that they speak of is durable, and when they are due."""

from collections.abc import Callable
from typing import TypeAlias

from godwit.contract.notices import encode_gap_wanted
from godwit.server.ingest.gap_requests import GapRequests

Tell: TypeAlias = Callable[[str, bytes], object]
"""Takes (device id, payload)."""


class DeviceNotices:
    """What devices are to be told besides what is stored. What they do not hear comes at the next occasion."""

    def __init__(self) -> None:
        self.gap_requests = GapRequests()
        self._open: list[tuple[str, bytes]] = []
        self._sealed: list[tuple[str, bytes]] = []

    def note(self, device_id: str, payload: bytes) -> None:
        """Tell it once the open group is durable."""
        self._open.append((device_id, payload))

    def seal(self) -> None:
        """Close the open group."""
        self._sealed += self._open
        self._open = []

    def committed(self, now: int, tell: Tell) -> None:
        """Tell what the closed group had to say, and ask who has just come."""
        sealed, self._sealed = self._sealed, []
        for device_id, payload in sealed:
            tell(device_id, payload)
        if self.gap_requests.is_urgent:
            self.ask(now, tell)

    def ask(self, now: int, tell: Tell) -> None:
        """Ask for what is missing, where it is time to."""
        for device_id, wanted in self.gap_requests.due(now):
            tell(device_id, encode_gap_wanted(wanted))
