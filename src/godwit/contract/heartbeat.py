"""The platform's heartbeat: retained on `system/heartbeat`, every 10 s.

Who reads an old one knows that it stands still.
"""

import msgspec

from godwit.contract.documents import decode_document


class SystemHeartbeat(msgspec.Struct, frozen=True, rename="camel"):
    """The platform's own sign of life. `status` is healthy or degraded; `uptime` in seconds."""

    timestamp: str
    status: str
    version: str
    uptime: float
    connected_devices: int
    messages_per_second: float
    trouble: list[str] = []


def encode(beat: SystemHeartbeat) -> bytes:
    """Return the JSON payload."""
    return msgspec.json.encode(beat)


def decode(payload: bytes, content_type: str | None = None) -> SystemHeartbeat:
    """Decode a heartbeat. Raises MalformedError only."""
    return decode_document(payload, SystemHeartbeat, content_type)
