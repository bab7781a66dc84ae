"""Labels of claims, to be shown and printed: a QR code and the same in words. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from godwit.contract.join_link import JoinLink
from godwit.contract.times import format_time
from godwit.server.console import parts
from godwit.server.identity.model import Claim


class Label(NamedTuple):
    """A claim, its link, and a token that is shown this once."""

    claim: Claim
    link: JoinLink


def qr(link: JoinLink) -> str:
    """Return a link as a QR code, SVG: dark on white in every theme, since cameras want it so."""
    import segno  # noqa: PLC0415 - 1 MB; labels are drawn now and then

    made = segno.make(link.text(), error="m", micro=False)
    drawn = made.svg_inline(border=4, dark="#000", light="#fff", omitsize=True, svgclass="qr", lineclass=None)
    return drawn.replace("<svg ", '<svg role="img" aria-label="QR code of the claim" ', 1)


def good_for(claim: Claim) -> str:
    """Return for whom a claim is good, in words."""
    return claim.device_id or ", ".join(claim.ids) or "any free id"


def expires(claim: Claim) -> str:
    """Return until when a claim is good, in words."""
    return f"{format_time(claim.expires)[:16].replace('T', ' ')} UTC" if claim.expires else "never"


def sheet(labels: Sequence[Label]) -> str:
    """Return the body of a page of labels to be printed."""
    many = f"{len(labels)} labels" if len(labels) != 1 else "1 label"
    return (
        f'<div class="labels"><header class="bar"><div><h1>{many}</h1>'
        f'<p class="soft">Print them now, or save the page: '
        "the claims are shown this once. Who sees a code can enroll with it until it is used.</p></div>"
        '<button class="btn primary" data-print>Print</button><a class="btn" href="/enrollment">Enrollment</a></header>'
        f'<div class="label-grid">{"".join(map(_label, labels))}</div></div>'
    )


def _label(label: Label) -> str:
    claim, link = label.claim, label.link
    uses = f" · {claim.uses_max} devices" if claim.uses_max not in (None, 1) else ""
    rows = (
        ("Claim", f'<span class="mono">{parts.text(link.claim)}</span>'),
        ("Until", parts.text(expires(claim))),
        ("Server", f'<span class="mono">{parts.text(link.host)}:{link.mqtts_port}</span>'),
        ("Root SHA-256", f'<span class="mono">{_grouped(link.ca)}</span>'),
    )
    return (
        f'<article class="claim-label">{qr(link)}<div><h2>{parts.text(good_for(claim))}</h2>'
        f"<p>{parts.text(claim.name or claim.kind)} · {parts.text(claim.tenant)}{uses}</p>"
        f"{parts.facts(rows)}</div></article>"
    )


def _grouped(fingerprint: str) -> str:
    """Return a fingerprint in groups of four, which can be compared by eye."""
    return " ".join(fingerprint[at : at + 4] for at in range(0, len(fingerprint), 4))
