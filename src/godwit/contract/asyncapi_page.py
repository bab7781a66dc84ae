"""The AsyncAPI document as a page to read: complete in itself, light and dark, wide and narrow."""

from html import escape
from typing import Any, Final

import msgspec

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#16211f;--soft:#5c6b68;--line:#dde5e3;--page:#f5f8f7;--card:#fff;--tint:#0f766e;
--up:#1d4ed8;--down:#9a3412;--code:#f1f5f4}
@media(prefers-color-scheme:dark){:root{--ink:#e6eeec;--soft:#93a5a1;--line:#26322f;--page:#0e1413;--card:#151d1b;
--tint:#5eead4;--up:#93c5fd;--down:#fdba74;--code:#0f1614}}
*{box-sizing:border-box}html{scroll-behavior:smooth;scroll-padding-top:16px}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.55 system-ui,sans-serif}
.frame{display:grid;grid-template-columns:272px minmax(0,1fr);max-width:1200px;margin:0 auto}
nav{position:sticky;top:0;height:100vh;overflow:auto;padding:32px 8px 32px 24px;font-size:13px}
nav b{display:block;margin:0 0 12px;font-size:15px}nav a{display:block;padding:4px 8px;border-radius:6px;
color:var(--soft);text-decoration:none;font-family:ui-monospace,monospace;font-size:12px}
nav a:hover,nav a:focus-visible{background:var(--card);color:var(--tint)}
main{padding:32px 24px 96px}h1{font-size:26px;line-height:1.25;margin:0 0 4px}p{margin:0 0 16px;color:var(--soft)}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:20px 24px;margin:16px 0}
h2{font:600 15px/1.4 ui-monospace,monospace;margin:0 0 4px;color:var(--tint);overflow-wrap:anywhere}
h2 i{font-style:normal;color:var(--ink)}section p{margin:0 0 12px}h3{font-size:13px;margin:20px 0 4px}
h3 span{font-weight:400;color:var(--soft)}.rows{overflow-x:auto}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:6px 16px 6px 0;
border-top:1px solid var(--line);vertical-align:top}th{font-weight:500;color:var(--soft);font-size:13px}
td small{color:var(--soft)}code,pre{font:13px/1.5 ui-monospace,monospace}td code{white-space:nowrap}
pre{overflow:auto;background:var(--code);border-radius:8px;padding:12px 16px;margin:8px 0 0}
details{margin:12px 0 0}summary{cursor:pointer;color:var(--soft);font-size:13px}
.tag{display:inline-block;border:1px solid var(--line);border-radius:99px;padding:0 10px;font-size:12px;
margin:0 6px 6px 0;color:var(--soft)}.up{color:var(--up)}.down{color:var(--down)}a{color:var(--tint)}
@media(max-width:760px){.frame{display:block}nav{position:static;height:auto;padding:20px 20px 0;
max-height:168px;border-bottom:1px solid var(--line)}main{padding:20px 16px 64px}section{padding:16px}}
"""


def asyncapi_html(document: dict[str, Any]) -> str:
    """Return the document as a page that needs nothing else."""
    info, channels = document["info"], document["channels"]
    links = "".join(f"<a href='#{escape(name)}'>{_breakable(each['address'])}</a>" for name, each in channels.items())
    sections = "".join(_section(document, name) for name in channels)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style><div class=frame>"
        f"<nav aria-label=Channels><b>Channels</b>{links}</nav><main><h1>{escape(info['title'])}</h1>"
        f"<p>{escape(info['description'])} Version {escape(info['version'])}. "
        "For machines: <a href=/asyncapi.json>asyncapi.json</a>, <a href=/openapi.json>openapi.json</a>.</p>"
        f"{sections}</main></div></html>"
    )


def _section(document: dict[str, Any], name: str) -> str:
    channel = document["channels"][name]
    message = document["components"]["messages"][next(iter(channel["messages"]))]
    return (
        f"<section id={escape(name)}><h2>{_address(channel['address'])}</h2><p>{escape(channel['title'])}</p>"
        f"{_tags(document, name)}{_message(document, message)}{_examples(message)}</section>"
    )


def _breakable(address: str) -> str:
    return escape(address).replace("/", "/<wbr>")


def _address(address: str) -> str:
    return escape(address).replace("{", "<i>{").replace("}", "}</i>")


def _tags(document: dict[str, Any], name: str) -> str:
    tags = ""
    for each in document["operations"].values():
        if each["channel"]["$ref"] != f"#/channels/{name}":
            continue
        mqtt = each["bindings"]["mqtt"]
        way, who = ("up", "device sends") if each["action"] == "receive" else ("down", "platform sends")
        tags += f"<span class='tag {way}'>{who}</span><span class=tag>QoS {mqtt['qos']}</span>"
        tags += "<span class=tag>retained</span>" if mqtt["retain"] else ""
    return tags


def _message(document: dict[str, Any], message: dict[str, Any]) -> str:
    schemas = document["components"]["schemas"]
    name = message["name"]
    more = f"<p>{escape(message['description'])}</p>" if "description" in message else ""
    inner: list[str] = []
    _collect(schemas, name, inner)
    tables = "".join(
        f"<h3>{escape(each)}</h3><p>{escape(_first_sentence(schemas[each]))}</p>{_fields(schemas[each])}"
        for each in inner[1:]
        if "properties" in schemas[each]
    )
    parts = f"<details><summary>Parts</summary>{tables}</details>" if tables else ""
    return f"<h3>{escape(name)} <span>{escape(message['summary'])}</span></h3>{more}{_fields(schemas[name])}{parts}"


def _first_sentence(schema: dict[str, Any]) -> str:
    return str(schema.get("description", "")).partition("\n")[0]


def _collect(schemas: dict[str, Any], name: str, found: list[str]) -> None:
    """Append the schemas that one refers to, itself first."""
    if name in found:
        return
    found.append(name)
    pending: list[Any] = [schemas[name]]
    while pending:
        each = pending.pop(0)
        if isinstance(each, dict):
            if "$ref" in each:
                _collect(schemas, str(each["$ref"]).rpartition("/")[2], found)
            pending.extend(each.values())
        elif isinstance(each, list):
            pending.extend(each)


def _fields(schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code></td><td><code>{escape(_type_of(about))}</code></td>"
        f"<td><small>{'required' if field in required else ''}</small></td></tr>"
        for field, about in schema.get("properties", {}).items()
    )
    return f"<div class=rows><table><tr><th>Field</th><th>Type</th><th></th></tr>{rows}</table></div>"


def _examples(message: dict[str, Any]) -> str:
    return "".join(
        f"<details{' open' if number == 0 else ''}><summary>Example: {escape(each['name'])}</summary>"
        f"<pre>{escape(msgspec.json.format(msgspec.json.encode(each['payload']), indent=2).decode())}</pre></details>"
        for number, each in enumerate(message.get("examples", []))
    )


def _type_of(about: dict[str, Any]) -> str:
    if "$ref" in about:
        return str(about["$ref"]).rpartition("/")[2]
    if "anyOf" in about:
        return " | ".join(dict.fromkeys(_type_of(each) for each in about["anyOf"] if each.get("type") != "null"))
    if "enum" in about:
        return " | ".join(map(str, about["enum"]))
    kind = str(about.get("type", "any"))
    if kind == "array" and isinstance(about.get("items"), dict):
        kind = f"[{_type_of(about['items'])}]"
    elif kind == "object" and isinstance(about.get("additionalProperties"), dict):
        kind = f"{{name: {_type_of(about['additionalProperties'])}}}"
    elif "minimum" in about and "maximum" in about:
        kind = f"{kind}, {about['minimum']:g} to {about['maximum']:g}"
    return kind
