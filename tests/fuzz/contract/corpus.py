"""One valid message of every shape and encoding: what fuzzing starts from."""

import json
from typing import Any, Final

import cbor2

from godwit.contract.protobuf import message_class

T: Final = 1_705_314_600_000_000_000
SEED: Final[dict[str, Any]] = {
    "deviceId": "sensor001", "timestamp": "2024-01-15T10:30:00Z",
    "sensors": {"temperature": 23.5, "humidity": 65, "pressure": None},
    "location": {"latitude": 37.7749, "longitude": -122.4194, "altitude": 3.5},
}  # fmt: skip
NATIVE: Final[dict[str, Any]] = {
    "deviceId": "m", "schemaVersion": 1, "stream": "main", "epoch": "9f3c", "seq": 7, "messageId": "i", "sentAt": T,
    "timestamp": "2024-01-15T10:30:00.25+01:00",
    "readings": {"t": {"value": 74.9, "unit": "°C", "quality": "bad"}, "on": True, "mode": "auto"},
    "metadata": {"firmwareVersion": "1.2", "batteryLevel": 80, "uptime": 5},
}  # fmt: skip
MANY: Final[dict[str, Any]] = {
    "epoch": 9, "seq": 0,
    "samples": [{"timestamp": T, "readings": {"t": 1}}, {"timestamp": "never", "readings": {"t": 2}}, {"readings": {}}],
}  # fmt: skip
OTHERS: Final[list[dict[str, Any]]] = [
    {"sensor_id": "s1", "temperature": 20.5, "timestamp": 1705314600},
    {"timestamp": "2024-01-15T10:30:00.123456", "device_id": "d", "data": {"rpm": 900, "mode": "eco"}},
    {"min": 1.0, "max": 3.0, "avg": 2.0, "count": 17, "timestamp": 1705314600.5},
]
PACK: Final[list[dict[str, Any]]] = [
    {
        "bn": "urn:dev:ow:10e2:",
        "bt": 1.276020076e9,
        "bu": "A",
        "bver": 5,
        "bs": 1,
        "n": "voltage",
        "u": "V",
        "v": 120.1,
    },
    {"n": "current", "t": -5, "v": 1.2, "s": 4},
    {"n": "label", "vs": "Room"},
    {"n": "open", "vb": False},
    {"n": "data", "vd": "aGkgCg"},
]
STATUS: Final[dict[str, Any]] = {
    "deviceId": "sensor001", "status": "online", "health": {"cpu": 45.2, "uptime": 86400}, "errors": ["hot"],
    "lastSeen": "2024-01-15T10:30:00Z",
}  # fmt: skip
TYPES: Final = (
    None, "application/json", "application/cbor", "application/protobuf", "application/senml+json",
    "application/senml+cbor",
)  # fmt: skip


def _protobuf() -> bytes:
    message = message_class()(device_id="m", stream="s", epoch="e", seq=3, sent_at=T)
    message.location.latitude = 1.5
    message.metadata.uptime = 5
    sample = message.samples.add(time=T)
    sample.readings["t"].number = 21.5
    sample.readings["t"].unit = "Cel"
    sample.readings["n"].integer = -3
    message.samples.add().readings["x"].text = "on"
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def messages() -> list[tuple[bytes, str | None]]:
    """Return (payload, content type) of valid messages."""
    trees = [SEED, NATIVE, MANY, *OTHERS]
    labelled = [{-2: "d/", -3: 1.276020076e9, 0: "t", 2: 5.5}, {0: "u", 6: -3, 4: True}, {0: "v", 8: b"\x00\xff"}]
    return [
        *((json.dumps(tree, ensure_ascii=False).encode(), None) for tree in trees),
        *((cbor2.dumps(tree), None) for tree in trees),
        (json.dumps(PACK).encode(), "application/senml+json"),
        (cbor2.dumps(PACK), "application/senml+cbor"),
        (cbor2.dumps(labelled), "application/senml+cbor"),
        (_protobuf(), "application/protobuf"),
    ]
