"""Pieces of the Certificates page, and of a device's certificates. Pure."""

from collections.abc import Mapping, Sequence
from time import time_ns
from typing import Final

from godwit.contract.times import format_time
from godwit.server.console import parts
from godwit.server.identity.certificates import DAY, SOON_DAYS
from godwit.server.identity.model import (
    Authority,
    AuthorityState,
    Campaign,
    CampaignState,
    Certificate,
    CertificateState,
    DeviceKey,
    DeviceToken,
    Step,
)

TILES: Final = (
    ("In use", "n-active"), ("Not used yet", "n-pending"), ("End soon", "n-ending"), ("Revoked", "n-revoked"),
)  # fmt: skip
_TONES: Final = {
    CertificateState.PENDING: "accent", CertificateState.ACTIVE: "good", CertificateState.SUPERSEDED: "",
    CertificateState.REVOKED: "bad",
}  # fmt: skip
_AUTHORITY_TONES: Final = {
    AuthorityState.NEXT: "accent", AuthorityState.ACTIVE: "good", AuthorityState.RETIRING: "warn",
    AuthorityState.RETIRED: "",
}  # fmt: skip
NO_GRACE: Final[Mapping[str, int]] = {}
_REVOKE: Final = "Revoke this certificate for good? An open connection with it ends at once."
_ENDS: Final = "Revoke this token for good? An open connection with it ends at once."
_RETIRE: Final = "Retire this key? What it signed counts no more."
_START: Final = "Begin? Devices are told, a few a second, and the old authority goes when all have followed."
_FORCE: Final = "Finish now? Devices that have not renewed are shut out, and have to be enrolled again."


def tiles(counts: dict[str, int]) -> dict[str, str]:
    """Return the numbers of the page by the id of their place."""
    return {
        "n-active": _value(counts["active"], f"and {counts['superseded']:,} superseded"),
        "n-pending": _value(counts["pending"], "issued, not connected with"),
        "n-ending": _value(counts["ending"], f"within {SOON_DAYS} days"),
        "n-revoked": _value(counts["revoked"], f"and {counts['ended']:,} that ended"),
    }


def _value(number: int, note: str) -> str:
    return f'<span class="value">{number:,}</span><span class="note">{parts.text(note)}</span>'


def authorities(rows: Sequence[Authority]) -> str:
    """Return the authorities as a tree, each below its issuer."""
    known = {each.fingerprint for each in rows}
    lines: list[str] = []

    def add(each: Authority, depth: int) -> None:
        lines.append(_authority(each, depth))
        for below in rows:
            if below.issuer == each.fingerprint != below.fingerprint:
                add(below, depth + 1)

    for each in rows:
        if each.issuer in (None, each.fingerprint) or each.issuer not in known:
            add(each, 0)
    return _table(("Authority", "State", "Key", "Until", "SHA-256"), "".join(lines))


def _authority(each: Authority, depth: int) -> str:
    whose = parts.text(each.tenant) if each.tenant else "this installation"
    key = "here" if each.has_key else "elsewhere"
    return (
        f'<tr><td style="padding-left:{16 + 22 * depth}px"><span class="who"><span><b>{parts.text(each.name)}</b>'
        f"<small>{each.kind} · {whose}</small></span></span></td>"
        f"<td>{parts.badge(each.state, _AUTHORITY_TONES[each.state])}</td><td>{key}</td>"
        f'<td class="num" style="white-space:nowrap">{_end(each.not_after)}</td>'
        f'<td class="hide mono" title="{each.fingerprint}">{each.fingerprint[:16]}…</td></tr>'
    )


def _end(not_after: int, graced_until: int = 0) -> str:
    date = format_time(not_after)[:10]
    left = not_after - time_ns()
    if graced_until:
        words = f"It may renew itself until {format_time(graced_until)[:10]}, and do nothing else"
        return f'{date} <span title="{words}">{parts.badge("in grace", "warn")}</span>'
    if left <= 0:
        return f"{date} {parts.badge('ended', 'bad')}"
    if left < SOON_DAYS * DAY:
        return f"{date} {parts.badge('soon', 'warn')}"
    return date


def certificates(
    rows: Sequence[Certificate], *, may_change: bool, with_device: bool = True, grace: Mapping[str, int] = NO_GRACE
) -> str:
    """Return a table of certificates. `grace`: until when those that have ended renew themselves."""
    if not rows:
        return parts.empty(
            "No certificates",
            "A device gets one by a claim, from a factory, or from an operator: <code>godwit device enroll ID</code>.",
        )
    body = "".join(
        _certificate(each, grace.get(each.fingerprint, 0), may_change=may_change, with_device=with_device)
        for each in rows
    )
    return _table(("Device" if with_device else "Certificate", "State", "Came by", "First used", "Until", ""), body)


def _certificate(each: Certificate, graced_until: int, *, may_change: bool, with_device: bool) -> str:
    name = (
        f'<a href="{parts.device_href(each.device_id)}"><b>{parts.text(each.device_id)}</b></a>'
        if with_device
        else f'<b class="mono">{each.fingerprint[:16]}…</b>'
    )
    under = f"{each.fingerprint[:16]}… · {parts.text(each.tenant)}" if with_device else f"serial {each.serial[:16]}…"
    why = f' title="{parts.text(each.reason)}"' if each.reason else ""
    act = (
        parts.button("Revoke", "revoke-certificate", each.fingerprint, classes="danger", sure=_REVOKE)
        if may_change and each.state is not CertificateState.REVOKED
        else ""
    )
    return (
        f'<tr><td><span class="who"><span>{name}<small>{under}</small></span></span></td>'
        f"<td><span{why}>{parts.badge(each.state, _TONES[each.state])}</span></td>"
        f'<td class="hide">{parts.text(each.source)}</td><td class="hide">{parts.age(each.first_seen)}</td>'
        f'<td class="num" style="white-space:nowrap">{_end(each.not_after, graced_until)}</td>'
        f'<td class="right">{act}</td></tr>'
    )


def campaign(found: Campaign | None, *, may_change: bool) -> str:
    """Return the rollover under way, or the last one."""
    start = ""
    if may_change and (found is None or found.state in (CampaignState.FINISHED, CampaignState.CANCELLED)):
        kinds = (("Roll over the intermediate", "intermediate"), ("Roll over the root", "root"))
        buttons = "".join(parts.button(words, "start", kind, sure=_START) for words, kind in kinds)
        start = f'<div class="bar" style="margin-top:12px">{buttons}</div>'
    if found is None:
        words = "Nothing was rolled over yet. An issuing authority lasts five years, the root twenty."
        return f'<p class="faint">{words}</p>{start}'
    total, renewed = sum(found.devices.values()), found.devices[Step.RENEWED]
    steps = " · ".join(f"{count:,} {step}" for step, count in found.devices.items() if count) or "no devices"
    tones = {CampaignState.RUNNING: "accent", CampaignState.PAUSED: "warn", CampaignState.FINISHED: "good"}
    share = renewed / total if total else float(found.state is CampaignState.FINISHED)
    return (
        f'<div class="bar" style="justify-content:space-between"><span><b>{found.kind} {found.campaign_id}</b> '
        f"{parts.badge(found.state, tones.get(found.state, ''))}</span><span>{renewed:,} of {total:,} renewed</span>"
        f'</div>{parts.meter_plain(share)}<p class="faint" style="margin-top:8px">{parts.text(steps)}</p>'
        + (_courses(found) if may_change else "")
        + start
    )


def _courses(found: Campaign) -> str:
    """Return the buttons that change the course of a rollover under way."""
    if found.state not in (CampaignState.RUNNING, CampaignState.PAUSED):
        return ""
    first = ("Pause", "paused") if found.state is CampaignState.RUNNING else ("Resume", "running")
    buttons = "".join(
        parts.button(words, "campaign", f"{found.campaign_id} {to}", classes=classes, sure=sure)
        for words, to, classes, sure in (
            (*first, "", ""), ("Cancel", "cancelled", "", ""), ("Finish by force", "forced", "danger", _FORCE),
        )
    )  # fmt: skip
    return f'<div class="bar" style="margin-top:12px">{buttons}</div>'


def batch(progress: tuple[int, int] | None) -> str:
    """Return how far a batch is."""
    if progress is None:
        return ""
    done, total = progress
    words = f"{done:,} of {total:,} devices enrolled" + ("" if done < total else "; the archive is on its way")
    return f"<p>{parts.text(words)}</p>{parts.meter_plain(done / total if total else 1)}"


BATCH_FORM: Final = (
    '<form class="fields" method="post" action="/certificates/batch" enctype="multipart/form-data">'
    '<label class="all">CSV with the columns device_id, and if you like name, type, tenant, groups, tags'
    '<input class="field" type="file" name="file" accept=".csv,text/csv" required></label>'
    '<div class="bar"><button class="btn primary">Enroll and download</button></div></form>'
    '<p class="faint" style="margin-top:12px">The keys are made here, are in the archive only, and are kept nowhere. '
    "With <code>godwit device enroll --batch</code> they never leave your machine.</p>"
)


def device_card(
    rows: Sequence[Certificate],
    device_id: str,
    lifecycle: str,
    *,
    may_change: bool,
    grace: Mapping[str, int] = NO_GRACE,
) -> str:
    """Return a device's certificates, with what can be done: enroll it, suspend it."""
    table = certificates(rows, may_change=may_change, with_device=False, grace=grace)
    if not may_change:
        return table
    is_out = lifecycle in ("suspended", "retired")
    bundle = (
        ""
        if is_out
        else f'<form method="post" action="/certificates/bundle/{parts.text(device_id)}"><button class="btn">'
        f"{parts.icon('download')}Enroll, and download its files</button></form>"
    )
    turn = {
        "active": parts.button(
            "Suspend", "lifecycle", "suspended", classes="danger",
            sure="Suspend this device? Its connection ends, and it may not come back until it is resumed.",
        ),
        "suspended": parts.button("Resume", "lifecycle", "active"),
    }.get(lifecycle, "")  # fmt: skip
    return f'{table}<div class="bar" style="padding:12px 16px">{bundle}{turn}</div>'


def credentials(tokens: Sequence[DeviceToken], keys: Sequence[DeviceKey], *, may_change: bool) -> str:
    """Return a device's tokens and the keys that sign its own; nothing where it has none."""
    body = "".join(_token(each, may_change=may_change) for each in tokens)
    body += "".join(_key(each, may_change=may_change) for each in keys)
    return _table(("Token or key", "State", "Last used", "Until", ""), body) if body else ""


def _token(each: DeviceToken, *, may_change: bool) -> str:
    act = parts.button("Revoke", "revoke-token", each.token_id, classes="danger", sure=_ENDS)
    until = _end(each.expires) if each.expires else "until revoked"
    return (
        _named(each.name or "token", f"token {each.token_id}", "revoked" if each.revoked else "")
        + f'<td class="hide">{parts.age(each.last_used)}</td><td class="num">{until}</td>'
        f'<td class="right">{act if may_change and not each.revoked else ""}</td></tr>'
    )


def _key(each: DeviceKey, *, may_change: bool) -> str:
    act = parts.button("Retire", "retire-key", each.key_id, classes="danger", sure=_RETIRE)
    return (
        _named("signs its own tokens", f"key {each.key_id[:16]}…", "retired" if each.retired else "")
        + f'<td class="hide">{parts.NONE}</td><td class="num">until retired</td>'
        f'<td class="right">{act if may_change and not each.retired else ""}</td></tr>'
    )


def _named(name: str, under: str, ended: str) -> str:
    """Return the first cells of a token or key, and its state in words."""
    who = f'<span class="who"><span><b>{parts.text(name)}</b><small>{parts.text(under)}</small></span></span>'
    return f"<tr><td>{who}</td><td>{parts.badge(ended, 'bad') if ended else parts.badge('active', 'good')}</td>"


def _table(heads: tuple[str, ...], body: str) -> str:
    titles = "".join(f"<th>{each}</th>" for each in heads)
    return (
        f'<div class="scroll"><table class="list cards"><thead><tr>{titles}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
