"""Events: boot, error, a local alert: what happened on a device, once."""

from typing import Annotated, Any

import msgspec

from godwit.contract.documents import Time, check_times, decode_document


class DeviceEvent(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Something that happened."""

    event: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    device_id: str | None = None
    event_id: str | None = None
    timestamp: Time | None = None
    uptime: int | None = None
    """Instead of a timestamp, of a device that has none: ns since the boot `boot_id`."""
    boot_id: str | None = None
    severity: str | None = None
    message: str | None = None
    details: dict[str, Any] | None = None


def decode(payload: bytes, content_type: str | None = None) -> DeviceEvent:
    """Decode an event. Raises MalformedError only."""
    event = decode_document(payload, DeviceEvent, content_type)
    check_times(event.timestamp)
    return event
