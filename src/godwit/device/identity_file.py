"""What stands in the one file of an identity (see `identity`): its states, and what follows a step. Pure."""

from enum import StrEnum
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from godwit.contract.errors import RejectedError
from godwit.contract.limits import TRUSTS_MAX
from godwit.contract.notices import NewMessageKeys

_GRANT_SLACK_NS: Final = 60_000_000_000
"""Keys that the platform made so long before a grant may not stand in it yet: a notice about them still counts."""


class State(StrEnum):
    """See the module."""

    EMPTY = "empty"
    ASKING = "asking"
    GRANTED = "granted"
    SETTLED = "settled"
    RENEWING = "renewing"
    RENEWED = "renewed"


class Step(StrEnum):
    """What happens to an identity."""

    ASK = "ask"
    GRANT = "grant"
    CONNECT = "connect"
    """A connection was made with the newest certificate."""
    DECLINE = "decline"
    """The new certificate, or the request for it, is given up; the current one stays."""


TABLE: Final[dict[State, dict[Step, State]]] = {
    State.EMPTY: {Step.ASK: State.ASKING},
    State.ASKING: {Step.ASK: State.ASKING, Step.GRANT: State.GRANTED},
    State.GRANTED: {Step.CONNECT: State.SETTLED, Step.ASK: State.ASKING},  # asked again where it ended unused
    State.SETTLED: {Step.CONNECT: State.SETTLED, Step.ASK: State.RENEWING},
    State.RENEWING: {
        Step.ASK: State.RENEWING, Step.GRANT: State.RENEWED, Step.CONNECT: State.RENEWING, Step.DECLINE: State.SETTLED,
    },
    State.RENEWED: {Step.CONNECT: State.SETTLED, Step.DECLINE: State.SETTLED},
}  # fmt: skip
_STATES: Final = {
    (False, False, False): State.EMPTY,
    (False, False, True): State.ASKING,
    (False, True, False): State.GRANTED,
    (True, False, False): State.SETTLED,
    (True, False, True): State.RENEWING,
    (True, True, False): State.RENEWED,
}


class Held(msgspec.Struct, frozen=True, rename="camel"):
    """A certificate, the authorities above it (PEM), its key's name, and when it was granted (platform's ns UTC)."""

    key: str
    certificate: str
    chain: tuple[str, ...]
    granted: int

    @property
    def ends(self) -> int:
        """When it ends, ns UTC."""
        return nanoseconds(x509.load_pem_x509_certificate(self.certificate.encode()).not_valid_after_utc.timestamp())

    @property
    def until(self) -> str:
        """When it ends, for people."""
        return f"{x509.load_pem_x509_certificate(self.certificate.encode()).not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"

    @property
    def pem(self) -> bytes:
        """What a TLS client shows."""
        return "".join(each.strip() + "\n" for each in (self.certificate, *self.chain)).encode()


class Asked(msgspec.Struct, frozen=True, rename="camel"):
    """A certificate request (PKCS#10, PEM), and its key's name."""

    key: str
    request: str


class MessageKeyNames(msgspec.Struct, frozen=True):
    """Where the keys of messages are."""

    sign: str
    agree: str


class Granted(msgspec.Struct, frozen=True):
    """What a grant gives, checked: see `enrollment.read_grant`."""

    certificate: str
    chain: tuple[str, ...]
    roots: tuple[str, ...]
    time: int
    configuration: dict[str, Any] | None = None
    platform: NewMessageKeys | None = None
    taken: tuple[str, ...] = ()
    """Which of our keys of messages the platform has taken."""


class Kept(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What stands in the file. `given`: roots from whoever set the device up, until the platform has named them.

    `roots`: those that it named last; `earlier`: those before, trusted until the new certificate has connected; `past`:
    fingerprints of those that it dropped, which nobody brings back by a file that was forgotten. `told`: the message
    keys, as a digest, that the platform knows of us; `platform`: those that we know of it. `message_keys_next`: made,
    and not yet granted; `message_keys_past`: those before, to which something may be encrypted that is under way;
    `message_keys_made`: when those in use were (ns UTC), 0 where it is not known.
    """

    device_id: str
    current: Held | None = None
    next: Held | None = None
    asked: Asked | None = None
    given: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    time: int = 0
    configuration: dict[str, Any] | None = None
    message_keys: MessageKeyNames | None = None
    told: str = ""
    platform: NewMessageKeys | None = None
    message_keys_next: MessageKeyNames | None = None
    message_keys_past: MessageKeyNames | None = None
    message_keys_made: int = 0

    @property
    def state(self) -> State:
        """See the module."""
        return _STATES[self.current is not None, self.next is not None, self.asked is not None]

    def check(self) -> None:
        """Raise KeyError or ValueError for what somebody edited, or a disk has damaged."""
        self.state  # noqa: B018 - it may be in none
        for held in (self.current, self.next):
            if held is not None:
                held.ends  # noqa: B018 - it is read
        fingerprints(self.trusted)

    @property
    def trusted(self) -> tuple[str, ...]:
        """All roots that are trusted now, PEM."""
        return tuple(dict.fromkeys((*self.roots, *self.given, *self.earlier)))

    def may(self, step: Step) -> None:
        """Raise RejectedError (`identity-state`) where the table has no such step."""
        if step not in TABLE[self.state]:
            raise RejectedError(f"an identity that is {self.state} cannot {step}", code="identity-state")


def newer(known: NewMessageKeys | None, granted: Granted) -> NewMessageKeys | None:
    """Return the platform's message keys after a grant: what it names counts."""
    new = granted.platform
    if new is None or (known is not None and (known.agree_key, known.sign_key) == (new.agree_key, new.sign_key)):
        return known
    if known is not None and known.since > granted.time:
        return known  # an answer that was under way when the platform made others, of which a notice came first
    since = max(granted.time - _GRANT_SLACK_NS, known.since + 1 if known is not None else 0)
    return msgspec.structs.replace(new, since=since)


def naming(kept: Kept, roots: tuple[str, ...]) -> Kept:
    """Return what is kept after the platform has named its roots."""
    if not roots:
        return kept
    named = fingerprints(roots)
    past = tuple(each for each in kept.past if each not in named)
    gone = [each for each in (*kept.roots, *kept.earlier) if fingerprint(each) not in named]
    return msgspec.structs.replace(
        kept,
        roots=roots,
        given=tuple(each for each in kept.given if fingerprint(each) not in named),
        earlier=tuple(dict.fromkeys(gone))[:TRUSTS_MAX],
        past=past,
    )


def fingerprint(pem: str) -> str:
    """Return the SHA-256 of a certificate's DER, lower-case hexadecimal."""
    return x509.load_pem_x509_certificate(pem.encode()).fingerprint(hashes.SHA256()).hex()


def fingerprints(pems: tuple[str, ...]) -> set[str]:
    """Return those of several."""
    return {fingerprint(each) for each in pems}


def nanoseconds(seconds: float) -> int:
    """Return a certificate's time (whole seconds) as ns UTC."""
    return int(seconds) * 1_000_000_000
