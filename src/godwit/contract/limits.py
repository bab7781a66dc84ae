"""Limits of what crosses the wire. Beyond them a message goes to quarantine, with the reason that names the limit."""

from typing import Final

PAYLOAD_BYTES_MAX: Final = 1_048_576
NESTING_MAX: Final = 32
READING_NAME_CHARACTERS_MAX: Final = 128
TEXT_VALUE_BYTES_MAX: Final = 4_096
UNIT_CHARACTERS_MAX: Final = 64
READINGS_PER_SAMPLE_MAX: Final = 256
SAMPLES_PER_MESSAGE_MAX: Final = 10_000
GAPS_PER_MESSAGE_MAX: Final = 1_000
STREAM_CHARACTERS_MAX: Final = 64
EPOCH_CHARACTERS_MAX: Final = 64
BOOT_ID_CHARACTERS_MAX: Final = 64
MESSAGE_ID_CHARACTERS_MAX: Final = 128
FIRMWARE_VERSION_CHARACTERS_MAX: Final = 128
TRUSTS_MAX: Final = 16
SEQUENCE_MAX: Final = 2**62
INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**63 - 1
