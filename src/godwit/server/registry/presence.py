"""Who is there. Pure: told what happens on the broker loop.

Drained by housekeeping, ordered by a number that only grows.

A device is online while a connection speaks for it, or for a while after its last message where it has none of its own
(a script that connects, sends and leaves). Its own status document has the last word on both.
"""

from typing import Any, Final

import msgspec

from godwit.contract.ids import DeviceId
from godwit.server.registry.model import Presence

NS: Final = 1_000_000_000
LINGER_NS: Final = 300 * NS
"""How long a device counts as online after a message without a connection of its own."""
SEEN_EVERY_NS: Final = 15 * NS
"""How often `last_seen` of a device that stays online is written down."""


class _Entry(msgspec.Struct, gc=False):
    online: bool = False
    since: int = 0
    seen: int = 0
    told_seen: int = 0
    number: int = 0
    reason: str = ""
    status: dict[str, Any] | None = None
    connections: int = 0


class PresenceBoard:
    """The presence of all devices; `due` hands out what changed."""

    def __init__(self, known: list[Presence], now: int) -> None:
        self._entries: dict[str, _Entry] = {}
        self._changed: set[str] = set()
        self._seen: dict[str, int] = {}
        # Numbers go on from the clock, so that a restart never counts backwards.
        self._number = max((row.number for row in known), default=0)
        for row in known:
            self._entries[row.device_id] = _Entry(
                row.online, row.since, row.last_seen, row.last_seen, row.number, row.reason, row.status
            )
            if row.online:
                # Nobody is connected to a platform that has just started.
                self._set(row.device_id, self._entries[row.device_id], now, is_online=False, reason="restart")

    def __contains__(self, device_id: str) -> bool:
        return device_id in self._entries

    def _entry(self, device_id: str) -> _Entry:
        entry = self._entries.get(device_id)
        if entry is None:
            entry = self._entries[device_id] = _Entry()
        return entry

    def _set(self, device_id: str, entry: _Entry, now: int, *, is_online: bool, reason: str) -> None:
        if entry.online != is_online:
            entry.online, entry.since = is_online, now
        entry.reason = reason
        self._touch(device_id, entry)

    def _touch(self, device_id: str, entry: _Entry) -> None:
        self._number += 1
        entry.number = self._number
        self._changed.add(device_id)

    def connected(self, device_id: str, now: int) -> None:
        """Note that a connection speaks for the device."""
        entry = self._entry(device_id)
        entry.connections += 1
        entry.seen = now
        self._set(device_id, entry, now, is_online=True, reason="connected")

    def disconnected(self, device_id: str, reason: str, now: int) -> None:
        """Note that the connection that spoke for the device is gone."""
        entry = self._entry(device_id)
        entry.connections = max(0, entry.connections - 1)
        if entry.connections == 0:
            self._set(device_id, entry, now, is_online=False, reason=reason)

    def seen(self, device_id: str, now: int) -> None:
        """Note a message. The hot path: one dictionary entry."""
        self._seen[device_id] = now

    def status(self, device_id: str, document: dict[str, Any], now: int) -> None:
        """Note what a device says of itself."""
        entry = self._entry(device_id)
        entry.status, entry.seen = document, now
        said = document.get("status")
        is_online = said != "offline"
        self._set(device_id, entry, now, is_online=is_online, reason=f"status {said}"[:128])

    def due(self, now: int) -> list[Presence]:
        """Return rows that changed and were not returned yet."""
        seen, self._seen = self._seen, {}
        for device_id, time in seen.items():
            entry = self._entry(device_id)
            entry.seen = time
            if not entry.online and time > entry.since:
                self._set(device_id, entry, time, is_online=True, reason="message")
            elif time - entry.told_seen >= SEEN_EVERY_NS:
                self._touch(device_id, entry)
        for device_id, entry in self._entries.items():
            if entry.online and not entry.connections and now - entry.seen > LINGER_NS:
                self._set(device_id, entry, now, is_online=False, reason="silence")
        changed, self._changed = self._changed, set()
        rows = []
        for device_id in changed:
            entry = self._entries[device_id]
            entry.told_seen = entry.seen
            rows.append(
                Presence(
                    DeviceId(device_id), entry.online, entry.since, entry.seen, entry.number, entry.reason, entry.status
                )
            )
        return rows

    def forget(self, device_id: str) -> None:
        """Drop an erased device."""
        self._entries.pop(device_id, None)
        self._changed.discard(device_id)
        self._seen.pop(device_id, None)
