"""Is everything of the contract in the AsyncAPI document, and does every example mean what it says?"""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from godwit.contract import (
    alerts,
    commands,
    enrollment,
    events,
    firmware,
    heartbeat,
    notices,
    status,
    stored,
    telemetry,
    twin,
)
from godwit.contract.asyncapi import asyncapi_document, asyncapi_html
from godwit.contract.topics import RULES

DECODERS: dict[str, Callable[[bytes], Any]] = {
    "TelemetryData": telemetry.decode,
    "StoredUpTo": stored.decode,
    "DeviceStatus": status.decode,
    "DeviceEvent": events.decode,
    "DeviceCommand": commands.decode,
    "CommandResult": commands.decode_result,
    "TwinDocument": twin.decode,
    "FirmwareOffer": firmware.decode_offer,
    "FirmwareProgress": firmware.decode_progress,
    "FirmwareChunk": firmware.decode_chunk,
    "Notice": notices.decode,
    "EnrollmentRequest": enrollment.decode_request,
    "EnrollmentGrant": enrollment.decode_grant,
    "CriticalAlert": alerts.decode,
    "SystemHeartbeat": heartbeat.decode,
}
DOCUMENT = asyncapi_document()


def test_the_five_channels_and_message_types_of_the_seed_are_there() -> None:
    said = {each["address"]: next(iter(each["messages"])) for each in DOCUMENT["channels"].values()}
    wanted = {
        "devices/{deviceId}/telemetry": "TelemetryData",
        "devices/{deviceId}/commands": "DeviceCommand",
        "devices/{deviceId}/status": "DeviceStatus",
        "alerts/critical": "CriticalAlert",
        "system/heartbeat": "SystemHeartbeat",
    }
    assert wanted.items() <= said.items()
    assert len(said) == len(DOCUMENT["channels"]) == len(RULES) + 5


def test_directions_are_the_platforms() -> None:
    operations = DOCUMENT["operations"]
    assert operations["receiveDeviceTelemetry"]["action"] == "receive"
    assert operations["sendDeviceCommands"]["action"] == "send"
    assert operations["receiveDeviceStatus"]["bindings"]["mqtt"] == {
        "qos": 1,
        "retain": True,
        "bindingVersion": "0.2.0",
    }
    assert {"sendDeviceFirmwareChunk", "receiveDeviceFirmwareChunk"} <= set(operations)
    assert "sendDeviceTelemetry" not in operations


@pytest.mark.parametrize("name", DECODERS)
def test_every_example_is_decoded(name: str) -> None:
    examples = DOCUMENT["components"]["messages"][name]["examples"]
    assert examples
    for example in examples:
        DECODERS[name](json.dumps(example["payload"]).encode())


def test_every_message_has_a_decoder_here() -> None:
    assert set(DECODERS) == set(DOCUMENT["components"]["messages"])


def test_every_reference_leads_somewhere() -> None:
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(DOCUMENT)):
        node = DOCUMENT
        for part in reference.split("/"):
            node = node[part]


def test_the_page_shows_all_and_needs_nothing_from_elsewhere() -> None:
    page = asyncapi_html(DOCUMENT)
    assert page.endswith("</html>")
    for outside in ("http://", "https://", "<script", "<link", "@import", "url("):
        assert outside not in page
    for name, channel in DOCUMENT["channels"].items():
        assert f"<section id={name}>" in page
        assert f"href='#{name}'>{channel['address']}<" in page.replace("<wbr>", "")


def test_the_page_escapes_what_it_shows() -> None:
    document = asyncapi_document()
    document["info"]["title"] = "<script>x</script>"
    assert "<script>" not in asyncapi_html(document)
