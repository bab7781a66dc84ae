"""What a device's page shows of whose it is and how it gets in: what can be done, and how far it is. Pure."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from godwit.contract.times import format_time
from godwit.server.console import parts, words
from godwit.server.identity.certificates import DAY
from godwit.server.identity.model import Certificate, CertificateState, Claim, ClaimState, Source
from godwit.server.registry.model import Device, Lifecycle, Presence

LIVES: Final = (("86400", "1 day"), ("604800", "7 days"), ("2592000", "30 days"))
_COUNTS: Final = (CertificateState.ACTIVE, CertificateState.SUPERSEDED, CertificateState.PENDING)


class Custody(NamedTuple):
    """What is known of a device's credentials. Certificates and claims are the newest first."""

    device: Device
    presence: Presence
    certificates: Sequence[Certificate]
    claims: Sequence[Claim]
    tokens: int
    keys: int
    now: int

    @property
    def counting(self) -> list[Certificate]:
        """The certificates that open a door."""
        return [each for each in self.certificates if each.state in _COUNTS and each.not_after > self.now]

    @property
    def current(self) -> Certificate | None:
        """The certificate that it connects with."""
        return next((each for each in self.counting if each.state is CertificateState.ACTIVE), None)

    @property
    def newest_claim(self) -> Claim | None:
        """The last claim for this id, while it matters: it is good, or was spent within a day."""
        claim = self.claims[0] if self.claims else None
        if claim is None or claim.state is ClaimState.REVOKED:
            return None
        if claim.state is ClaimState.SPENT:
            made = self.asked_with(claim)
            return claim if made is not None and self.now - made.first_seen < DAY else None
        return claim if not claim.expires or claim.expires > self.now else None

    def asked_with(self, claim: Claim) -> Certificate | None:
        """Return the certificate that a claim gave."""
        return next((each for each in self.certificates if each.key_fingerprint == claim.key_fingerprint), None)


def card(known: Custody, *, may_change: bool, may_transfer: bool) -> str:
    """Return the card: how it gets in now, what is under way, what can be done."""
    held = known.current
    tokens = f"{known.tokens} token{'s' * (known.tokens != 1)}" if known.tokens else ""
    keys = f"{known.keys} key{'s' * (known.keys != 1)}" if known.keys else ""
    rows = [
        (
            "Owner",
            parts.text(known.device.tenant) if known.device.lifecycle is not Lifecycle.UNCLAIMED else "nobody yet",
        ),
        ("Certificate", f"until {format_time(held.not_after)[:10]}" if held else _without(known)),
        *([("Besides", parts.text(" and ".join(each for each in (tokens, keys) if each)))] if tokens or keys else []),
    ]
    shown = parts.facts(rows) + passage(known, may_change=may_change) + _buttons(known, may_change, may_transfer)
    return f'<div class="health">{shown}</div>'


def _without(known: Custody) -> str:
    if any(each.state is CertificateState.PENDING for each in known.counting):
        return parts.badge("not used yet", "accent")
    return parts.badge("ended", "bad") if known.certificates else '<span class="faint">none</span>'


def passage(known: Custody, *, may_change: bool) -> str:
    """Return how far a new certificate is on its way to the device; nothing while none is."""
    claim = known.newest_claim
    if claim is not None:
        return _by_claim(known, claim, may_change=may_change)
    files = next((each for each in known.counting if each.state is CertificateState.PENDING), None)
    if files is None or files.source not in (Source.OPERATOR, Source.BATCH):
        return ""
    return _steps(
        "New files",
        [
            ("Certificate issued", f"{parts.age(files.created)}, {_short(files)}"),
            ("Waiting for the device", "put the files on it, and let it connect"),
            ("Connected with the new certificate", ""),
        ],
        1,
    )


def _by_claim(known: Custody, claim: Claim, *, may_change: bool) -> str:
    until = f"good until {format_time(claim.expires)[:10]}" if claim.expires else "good until it is revoked"
    made = known.asked_with(claim) if claim.key_fingerprint else None
    others = [each for each in known.counting if made is not None and each.fingerprint != made.fingerprint]
    at = {ClaimState.OPEN: 1, ClaimState.BOUND: 2}.get(claim.state, 4 if not others else 3)
    old = "nobody comes in with the old ones" if at == 4 else "when the new one first connects"
    steps = [
        ("Claim made", f"{parts.age(claim.created)} by {parts.text(claim.created_by)}, {until}"),
        (
            "Waiting for the device" if at == 1 else "The device has asked",
            _short(made) if made else "to ask with the claim",
        ),
        ("Connected with the new certificate", parts.age(made.first_seen) if made and made.first_seen else ""),
        ("Old certificates are out", old),
    ]
    act = parts.button(
        "Withdraw the claim", "revoke-claim", claim.claim_id, sure="Withdraw this claim? It opens nothing any more."
    )
    return _steps(claim.name or "New certificate", steps, at) + (
        f'<div class="bar">{act}</div>' if at == 1 and may_change else ""
    )


def _short(certificate: Certificate) -> str:
    return f'certificate <span class="mono">{certificate.fingerprint[:8]}</span>'


def _steps(title: str, steps: Sequence[tuple[str, str]], at: int) -> str:
    """Return steps of which those before `at` are done."""
    items = "".join(
        f'<li class="{"done" if number < at else "now" if number == at else ""}"'
        f"{' aria-current=step' if number == at else ''}><b>{name}</b><small>{note}</small></li>"
        for number, (name, note) in enumerate(steps)
    )
    return f'<div class="passage"><b>{parts.text(title)}</b><ol class="steps">{items}</ol></div>'


def _buttons(known: Custody, may_change: bool, may_transfer: bool) -> str:  # noqa: FBT001 - both by name above
    if not may_change:
        return ""
    lifecycle = known.device.lifecycle
    if lifecycle is Lifecycle.RETIRED:
        return '<p class="faint">The device is retired: nobody comes in under its name.</p>'
    if lifecycle is Lifecycle.UNCLAIMED:
        owned = parts.button("Claim", "custody", "claim", classes="primary")
        return f'<div class="bar">{owned}{_opener("Transfer", "transfer") if may_transfer else ""}</div>'
    if lifecycle is Lifecycle.SUSPENDED:
        turn = parts.button("Resume", "custody", "resume", classes="primary")
        gone = _opener("Release", "release", "danger")
        return f'<div class="bar">{turn}{_opener("Revoke", "revoke", "danger")}{gone}</div>'
    first = _opener("Replace hardware", "replace") + _opener("Enroll anew", "anew")
    if may_transfer:
        first += _opener("Transfer", "transfer")
    last = "".join(
        _opener(name, act, "danger")
        for name, act in (("Suspend", "suspend"), ("Revoke", "revoke"), ("Release", "release"))
    )
    return f'<div class="bar">{first}</div><div class="bar">{last}</div>'


def _opener(name: str, act: str, classes: str = "") -> str:
    return parts.button(f"{name}…", "custody", act, classes=classes)


# --- dialogues --------------------------------------------------------------------------------------------------------


def dialogue(known: Custody, act: str, tenants: Sequence[str]) -> tuple[str, str]:
    """Return title and body of the dialogue for what is asked; both empty for what is not known."""
    made = {
        "replace": _replace, "anew": _anew, "suspend": _suspend, "revoke": _revoke, "release": _release,
    }.get(act)  # fmt: skip
    name = known.device.device_id
    titles = {
        "replace": f"Replace the hardware of {name}", "anew": f"Enroll {name} anew", "suspend": f"Suspend {name}",
        "revoke": f"Revoke all credentials of {name}", "release": f"Release {name}", "transfer": f"Transfer {name}",
    }  # fmt: skip
    if act == "transfer":
        return titles[act], _transfer(known, tenants)
    return (titles[act], made(known)) if made is not None else ("", "")


def _now(known: Custody) -> str:
    """Say what is the case now."""
    held = known.current
    state = (
        f"{parts.dot(online=True)} connected since {parts.clock(known.presence.since)}"
        if known.presence.online
        else f"{parts.dot(online=False)} not connected; last seen {parts.age(known.presence.last_seen)}"
    )
    said = f"{_short(held)}, until {format_time(held.not_after)[:10]}" if held else "no certificate in use"
    return f'<div class="note-block"><b>Now</b> {state}, {said}.</div>'


def _ends(known: Custody) -> str:
    """Return what credentials there are to end, in words."""
    found = [
        words.plural(len(known.counting), "certificate"), words.plural(known.tokens, "token"),
        words.plural(known.keys, "key"),
    ]  # fmt: skip
    return ", ".join(each for each in found if not each.startswith("0 ")) or "no credentials"


def _what(*lines: str) -> str:
    return f'<div><b>What will happen</b><ol class="will">{"".join(f"<li>{each}</li>" for each in lines)}</ol></div>'


def _form(act: str, fields: str, button: str, tone: str = "danger") -> str:
    return (
        f'<form class="fields" data-act="{act}">{fields}<div class="bar all"><button class="btn {tone}">'
        f"{parts.text(button)}</button>"
        f'<button type="button" class="btn ghost" data-close>Leave it as it is</button></div>'
        "</form>"
    )


def _typed(known: Custody) -> str:
    return (
        f'<label class="all"><span>Type <b class="mono">{parts.text(known.device.device_id)}</b> to confirm</span>'
        '<input class="field mono" name="typed" required autocomplete="off" spellcheck="false" maxlength="64"></label>'
    )


def _replace(known: Custody) -> str:
    when = parts.choice(
        "The old hardware is out", "when",
        (("later", "when the new one first connects"), ("now", "at once: it is lost or stolen")), "later",
    )  # fmt: skip
    return (
        _now(known)
        + _what(
            "A one-time claim for this id is made, with a QR code, and shown once.",
            "The new hardware makes a key of its own, and asks for its certificate with the claim.",
            f"When it first connects, the old one is out for good, with {_ends(known)}.",
            "History, groups, tags and configuration stay; sample numbers go on in a new epoch.",
        )
        + _form(
            "replace",
            when + parts.choice("The claim is good for", "lifetime", LIVES, "604800"),
            "Make the claim",
            "primary",
        )
    )


def _anew(known: Custody) -> str:
    name = parts.text(known.device.device_id)
    return (
        _now(known)
        + _what(
            "The device gets a new key and certificate. What it has now goes on counting until the new one is used.",
            "By a claim, the device makes its key itself: the key never leaves it. By files, the key is made here, is "
            "in the archive only, and is kept nowhere.",
        )
        + _form(
            "replace", parts.choice("The claim is good for", "lifetime", LIVES, "604800"), "Make a claim", "primary"
        )
        + f'<form method="post" action="/certificates/bundle/{name}" class="bar"><button class="btn">'
        f"{parts.icon('download')}Download files with a new key</button></form>"
    )


def _suspend(known: Custody) -> str:
    return (
        _now(known)
        + _what(
            "Its connection ends within a second, over MQTT and HTTPS.",
            "It may not come back until it is resumed. Its certificate stays good, and so does its history.",
        )
        + _form("suspend", "", "Suspend")
    )


def _revoke(known: Custody) -> str:
    return (
        _now(known)
        + _what(
            f"Out for good: {_ends(known)}, and claims for this id.",
            "An open connection ends within a second.",
            "The device stays in the registry with its history; to come back it has to be enrolled anew.",
        )
        + _form("revoke-all", _typed(known), "Revoke all")
    )


def _release(known: Custody) -> str:
    return (
        _now(known)
        + _what(
            f"Out for good: {_ends(known)}. Its connection ends within a second.",
            "It leaves its groups, and its tags and configuration are forgotten.",
            f"It is unclaimed: somebody of {parts.text(known.device.tenant)} may claim it again. Its history stays.",
        )
        + _form("release", _typed(known), "Release")
    )


def _transfer(known: Custody, tenants: Sequence[str]) -> str:
    others = [(each, each) for each in tenants if each != known.device.tenant]
    if not others:
        return parts.empty(
            "Nowhere to go", "You administer no other tenant: who administers both may transfer a device."
        )
    keep = parts.choice(
        "Its telemetry", "telemetry", (("keep", "goes with it"), ("erase", "is erased for good")), "keep"
    )
    return (
        _now(known)
        + _what(
            f"Out for good: {_ends(known)}. Its connection ends within a second.",
            f"It leaves {parts.text(known.device.tenant)}: groups, tags and configuration are forgotten.",
            "It is unclaimed in the other tenant, and enrolls there with a new claim.",
        )
        + _form("transfer", parts.choice("To", "tenant", others, others[0][0]) + keep + _typed(known), "Transfer")
    )
