"""AsyncAPI 3.0 of the MQTT interface, generated from the channel table and the structs that decode the messages."""

# ruff: noqa: FBT003 - rows of the table of channels

from copy import deepcopy
from typing import Any, Final

import msgspec

from godwit import __version__
from godwit.contract.alerts import CriticalAlert
from godwit.contract.asyncapi_examples import EXAMPLES
from godwit.contract.asyncapi_page import asyncapi_html
from godwit.contract.commands import CommandResult, DeviceCommand
from godwit.contract.cose_headers import CONTENT_TYPE_ENCRYPT0, CONTENT_TYPE_SIGN1
from godwit.contract.enrollment import EnrollmentGrant, EnrollmentRequest
from godwit.contract.events import DeviceEvent
from godwit.contract.firmware import FirmwareChunk, FirmwareOffer, FirmwareProgress
from godwit.contract.heartbeat import SystemHeartbeat
from godwit.contract.notices import Notice
from godwit.contract.payloads import CONTENT_TYPES
from godwit.contract.status import DeviceStatus
from godwit.contract.stored import StoredUpTo
from godwit.contract.telemetry import TelemetryData
from godwit.contract.topics import (
    ALERTS_QOS,
    ENROLLMENT_QOS,
    HEARTBEAT_QOS,
    HEARTBEAT_TOPIC,
    RULES,
    Channel,
    EnrollmentStep,
    Rule,
    alerts_topic,
    enrollment_topic,
)
from godwit.contract.twin import TwinDocument

__all__ = ["asyncapi_document", "asyncapi_html"]

_MESSAGES: Final[dict[Channel, type[msgspec.Struct]]] = {
    Channel.TELEMETRY: TelemetryData,
    Channel.TELEMETRY_STORED: StoredUpTo,
    Channel.STATUS: DeviceStatus,
    Channel.EVENTS: DeviceEvent,
    Channel.COMMANDS: DeviceCommand,
    Channel.COMMAND_RESULTS: CommandResult,
    Channel.TWIN_DESIRED: TwinDocument,
    Channel.TWIN_DELTA: TwinDocument,
    Channel.TWIN_GET: TwinDocument,
    Channel.TWIN_REPORTED: TwinDocument,
    Channel.TWIN_RESPONSE: TwinDocument,
    Channel.FIRMWARE_OFFER: FirmwareOffer,
    Channel.FIRMWARE_PROGRESS: FirmwareProgress,
    Channel.FIRMWARE_CHUNK: FirmwareChunk,
    Channel.NOTICES: Notice,
}

_DEVICE: Final = {"deviceId": {"description": "1 to 64 of A-Z a-z 0-9 . _ : -, the first one a letter or digit"}}
_COMMAND: Final = {"commandId": {"description": "The command that this answers"}}
_SEVERITY: Final = {"severity": {"description": "critical, warning or info", "examples": ["critical"]}}
_CLIENT: Final = {"clientId": {"description": "The MQTT client id of who enrolls"}}
_TELEMETRY_TYPES: Final = [
    each for each in CONTENT_TYPES if each.startswith("application/") and "x-" not in each and "vnd" not in each
]


_SEALED: Final = (
    f"May be signed and encrypted end to end, as COSE (RFC 9052): {CONTENT_TYPE_SIGN1}, {CONTENT_TYPE_ENCRYPT0}."
)


def _name(channel: Channel) -> str:
    head, *rest = str(channel).replace("/", "-").split("-")
    return "device" + head.capitalize() + "".join(part.capitalize() for part in rest)


def _channel(address: str, message: str, summary: str, parameters: dict[str, Any]) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": address,
        "title": summary,
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
    }
    if parameters:
        channel["parameters"] = parameters
    return channel


def _operation(action: str, channel: str, message: str, summary: str, qos: int, *, is_retained: bool) -> dict[str, Any]:
    return {
        "action": action,
        "summary": summary,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}],
        "bindings": {"mqtt": {"qos": qos, "retain": is_retained, "bindingVersion": "0.2.0"}},
    }


class _Document:
    """Gathers channels, operations and messages. Operations are the platform's: it receives what devices send."""

    def __init__(self) -> None:
        self.channels: dict[str, Any] = {}
        self.operations: dict[str, Any] = {}
        self.used: dict[str, type[msgspec.Struct]] = {}

    def add(self, name: str, address: str, kind: type[msgspec.Struct], parameters: dict[str, Any], rule: Rule) -> None:
        """Add a channel and what is done on it."""
        message = kind.__name__
        self.used[message] = kind
        self.channels[name] = _channel(address, message, rule.summary, parameters)
        for is_done, action in ((rule.is_up, "receive"), (rule.is_down, "send")):
            if is_done:
                self.operations[f"{action}{name[0].upper()}{name[1:]}"] = _operation(
                    action, name, message, rule.summary, rule.qos, is_retained=rule.is_retained
                )


def asyncapi_document() -> dict[str, Any]:
    """Return the document."""
    document = _Document()
    for channel, rule in RULES.items():
        is_result = channel is Channel.COMMAND_RESULTS
        address = "devices/{deviceId}/" + str(channel) + ("/{commandId}" if is_result else "")
        document.add(_name(channel), address, _MESSAGES[channel], _DEVICE | _COMMAND if is_result else _DEVICE, rule)
    for name, address, kind, parameters, rule in (
        ("enrollmentRequest", enrollment_topic("{clientId}", EnrollmentStep.REQUEST), EnrollmentRequest, _CLIENT,
         Rule(True, False, ENROLLMENT_QOS, False, "A client asks for a certificate")),
        ("enrollmentGrant", enrollment_topic("{clientId}", EnrollmentStep.GRANT), EnrollmentGrant, _CLIENT,
         Rule(False, True, ENROLLMENT_QOS, False, "The certificate, or why there is none")),
        ("alerts", alerts_topic("{severity}"), CriticalAlert, _SEVERITY,
         Rule(False, True, ALERTS_QOS, False, "Alerts that fire or are resolved")),
        ("criticalAlerts", alerts_topic("critical"), CriticalAlert, {},
         Rule(False, True, ALERTS_QOS, False, "The critical ones among the alerts")),
        ("systemHeartbeat", HEARTBEAT_TOPIC, SystemHeartbeat, {},
         Rule(False, True, HEARTBEAT_QOS, True, "The platform's sign of life, every 10 s")),
    ):  # fmt: skip
        document.add(name, address, kind, parameters, rule)
    return {
        "asyncapi": "3.0.0",
        "id": "urn:godwit:devices",
        "info": {
            "title": "godwit: devices",
            "version": __version__,
            "description": "What devices and the platform say to each other. An acknowledgement means stored.",
            "license": {"name": "Apache-2.0"},
            "tags": [{"name": "telemetry"}, {"name": "commands"}, {"name": "mqtt"}],
        },
        "defaultContentType": "application/json",
        "channels": document.channels,
        "operations": document.operations,
        "components": _components(document.used),
    }


def _components(used: dict[str, type[msgspec.Struct]]) -> dict[str, Any]:
    refs, schemas = msgspec.json.schema_components(list(used.values()), ref_template="#/components/schemas/{name}")
    messages = {}
    for (name, kind), ref in zip(used.items(), refs, strict=True):
        summary = (kind.__doc__ or name).partition("\n")[0]
        message: dict[str, Any] = {"name": name, "title": name, "summary": summary, "contentType": "application/json"}
        if kind is TelemetryData:
            message["description"] = "Also as " + ", ".join(_TELEMETRY_TYPES[1:]) + ". Other fields with numbers in "
            message["description"] += "a message without readings, samples, sensors or data are readings."
        if kind in (TelemetryData, DeviceEvent):
            message["description"] = (message.get("description", "") + " " + _SEALED).strip()
        message["payload"] = ref
        message["examples"] = [
            {"name": example, "payload": deepcopy(payload)} for example, payload in EXAMPLES[name].items()
        ]
        messages[name] = message
    return {"messages": messages, "schemas": schemas}
