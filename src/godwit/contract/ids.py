"""Identifiers. Ids are types, so that a device id is never handed where a tenant is meant."""

import re
from typing import NewType

from godwit.contract import codes
from godwit.contract.errors import MalformedError

DeviceId = NewType("DeviceId", str)
TenantId = NewType("TenantId", str)
TypeName = NewType("TypeName", str)
SeriesNo = NewType("SeriesNo", int)
DeviceNo = NewType("DeviceNo", int)

DEFAULT_TENANT = TenantId("default")

DEVICE_ID_CHARACTERS_MAX = 64
"""An X.509 common name holds at most 64 characters (RFC 5280, ub-common-name)."""

DEVICE_ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}"
_DEVICE_ID = re.compile(DEVICE_ID_PATTERN)


def parse_device_id(text: str) -> DeviceId:
    """Return `text` as a device id.

    Raises MalformedError with code `invalid-device-id` unless it is 1 to 64 of `A-Z a-z 0-9 . _ : -`, the first one
    alphanumeric.
    """
    if _DEVICE_ID.fullmatch(text) is None:
        raise MalformedError(
            f"{text[:80]!r} is no device id: 1 to 64 of A-Z a-z 0-9 . _ : -, the first one a letter or digit",
            code=codes.INVALID_DEVICE_ID,
        )
    return DeviceId(text)
