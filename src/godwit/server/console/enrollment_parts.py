"""What the enrollment page is made of: claims, rules, devices without owner, and what became of requests. Pure."""

from time import time_ns
from typing import Final

from godwit.server.console import parts, words
from godwit.server.console.labels import Label, expires, good_for, qr
from godwit.server.identity.model import Claim, ClaimKind, ClaimState, DeviceGrant, EnrollmentRule, Landing
from godwit.server.identity.outcomes import Outcome
from godwit.server.registry.model import Device, Presence

_TONES: Final = {
    ClaimState.OPEN: "accent", ClaimState.BOUND: "warn", ClaimState.SPENT: "good", ClaimState.REVOKED: ""
}  # fmt: skip
_STATES: Final = {
    ClaimState.OPEN: "nobody has asked with it yet",
    ClaimState.BOUND: "a device has asked; its certificate has not connected yet",
    ClaimState.SPENT: "the new certificate has connected",
    ClaimState.REVOKED: "opens nothing any more",
}
LIVES: Final = (
    ("86400", "1 day"), ("604800", "7 days"), ("2592000", "30 days"), ("31536000", "1 year"), ("0", "no end")
)  # fmt: skip
LABELS_MAX: Final = 500
"""So many claims in one go."""
REASONS: Final = {
    "claim-unknown": "no such claim, or not for this device",
    "claim-needed": "came without a claim",
    "claim-bound": "the claim was used with another key",
    "claim-spent": "the claim was used up",
    "claim-expired": "the claim has expired",
    "claim-revoked": "the claim was revoked",
    "already-enrolled": "the device has an identity already",
    "key-shared": "another device has this key",
    "key-revoked": "a certificate of this key was revoked",
    "weak-key": "the key is too weak",
    "weak-signature": "signed with a broken hash",
    "csr-wrong-name": "the request names another device",
    "csr-wants-authority": "the request asks for an authority's rights",
    "csr-malformed": "the request cannot be read",
    "csr-too-large": "the request is too large",
    "csr-signature": "not signed by its own key",
    "certificate-expired": "its certificate has expired",
    "certificate-wrong-name": "its certificate names another device",
    "certificate-revoked": "its certificate is revoked",
    "authority-unknown": "nobody who is trusted issued it",
    "device-suspended": "the device is suspended",
    "device-retired": "the device is retired",
    "rate-limited": "too many requests",
    "invalid-device-id": "no device id",
}
"""What refusals say in a table; the code stands beside it."""


def tiles(open_claims: int, unclaimed: int, granted: int, refused: int) -> dict[str, str]:
    """Return the numbers of the page by the id of their place."""
    return {
        "n-claims": _value(open_claims, "good for new devices"),
        "n-unclaimed": _value(unclaimed, "came by themselves"),
        "n-granted": _value(granted, "in the last 24 h"),
        "n-refused": _value(refused, "in the last 24 h"),
    }


TILES: Final = (
    ("Open claims", "n-claims"), ("Unclaimed devices", "n-unclaimed"), ("Enrolled", "n-granted"),
    ("Refused", "n-refused"),
)  # fmt: skip


def _value(number: int, note: str) -> str:
    return f'<span class="value">{words.count(number)}</span><span class="note">{note}</span>'


def lands(landing: Landing) -> str:
    """Return where devices land, in tags."""
    said: list[tuple[str, str]] = [("type", landing.device_type)] if landing.device_type else []
    said += [("group", each) for each in landing.groups]
    said += [(key, value) for key, value in landing.tags.items()]
    if landing.configuration:
        said.append(("configuration", ", ".join(sorted(landing.configuration))[:64]))
    if not said:
        return f'<span class="faint">{parts.NONE}</span>'
    return (
        '<span class="chips">'
        + "".join(f'<span class="tag">{parts.text(key)}: {parts.text(value)}</span>' for key, value in said)
        + "</span>"
    )


def claims(rows: list[Claim], *, may_change: bool) -> str:
    """Return the table of claims."""
    if not rows:
        return parts.empty(
            "No claims yet",
            "A claim is a token with which a new device asks for its certificate: once, or for a whole fleet.",
        )
    body = "".join(_claim(each, may_change=may_change) for each in rows)
    return _table(("Claim", "State", "Good for", "Uses", "Lands", "Expires", ""), body)


def _claim(claim: Claim, *, may_change: bool) -> str:
    has_expired = 0 < claim.expires <= time_ns() and claim.state in (ClaimState.OPEN, ClaimState.BOUND)
    state = (
        parts.badge("expired")
        if has_expired
        else f'<span title="{_STATES[claim.state]}">{parts.badge(claim.state, _TONES[claim.state])}</span>'
    )
    uses = f"{claim.uses} of {claim.uses_max}" if claim.uses_max is not None else f"{claim.uses}, no limit"
    kind = {ClaimKind.ONE_TIME: "one-time", ClaimKind.FLEET: "fleet", ClaimKind.GRANT: "device grant"}[claim.kind]
    is_over = claim.state in (ClaimState.SPENT, ClaimState.REVOKED) or has_expired
    sure = "Revoke this claim? Devices that have not asked yet cannot enroll with it any more."
    act = (
        ""
        if is_over or not may_change
        else parts.button("Revoke", "revoke", claim.claim_id, classes="danger", sure=sure)
    )
    return (
        f'<tr><td><span class="who"><span><b>{parts.text(claim.name or kind)}</b>'
        f"<small>{claim.claim_id} · {kind} · {parts.text(claim.tenant)}</small></span></span></td><td>{state}</td>"
        f'<td class="wide">{parts.text(good_for(claim))}</td><td class="num">{uses}</td>'
        f'<td class="hide">{lands(claim.landing)}</td><td class="num">{expires(claim)[:10]}</td>'
        f'<td class="right">{act}</td></tr>'
    )


def rules(rows: list[EnrollmentRule], *, may_change: bool) -> str:
    """Return the table of rules."""
    if not rows:
        return parts.empty(
            "No rules yet",
            "A rule says where new devices land: in which group, with which tags and first configuration.",
        )
    sure = "Remove this rule? Devices that landed by it stay where they are."
    body = "".join(
        f'<tr><td class="num faint">{each.position}</td><td><b>{parts.text(each.name)}</b> '
        f'<small class="faint">{parts.text(each.tenant)}</small></td><td class="mono">{parts.text(each.ids)}</td>'
        f'<td class="soft">{parts.text(", ".join(each.sources) or "any road")}</td><td>{lands(each.landing)}</td>'
        '<td class="right">'
        + (
            parts.button("Remove", "remove-rule", f"{each.tenant}/{each.name}", classes="danger", sure=sure)
            if may_change
            else ""
        )
        + "</td></tr>"
        for each in rows
    )
    return _table(("#", "Rule", "Ids", "Came by", "Lands", ""), body)


def unclaimed(rows: list[tuple[Device, Presence]], total: int, *, may_change: bool) -> str:
    """Return the table of devices without owner."""
    if not rows:
        return parts.empty(
            "Nobody is waiting", "Devices that come by themselves, over the plaintext listener, stand here.", name="ok"
        )
    body = "".join(
        f'<tr><td><a class="who link" href="{parts.device_href(device.device_id)}">{parts.dot(online=presence.online)}'
        f"<b>{parts.text(device.device_id)}</b></a></td>"
        f'<td class="soft">{parts.text(device.tenant)}</td><td class="faint num">{parts.age(presence.last_seen)}</td>'
        f'<td class="right">{parts.button("Claim", "claim", device.device_id, classes="primary") if may_change else ""}'
        "</td></tr>"
        for device, presence in rows
    )
    foot = (
        f'<div class="foot"><span>{words.count(len(rows))} of {words.count(total)}</span>'
        '<a class="link" href="/devices?lifecycle=unclaimed">All of them</a></div>'
        if total > len(rows)
        else ""
    )
    return _table(("Device", "Tenant", "Seen", ""), body) + foot


def outcomes(rows: list[Outcome]) -> str:
    """Return the table of what became of requests."""
    if not rows:
        return parts.empty("No requests yet", "Every request to enroll is listed here, with the reason of a refusal.")
    return _table(("Outcome", "Device", "Reason", "Came by", "From", "When"), "".join(map(_outcome, rows)))


def _outcome(each: Outcome) -> str:
    if each.code is None:
        result, why = (
            parts.badge("enrolled", "good"),
            f'<span class="mono faint">{(each.fingerprint or "")[:16]}</span>',
        )
    else:
        detail = f" ({parts.text(each.detail)})" if each.detail else ""
        result = parts.badge(each.code, "bad")
        why = f"{parts.text(REASONS.get(each.code, each.code))}{detail}"
    device = (
        f'<a class="link" href="{parts.device_href(each.device_id)}">{parts.text(each.device_id[:64])}</a>'
        if each.code is None
        else parts.text(each.device_id[:64])
    )
    return (
        f'<tr><td>{result}</td><td>{device}</td><td class="wide soft">{why}</td>'
        f'<td class="soft">{parts.text(each.source or parts.NONE)}</td>'
        f'<td class="faint mono hide">{parts.text(each.address or parts.NONE)}</td>'
        f'<td class="faint num">{parts.age(each.at)}</td></tr>'
    )


def _table(heads: tuple[str, ...], body: str) -> str:
    titles = "".join(f"<th>{each}</th>" for each in heads)
    head = f"<thead><tr>{titles}</tr></thead>"
    return f'<div class="scroll"><table class="list cards">{head}<tbody>{body}</tbody></table></div>'


# --- dialogues --------------------------------------------------------------------------------------------------------


def claim_form(tenants: list[str], tenant: str) -> str:
    """Return the dialogue that makes a claim."""
    kinds = (("one-time", "One device, once"), ("fleet", "A fleet: many devices"))
    fields = (
        parts.choice("For", "kind", kinds, "one-time")
        + parts.choice("Expires after", "lifetime", LIVES, "604800")
        + parts.field("Device id", "device", hint="one-time only; empty: any free id", needed=False)
        + parts.field("Id patterns", "ids", hint="such as pump-* or press-??; by commas", needed=False)
        + parts.field("At most so many devices", "uses", hint="of a fleet claim", kind="number", needed=False)
        + parts.field("Name", "name", hint="what it is for", needed=False)
        + _landing_fields(tenants, tenant)
    )
    return parts.sheet("New claim", parts.form("make-claim", fields, "Make the claim"))


def rule_form(tenants: list[str], tenant: str) -> str:
    """Return the dialogue that makes a rule."""
    fields = (
        parts.field("Name", "name")
        + parts.field("Ids", "ids", "*", hint="* stands for anything, ? for one character")
        + parts.field("Position", "position", "0", hint="lower is tried first", kind="number")
        + _landing_fields(tenants, tenant)
        + '<label class="all">First configuration<input class="field mono" name="configuration" maxlength="2000" '
        'placeholder="{&quot;intervalS&quot;: 10}" autocomplete="off" spellcheck="false">'
        "<small>a JSON object: new devices get it with their certificate</small></label>"
    )
    return parts.sheet("New rule", parts.form("make-rule", fields, "Keep the rule"))


def _landing_fields(tenants: list[str], tenant: str) -> str:
    whose = parts.choice("Tenant", "tenant", [(each, each) for each in tenants], tenant) if len(tenants) > 1 else ""
    return (
        whose
        + parts.field("Lands in groups", "groups", hint="by commas; made where they are missing", needed=False)
        + parts.field("Gets tags", "tags", hint="such as hall:2, row:4", needed=False)
    )


def shown_once(label: Label) -> str:
    """Return the dialogue that shows a claim's token, this once."""
    claim, link = label.claim, label.link
    facts = parts.facts(
        [
            ("Good for", parts.text(good_for(claim))),
            ("Tenant", parts.text(claim.tenant)),
            ("Expires", expires(claim)),
            ("Server", f'<span class="mono">{parts.text(link.host)}:{link.mqtts_port}</span>'),
            ("Root SHA-256", f'<span class="mono" title="{link.ca}">{link.ca[:16]}…</span>'),
        ]
    )
    printed = (
        '<form method="post" action="/enrollment/labels" target="_blank"><input type="hidden" name="token" '
        f'value="{parts.text(link.claim)}"><button class="btn">Print a label</button></form>'
    )
    join = f"godwit device join {claim.device_id or 'press-7'} --link '{link.text()}'"
    return parts.sheet(
        claim.name or "The claim's token",
        '<p class="soft">Copy, scan or print it now: it is shown this once, and nobody can find it out again.</p>'
        f'{parts.command(link.claim)}<div class="code-and-facts">{qr(link)}<div>{facts}{printed}</div></div>'
        '<details class="plain"><summary>What the code holds, and how a device uses it</summary>'
        f"<div>{parts.command(join)}</div></details>",
    )


def claims_form(tenants: list[str], tenant: str) -> str:
    """Return the dialogue that makes a claim for each of many devices, and labels of them."""
    fields = (
        '<label class="all">Device ids, one to a line<textarea class="field mono" name="ids" rows="8" required '
        'maxlength="33000" spellcheck="false" placeholder="press-7&#10;press-8"></textarea>'
        f"<small>at most {LABELS_MAX}; each gets a one-time claim of its own</small></label>"
        + parts.choice("Expires after", "lifetime", LIVES, "604800")
        + parts.field("Name", "name", hint="what they are for", needed=False)
        + _landing_fields(tenants, tenant)
    )
    return parts.sheet(
        "Claims for many devices",
        '<form class="fields" method="post" action="/enrollment/labels" target="_blank">'
        f'{fields}<div class="bar"><button class="btn primary">Make claims and labels</button></div></form>'
        '<p class="faint">The labels open in another tab, to be printed: QR code, id, claim, end, server, and whom to '
        "trust. They are shown this once.</p>",
    )


def grant_form(code: str, trouble: str) -> str:
    """Return the card that asks for a device's code."""
    told = f'<div class="note-block bad" role="alert">{parts.text(trouble)}</div>' if trouble else ""
    field = (
        '<label class="all">Code<input class="field mono" name="code" required maxlength="16" autocomplete="off" '
        f'autocapitalize="characters" spellcheck="false" placeholder="WDJB-MJHT" value="{parts.text(code)}">'
        "<small>as the device shows it; eight letters</small></label>"
    )
    form = parts.form("look", field, "Continue")
    return parts.card("Connect a device", f'<div class="stack">{told}{form}</div>')


def grant_question(grant: DeviceGrant, code: str, tenants: list[str], tenant: str, *, exists: bool) -> str:
    """Return the card that shows which device asks, and lets its owner decide."""
    warning = (
        '<div class="note-block bad">There is a device of this id already: approving replaces its hardware, and the '
        "old one is shut out when the new one first connects.</div>"
        if exists
        else ""
    )
    facts = parts.facts(
        [
            ("Device", f"<b>{parts.text(grant.device_id)}</b>"),
            ("Asks from", f'<span class="mono">{parts.text(grant.address or parts.NONE)}</span>'),
            ("Since", parts.age(grant.created)),
            ("Code", f'<span class="mono">{parts.text(code)}</span>'),
        ]
    )
    fields = (
        f'<input type="hidden" name="code" value="{parts.text(code)}">'
        + (parts.choice("Tenant", "tenant", [(each, each) for each in tenants], tenant) if len(tenants) > 1 else "")
        + parts.field("Groups", "groups", hint="by commas; made where they are missing", needed=False)
    )
    deny = parts.button("Deny", "deny", code, classes="danger")
    return parts.card(
        "Is this your device?",
        f'<div class="stack">{facts}<p class="soft">Approve only if the device before you shows this very code.</p>'
        f"{warning}{parts.form('approve', fields, 'Approve')}</div>",
        aside=deny,
    )


def grant_done(grant: DeviceGrant) -> str:
    """Return the card that says what was decided."""
    if grant.state.value == "approved":
        said = parts.empty(
            f"{parts.text(grant.device_id)} may come in",
            f"It fetches its certificate within seconds. Then it stands among the devices of "
            f"{parts.text(grant.tenant)}.",
            name="ok",
        )
    else:
        said = parts.empty("Denied", f"{parts.text(grant.device_id)} was told so.", name="close")
    return parts.card("", f'{said}<p class="bar"><a class="btn" href="/device">Another device</a></p>')
