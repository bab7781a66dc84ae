"""What MQTT 5 is told of a message, or a client, that is refused."""

from typing import Final, NamedTuple

from godwit.contract import codes
from godwit.mqtt import reasons


class Refusal(NamedTuple):
    """Why a client cannot come in; what it is told."""

    reason_code: int
    text: str
    server_reference: str | None = None


class Denial(NamedTuple):
    """Why nobody believes a client, by a code that stays. `reason_code` is what MQTT 5 has for it."""

    code: str
    text: str
    reason_code: int = reasons.NOT_AUTHORIZED
    is_guess: bool = False
    """Whether something was said that can be guessed: the answer takes its time."""


NOT_AUTHORISED: Final = "not-authorised"
CERTIFICATE_EXPIRED: Final = "certificate-expired"
SENTENCES: Final = {
    NOT_AUTHORISED: "no right to publish to this topic",
    CERTIFICATE_EXPIRED: "the certificate has expired: it is good for its own renewal only",
    codes.DEVICE_CLAIMED: "the device has an owner: it speaks, and is spoken to, by TLS with a credential of its own",
}
REASONS: Final = {
    NOT_AUTHORISED: reasons.NOT_AUTHORIZED,
    CERTIFICATE_EXPIRED: reasons.NOT_AUTHORIZED,
    codes.UNKNOWN_DEVICE: reasons.NOT_AUTHORIZED,
    codes.DEVICE_RETIRED: reasons.NOT_AUTHORIZED,
    codes.DEVICE_CLAIMED: reasons.NOT_AUTHORIZED,
    codes.DEVICE_MISMATCH: reasons.NOT_AUTHORIZED,
    codes.PLACE_MISMATCH: reasons.NOT_AUTHORIZED,
    codes.INVALID_DEVICE_ID: reasons.TOPIC_NAME_INVALID,
    codes.SERIES_LIMIT: reasons.QUOTA_EXCEEDED,
    codes.QUOTA_DEVICES: reasons.QUOTA_EXCEEDED,
    codes.RATE_LIMITED: reasons.QUOTA_EXCEEDED,
    codes.RETAINED_LIMIT: reasons.QUOTA_EXCEEDED,
}
"""By the code of an arrival; everything else is 0x99, payload format invalid."""
TOLD_MORE: Final = frozenset({codes.RATE_LIMITED, codes.RETAINED_LIMIT, codes.DEVICE_CLAIMED})
"""Of these the sentence is the reason string, since it says what to do; of others the code."""


def reason_string(code: str, detail: str) -> str | None:
    """Return the reason string. The reason code says all there is to say of a forbidden topic."""
    if code == NOT_AUTHORISED:
        return None
    return detail if code in TOLD_MORE else code
