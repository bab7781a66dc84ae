"""Answers in JSON, encoded by msgspec: structs and columns go out without a model in between."""

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import Response

from godwit.contract.times import format_time
from godwit.server.registry.model import Device, Presence

_encoder = msgspec.json.Encoder()


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return `content` as JSON."""
    return Response(_encoder.encode(content), status, headers, media_type="application/json")


def time_or_none(time: int) -> str | None:
    """Return ns UTC as RFC 3339; 0 means never."""
    return format_time(time) if time else None


def device_document(device: Device, presence: Presence | None) -> dict[str, Any]:
    """Return a device as the API shows it."""
    document: dict[str, Any] = msgspec.to_builtins(device)
    document["created"], document["updated"] = time_or_none(device.created), time_or_none(device.updated)
    if presence is not None:
        document["presence"] = {
            "online": presence.online,
            "since": time_or_none(presence.since),
            "lastSeen": time_or_none(presence.last_seen),
            "reason": presence.reason,
            "status": presence.status,
        }
    return document


def with_mark(response: Response, mark: str) -> Response:
    """Return an answer with the `ETag` of what it shows."""
    response.headers["etag"] = f'"{mark}"'
    return response


def marks_of(if_match: str | None) -> frozenset[str] | None:
    """Return the marks that an `If-Match` names; None: any will do (RFC 9110, 13.1.1). Weak ones never match."""
    if if_match is None or if_match.strip() == "*":
        return None
    named = (each.strip() for each in if_match.split(","))
    return frozenset(each[1:-1] for each in named if len(each) > 1 and each[0] == each[-1] == '"')
