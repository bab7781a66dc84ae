"""Events: boot, error, a local alert: what happened on a device, once."""

from typing import Annotated, Any

import msgspec

from godwit.contract.documents import decode_document


class DeviceEvent(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Something that happened."""

    event: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    device_id: str | None = None
    event_id: str | None = None
    timestamp: str | float | int | None = None
    severity: str | None = None
    message: str | None = None
    details: dict[str, Any] | None = None


def decode(payload: bytes, content_type: str | None = None) -> DeviceEvent:
    """Decode an event. Raises MalformedError only."""
    return decode_document(payload, DeviceEvent, content_type)
