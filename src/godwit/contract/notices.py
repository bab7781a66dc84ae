"""Notices to a device: a limit was hit, something is in quarantine, a certificate is due, samples are missing."""

from typing import Annotated, Any, Final

import msgspec

from godwit.contract.documents import decode_document

GAP_WANTED: Final = "gap-wanted"
"""Samples are missing: `details` are a `GapWanted`. The device sends them again, or a gap record."""
CLONE_DETECTED: Final = "clone-detected"
"""The numbers of a stream came twice with different content: `details` are a `CloneDetected`."""
NEW_CA: Final = "new-ca"
"""Another authority is to be trusted too: `details` are `NewAuthorities`."""
RENEW: Final = "renew"
"""The device is to renew its certificate now, not only when it is due: `details` are a `RenewalWanted`."""
MESSAGE_KEYS: Final = "message-keys"
"""The platform has new keys for messages end to end: `details` are `NewMessageKeys`. Believed only if signed."""
RANGES_MAX: Final = 64
"""So many ranges are asked for at a time, the oldest first."""


class Notice(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Something the device should know. `code` is stable."""

    code: str
    message: str = ""
    details: Annotated[
        dict[str, Any] | None,
        msgspec.Meta(
            description="Of gap-wanted: stream, epoch and ranges [[first, last], ...]; of clone-detected: stream, "
            "epoch, first and keptAs; of new-ca: authorities and announced; of renew: reason, authority and before; of "
            "message-keys: agreeKey, signKey and since"
        ),
    ] = None


class GapWanted(msgspec.Struct, frozen=True, rename="camel"):
    """Samples of `(stream, epoch)` that the platform lacks: ranges (first, last), both included."""

    stream: str
    epoch: str
    ranges: list[tuple[int, int]]


class CloneDetected(msgspec.Struct, frozen=True, rename="camel"):
    """Sample `first` of `(stream, epoch)` came with other content than before; from there it is kept under `kept_as`.

    Whoever sends it is a copy of another device, or was restored from an image: it begins a new epoch.
    """

    stream: str
    epoch: str
    first: int
    kept_as: str


class NewAuthorities(msgspec.Struct, frozen=True, rename="camel"):
    """`authorities` are all roots to be trusted from now on, PEM; `announced` is the new one among them.

    A device keeps them, then names in its status, and in `trusts` of every renewal, whom it trusts. Fingerprints are
    lower-case SHA-256 of the DER.
    """

    authorities: list[str]
    announced: str


class RenewalWanted(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Renew, because of `reason` (`rollover`, `operator`). What counts stays the old one until the new one is used.

    `authority` is the fingerprint of who will issue; `before` is when the old certificate may end to count, ns UTC.
    """

    reason: str
    authority: str = ""
    before: int = 0


class NewMessageKeys(msgspec.Struct, frozen=True, rename="camel"):
    """The platform's public keys, PEM: encrypt to `agree_key` from now on, and believe what `sign_key` has signed.

    The notice is a COSE_Sign1 by a key that the device knows already: a broker on the way cannot give it another.
    `since` is when the keys were made, ns UTC: an older notice, sent again, changes nothing.
    """

    agree_key: str
    sign_key: str
    since: int = 0


Details = GapWanted | CloneDetected | NewAuthorities | RenewalWanted | NewMessageKeys

_encoder = msgspec.json.Encoder()


def encode_gap_wanted(wanted: GapWanted) -> bytes:
    """Return the notice that asks for missing samples, as JSON."""
    return _encode(
        GAP_WANTED, "Samples are missing: send them again, or say in a gap record that they are gone.", wanted
    )


def encode_clone_detected(detected: CloneDetected) -> bytes:
    """Return the notice about numbers that came twice, as JSON."""
    return _encode(CLONE_DETECTED, "These numbers were used before, for other samples: begin a new epoch.", detected)


def encode_new_authorities(new: NewAuthorities) -> bytes:
    """Return the notice that names whom to trust from now on, as JSON."""
    return _encode(NEW_CA, "Another authority is to be trusted: keep it, and say so in the next status.", new)


def encode_renewal_wanted(wanted: RenewalWanted) -> bytes:
    """Return the notice that asks for a renewal, as JSON."""
    return _encode(RENEW, "Renew the certificate now, with a new key.", wanted)


def encode_new_message_keys(new: NewMessageKeys) -> bytes:
    """Return the notice that names the platform's keys for messages, as JSON."""
    return _encode(MESSAGE_KEYS, "Encrypt to the new key from now on.", new)


def _encode(code: str, message: str, details: Details) -> bytes:
    return _encoder.encode(Notice(code, message, msgspec.to_builtins(details)))


def decode(payload: bytes, content_type: str | None = None) -> Notice:
    """Decode a notice. Raises MalformedError only."""
    return decode_document(payload, Notice, content_type)


def details_of(notice: Notice) -> Details | None:
    """Return what a notice is about, None where its code has no details of its own. Raises MalformedError."""
    kind = _DETAILS.get(notice.code)
    return None if kind is None else decode_document(_encoder.encode(notice.details), kind, "application/json")


_DETAILS: Final[dict[str, type[Details]]] = {
    GAP_WANTED: GapWanted,
    CLONE_DETECTED: CloneDetected,
    NEW_CA: NewAuthorities,
    RENEW: RenewalWanted,
    MESSAGE_KEYS: NewMessageKeys,
}
