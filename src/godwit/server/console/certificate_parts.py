"""Pieces of the Certificates page, and of a device's certificates. Pure."""

from collections.abc import Callable, Mapping, Sequence
from time import time_ns
from typing import Final

from godwit.contract.times import format_time
from godwit.server.console import parts, words
from godwit.server.identity.certificates import DAY, SOON_DAYS, CertificatePage, Ends
from godwit.server.identity.model import (
    Authority,
    AuthorityState,
    Certificate,
    CertificateState,
    DeviceKey,
    DeviceToken,
)
from godwit.server.identity.trusted import Awaited

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


def authorities(
    rows: Sequence[Authority],
    may_change: Callable[[Authority], bool] = lambda _: False,
    waiting: Sequence[Awaited] = (),
) -> str:
    """Return the authorities as a tree, each below its issuer, then those that wait for their proof.

    `may_change`: whose terms, and whose proof may be shown.
    """
    known = {each.fingerprint for each in rows}
    lines: list[str] = []

    def add(each: Authority, depth: int) -> None:
        lines.append(_authority(each, depth, may_change=may_change(each)))
        for below in rows:
            if below.issuer == each.fingerprint != below.fingerprint:
                add(below, depth + 1)

    for each in rows:
        if each.issuer in (None, each.fingerprint) or each.issuer not in known:
            add(each, 0)
    lines += [_awaited(each, may_change=may_change(each.authority)) for each in waiting]
    return _table(("Authority", "State", "Key", "Until", ""), "".join(lines))


def _awaited(each: Awaited, *, may_change: bool) -> str:
    act = parts.button("Prove…", "proof", each.authority.fingerprint, classes="primary") if may_change else ""
    return (
        f"<tr><td>{_who(each.authority)}</td><td>{parts.badge('not proven yet', 'warn')}</td>"
        '<td class="hide">elsewhere</td>'
        f'<td class="num" style="white-space:nowrap">{_end(each.authority.not_after)}</td>'
        f'<td class="right">{act}</td></tr>'
    )


def _who(each: Authority) -> str:
    whose = parts.text(each.tenant) if each.tenant else "this installation"
    return (
        f'<span class="who"><span><b>{parts.text(each.name)}</b>'
        f"<small>{each.kind} · {whose}{_may(each)}</small>"
        f'<small title="{each.fingerprint}">SHA-256 {each.fingerprint[:24]}…</small></span></span>'
    )


def _authority(each: Authority, depth: int, *, may_change: bool) -> str:
    key = "here" if each.has_key else "elsewhere"
    return (
        f'<tr><td style="padding-left:{16 + 22 * depth}px">{_who(each)}</td>'
        f'<td>{parts.badge(each.state, _AUTHORITY_TONES[each.state])}</td><td class="hide">{key}</td>'
        f'<td class="num" style="white-space:nowrap">{_end(each.not_after)}</td>'
        f'<td class="right">{parts.button("Terms…", "terms", each.fingerprint) if may_change else ""}</td></tr>'
    )


def _may(each: Authority) -> str:
    """Return what a foreign authority may do, in short."""
    if each.tenant is None:
        return ""
    ids = ", ".join(each.terms.ids)[:48] or "any id"
    return f" · {parts.text(ids)}{' · just in time' if each.terms.just_in_time else ''}"


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
        f'<td class="right{" off-phone" if with_device else ""}">{act}</td></tr>'
    )


def ends(found: Ends) -> str:
    """Return when certificates end, as bars: those that end soon stand out."""
    if not any(found.counts):
        return parts.empty("No certificates yet", "When they end is drawn here, so that a wall of them is seen early.")
    top = max(found.counts)
    soon = -(-SOON_DAYS // found.days)

    def bar(at: int, count: int) -> str:
        first, last = at * found.days, (at + 1) * found.days
        tone = "none" if not count else "off" if at < soon else ""
        label = words.short(count) if count and (count == top or len(found.counts) <= 14) else ""
        return (
            f'<span title="{count:,} end in {first} to {last} days"><b>{label}</b>'
            f'<i class="{tone}" style="height:{max(1.5, 84 * count / top):.1f}%"></i></span>'
        )

    days = len(found.counts) * found.days
    marks = [each for each in (0, 30, 90, 180, 365) if each < days * 0.86] + [days]
    scale = "".join(
        f'<span style="left:{min(96.0, max(3.0, 100 * each / days)):.1f}%">'
        f"{'today' if not each else f'{each} d'}</span>"
        for each in marks
    )
    bars = "".join(bar(at, count) for at, count in enumerate(found.counts))
    said = f"{sum(found.counts):,} certificates by when they end; {sum(found.counts[:soon]):,} within {SOON_DAYS} days"
    key = (
        '<p class="faint small bar"><span class="key"><i style="background:var(--warn)"></i>within '
        f'{SOON_DAYS} days</span><span class="key"><i style="background:var(--chart-1)"></i>later</span>'
        f"<span>one bar: {words.plural(found.days, 'day')}</span></p>"
    )
    return f'<div class="bins low" role="img" aria-label="{said}">{bars}</div><div class="scale">{scale}</div>{key}'


def pager(page: CertificatePage, shown: int, *, has_before: bool) -> str:
    """Return what leads to the other certificates. `shown`: how many come before these."""
    if page.total <= len(page.items):
        return ""
    before = parts.button(f"{parts.icon('left')}Before", "page", "back", disabled=not has_before)
    after = parts.button(f"Next{parts.icon('right')}", "page", "on", disabled=page.cursor is None)
    return (
        f'<div class="foot"><span class="num">{shown + 1:,} to {shown + len(page.items):,} '
        f"of {page.total:,}, those first "
        f'that end first</span><span class="bar">{before}{after}</span></div>'
    )


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
