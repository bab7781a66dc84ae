"""What checks look at, and what they find. Pure. Times are ns UTC; 0: never, or not."""

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from godwit.server.accounts.model import ApiToken
from godwit.server.identity.model import Authority, Certificate, Claim, DeviceKey, DeviceToken
from godwit.server.registry.model import Device
from godwit.server.settings import Settings

NS: Final = 1_000_000_000
DAY: Final = 86_400 * NS


class Severity(StrEnum):
    """How grave a finding is."""

    INFO = "info"
    """A choice that is worth knowing."""
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"
    """Somebody is in who should not be, or could be now."""

    @property
    def rank(self) -> int:
        """Return a number that grows with it."""
        return list(Severity).index(self)


class Affected(NamedTuple):
    """One thing that a finding is about. `kind`: device, certificate, authority, client, token, claim, user, ..."""

    kind: str
    name: str
    detail: str = ""


class Check(NamedTuple):
    """What is looked for. `find` returns the things that it is true of; empty: nothing is found."""

    code: str
    severity: Severity
    title: str
    why: str
    todo: str
    find: "Callable[[Facts], Iterable[Affected]]"
    aws: tuple[str, ...] = ()
    """Checks of AWS IoT Device Defender that it answers."""
    of_installation: bool = False
    """It is about the platform itself: for administrators of all tenants."""


class Finding(msgspec.Struct, frozen=True, rename="camel"):
    """What a check has found: `count` things, the first of which are `affected`."""

    code: str
    severity: Severity
    title: str
    why: str
    todo: str
    count: int
    affected: list[Affected]


class KeyFacts(NamedTuple):
    """The key and the signature of a certificate. `bits` 0: a curve of Edwards."""

    kind: str
    """rsa, ec, ed25519, ed448, or another that we do not take."""
    bits: int
    curve: str
    signature: str
    """The hash that it is signed over; empty where the scheme has its own."""


class User(NamedTuple):
    """Somebody who signs in."""

    name: str
    grants: dict[str, str]
    has_password: bool
    has_issuer: bool
    is_disabled: bool
    created: int
    last_sign_in: int


class Connected(NamedTuple):
    """A client that is connected now. `credential`: fingerprint or id of what it came in with."""

    client_id: str
    device_id: str
    listener: str
    credential: str
    address: str


class ClockFact(NamedTuple):
    """How far off a device's clock is, ns."""

    device_id: str
    offset: int
    uncertainty: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All that checks look at, of the tenants of who asks."""

    now: int
    settings: Settings
    tenants: dict[str, bool] = {}
    """Name -> whether a quota of its own or of the settings holds for it."""
    devices: list[Device] = []
    authorities: list[Authority] = []
    certificates: list[Certificate] = []
    keys_of: dict[str, KeyFacts] = {}
    """By fingerprint, of authorities and of those certificates that count."""
    proven: frozenset[str] = frozenset()
    """Fingerprints of the authorities whose owner has shown to have the key."""
    claims: list[Claim] = []
    device_tokens: list[DeviceToken] = []
    device_keys: list[DeviceKey] = []
    users: list[User] = []
    tokens: list[ApiToken] = []
    connected: list[Connected] = []
    conflicts: dict[str, int] = {}
    """Client id -> how often in the last hour two connections fought for it."""
    clocks: list[ClockFact] = []
    refused: dict[str, int] = {}
    """What was refused (words of the audit log) -> how often in the last day."""
    open_files: list[str] = []
    """Files with secrets that others than their owner may read."""
    has_own_passphrase_file: bool = False
    """The passphrase of the keys lies beside them."""
