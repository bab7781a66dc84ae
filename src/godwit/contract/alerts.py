"""Alerts as they leave the platform on `alerts/{severity}`."""

from typing import Any

import msgspec

from godwit.contract.documents import Time, check_times, decode_document


class CriticalAlert(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An alert that fires or is resolved. `timestamp` is RFC 3339."""

    alert_id: str
    severity: str
    message: str
    timestamp: Time
    device_id: str | None = None
    state: str = "firing"
    details: dict[str, Any] | None = None


def decode(payload: bytes, content_type: str | None = None) -> CriticalAlert:
    """Decode an alert. Raises MalformedError only."""
    said = decode_document(payload, CriticalAlert, content_type)
    check_times(said.timestamp)
    return said
