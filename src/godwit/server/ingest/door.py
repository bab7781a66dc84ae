"""What other rooms see of ingest: hand in a message, learn what became of it, look at the ledger."""

from collections.abc import Callable, Collection
from functools import partial
from typing import NamedTuple, Protocol

import msgspec

from godwit.contract.cose import Opened
from godwit.contract.telemetry import Metadata
from godwit.contract.topics import Channel
from godwit.server.accounts.principal import Principal
from godwit.server.ingest.clock_report import ClockReport
from godwit.server.registry.model import Protection


class Outcome(NamedTuple):
    """What became of a message, once it is durable. `code` is empty when accepted, else the reason."""

    accepted: int
    duplicate: int = 0
    code: str = ""
    detail: str = ""


class Clone(msgspec.Struct, frozen=True, rename="camel"):
    """Samples that came under numbers of `(stream, epoch)` which were used for others; kept apart under `kept_as`."""

    stream: str
    epoch: str
    kept_as: str
    first: int
    """Where they begin."""
    samples: int
    heard: int
    """When the last one came, ns UTC; 0: not since the platform started."""


class Gap(msgspec.Struct, frozen=True, rename="camel"):
    """Samples `first` to `last` of `(stream, epoch)`: missing, or lost for a reason."""

    stream: str
    epoch: str
    first: int
    last: int
    samples: int
    state: str
    reason: str


class DeviceLedger(msgspec.Struct, frozen=True, rename="camel"):
    """The account of one device. Samples, but for `messages`; `quarantined` and `lost` by reason.

    `gaps` are missing and may still come; `lost` will not, as the device says. `cloned` are among the accepted.
    """

    device_id: str
    messages: int
    accepted: int
    readings: int
    duplicate: int
    late: int
    gaps: int
    lost: dict[str, int]
    cloned: int
    clones: list[Clone]
    refused: int
    quarantined: dict[str, int]


class RawMessage(msgspec.Struct, frozen=True, gc=False):
    """One of the last messages of a device, as it came. `payload` is cut at 4 KiB."""

    received: int
    topic: str
    payload: bytes
    code: str


class Sealing(NamedTuple):
    """What a device's messages have to be, and the keys (ids) of its last telemetry: empty where it was plain."""

    wanted: Protection
    signed_by: str
    encrypted_to: str

    @classmethod
    def of(cls, wanted: Protection, opened: Opened | None) -> "Sealing":
        """Return what is to be said of a device."""
        return cls(wanted, opened.signed_by if opened else "", opened.encrypted_to if opened else "")


class Latest(NamedTuple):
    """The newest value of a series. `value` is float, int, bool or str; `quality` good, uncertain or bad."""

    series: int
    name: str
    unit: str
    time: int
    value: float | int | bool | str
    quality: str
    received: int


class IngestStats(msgspec.Struct, frozen=True):
    """Counters since start, and the state of the road. Rates are a moving average over 10 s."""

    messages: int
    readings: int
    duplicates: int
    quarantined: int
    late: int
    commits: int
    messages_per_s: float
    readings_per_s: float
    pending_messages: int
    pending_bytes: int
    stalled: str
    """Empty, or the sentence that says why acknowledgements wait (disk full ...)."""
    stations_us: dict[str, float]
    """CPU microseconds per message and station of the pipeline."""
    full: list[str] = []
    """Tenants that may have no more devices, and where one found no room in the last hour."""
    quarantine_bytes: dict[str, int] = {}
    """How much is kept in quarantine, by tenant."""


class Freshness(msgspec.Struct, frozen=True, rename="camel"):
    """The fleet at one moment. Ages are of newest samples, behind is how old they were when they came; seconds."""

    live: int = 0
    """Devices whose telemetry was stored in the last five minutes."""
    age_p50_s: float = 0.0
    age_p95_s: float = 0.0
    catching_up: int = 0
    """Of the live ones."""
    behind_p50_s: float = 0.0
    behind_max_s: float = 0.0


class IngestDoor(Protocol):
    """Safe to call from any thread or loop."""

    async def submit(
        self, device_id: str, channel: Channel, payload: bytes, *, content_type: str | None = None, peer: str = "http"
    ) -> Outcome:
        """Ingest one message; returns after the commit. Raises UnavailableError when the store does not take it."""
        ...

    async def replay(self, number: int) -> Outcome:
        """Send a quarantined message down the road again; it leaves quarantine if it is accepted now."""
        ...

    async def purge(self, numbers: list[int]) -> int:
        """Remove quarantined messages; returns how many there were."""
        ...

    async def erase(self, device_id: str) -> int:
        """Remove all telemetry, state and quarantine of a device; returns the points removed."""
        ...

    def ledger(self, device_id: str) -> DeviceLedger | None:
        """Return the account of a device, None when it is not known."""
        ...

    def gaps(self, device_id: str) -> list[Gap]:
        """Return what is missing of a device, and what is known as lost; the first thousand ranges."""
        ...

    def latest(self, device_id: str) -> list[Latest]:
        """Return the newest value of each reading of a device."""
        ...

    def raw(self, device_id: str) -> list[RawMessage]:
        """Return the last messages of a device, newest first."""
        ...

    def sealing(self, device_id: str) -> Sealing | None:
        """Return what a device's messages have to be, and what its last telemetry was; None when it is not known."""
        ...

    def metadata(self, device_id: str) -> Metadata | None:
        """Return what a device said of itself with its newest telemetry since the platform started."""
        ...

    def clock(self, device_id: str) -> ClockReport | None:
        """Return what is known of a device's clock, None before it was compared with ours."""
        ...

    def clocks(self, tenants: Collection[str] | None = None) -> list[ClockReport]:
        """Return what is known of the clocks of all devices, or of those of some tenants."""
        ...

    def series_of(self, device_id: str) -> dict[str, int]:
        """Return reading name -> series number of a device."""
        ...

    def series_named(self, name: str, tenants: Collection[str] | None = None) -> dict[str, int]:
        """Return device id -> series number of all devices (of some tenants) with a reading `name`."""
        ...

    def is_of(self, tenants: Collection[str] | None, device_id: str) -> bool:
        """Whether a device is registered, and one of these tenants' (None: of all)."""
        ...

    def may_speak_for(self, tenants: Collection[str] | None, device_id: str) -> bool:
        """Whether a name is not that of a device of another tenant: `is_of`, or nobody's."""
        ...

    def name_of(self, series: int) -> tuple[str, str, str]:
        """Return (device id, reading name, unit) of a series."""
        ...

    def device_no(self, device_id: str) -> int | None:
        """Return the store's number of a device, None before its first message."""
        ...

    def device_of(self, device_no: int) -> tuple[str, str] | None:
        """Return (device id, tenant) of the store's number of a device, None when it was erased."""
        ...

    def freshness(self, tenants: Collection[str] | None = None) -> Freshness:
        """Return how fresh the data of the live devices (of some tenants) are, at most a second old."""
        ...

    def stats(self) -> IngestStats:
        """Return counters, rates and the state of the road."""
        ...


def eyes(ingest: IngestDoor, who: Principal) -> Callable[[str], bool] | None:
    """Return what says whether `who` may see a device, to be asked anew each time; None: all of them."""
    return None if who.tenants is None else partial(ingest.is_of, who.tenants)
