"""Alerts as they leave the platform on `alerts/{severity}`."""

from typing import Any

import msgspec


class CriticalAlert(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An alert that fires or is resolved. `timestamp` is RFC 3339."""

    alert_id: str
    severity: str
    message: str
    timestamp: str
    device_id: str | None = None
    state: str = "firing"
    details: dict[str, Any] | None = None
