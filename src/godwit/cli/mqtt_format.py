"""How a message is printed: mosquitto_sub's format language, and JSON. Pure."""

import base64
import datetime as dt
import json
import re
from collections.abc import Callable
from typing import Any, Final

from godwit.contract.errors import RejectedError
from godwit.contract.times import format_time
from godwit.mqtt.packets import Publish

NS: Final = 1_000_000_000
_ESCAPES: Final = {"n": b"\n", "t": b"\t", "r": b"\r", "\\": b"\\", "0": b"\0", "e": b"\x1b", "a": b"\a"}
_PIECES: Final = re.compile(r"%(.)|\\(.)|([^%\\]+)|([%\\])$", re.DOTALL)

_FIELDS: Final[dict[str, Callable[[Publish, int], bytes]]] = {
    "%": lambda _publish, _now: b"%",
    "p": lambda publish, _now: publish.payload,
    "x": lambda publish, _now: publish.payload.hex().encode(),
    "X": lambda publish, _now: publish.payload.hex().upper().encode(),
    "t": lambda publish, _now: publish.topic.encode(),
    "q": lambda publish, _now: b"%d" % publish.qos,
    "r": lambda publish, _now: b"%d" % publish.retain,
    "l": lambda publish, _now: b"%d" % len(publish.payload),
    "m": lambda publish, _now: b"%d" % publish.packet_id,
    "d": lambda publish, _now: b"%d" % publish.dup,
    "I": lambda _publish, now: _local(now).encode(),
    "U": lambda _publish, now: f"{now / NS:.6f}".encode(),
    "C": lambda publish, _now: (publish.properties.content_type or "").encode(),
    "R": lambda publish, _now: (publish.properties.response_topic or "").encode(),
    "j": lambda publish, now: as_json(publish, now),  # noqa: PLW0108 - defined below
}

Formatter = Callable[[Publish, int], bytes]


def formatter(text: str) -> Formatter:
    """Return what prints a message (and the time, ns UTC) by a format. Raises RejectedError for an unknown field."""
    pieces: list[bytes | Callable[[Publish, int], bytes]] = []
    for field, escape, plain, lone in _PIECES.findall(text):
        if field:
            if field not in _FIELDS:
                raise RejectedError(f"-F: %{field} is no field; known are {' '.join(f'%{each}' for each in _FIELDS)}")
            pieces.append(_FIELDS[field])
        elif escape:
            pieces.append(_ESCAPES.get(escape, escape.encode()))
        else:
            pieces.append((plain or lone).encode())

    def shown(publish: Publish, now: int) -> bytes:
        return b"".join(each if isinstance(each, bytes) else each(publish, now) for each in pieces)

    return shown


def as_json(publish: Publish, now: int) -> bytes:
    """Return a message as one JSON document. `payload` is JSON where it is JSON, else text, else `payloadBase64`."""
    document: dict[str, Any] = {"time": format_time(now), "topic": publish.topic, "qos": publish.qos}
    document["retained"] = publish.retain
    document |= _payload(publish.payload)
    properties = publish.properties
    for name, value in (
        ("contentType", properties.content_type),
        ("expiry", properties.message_expiry_interval),
        ("responseTopic", properties.response_topic),
        ("correlationData", _text(properties.correlation_data)),
        ("userProperties", [list(each) for each in properties.user_properties] or None),
    ):
        if value is not None:
            document[name] = value
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _payload(payload: bytes) -> dict[str, Any]:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return {"payloadBase64": base64.b64encode(payload).decode()}
    try:
        return {"payload": json.loads(text, parse_constant=_no_number)}
    except (ValueError, RecursionError):
        return {"payload": text}


def _no_number(text: str) -> None:
    raise ValueError(text)


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "backslashreplace")


def _local(now: int) -> str:
    return dt.datetime.fromtimestamp(now / NS, tz=dt.UTC).astimezone().isoformat(timespec="milliseconds")
