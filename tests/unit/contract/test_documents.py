"""Are the other messages of the contract read, and refused with a code where they are wrong?"""

import json
from collections.abc import Callable
from typing import Any

import cbor2
import msgspec
import pytest

from godwit.contract import (
    alerts,
    codes,
    commands,
    enrollment,
    events,
    firmware,
    heartbeat,
    notices,
    status,
    stored,
    twin,
)
from godwit.contract.errors import MalformedError

STATUS = b"""{"deviceId": "sensor001", "status": "online",
  "health": {"cpu": 45.2, "memory": 67.8, "disk": 23.1, "uptime": 86400}, "lastSeen": "2024-01-15T10:30:00Z"}"""
Decoder = Callable[[bytes], msgspec.Struct]
VALID: list[tuple[Decoder, dict[str, Any]]] = [
    (status.decode, {"status": "offline"}),
    (status.decode, {"status": "online", "errors": ["hot", {"code": "e1", "message": "disk full"}]}),
    (events.decode, {"event": "boot", "timestamp": 1705314600, "details": {"reason": "power"}}),
    (commands.decode, {"commandId": "c", "deviceId": "d", "command": "reboot", "createdAt": "2024-01-15T10:30:00Z",
                       "priority": "high", "expiresAt": "2024-01-16T10:30:00Z", "parameters": {"in": 5}}),
    (commands.decode, {"commandId": "c", "deviceId": "d", "command": "open_valve", "createdAt": 1705314600}),
    (commands.decode_result, {"commandId": "c", "status": "running", "progress": 12.5}),
    (alerts.decode, {"alertId": "a", "severity": "critical", "message": "hot", "timestamp": "2024-01-15T10:30:00Z"}),
    (heartbeat.decode, {"timestamp": "2024-01-15T10:30:00Z", "status": "healthy", "version": "1", "uptime": 1.0,
                        "connectedDevices": 1, "messagesPerSecond": 2.5}),
    (stored.decode, {"stream": "main", "epoch": "e", "seq": 5, "code": "not-finite"}),
    (notices.decode, {"code": "series-limit", "message": "too many"}),
    (twin.decode, {"state": {"interval": 60}, "version": 3}),
    (firmware.decode_offer, {"releaseId": "r", "version": "2", "manifestUrl": "https://x/y"}),
    (firmware.decode_progress, {"releaseId": "r", "state": "downloading", "progress": 10}),
    (firmware.decode_chunk, {"releaseId": "r", "offset": 0, "length": 3, "data": "aGkK"}),
    (enrollment.decode_request, {"deviceId": "d", "request": "-----BEGIN CERTIFICATE REQUEST-----"}),
    (enrollment.decode_grant, {"deviceId": "d", "code": "unknown-device"}),
]  # fmt: skip


def refusal(decode: Decoder, payload: bytes) -> str:
    with pytest.raises(MalformedError) as caught:
        decode(payload)
    return caught.value.code


def test_the_status_of_the_seed() -> None:
    said = status.decode(STATUS)
    assert said.health == status.Health(cpu=45.2, memory=67.8, disk=23.1, uptime=86400)
    assert (said.status, said.device_id, said.last_seen) == ("online", "sensor001", "2024-01-15T10:30:00Z")


@pytest.mark.parametrize(("decode", "tree"), VALID)
def test_json_and_cbor_agree_and_come_back(decode: Decoder, tree: dict[str, Any]) -> None:
    said = decode(json.dumps(tree).encode())
    assert decode(msgspec.json.encode(said)) == said
    if "data" not in tree:
        assert decode(cbor2.dumps(tree)) == said


@pytest.mark.parametrize(("decode", "tree"), VALID)
def test_every_decoder_refuses_the_same_rubbish(decode: Decoder, tree: dict[str, Any]) -> None:
    assert refusal(decode, b"") == codes.MALFORMED_JSON
    assert refusal(decode, b"[]") == codes.UNKNOWN_SHAPE
    assert refusal(decode, b"{}") == codes.WRONG_TYPE
    assert refusal(decode, b'{"x": "\xff"}') == codes.INVALID_UTF8
    assert refusal(decode, b'{"x": 1, "x": 2}') == codes.DUPLICATE_KEY
    assert refusal(decode, b'{"x": ' * 40 + b"1" + b"}" * 40) == codes.NESTING_TOO_DEEP
    first = next(iter(tree))
    assert refusal(decode, json.dumps({**tree, first: []}).encode()) == codes.WRONG_TYPE


@pytest.mark.parametrize(
    ("decode", "payload", "code"),
    [
        (status.decode, {"status": ""}, codes.WRONG_TYPE),
        (status.decode, {"status": "online", "health": {"cpu": 101}}, codes.WRONG_TYPE),
        (status.decode, {"status": "online", "lastSeen": "lately"}, codes.TIME_MALFORMED),
        (status.decode, {"status": "online", "lastSeen": 5}, codes.TIME_IMPLAUSIBLE),
        (events.decode, {"event": "boot", "timestamp": "x"}, codes.TIME_MALFORMED),
        (
            commands.decode,
            {"commandId": "c", "deviceId": "d", "command": "reboot", "createdAt": "2024-01-15T10:30:00Z",
             "priority": "whenever"},
            codes.WRONG_TYPE,
        ),
    ],
)  # fmt: skip
def test_refusals(decode: Decoder, payload: dict[str, Any], code: str) -> None:
    assert refusal(decode, json.dumps(payload).encode()) == code


def test_half_a_character_is_refused_before_it_can_hurt_a_store() -> None:
    assert refusal(status.decode, b'{"status": "\\ud800"}') == codes.MALFORMED_JSON
