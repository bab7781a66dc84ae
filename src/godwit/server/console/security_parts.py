"""What the security page is drawn with: tiles by severity, a card for each finding, and what passed. Pure."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from godwit.server.checks.audit import Audit
from godwit.server.checks.model import Affected, Check, Finding, Severity
from godwit.server.console import parts, words

SHOWN_MAX: Final = 8
"""So many things of a finding are shown before somebody asks for the others."""
TONES: Final = {
    Severity.CRITICAL: "bad", Severity.HIGH: "bad", Severity.MEDIUM: "warn", Severity.LOW: "accent", Severity.INFO: "",
}  # fmt: skip
_PAGES: Final = {
    "authority": "/certificates", "claim": "/enrollment", "token": "/access", "user": "/access", "audit": "/audit",
}  # fmt: skip
"""Where things are that have no page of their own."""
_GRAVE: Final = (Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW)
_NOTES: Final = {
    Severity.CRITICAL: "somebody is in who should not be",
    Severity.HIGH: "somebody could get in",
    Severity.MEDIUM: "to be put right soon",
    Severity.LOW: "to be tidied up",
}


def render(found: Audit, filtered: str) -> dict[str, str]:
    """Return the parts of the page by their id. `filtered`: the severity that is shown; empty: all."""
    shown = [each for each in found.findings if filtered in ("", each.severity)]
    made = len(found.findings) + len(found.passed)
    return {
        "tiles": tiles(found.findings),
        "filters": filters(found.findings, filtered),
        "findings": findings(shown, is_filtered=bool(filtered)),
        "passed": passed(found.passed),
        "looked": f"<span>Looked {parts.age(found.at)}</span><span>{made} checks</span>",
    }


def _count(found: Sequence[Finding], severity: Severity) -> int:
    return sum(each.severity is severity for each in found)


def tiles(found: Sequence[Finding]) -> str:
    """Return how many findings there are of each grave severity."""

    def tile(severity: Severity) -> str:
        number = _count(found, severity)
        tone = f' style="color:var(--{TONES[severity]})"' if number else ' style="color:var(--ink-faint)"'
        note = _NOTES[severity] if number else "nothing found"
        return (
            f'<div class="card stat"><span class="label">{severity.capitalize()}</span>'
            f'<span class="value"{tone}>{number}</span><span class="note">{note}</span></div>'
        )

    return f'<div class="stats">{"".join(tile(each) for each in _GRAVE)}</div>'


def filters(found: Sequence[Finding], chosen: str) -> str:
    """Return the choice of a severity; nothing where there is nothing to choose."""
    there = [each for each in reversed(Severity) if _count(found, each)]
    if len(there) < 2:
        return ""
    choices = [
        ("", f"All {len(found)}"),
        *((str(each), f"{each.capitalize()} {_count(found, each)}") for each in there),
    ]
    return f'<div class="bar">{parts.segments("severity", choices, chosen, "Severity")}</div>'


def findings(shown: Sequence[Finding], *, is_filtered: bool) -> str:
    """Return a card for each finding; a calm word where there is none."""
    if not shown and is_filtered:
        return parts.card("", parts.empty("Nothing of this severity", "Choose another above.", name="ok"))
    if not shown:
        return parts.card(
            "",
            parts.empty(
                "Nothing found",
                "Certificates, keys, tokens, claims, devices, who is connected and the settings were looked at. "
                "<p style='margin-top:8px'>Have cron look, too:</p>"
                + parts.command("godwit audit --json --fail-at medium"),
                name="ok",
                big=True,
            ),
        )
    return f'<div class="stack">{"".join(map(_card, shown))}</div>'


def _card(finding: Finding) -> str:
    number = f"{words.count(finding.count)} {_kind(finding)}"
    return (
        f'<section class="card finding {TONES[finding.severity]}" id="finding-{finding.code}"><header>'
        f"<h2>{parts.badge(finding.severity, TONES[finding.severity])}{parts.text(finding.title)}</h2>"
        f'<span class="more num">{number}</span></header><div class="body">'
        f'<p class="soft">{parts.text(finding.why)}</p>'
        f'<p class="todo"><b>What to do</b>{_with_code(finding.todo)}</p>{_affected(finding)}</div></section>'
    )


def _kind(finding: Finding) -> str:
    kind = finding.affected[0].kind
    if finding.count == 1:
        return kind
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"


def _with_code(words_: str) -> str:
    """Return text in which what stands between backticks is code."""
    pieces = parts.text(words_).split("`")
    return "".join(f'<code class="mono">{each}</code>' if at % 2 else each for at, each in enumerate(pieces))


def _affected(finding: Finding) -> str:
    shown = "".join(map(_thing, finding.affected[:SHOWN_MAX]))
    rest = finding.affected[SHOWN_MAX:]
    if not rest:
        return f'<ul class="things">{shown}</ul>'
    beyond = finding.count - len(finding.affected)
    more = f"{words.count(len(rest))} more" + (f", and {words.count(beyond)} beyond these" if beyond else "")
    return (
        f'<ul class="things">{shown}</ul><details class="others"><summary>{more}</summary>'
        f'<ul class="things">{"".join(map(_thing, rest))}</ul></details>'
    )


def _thing(thing: Affected) -> str:
    href = address(thing)
    name = f'<span class="mono">{parts.text(thing.name)}</span>'
    linked = f'<a class="link" href="{parts.text(href)}">{name}</a>' if href else name
    detail = f'<span class="faint">{parts.text(thing.detail)}</span>' if thing.detail else ""
    return f'<li><span class="tag">{parts.text(thing.kind)}</span>{linked}{detail}</li>'


def address(thing: Affected) -> str:
    """Return where more of a thing is to be seen; empty: nowhere."""
    if thing.kind == "device":
        return parts.device_href(thing.name)
    if thing.kind == "client":
        return "/broker?" + urlencode({"q": thing.name})
    return _PAGES.get(thing.kind, "")


def passed(checks: Sequence[Check]) -> str:
    """Return what was looked at and found in order."""
    if not checks:
        return ""
    items = "".join(f"<li>{parts.icon('ok')}<span>{parts.text(each.title)}</span></li>" for each in checks)
    return (
        '<section class="card"><details class="raw passed"><summary><b>In order</b><span class="faint">'
        f"{words.count(len(checks))} checks found nothing</span></summary>"
        f'<div class="in"><p class="faint">None of these is the case:</p><ul class="things">{items}</ul></div>'
        "</details></section>"
    )
