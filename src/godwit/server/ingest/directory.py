"""The devices of the installation as the hot path needs them: in memory, on the broker loop, no SQL.

The registry is the truth; this is its image, changed by the registry's own events. Numbers of devices, series and
tracks are the telemetry store's, given here and made durable with the group that first uses them.
"""

from collections import Counter, deque
from collections.abc import Callable

from godwit.contract import codes
from godwit.contract.cose import Opened
from godwit.contract.errors import RejectedError
from godwit.contract.ids import DEFAULT_TENANT, DeviceId, TenantId
from godwit.contract.telemetry import Location, Metadata
from godwit.server.ingest.clock_drift import DeviceClocks
from godwit.server.ingest.door import RawMessage
from godwit.server.ingest.tracks import MessageIds, Prints, Track
from godwit.server.registry.model import (
    DEFAULT_TYPE,
    DeclaredReading,
    Device,
    DeviceType,
    Lifecycle,
    Protection,
    TenantPolicy,
)
from godwit.server.telemetry.model import DeviceRow, Recovered, SeriesRow, TrackRow

RAW_MESSAGES_MAX = 8
FULL_NS = 3_600_000_000_000
"""How long it is told that a device found no room."""
SERIES_PER_DEVICE_MAX = 1_000
FORK = "~"
"""Stands between an epoch and the number of a track derived from it."""


class Entry:
    """One device. `device_no` is -1 until its first message; `is_known` is False once it was erased."""

    __slots__ = (
        "clocks", "codec", "declared", "device_id", "device_no", "device_type", "ids", "is_guarded", "is_known",
        "lifecycle", "location", "metadata", "newest", "place", "policy", "prints", "protection", "raw", "sealed",
        "seen", "series", "tenant", "tracks",
    )  # fmt: skip

    def __init__(self, device_id: str) -> None:
        self.device_id = device_id
        self.device_no = -1
        self.tenant = "default"
        self.device_type: str = DEFAULT_TYPE
        self.lifecycle = Lifecycle.UNCLAIMED
        self.place = ""
        self.codec: str | None = None
        self.declared: dict[str, DeclaredReading] | None = None
        self.is_known = False
        self.policy = TenantPolicy()
        self.protection = Protection.NONE
        """What its tenant and its type want of its messages."""
        self.is_guarded = False
        self.sealed: Opened | None = None
        """What its last message was signed or encrypted with."""
        self.series: dict[str, int] = {}
        self.tracks: dict[tuple[str, str], Track] = {}
        self.prints: Prints | None = None
        self.ids: MessageIds | None = None
        self.clocks: DeviceClocks | None = None
        """None until it compared its clock with ours, or counted from boot."""
        self.raw: deque[RawMessage] = deque(maxlen=RAW_MESSAGES_MAX)
        self.metadata: Metadata | None = None
        self.location: Location | None = None
        self.seen = 0
        self.newest: dict[str, int] = {}
        """Stream -> the latest time it has, whatever the epoch: what is much older comes late."""


class Directory:
    """Devices by id and by number; series and tracks by number."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.by_no: list[Entry] = []
        self.series: list[tuple[Entry, str, str]] = []
        """Series number -> (device, reading name, unit)."""
        self.tracks: list[tuple[Entry, Track] | None] = [None]
        """Track 0 is data without sequence numbers."""
        self._types: dict[tuple[str, str], DeviceType] = {}
        self._policies: dict[str, TenantPolicy] = {}
        self.new_devices: list[DeviceRow] = []
        self.new_series: list[SeriesRow] = []
        self.new_tracks: list[TrackRow] = []
        self.unclaimed: list[DeviceId] = []
        """Registered by themselves since the last group; the registry has to hear of them."""
        self.known: Counter[str] = Counter()
        """How many registered devices each tenant has."""
        self.devices_max_of: Callable[[str], int] = lambda _tenant: 0
        """How many devices a tenant may have; 0: as many as come."""
        self.turned_away: dict[str, int] = {}
        """Tenant -> when (ns) a device that would have registered itself last found no room."""
        self.moved: set[str] = set()
        """Devices that told a position since housekeeping looked last."""

    def restore(self, recovered: Recovered) -> None:
        """Take up the numbers that the telemetry store gave out before."""
        for row in recovered.devices:
            entry = self.entries.setdefault(row.device_id, Entry(row.device_id))
            entry.device_no, entry.tenant, entry.device_type = row.device_no, row.tenant, row.device_type
            self._grow(row.device_no, entry)
            self.by_no[row.device_no] = entry
        for series in recovered.series:
            while len(self.series) <= series.series_no:
                self.series.append((Entry(""), "", ""))
            entry = self.by_no[series.device_no]
            entry.series[series.name] = series.series_no
            self.series[series.series_no] = (entry, series.name, series.unit)
        for number in recovered.tracks:
            while len(self.tracks) <= number.track_no:
                self.tracks.append(None)
            entry = self.by_no[number.device_no]
            track = Track(number.track_no, number.stream, number.epoch)
            entry.tracks[number.stream, number.epoch] = track
            self.tracks[number.track_no] = (entry, track)
        for known in self.tracks:
            if known is not None:
                _link(*known)

    def _grow(self, number: int, entry: Entry) -> None:
        while len(self.by_no) <= number:
            self.by_no.append(entry)

    def learn(self, changed: Device | DeviceType | TenantPolicy | DeviceId) -> None:
        """Follow a change of the registry."""
        if isinstance(changed, Device):
            self._learn_device(changed)
        elif isinstance(changed, DeviceType):
            self._types[changed.tenant, changed.name] = changed
            for entry in self.entries.values():
                if (entry.tenant, entry.device_type) == (changed.tenant, changed.name):
                    self._apply_type(entry)
        elif isinstance(changed, TenantPolicy):
            self._policies[changed.tenant] = changed
            for entry in self.entries.values():
                if entry.tenant == changed.tenant:
                    self._apply_type(entry)
        else:
            self.forget(changed)

    def _learn_device(self, device: Device) -> None:
        entry = self.entries.setdefault(device.device_id, Entry(device.device_id))
        self._count(entry, device.tenant)
        is_moved = entry.device_no >= 0 and (entry.tenant, entry.device_type) != (device.tenant, device.device_type)
        entry.tenant, entry.device_type, entry.lifecycle = device.tenant, device.device_type, device.lifecycle
        entry.place = device.location.name
        entry.is_known = True
        if is_moved:
            self.new_devices.append(DeviceRow(entry.device_no, entry.device_id, entry.tenant, entry.device_type))
        self._apply_type(entry)

    def _apply_type(self, entry: Entry) -> None:
        device_type = self._types.get((entry.tenant, entry.device_type))
        entry.codec = device_type.codec if device_type else None
        declared = {reading.name: reading for reading in device_type.readings} if device_type else {}
        entry.declared = declared or None
        entry.policy = self._policies.get(entry.tenant) or TenantPolicy(TenantId(entry.tenant))
        entry.protection = entry.policy.messages | (device_type.messages if device_type else Protection.NONE)
        entry.is_guarded = entry.protection is not Protection.NONE

    def forget(self, device_id: str) -> None:
        """Drop an erased device: its numbers are not given again, its name is free."""
        entry = self.entries.pop(device_id, None)
        if entry is not None:
            if entry.is_known:
                self.known[entry.tenant] -= 1
            entry.is_known = False
            entry.series, entry.tracks, entry.clocks = {}, {}, None

    def full(self, now: int) -> list[str]:
        """Return the tenants that have no room, and where a device found none in the last hour."""
        return [
            tenant
            for tenant, at in self.turned_away.items()
            if now - at < FULL_NS and 0 < self.devices_max_of(tenant) <= self.known[tenant]
        ]

    def _count(self, entry: Entry, tenant: str) -> None:
        if entry.is_known:
            self.known[entry.tenant] -= 1
        self.known[tenant] += 1

    def register(self, device_id: DeviceId, now: int) -> Entry:
        """Let an unknown device in as unclaimed; the registry follows with the group.

        Raises RejectedError (`quota-devices`) where the tenant that it would land in has no room.
        """
        most = self.devices_max_of(DEFAULT_TENANT)
        if most and self.known[DEFAULT_TENANT] >= most:
            self.turned_away[DEFAULT_TENANT] = now
            raise RejectedError(
                f"tenant {DEFAULT_TENANT} has {self.known[DEFAULT_TENANT]} devices and may have {most}: no other "
                "registers itself",
                code=codes.QUOTA_DEVICES,
            )
        entry = self.entries.setdefault(device_id, Entry(device_id))
        self._count(entry, entry.tenant)
        entry.is_known = True
        entry.lifecycle = Lifecycle.UNCLAIMED
        self._apply_type(entry)
        self.unclaimed.append(device_id)
        return entry

    def number(self, entry: Entry) -> int:
        """Return the device's number, given at its first message."""
        if entry.device_no < 0:
            entry.device_no = len(self.by_no)
            self.by_no.append(entry)
            self.new_devices.append(DeviceRow(entry.device_no, entry.device_id, entry.tenant, entry.device_type))
        return entry.device_no

    def series_no(self, entry: Entry, name: str, unit: str) -> int:
        """Return the number of a reading of a device, given at its first value."""
        number = entry.series.get(name)
        if number is None:
            declared = entry.declared.get(name) if entry.declared else None
            unit = unit or (declared.unit if declared else "")
            number = entry.series[name] = len(self.series)
            self.series.append((entry, name, unit))
            self.new_series.append(SeriesRow(number, self.number(entry), name, unit))
        elif unit and self.series[number][2] != unit:
            self.series[number] = (entry, name, unit)
            self.new_series.append(SeriesRow(number, entry.device_no, name, unit))
        return number

    def track(self, entry: Entry, stream: str, epoch: str) -> Track:
        """Return the track of a stream's epoch, given at its first message."""
        track = entry.tracks.get((stream, epoch))
        if track is None:
            track = entry.tracks[stream, epoch] = Track(len(self.tracks), stream, epoch)
            self.tracks.append((entry, track))
            self.new_tracks.append(TrackRow(track.track_no, self.number(entry), stream, epoch))
        return track

    def derive(self, entry: Entry, track: Track) -> Track:
        """Return a new track for what came under the numbers of `track` with other content."""
        number = 2
        while (track.stream, f"{track.epoch}{FORK}{number}") in entry.tracks:
            number += 1
        fork = self.track(entry, track.stream, f"{track.epoch}{FORK}{number}")
        track.forks = [*(track.forks or ()), fork]
        return fork

    def track_of(self, number: int) -> Track | None:
        """Return a track by its number, None where its device was erased."""
        known = self.tracks[number] if number < len(self.tracks) else None
        return known[1] if known is not None else None


def is_derived(entry: Entry, track: Track) -> bool:
    """Whether a track was derived from another: its epoch says so."""
    return _base_of(entry, track) is not None


def _base_of(entry: Entry, track: Track) -> Track | None:
    base, mark, number = track.epoch.rpartition(FORK)
    return entry.tracks.get((track.stream, base)) if mark and number.isdecimal() else None


def _link(entry: Entry, track: Track) -> None:
    base = _base_of(entry, track)
    if base is not None:
        base.forks = [*(base.forks or ()), track]
