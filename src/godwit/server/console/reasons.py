"""Why a message is in quarantine, in a sentence, and what to do about it. One entry per code of the contract."""

from typing import Final, NamedTuple

from godwit.contract import codes


class Reason(NamedTuple):
    """A code explained to a person."""

    what: str
    what_to_do: str


_SENDER: Final = "Correct the program on the device; the same bytes will be refused again."

REASONS: Final[dict[str, Reason]] = {
    codes.MALFORMED_JSON: Reason("The payload is not valid JSON.", _SENDER),
    codes.MALFORMED_CBOR: Reason("The payload is not valid CBOR.", _SENDER),
    codes.MALFORMED_PROTOBUF: Reason("The payload is not a Protobuf message of the contract.", _SENDER),
    codes.MALFORMED_SENML: Reason("The payload is not a valid SenML pack (RFC 8428).", _SENDER),
    codes.MALFORMED_COMPRESSION: Reason("The payload begins like zlib or Zstandard and cannot be unpacked.", _SENDER),
    codes.INVALID_UTF8: Reason("A text in the payload is not valid UTF-8.", _SENDER),
    codes.DUPLICATE_KEY: Reason("A JSON object holds the same key twice, so its meaning is open.", _SENDER),
    codes.NESTING_TOO_DEEP: Reason("The payload is nested deeper than any telemetry needs.", _SENDER),
    codes.PAYLOAD_TOO_LARGE: Reason(
        "The payload is larger than this platform takes.",
        "Send fewer samples in one message, or raise PAYLOAD_BYTES_MAX and replay.",
    ),
    codes.UNKNOWN_CONTENT_TYPE: Reason(
        "The MQTT 5 content type names an encoding that is not known here.",
        "Use application/json, application/cbor, application/protobuf or application/senml+json.",
    ),
    codes.UNKNOWN_SHAPE: Reason(
        "The payload can be read, but is none of the accepted telemetry shapes.",
        "Compare it with the contract at /asyncapi; readings stand under readings, sensors or data.",
    ),
    codes.UNKNOWN_SCHEMA_VERSION: Reason(
        "The message says it follows a newer contract than this platform knows.",
        "Upgrade the platform, then replay.",
    ),
    codes.WRONG_TYPE: Reason("A field holds a value of the wrong type.", _SENDER),
    codes.NO_READINGS: Reason("The message holds no reading.", _SENDER),
    codes.TOO_MANY_READINGS: Reason("The message holds more readings than one message may.", "Split it into several."),
    codes.NOT_FINITE: Reason("A value is NaN or infinite.", "Leave a reading out when there is no value for it."),
    codes.TEXT_TOO_LONG: Reason("A text value is longer than 4 KiB.", "Send shorter texts as readings."),
    codes.INVALID_NAME: Reason("A reading or stream has a name that is not allowed.", _SENDER),
    codes.INVALID_DEVICE_ID: Reason(
        "The device id is not allowed.", "Use 1 to 64 of A-Z a-z 0-9 . _ : - and begin with a letter or digit."
    ),
    codes.DEVICE_MISMATCH: Reason(
        "The device id in the payload is not the one in the topic.", "Let the device publish under its own topic."
    ),
    codes.UNKNOWN_DEVICE: Reason(
        "No such device is registered, and on this listener none registers itself.",
        "Create the device, then replay.",
    ),
    codes.DEVICE_RETIRED: Reason("The device is retired.", "Make it active again and replay, or purge the message."),
    codes.DEVICE_CLAIMED: Reason(
        "The device has an owner; on the loopback listener anybody could speak for it.",
        "Let it connect by TLS with its certificate or token, then replay what was its own.",
    ),
    codes.PLACE_MISMATCH: Reason(
        "Tenant, location or type in the topic differ from the registry.", "Correct the one that is wrong, then replay."
    ),
    codes.MALFORMED_COSE: Reason(
        "The message begins like COSE (signed or encrypted) and cannot be read, or its headers are not safe.", _SENDER
    ),
    codes.ALGORITHM_REFUSED: Reason(
        "It is signed or encrypted by an algorithm that is not taken, or that its key is not for.",
        "Use ES256 or EdDSA to sign, A256GCM with ECDH-ES + HKDF-256 to encrypt.",
    ),
    codes.KEY_UNKNOWN: Reason(
        "It names a key that this device does not have, or is encrypted to one that is not ours.",
        "Register the device's key, then replay; or give the device the platform's key in use.",
    ),
    codes.KEY_RETIRED: Reason(
        "Its key was retired, and the overlap is over, or it was signed after that.", "Let the device use its new key."
    ),
    codes.KEY_REMOVED: Reason(
        "An operator removed its key: it may be in other hands, so that nothing it signed or sealed counts.",
        "Nothing, if that was right: the device makes a new key by itself. What it measured meanwhile is in here.",
    ),
    codes.KEY_UNFIT: Reason("The key is of a kind that is not used for messages.", "Use P-256, or Ed25519 to sign."),
    codes.SIGNATURE_INVALID: Reason(
        "The signature is not of this content, for this device and channel, by this key.",
        "Somebody altered it or passes it off as another device's, or the device signs something else.",
    ),
    codes.MESSAGE_UNDECRYPTABLE: Reason(
        "It was altered, or encrypted for another device or channel.",
        "Somebody altered it or passes it off as another device's, or the device binds it to something else.",
    ),
    codes.SIGNATURE_REQUIRED: Reason(
        "The tenant or the device's type wants signed messages.",
        "Let the device sign, or change the policy and replay.",
    ),
    codes.ENCRYPTION_REQUIRED: Reason(
        "The tenant or the device's type wants encrypted messages.",
        "Let the device encrypt, or change the policy and replay.",
    ),
    codes.MESSAGE_REPLAYED: Reason(
        "All of it was here before, and it was signed too long ago for a redelivery.",
        "Purge it. If it happens again, somebody who can publish for the device repeats what it once said.",
    ),
    codes.TIME_MALFORMED: Reason("A timestamp can not be read.", "Use RFC 3339, or a number since 1970."),
    codes.TIME_IMPLAUSIBLE: Reason(
        "A timestamp lies too far off to be true.",
        "Set the device's clock. If it has been compared since (see Clocks), replay: it is corrected.",
    ),
    codes.TIME_IN_FUTURE: Reason(
        "A timestamp lies in the future.",
        "Set the device's clock. Replay once it has been compared (see Clocks), or that time has passed.",
    ),
    codes.OUT_OF_RANGE: Reason(
        "A value is outside the range that the device type declares.",
        "Check the sensor, or widen the declared range and replay.",
    ),
    codes.UNIT_MISMATCH: Reason(
        "A reading came in another unit than the device type declares.", "Correct the type's unit and replay."
    ),
    codes.QUOTA_DEVICES: Reason(
        "The tenant has as many devices as it may have, and this one is not among them.",
        "Raise the tenant's limit, or erase devices that are gone. Replay once the device is registered.",
    ),
    codes.SERIES_LIMIT: Reason(
        "The device has reached the number of different readings one device may have.",
        "Look for names that are made up anew each time, such as ones with a number in them.",
    ),
    codes.TOO_MANY_GAPS: Reason(
        "So many samples are missing before this one that not one hole more can be remembered.",
        "The device is asked for them; replay once they have come. A device that keeps nothing should not number.",
    ),
    codes.TOO_MANY_CLONES: Reason(
        "The numbers of this stream were used again and again for other samples.",
        "Give each device its own name, and let one that counts anew begin a new epoch. Replay to keep the data.",
    ),
    codes.RATE_LIMITED: Reason(
        "The client sent more than its limit allows. The message was not kept; the client was told.",
        "Slow the client down, or raise the limit (see Settings in the operations guide).",
    ),
    codes.RETAINED_LIMIT: Reason(
        "There is no room for another retained document.",
        "Clear retained topics that nobody needs, or raise RETAINED_BYTES_MAX.",
    ),
    codes.QUARANTINE_FULL: Reason(
        "Quarantine holds as much of this sender as it may; the message was counted and not kept.",
        "Find out why so much is refused, replay or purge what is here, or raise QUARANTINE_DEVICE_BYTES_MAX.",
    ),
}

_UNKNOWN: Final = Reason("The message was refused.", "Look at the detail and the payload.")


def reason(code: str) -> Reason:
    """Return the words for `code`."""
    return REASONS.get(code, _UNKNOWN)
