"""Words and rows of identity. Pure. Times are ns UTC, fingerprints lower-case SHA-256 of the DER."""

from enum import StrEnum
from typing import Any

import msgspec

from godwit.contract.ids import DeviceId, TenantId, TypeName


class AuthorityKind(StrEnum):
    """What an authority is to us."""

    ROOT = "root"
    ISSUING = "issuing"
    """Ours: its key is here, and it issues the devices' certificates."""
    CUSTOMER = "customer"
    """A customer's own: it vouches for devices of its tenant; ids must be in the registry, unless `just_in_time`."""
    FACTORY = "factory"
    """Of whoever makes the devices: its certificates open enrollment, or (`just_in_time`) the door itself."""


class AuthorityState(StrEnum):
    """Where an authority is in its life. Certificates of all but retired ones are accepted."""

    NEXT = "next"
    """Announced and trusted, does not issue yet."""
    ACTIVE = "active"
    RETIRING = "retiring"
    """Issues no more; its certificates still count."""
    RETIRED = "retired"


class Landing(msgspec.Struct, frozen=True, rename="camel"):
    """Where a new device lands: type, groups, tags, and its first configuration (a JSON object)."""

    device_type: TypeName | None = None
    groups: tuple[str, ...] = ()
    tags: dict[str, str] = {}
    configuration: dict[str, Any] = {}


class AuthorityTerms(msgspec.Struct, frozen=True, rename="camel"):
    """What an authority may do. `ids`: patterns (`*` and `?`) of the device ids it may name; empty: any of its tenant.

    `just_in_time`: an unknown device with its certificate is taken in and lands by `landing`.
    """

    ids: tuple[str, ...] = ()
    just_in_time: bool = False
    landing: Landing = Landing()


class Authority(msgspec.Struct, frozen=True, rename="camel"):
    """A certificate authority that we trust or are. `certificate` is PEM; `has_key`: we can issue with it."""

    fingerprint: str
    name: str
    tenant: TenantId | None
    kind: AuthorityKind
    state: AuthorityState
    certificate: str
    subject: str
    key_identifier: str
    issuer: str | None
    has_key: bool
    not_before: int
    not_after: int
    created: int
    terms: AuthorityTerms = AuthorityTerms()


class CertificateState(StrEnum):
    """Where a certificate is in its life. A superseded one counts until its own end, or until it is revoked."""

    PENDING = "pending"
    """Issued, not yet connected with."""
    ACTIVE = "active"
    SUPERSEDED = "superseded"
    REVOKED = "revoked"


class Source(StrEnum):
    """By which road a certificate came."""

    OPERATOR = "operator"
    BATCH = "batch"
    CLAIM = "claim"
    FACTORY = "factory"
    RENEWAL = "renewal"
    EST = "est"
    SCEP = "scep"
    GRANT = "grant"
    API = "api"
    JUST_IN_TIME = "just-in-time"


class Certificate(msgspec.Struct, frozen=True, rename="camel"):
    """A device's certificate. `certificate` is PEM, `reason` of RFC 5280 5.3.1; 0 in a time: not so."""

    fingerprint: str
    device_id: DeviceId
    tenant: TenantId
    authority: str
    serial: str
    key_fingerprint: str
    state: CertificateState
    source: Source
    certificate: str
    not_before: int
    not_after: int
    created: int
    first_seen: int = 0
    revoked: int = 0
    reason: str = ""


class ClaimKind(StrEnum):
    """How often a claim token is good."""

    ONE_TIME = "one-time"
    FLEET = "fleet"
    GRANT = "grant"
    """One time, for one id: the access token of an OAuth device grant."""


class ClaimState(StrEnum):
    """Where a claim is in its life. Bound: a request has come; the same key may ask again."""

    OPEN = "open"
    BOUND = "bound"
    SPENT = "spent"
    REVOKED = "revoked"


class Claim(msgspec.Struct, frozen=True, rename="camel"):
    """A token with which a device without identity may ask for one. The token itself is not kept."""

    claim_id: str
    tenant: TenantId
    name: str
    kind: ClaimKind
    device_id: DeviceId | None
    state: ClaimState
    key_fingerprint: str | None
    uses: int
    uses_max: int | None
    expires: int
    created: int
    created_by: str
    ids: tuple[str, ...] = ()
    """Patterns (`*` and `?`) of the ids that it is good for; none: any."""
    landing: Landing = Landing()


class EnrollmentRule(msgspec.Struct, frozen=True, rename="camel"):
    """Where devices land whose id matches `ids` (`*` and `?`), that came by one of `sources` (empty: any).

    Rules are tried in the order of `position`, then name; the first that matches counts. What a claim or an authority
    says itself wins over the rule.
    """

    name: str
    tenant: TenantId
    position: int = 0
    ids: str = "*"
    sources: tuple[Source, ...] = ()
    landing: Landing = Landing()


class GrantState(StrEnum):
    """Where a device grant is in its life."""

    WAITING = "waiting"
    APPROVED = "approved"
    DENIED = "denied"
    GIVEN = "given"
    """The device has its access token."""


class DeviceGrant(msgspec.Struct, frozen=True, rename="camel"):
    """A device with a screen asks its owner (RFC 8628). Its codes are not kept. `interval`: s between two polls."""

    grant_id: str
    device_id: DeviceId
    state: GrantState
    tenant: TenantId | None
    groups: tuple[str, ...]
    decided_by: str
    address: str
    created: int
    expires: int
    interval: int
    polled: int


class DeviceToken(msgspec.Struct, frozen=True, rename="camel"):
    """A device's password over TLS. The token itself is shown once and not kept; `digest` never leaves the room."""

    token_id: str
    device_id: DeviceId
    tenant: TenantId
    name: str
    created: int
    created_by: str
    expires: int = 0
    revoked: int = 0
    last_used: int = 0


class KeyPurpose(StrEnum):
    """What a device's registered key is for."""

    JWT = "jwt"
    SIGN = "sign"
    AGREE = "agree"


class DeviceKey(msgspec.Struct, frozen=True, rename="camel"):
    """A public key of a device. `key_id`: SHA-256 of its SubjectPublicKeyInfo. `removed` (by an operator): for good."""

    key_id: str
    device_id: DeviceId
    tenant: TenantId
    purpose: KeyPurpose
    public: str
    created: int
    retired: int = 0
    removed: int = 0


class PlatformKey(msgspec.Struct, frozen=True, rename="camel"):
    """A key of ours for the messages of a tenant's devices: `sign` for what we send, `agree` for what we are sent.

    A retired one opens what comes late, until it has `ended`: then its private half is gone. `removed`: an operator
    ended it, at once.
    """

    key_id: str
    tenant: TenantId
    purpose: KeyPurpose
    public: str
    created: int
    retired: int = 0
    ended: int = 0
    removed: int = 0


class CampaignKind(StrEnum):
    """What is exchanged in a rollover."""

    INTERMEDIATE = "intermediate"
    ROOT = "root"


class CampaignState(StrEnum):
    """Where a rollover is."""

    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"


class Step(StrEnum):
    """Where a device is in a rollover."""

    WAITING = "waiting"
    TOLD = "told"
    TRUSTED = "trusted"
    """It trusts the new root, and was told to renew."""
    RENEWED = "renewed"
    FAILED = "failed"
    """It was told in vain; it may still come round."""
    GONE = "gone"
    """It has no certificate left that could be lost: all have ended or were revoked. It is enrolled anew."""


class Campaign(msgspec.Struct, frozen=True, rename="camel"):
    """A rollover, and how many devices are at which step. `rate`: devices told a second."""

    campaign_id: int
    kind: CampaignKind
    state: CampaignState
    old: str
    new: str
    created: int
    created_by: str
    finished: int
    rate: int
    devices: dict[str, int]


class Door(StrEnum):
    """By which credential a client came in."""

    CERTIFICATE = "certificate"
    ENDED = "ended-certificate"
    """Its own, which has ended: it opens nothing but its renewal (see `grace`)."""
    TOKEN = "token"  # noqa: S105 - a word, no secret
    JWT = "jwt"
    CLAIM = "claim"
    FACTORY = "factory"
    GRANT = "grant"
    APPLICATION = "application"
    """A program of the owner, by API token."""
    LOCAL = "local"


class Credential(msgspec.Struct, frozen=True):
    """Who came in, and how. `name`: fingerprint, token id or claim id; `ends`: when it ends, ns UTC, 0: never.

    `device_id` None: it stands for no device yet (claims, factory certificates) or for none at all (applications).
    """

    door: Door
    name: str
    tenant: TenantId
    device_id: DeviceId | None = None
    ends: int = 0
    authority: str = ""
    """Of a factory certificate: who issued it, and the only id that it may enroll."""
    common_name: str = ""
    is_shared: bool = False
    """Many devices have it (a fleet claim): under one client id it is not one and the same that comes back."""


Change = Authority | Certificate | Claim | DeviceToken | DeviceKey | PlatformKey
"""What others are told after a commit: the row as it is now."""
