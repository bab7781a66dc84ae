"""Schema versions of telemetry messages: which are known."""

from typing import Final

from godwit.contract import codes
from godwit.contract.errors import MalformedError

SCHEMA_VERSION: Final = 1


def check_version(version: object) -> None:
    """Refuse versions that are not known yet. What is no integer is left to the check of types."""
    if type(version) is int and not 0 <= version <= SCHEMA_VERSION:
        raise MalformedError(
            f"the message is of a schema version other than 0 to {SCHEMA_VERSION}", code=codes.UNKNOWN_SCHEMA_VERSION
        )
