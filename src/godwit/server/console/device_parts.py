"""What a device's page shows besides charts: pure functions from what the doors said to HTML, one part each."""

from time import time_ns
from typing import Final, NamedTuple

from godwit.contract.telemetry import Metadata
from godwit.server.console import parts, words
from godwit.server.console.clock_parts import device_clock
from godwit.server.console.pages.devices import lifecycle_badge, place
from godwit.server.console.reasons import reason
from godwit.server.ingest.clock_report import ClockReport
from godwit.server.ingest.door import DeviceLedger, Gap, Latest, RawMessage, Sealing
from godwit.server.registry.model import Device, Presence
from godwit.server.telemetry.model import Document

_HEALTH: Final = (("cpu", "Processor"), ("memory", "Memory"), ("disk", "Disk"))
_ERRORS_MAX: Final = 8
BATTERY_LOW: Final = 20
"""Percent."""
_RAW_MAX: Final = 12
_GAPS_MAX: Final = 20
CLONE_NS: Final = 24 * 3_600 * 1_000_000_000
"""How long after its last sample a clone is warned of."""


class Facts(NamedTuple):
    """All that was asked about one device."""

    device: Device
    presence: Presence
    latest: list[Latest]
    ledger: DeviceLedger | None
    gaps: list[Gap]
    raw: list[RawMessage]
    events: list[Document]
    said: Metadata | None
    """What it says of itself beside its readings."""
    clock: ClockReport | None
    sealing: Sealing | None = None


def render(facts: Facts) -> dict[str, str]:
    """Return every part by its id."""
    return {
        "head": _head(facts.device, facts.presence),
        "clones": clone_banner(facts.ledger, time_ns()),
        "latest": latest_values(facts.latest),
        "health": _health(facts.presence),
        "ledger": account(facts.ledger),
        "gaps": gaps_table(facts.gaps),
        "clock": device_clock(facts.clock),
        "about": _about(facts.device, facts.said, facts.sealing),
        "raw": last_messages(facts.raw),
        "events": _events(facts.events),
    }


def _head(device: Device, presence: Presence) -> str:
    state = "Online" if presence.online else "Offline"
    since = f" since {parts.clock(presence.since)}" if presence.since else ""
    where = f"<span>{parts.text(place(device))}</span>" if place(device) != parts.NONE else ""
    own_id = f'<span class="mono">{parts.text(device.device_id)}</span>' if device.name else ""  # else it is the title
    return (
        f'<div class="head"><div><a class="crumb" href="/devices">{parts.icon("left")}Devices</a>'
        f"<h1>{parts.text(device.name or device.device_id)}</h1><div class=sub>"
        f'<span class="who" style="gap:8px">{parts.dot(online=presence.online)}<span>{state}{since}</span></span>'
        f"{lifecycle_badge(device.lifecycle)}{own_id}"
        f"<span>type {parts.text(device.device_type)}</span>{where}"
        f"<span>last seen {parts.age(presence.last_seen)}</span></div></div></div>"
    )


def latest_values(latest: list[Latest]) -> str:
    """Return the table of newest values."""
    if not latest:
        return parts.empty("No values yet", "The newest value of every reading stands here.")
    rows = "".join(
        f'<tr data-name="{parts.text(each.name)}"><td><b style="font-weight:550">{parts.text(each.name)}</b></td>'
        f'<td class="right num value-cell">{parts.text(words.value(each.value)[:120])} <span '
        f'class="faint">{parts.text(words.unit(each.unit))}</span></td>'
        f'<td>{_quality(each.quality)}</td><td class="right faint num">{parts.age(each.time)}</td></tr>'
        for each in latest
    )
    return (
        '<div class="scroll"><table class="list"><thead><tr><th>Reading</th><th class="right">Value</th>'
        "<th>Quality</th>"
        f'<th class="right">Measured</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _quality(quality: str) -> str:
    return parts.badge(quality, {"good": "good", "uncertain": "warn", "bad": "bad"}.get(quality, ""))


def _health(presence: Presence) -> str:
    status = presence.status or {}
    if not status:
        return parts.empty(
            "No status document yet",
            "The device may publish <code class=mono>health</code> and <code class=mono>errors</code> on its "
            "status topic.",
        )
    said_health = status.get("health")
    health = said_health if isinstance(said_health, dict) else {}
    lines = []
    for name, title in _HEALTH:
        share = health.get(name)
        if isinstance(share, int | float):
            lines.append(
                f'<div><div class="line"><span class="soft">{title}</span><span class="num">{share:.0f} %</span>'
                f"</div>{parts.meter(share / 100)}</div>"
            )
    rows = []
    if isinstance(uptime := health.get("uptime"), int | float):
        rows.append(("Uptime", words.span(uptime)))
    if isinstance(depth := health.get("spoolDepth"), int):
        rows.append(("Waits in its spool", words.count(depth)))
    if isinstance(said := status.get("status"), str):
        why = status.get("reason")
        rows.append(("Says of itself", parts.text(f"{said[:64]}, {why[:64]}" if isinstance(why, str) else said[:64])))
    if presence.reason:
        rows.append(("Presence by", parts.text(presence.reason)))
    return f'<div class="health">{"".join(lines)}{parts.facts(rows)}{_errors(status.get("errors"))}</div>'


def _errors(errors: object) -> str:
    if not isinstance(errors, list) or not errors:
        return f'<div class="note-block">{parts.badge("no errors reported", "good")}</div>'
    items = []
    for each in errors[:_ERRORS_MAX]:
        told = each if isinstance(each, dict) else {"message": each}
        code = told.get("code")
        items.append(
            f"<li>{f'<b>{parts.text(code)}</b> ' if code else ''}{parts.text(str(told.get('message', ''))[:300])}</li>"
        )
    return f'<div class="note-block bad"><ul>{"".join(items)}</ul></div>'


def account(ledger: DeviceLedger | None) -> str:
    """Return the ledger."""
    if ledger is None:
        return parts.empty(
            "Nothing in the account yet", "Every sample is entered here: accepted, duplicate or refused."
        )
    refused = sum(ledger.quarantined.values())
    rows = [
        ("Messages", words.count(ledger.messages)),
        ("Samples accepted", words.count(ledger.accepted)),
        ("Readings stored", words.count(ledger.readings)),
        ("Duplicates", words.count(ledger.duplicate)),
        ("Late", words.count(ledger.late)),
        ("Gaps", _warned(ledger.gaps)),
        ("Lost", _warned(sum(ledger.lost.values()))),
        ("Of clones", _warned(ledger.cloned)),
        ("Refused", _warned(ledger.refused)),
        ("Quarantined", _warned(refused)),
    ]
    reasons = "".join(
        f'<a class="tag" title="{parts.text(reason(code).what)}" href="/quarantine?code={parts.text(code)}">'
        f"{parts.text(code)} · {words.count(number)}</a>"
        for code, number in sorted(ledger.quarantined.items())
    )
    return parts.facts(rows) + (f'<div class="chips" style="margin-top:12px">{reasons}</div>' if reasons else "")


def clone_banner(ledger: DeviceLedger | None, now: int) -> str:
    """Return the warning that two devices speak under one name, while they do."""
    clones = [each for each in ledger.clones if now - each.heard < CLONE_NS] if ledger is not None else []
    if not clones:
        return ""
    kept = ", ".join(
        f'{words.count(each.samples)} samples of stream <span class="mono">{parts.text(each.stream or "(unnamed)")}'
        f'</span> from number {each.first} as <span class="mono">{parts.text(each.kept_as)}</span>'
        for each in clones
    )
    return (
        '<div class="note-block bad" role="alert"><b>Two devices speak under this name, or it was restored from an '
        f"image.</b> The same sample numbers came twice with different content. Both are kept, apart: {kept}.</div>"
    )


def gaps_table(gaps: list[Gap]) -> str:
    """Return what is missing and what is lost."""
    if not gaps:
        return parts.empty("No gaps", "Numbered samples that are missing, or that the device had to give up.")
    rows = "".join(
        f'<tr><td class="mono">{parts.text(each.stream or "(unnamed)")}</td>'
        f'<td class="mono faint">{parts.text(each.epoch[:16])}</td>'
        f'<td class="right num">{each.first} {parts.NONE} {each.last}</td>'
        f'<td class="right num">{words.count(each.samples)}</td>'
        f"<td>{parts.badge(each.reason or each.state, 'bad' if each.reason else 'warn')}</td></tr>"
        for each in gaps[:_GAPS_MAX]
    )
    more = f'<div class="faint">and {len(gaps) - _GAPS_MAX} more</div>' if len(gaps) > _GAPS_MAX else ""
    return (
        '<div class="scroll"><table class="list"><thead><tr><th>Stream</th><th>Epoch</th><th class="right">Numbers</th>'
        f'<th class="right">Samples</th><th></th></tr></thead><tbody>{rows}</tbody></table>{more}</div>'
    )


def _warned(number: int) -> str:
    return parts.badge(words.count(number), "warn") if number else "0"


def _about(device: Device, said: Metadata | None, sealing: Sealing | None) -> str:
    where = device.location
    rows = [
        ("Type", parts.text(device.device_type)),
        ("Tenant", parts.text(device.tenant)),
        ("Location", parts.text(place(device))),
        ("Messages", message_state(sealing)),
    ]
    if where.name and where.latitude is not None and where.longitude is not None:
        rows.append(("Position", f"{where.latitude:.5f}, {where.longitude:.5f}"))
    if where.altitude is not None:
        rows.append(("Altitude", f"{where.altitude:.0f} m"))
    if said is not None:
        rows += _said(said)
    rows += [(name, parts.text(str(value)[:200])) for name, value in sorted(device.metadata.items())]
    rows += [("Registered", parts.age(device.created, parts.NONE))]
    tags = "".join(
        f'<span class="tag">{parts.text(name)}: {parts.text(value)}</span>'
        for name, value in sorted(device.tags.items())
    )
    return parts.facts(rows) + (f'<div class="chips" style="margin-top:12px">{tags}</div>' if tags else "")


def message_state(sealing: Sealing | None) -> str:
    """Say whether a device's telemetry comes signed and encrypted, and whether it should."""
    if sealing is None:
        return parts.NONE
    is_signed, is_encrypted = bool(sealing.signed_by), bool(sealing.encrypted_to)
    said = " and ".join(word for word, so in (("signed", is_signed), ("encrypted", is_encrypted)) if so)
    wanted = sealing.wanted
    lacks = (wanted.wants_signature and not is_signed) or (wanted.wants_encryption and not is_encrypted)
    badge = parts.badge(said, "good") if said else '<span class="soft">plain</span>'
    must = str(wanted).replace("-", " and ")
    return badge + (f" {parts.badge(f'have to be {must}', 'warn')}" if lacks else "")


def _said(said: Metadata) -> list[tuple[str, str]]:
    """Return what a device says of itself: firmware, battery, signal, uptime."""
    rows = []
    if said.firmware_version is not None:
        rows.append(("Firmware", parts.text(said.firmware_version)))
    if said.battery_level is not None:
        level = f"{said.battery_level:.0f} %"
        rows.append(("Battery", parts.badge(level, "warn") if said.battery_level < BATTERY_LOW else level))
    if said.signal_strength is not None:
        rows.append(("Signal", f"{said.signal_strength:.0f} dBm"))
    if said.uptime is not None:
        rows.append(("Uptime", words.span(said.uptime)))
    return rows


def last_messages(raw: list[RawMessage]) -> str:
    """Return the last messages, newest first, each to be opened."""
    if not raw:
        return parts.empty(
            "No message since the platform started", "The last few messages are kept in memory, byte for byte."
        )
    newest = sorted(raw, key=lambda each: -each.received)[:_RAW_MAX]
    return "".join(
        f'<details class="raw" data-key="{each.received}"><summary><span class="mono '
        f'grow">{parts.text(each.topic)}</span>'
        f'{parts.badge(each.code, "warn") if each.code else ""}<span class="faint num" '
        'style="margin-left:auto;white-space:nowrap">'
        f'{words.size(len(each.payload))} · {parts.age(each.received)}</span></summary><div class="in">'
        f'<pre class="payload">{parts.text(words.payload(each.payload)) or "(empty)"}</pre></div></details>'
        for each in newest
    )


def _events(events: list[Document]) -> str:
    if not events:
        return parts.empty("No events", "Boots, errors and local alerts that the device reports are listed here.")
    items = []
    for each in events:
        kind, detail, severity = words.event(each.payload)
        items.append(
            f'<li>{parts.badge(kind, parts.severity(severity))}<span class="grow soft">{parts.text(detail)}</span>'
            f'<span class="end">{parts.age(each.received)}</span></li>'
        )
    return f'<ul class="rows">{"".join(items)}</ul>'
