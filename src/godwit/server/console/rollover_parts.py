"""What the console shows of a rollover: how far it is, device by device, and what can be done. Pure."""

from collections.abc import Sequence
from typing import Final

from godwit.server.console import parts, words
from godwit.server.identity.model import Campaign, CampaignKind, CampaignState, Step

DEVICES_MAX: Final = 48
_START: Final = "Begin? Devices are told, a few a second, and the old authority goes when all have followed."
_FORCE: Final = "Finish now? Devices that have not renewed are shut out, and have to be enrolled again."
_CANCEL: Final = "Cancel? The old authority issues again; what the new one has issued counts until its end."
_TONES: Final = {
    CampaignState.RUNNING: "accent", CampaignState.PAUSED: "warn", CampaignState.FINISHED: "good",
}  # fmt: skip
_STEPS: Final = (
    (Step.RENEWED, "good", "has a certificate of the new authority, and has connected with it"),
    (Step.TRUSTED, "chart-1", "trusts the new root, and was told to renew"),
    (Step.TOLD, "chart-4", "was told, and has not answered yet"),
    (Step.WAITING, "idle", "is told when it is there, and when it is its turn"),
    (Step.FAILED, "bad", "was told in vain, again and again; it may still come round"),
)
Row = tuple[str, Step, str, int]


def is_open(found: Campaign | None) -> bool:
    """Whether a rollover is under way."""
    return found is not None and found.state in (CampaignState.RUNNING, CampaignState.PAUSED)


def campaign(found: Campaign | None, rows: Sequence[Row], step: str, *, may_change: bool) -> str:
    """Return the rollover under way, or the last one, and its devices."""
    if found is None:
        return (
            '<p class="soft">Nothing was rolled over yet. An issuing authority lasts five years, the root twenty; a '
            "rollover brings their successor to every device, and shows how far each one is.</p>"
            f"{_start(found, may_change=may_change)}"
        )
    total, renewed = sum(found.devices.values()), found.devices[Step.RENEWED]
    tone = _TONES.get(found.state, "")
    what = "Root" if found.kind is CampaignKind.ROOT else "Intermediate"
    when = f"begun {parts.age(found.created)} by {parts.text(found.created_by)}"
    if found.finished:
        when += f", over {parts.age(found.finished)}"
    return (
        f'<div class="health"><div class="bar" style="justify-content:space-between"><span><b>{what}, rollover '
        f'{found.campaign_id}</b> {parts.badge(found.state, tone)} <span class="faint">{when}</span></span>'
        f'<b class="num">{words.count(renewed)} of {words.count(total)} renewed</b></div>'
        f"{_stacked(found, total)}{_hint(found)}{_courses(found) if may_change else ''}"
        f"{_devices(found, rows, step) if total and may_change else ''}{_start(found, may_change=may_change)}</div>"
    )


def _stacked(found: Campaign, total: int) -> str:
    """Return one bar of all devices by step, and its key."""
    if not total:
        return '<p class="faint">No device had a certificate of the old authority.</p>'
    bar = "".join(
        f'<i style="flex:{found.devices[step]};background:var(--{colour})" title="{found.devices[step]:,} {step}"></i>'
        for step, colour, _ in _STEPS
        if found.devices[step]
    )
    key = "".join(
        f'<span class="key" title="{meaning}"><i style="background:var(--{colour})"></i>'
        f"{found.devices[step]:,} {step}</span>"
        for step, colour, meaning in _STEPS
        if found.devices[step]
    )
    said = ", ".join(f"{found.devices[step]} {step}" for step, _, _ in _STEPS if found.devices[step])
    return f'<div class="stacked" role="img" aria-label="{said}">{bar}</div><div class="bar soft small">{key}</div>'


def _hint(found: Campaign) -> str:
    if not is_open(found):
        return ""
    left = [step for step, _, _ in _STEPS if step is not Step.RENEWED and found.devices[step]]
    if found.state is CampaignState.PAUSED:
        return '<p class="faint">Nobody is told anything until it goes on.</p>'
    if left in ([Step.WAITING], [Step.WAITING, Step.FAILED]):
        return '<p class="faint">Those that wait are not connected now, or their turn comes: they are told then.</p>'
    return f'<p class="faint">{found.rate} devices a second are told; it finishes by itself when all have renewed.</p>'


def _courses(found: Campaign) -> str:
    """Return the buttons that change the course of a rollover under way."""
    if not is_open(found):
        return ""
    first = ("Pause", "paused") if found.state is CampaignState.RUNNING else ("Resume", "running")
    buttons = "".join(
        parts.button(name, "campaign", f"{found.campaign_id} {to}", classes=classes, sure=sure)
        for name, to, classes, sure in (
            (*first, "", ""), ("Cancel", "cancelled", "", _CANCEL), ("Finish by force", "forced", "danger", _FORCE),
        )
    )  # fmt: skip
    return f'<div class="bar">{buttons}</div>'


def _start(found: Campaign | None, *, may_change: bool) -> str:
    if not may_change or is_open(found):
        return ""
    kinds = (("Roll over the intermediate", "intermediate"), ("Roll over the root", "root"))
    buttons = "".join(parts.button(name, "start", kind, sure=_START) for name, kind in kinds)
    return f'<div class="bar" style="margin-top:12px">{buttons}</div>'


def _devices(found: Campaign, rows: Sequence[Row], chosen: str) -> str:
    """Return where each device is, as many as fit, by step."""
    choices = [
        ("", "All"),
        *((str(step), f"{step} {found.devices[step]:,}") for step, _, _ in _STEPS if found.devices[step]),
    ]
    shown = "".join(_device(*each) for each in rows[:DEVICES_MAX])
    more = parts.button("More", "more-devices", rows[DEVICES_MAX - 1][0]) if len(rows) > DEVICES_MAX else ""
    counted = found.devices[chosen] if chosen else sum(found.devices.values())
    first = parts.button("From the first", "more-devices") if not more and len(rows) < counted else ""
    table = f'<ul class="cells">{shown}</ul>' if shown else '<p class="faint">No device is at this step.</p>'
    open_ = " open" if is_open(found) else ""
    return (
        f'<details class="plain" data-key="devices-{found.campaign_id}"{open_}><summary>Device by device</summary><div>'
        f"{parts.segments('step', choices, chosen, 'Step')}{table}<div class=bar>{more or first}</div></div></details>"
    )


def _device(device: str, step: Step, detail: str, since: int) -> str:
    """Return a device as a cell, in the colour of its step."""
    colour = next(colour for each, colour, _ in _STEPS if each is step)
    note = parts.text(detail or step) + (f" · {parts.age(since)}" if since else "")
    return (
        f'<li><a href="{parts.device_href(device)}" style="--c:var(--{colour})" title="{step}">'
        f'<b>{parts.text(device)}</b><small>{note}</small><span class="sr">{step}</span></a></li>'
    )
