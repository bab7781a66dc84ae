"""Status: whether a device is there, and how it is. Retained, and also the last will."""

from typing import Annotated

import msgspec

from godwit.contract.documents import Fingerprint, Time, check_times, decode_document
from godwit.contract.limits import TRUSTS_MAX

Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]


class Health(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Loads in percent, uptime in seconds, spool depth in samples, clock offset in seconds."""

    cpu: Percent | None = None
    memory: Percent | None = None
    disk: Percent | None = None
    uptime: float | None = None
    temperature: float | None = None
    spool_depth: int | None = None
    clock_offset: float | None = None


class DeviceError(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Something that is wrong on the device."""

    code: str
    message: str = ""
    timestamp: Time | None = None
    severity: str | None = None


class DeviceStatus(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a device says of itself. `status` is online, offline, or a word of the device's own (`maintenance` ...).

    `trusts` are the fingerprints of the roots whose servers it trusts, of devices that hold certificates.
    """

    status: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    device_id: str | None = None
    health: Health | None = None
    errors: list[DeviceError | str] | None = None
    last_seen: Time | None = None
    timestamp: Time | None = None
    reason: str | None = None
    firmware_version: str | None = None
    trusts: Annotated[list[Fingerprint], msgspec.Meta(max_length=TRUSTS_MAX)] | None = None


def decode(payload: bytes, content_type: str | None = None) -> DeviceStatus:
    """Decode a status message. Raises MalformedError only."""
    said = decode_document(payload, DeviceStatus, content_type)
    check_times(said.last_seen, said.timestamp)
    return said
