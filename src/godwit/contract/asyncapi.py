"""AsyncAPI 3.0 of the MQTT interface, generated from the channel table and the structs that decode the messages."""

from html import escape
from typing import Any, Final

import msgspec

from godwit import __version__
from godwit.contract.alerts import CriticalAlert
from godwit.contract.commands import CommandResult, DeviceCommand
from godwit.contract.events import DeviceEvent
from godwit.contract.firmware import FirmwareOffer, FirmwareProgress
from godwit.contract.heartbeat import SystemHeartbeat
from godwit.contract.notices import Notice
from godwit.contract.status import DeviceStatus
from godwit.contract.stored import StoredUpTo
from godwit.contract.telemetry import TelemetryData
from godwit.contract.topics import HEARTBEAT_TOPIC, RULES, Channel
from godwit.contract.twin import TwinDocument

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
    Channel.FIRMWARE_CHUNK: FirmwareProgress,
    Channel.NOTICES: Notice,
}

_EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "TelemetryData": {
        "deviceId": "sensor001",
        "timestamp": "2024-01-15T10:30:00Z",
        "sensors": {"temperature": 23.5, "humidity": 65.2},
        "location": {"latitude": 37.7749, "longitude": -122.4194},
    },
    "DeviceStatus": {
        "deviceId": "sensor001",
        "status": "online",
        "health": {"cpu": 45.2, "memory": 67.8, "uptime": 86400},
    },
    "DeviceCommand": {
        "commandId": "0b7d0f0e-0c3a-4a53-9a43-6a3f4c2f9d11",
        "deviceId": "sensor001",
        "command": "change_interval",
        "parameters": {"seconds": 30},
        "createdAt": "2024-01-15T10:30:00Z",
        "priority": "normal",
    },
}


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


def asyncapi_document() -> dict[str, Any]:
    """Return the document. Operations are the platform's: it receives what devices send."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    used: dict[str, type[msgspec.Struct]] = {}
    device = {"deviceId": {"description": "1 to 64 of A-Z a-z 0-9 . _ : -, the first one a letter or digit"}}
    command = {"commandId": {"description": "The command that this answers"}}
    for channel, rule in RULES.items():
        name, kind = _name(channel), _MESSAGES[channel]
        used[kind.__name__] = kind
        is_result = channel is Channel.COMMAND_RESULTS
        address = "devices/{deviceId}/" + str(channel) + ("/{commandId}" if is_result else "")
        parameters = device | command if is_result else device
        channels[name] = _channel(address, kind.__name__, rule.summary, parameters)
        for is_there, action in ((rule.is_up, "receive"), (rule.is_down, "send")):
            if is_there:
                operations[f"{action}{name[0].upper()}{name[1:]}"] = _operation(
                    action, name, kind.__name__, rule.summary, rule.qos, is_retained=rule.is_retained
                )
    severity: dict[str, Any] = {"severity": {"description": "critical, warning or info", "examples": ["critical"]}}
    for name, address, kind, summary, parameters in (
        ("alerts", "alerts/{severity}", CriticalAlert, "Alerts that fire or are resolved", severity),
        ("systemHeartbeat", HEARTBEAT_TOPIC, SystemHeartbeat, "The platform's sign of life", {}),
    ):
        used[kind.__name__] = kind
        channels[name] = _channel(address, kind.__name__, summary, parameters)
        operations[f"send{name[0].upper()}{name[1:]}"] = _operation(
            "send", name, kind.__name__, summary, 1 if kind is CriticalAlert else 0, is_retained=kind is SystemHeartbeat
        )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "godwit: devices",
            "version": __version__,
            "description": "What devices and the platform say to each other. An acknowledgement means stored.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": _components(used),
    }


def _components(used: dict[str, type[msgspec.Struct]]) -> dict[str, Any]:
    refs, schemas = msgspec.json.schema_components(list(used.values()), ref_template="#/components/schemas/{name}")
    messages = {}
    for (name, _kind), ref in zip(used.items(), refs, strict=True):
        message: dict[str, Any] = {"name": name, "contentType": "application/json", "payload": ref}
        messages[name] = message
        if name in _EXAMPLES:
            message["examples"] = [{"name": f"{name}Example", "payload": _EXAMPLES[name]}]
    return {"messages": messages, "schemas": schemas}


_STYLE: Final = """
:root{color-scheme:light dark;--ink:#16211f;--soft:#5c6b68;--line:#dde5e3;--page:#f7f9f8;--card:#fff;--tint:#0f766e}
@media(prefers-color-scheme:dark){:root{--ink:#e6eeec;--soft:#93a5a1;--line:#26322f;--page:#0e1413;--card:#151d1b;
--tint:#5eead4}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:15px/1.55 system-ui,sans-serif}
main{max-width:960px;margin:0 auto;padding:40px 20px 80px}h1{font-size:26px;margin:0 0 4px}
p{margin:0 0 24px;color:var(--soft)}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:20px 24px;margin:16px 0}
h2{font:600 15px/1.4 ui-monospace,monospace;margin:0 0 4px;color:var(--tint);overflow-wrap:anywhere}
section p{margin:0 0 12px}table{margin-top:12px;border-collapse:collapse;width:100%}
th,td{text-align:left;padding:6px 12px 6px 0;border-top:1px solid var(--line);vertical-align:top}
th{font-weight:500;color:var(--soft)}code,pre{font:13px/1.5 ui-monospace,monospace}
pre{overflow:auto;background:var(--page);border-radius:8px;padding:12px;margin:12px 0 0}
.tag{display:inline-block;border:1px solid var(--line);border-radius:99px;padding:0 10px;font-size:12px;
margin-right:6px;color:var(--soft)}a{color:var(--tint)}
"""


def asyncapi_html(document: dict[str, Any]) -> str:
    """Return the document as a page that needs nothing else."""
    info = document["info"]
    sections = [_section(document, name) for name in document["channels"]]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style><main><h1>{escape(info['title'])}</h1>"
        f"<p>{escape(info['description'])} Version {escape(info['version'])}. "
        "For machines: <a href=/asyncapi.json>asyncapi.json</a>, <a href=/openapi.json>openapi.json</a>.</p>"
        f"{''.join(sections)}</main></html>"
    )


def _section(document: dict[str, Any], name: str) -> str:
    channel = document["channels"][name]
    message = next(iter(channel["messages"]))
    schema = document["components"]["schemas"][message]
    operations = [each for each in document["operations"].values() if each["channel"]["$ref"].endswith(f"/{name}")]
    tags = ""
    for each in operations:
        mqtt = each["bindings"]["mqtt"]
        way = "device sends" if each["action"] == "receive" else "platform sends"
        tags += f"<span class=tag>{way}</span><span class=tag>QoS {mqtt['qos']}</span>"
        tags += "<span class=tag>retained</span>" if mqtt["retain"] else ""
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code>{'' if field in required else ' <small>optional</small>'}</td>"
        f"<td><code>{escape(_type_of(about))}</code></td></tr>"
        for field, about in schema.get("properties", {}).items()
    )
    examples = document["components"]["messages"][message].get("examples", [])
    shown = "".join(
        f"<pre>{escape(msgspec.json.format(msgspec.json.encode(each['payload']), indent=2).decode())}</pre>"
        for each in examples
    )
    return (
        f"<section id={escape(name)}><h2>{escape(channel['address'])}</h2><p>{escape(channel['title'])}</p>{tags}"
        f"<table><tr><th>{escape(message)}</th><th>type</th></tr>{rows}</table>{shown}</section>"
    )


def _type_of(about: dict[str, Any]) -> str:
    if "$ref" in about:
        return str(about["$ref"]).rpartition("/")[2]
    if "anyOf" in about:
        return " | ".join(_type_of(each) for each in about["anyOf"])
    if "enum" in about:
        return " | ".join(map(str, about["enum"]))
    kind = str(about.get("type", "any"))
    if kind == "array" and isinstance(about.get("items"), dict):
        return f"[{_type_of(about['items'])}]"
    return kind
