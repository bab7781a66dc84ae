"""What the console shows of batches: the form, how far one is, and which lines of a file are wrong. Pure."""

from collections.abc import Sequence
from typing import Final

from godwit.server.console import parts, words
from godwit.server.console.batches import Batch, Known, Stage
from godwit.server.identity.batch_lines import Refused

SHOWN_MAX: Final = 200
"""So many wrong lines are listed; the others are counted."""
_WHAT: Final = {
    "duplicate-device": "named twice",
    "invalid-device-id": "no device id",
    "csv-columns": "number of fields",
    "invalid-tag": "tags",
    "already-enrolled": "has a certificate",
    "not-found": "no such tenant",
    "exists": "another tenant's id",
    "device-suspended": "suspended",
    "device-retired": "retired",
    "quota-devices": "quota",
}
_KNOWN: Final = (
    (Known.LEAVE, "are left out"), (Known.UNUSED, "get another one, if it was never connected with")
)  # fmt: skip
_COLUMNS: Final = (
    ("device_id", "letters, digits and . _ : -, at most 64"),
    ("name", "what people call it"),
    ("type", "of the device"),
    ("tenant", "whose it is; yours unless said"),
    ("groups", "such as pumps;hall 2"),
    ("tags", "such as hall=2;line=7"),
)


def form() -> str:
    """Return the form that takes a file."""
    known = parts.choice("Devices with a certificate", "known", _KNOWN, Known.LEAVE)
    return (
        '<form class="fields" method="post" action="/certificates/batch" enctype="multipart/form-data">'
        '<label class="all">CSV with the columns device_id, and if you like name, type, tenant, groups, tags'
        '<input class="field" type="file" name="file" accept=".csv,text/csv" required></label>'
        f'{known}<div class="bar"><button class="btn primary">Enroll and download</button></div></form>'
        '<p class="faint" style="margin-top:12px">The keys are made here, are in the archive only, and are kept '
        "nowhere. A download that breaks off is taken back: send the file again. With <code>godwit device enroll "
        "--batch</code> the keys never leave your machine.</p>"
    )


def progress(batch: Batch | None) -> str:
    """Return how far a batch is, or what became of it."""
    if batch is None:
        return ""
    wrong = batch.wrong
    if batch.stage is Stage.RUNNING:
        left = f", {words.span(max(1, batch.left_s))} left" if batch.left_s is not None else ""
        refused = f" · {words.count(wrong)} refused" if wrong else ""
        return (
            f'<div class="passage" role="status"><div class="bar" style="justify-content:space-between">'
            f"<b>Enrolling</b>"
            f'<span class="num">{words.count(batch.at)} of {words.count(batch.total)}{refused}{left}</span></div>'
            f"{parts.meter_plain(batch.at / batch.total if batch.total else 1)}"
            '<small class="faint">The archive is written while it comes: leave the download running.</small></div>'
        )
    if batch.stage is Stage.BROKEN:
        said = (
            f"<b>The download broke off.</b> What was issued for it, {words.plural(batch.enrolled, 'certificate')}, is "
            "revoked: nobody has the keys. Send the file again."
        )
        return f'<div class="note-block bad" role="alert">{said}</div>'
    close = parts.button(parts.icon("close"), "forget-batch", classes="ghost icon-only")
    said = f"{words.plural(batch.enrolled, 'device')} enrolled" + (
        f", {words.plural(wrong, 'line')} refused" if wrong else ""
    )
    return (
        f'<div class="passage"><div class="bar" style="justify-content:space-between;flex-wrap:nowrap">'
        f"<span>{parts.badge('done', 'good')} "
        f"<b>{said}</b></span>{close}</div>{_few(batch)}</div>"
    )


def _few(batch: Batch) -> str:
    if not batch.refused:
        return ""
    items = "".join(
        f"<li>line {each.number} <b>{parts.text(each.device_id[:64])}</b> {parts.text(each.detail[:200])}</li>"
        for each in batch.refused
    )
    others = batch.wrong - len(batch.refused)
    more = f"<li>and {words.count(others)} more: see refused.csv</li>" if others else ""
    return f'<ul class="plain-list soft">{items}{more}</ul>'


def wrong_file(said: str) -> str:
    """Return the body of the page about a file that cannot be read at all."""
    return _page(
        "This file cannot be read",
        f'<p class="soft">{parts.text(said)}</p>{_expected()}',
        "Nothing was enrolled.",
    )


def wrong_lines(refused: Sequence[Refused], good: int, text: str, known: str) -> str:
    """Return the body of the page about lines that are wrong: mend the file, or go on without them."""
    rows = "".join(
        f'<tr><td class="num faint">{each.number}</td>'
        f'<td class="mono">{parts.text(each.device_id[:80]) or parts.NONE}</td>'
        f'<td><span title="{parts.text(each.code)}">{parts.badge(_WHAT.get(each.code, each.code), "bad")}</span></td>'
        f'<td class="wide soft">{parts.text(each.detail[:300])}</td></tr>'
        for each in sorted(refused)[:SHOWN_MAX]
    )
    more = len(refused) - SHOWN_MAX
    foot = f'<div class="foot">and {words.count(more)} more</div>' if more > 0 else ""
    table = (
        '<div class="scroll"><table class="list cards"><thead><tr><th>Line</th><th>Device</th>'
        "<th>What</th><th>Why</th></tr>"
        f"</thead><tbody>{rows}</tbody></table></div>{foot}"
    )
    on = (
        '<form method="post" action="/certificates/batch" enctype="multipart/form-data">'
        f'<textarea name="text" hidden>{parts.text(text)}</textarea><input type="hidden" name="go" value="1">'
        f'<input type="hidden" name="known" value="{parts.text(known)}">'
        f'<button class="btn">Enroll the other {words.count(good)}</button></form>'
        if good
        else ""
    )
    return _page(
        f"{words.plural(len(refused), 'line')} of this file {'are' if len(refused) != 1 else 'is'} wrong",
        table,
        f"Nothing was enrolled yet; {words.plural(good, 'line')} can be. Mend the file, or go on without them.",
        on,
        _expected(),
    )


def refused_bundle(device_id: str, said: str) -> str:
    """Return the body of the page about one device that got no certificate."""
    return (
        f'<div class="head"><div><a class="crumb" href="{parts.device_href(device_id)}">{parts.icon("left")}'
        f"{parts.text(device_id[:64])}</a><h1>No certificate was issued</h1></div></div>"
        + parts.card("", parts.empty("Refused", parts.text(said), name="warn", big=True))
    )


def _page(title: str, body: str, note: str, on: str = "", below: str = "") -> str:
    back = '<a class="btn primary" href="/certificates#batch">Choose another file</a>'
    return (
        f'<div class="head"><div><a class="crumb" href="/certificates">{parts.icon("left")}Certificates</a>'
        f"<h1>{parts.text(title)}</h1><div class=sub><span>{parts.text(note)}</span></div></div>"
        f'<div class="bar">{on}{back}</div></div>'
        + parts.card("", body, flush="<table" in body)
        + (parts.card("What is expected", below) if below else "")
    )


def _expected() -> str:
    rows = "".join(f"<dt class=mono>{name}</dt><dd>{what}</dd>" for name, what in _COLUMNS)
    return (
        '<p class="soft">A CSV file in UTF-8, whose first line names its columns: device_id, if you like the others.'
        f'</p><dl class="facts left" style="margin:12px 0">{rows}</dl>'
        '<pre class="payload">device_id,name,groups,tags\npress-7,Press 7,presses,hall=2;line=7\n</pre>'
    )
