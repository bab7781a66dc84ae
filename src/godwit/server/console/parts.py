"""Pieces of HTML that pages are made of: pure functions from values to markup. Every text is escaped here.

Times are sent as milliseconds in `<time>` and turned into ages by the browser, so that a page does not have to be
pushed again because a second has passed.
"""

from collections.abc import Iterable
from html import escape
from typing import Final
from urllib.parse import quote, urlencode

_ICONS: Final = {
    "overview": '<rect x="3" y="3" width="7" height="9" rx="1.5"/><rect x="14" y="3" width="7" height="5" rx="1.5"/>'
    '<rect x="14" y="12" width="7" height="9" rx="1.5"/><rect x="3" y="16" width="7" height="5" rx="1.5"/>',
    "devices": '<rect x="5" y="5" width="14" height="14" rx="2.5"/><rect x="9.5" y="9.5" width="5" height="5" rx="1"/>'
    '<path d="M9 2v3M15 2v3M9 19v3M15 19v3M2 9h3M2 15h3M19 9h3M19 15h3"/>',
    "quarantine": '<path d="M12 3 4 6v6c0 4.6 3.2 7.8 8 9 4.8-1.2 8-4.4 8-9V6z"/><path d="M12 8v5M12 16h.01"/>',
    "broker": '<circle cx="12" cy="12" r="2.5"/><path d="M7.8 7.8a6 6 0 0 0 0 8.4M16.2 7.8a6 6 0 0 1 0 8.4"/>'
    '<path d="M5 5a10 10 0 0 0 0 14M19 5a10 10 0 0 1 0 14"/>',
    "clocks": '<circle cx="12" cy="12" r="8.5"/><path d="M12 7v5l3.2 2"/>',
    "security": '<rect x="5" y="11" width="14" height="9.5" rx="2"/><path d="M8 11V8a4 4 0 0 1 8 0v3M12 15v2"/>',
    "tenants": '<path d="M4 20V9l6-4v15M10 20V11l10 3v6M2.5 20h19"/><path d="M7 11v.01M7 15v.01M15 16.5v.01"/>',
    "access": '<circle cx="8" cy="15" r="4.5"/><path d="m11.2 11.8 8.3-8.3M16 7l3 3M13.5 9.5l2 2"/>',
    "account": '<circle cx="12" cy="8" r="4"/><path d="M4.5 20.5c1-4 4-6 7.5-6s6.5 2 7.5 6"/>',
    "enrollment": '<rect x="4" y="9" width="10" height="11" rx="2"/><path d="M7 9V6.5a2 2 0 0 1 4 0V9M18 4v8M14 8h8"/>',
    "certificates": '<path d="M5 4h14v11H5z"/><path d="M8.5 8h7M8.5 11h4"/><circle cx="16" cy="15.5" r="2.5"/>'
    '<path d="M14.7 17.6V21l1.3-.9 1.3.9v-3.4"/>',
    "theme": '<circle cx="12" cy="12" r="8.5"/><path d="M12 3.5v17a8.5 8.5 0 0 0 0-17z" fill="currentColor"/>',
    "leave": '<path d="M10 4H6a2 2 0 0 0-2 2v12a2 2 0 0 0 2 2h4M15 8l4 4-4 4M19 12H9"/>',
    "search": '<circle cx="11" cy="11" r="6.5"/><path d="m20 20-4.3-4.3"/>',
    "copy": '<rect x="9" y="9" width="11" height="11" rx="2"/><path d="M5 15V6a2 2 0 0 1 2-2h8"/>',
    "warn": '<path d="M12 4 2.8 19.5h18.4z"/><path d="M12 10v4.5M12 17h.01"/>',
    "left": '<path d="m14.5 6-6 6 6 6"/>',
    "right": '<path d="m9.5 6 6 6-6 6"/>',
    "ok": '<circle cx="12" cy="12" r="8.5"/><path d="m8.5 12.2 2.4 2.4 4.6-5"/>',
    "place": '<path d="M12 21s-6.5-6-6.5-11a6.5 6.5 0 0 1 13 0c0 5-6.5 11-6.5 11z"/><circle cx="12" cy="10" r="2.25"/>',
    "inbox": '<path d="M4 13h4l1.5 3h5L16 13h4"/>'
    '<path d="M6 5h12l2 8v5a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 4 18v-5z"/>',
    "download": '<path d="M12 4v11M7.5 11 12 15.5 16.5 11M5 20h14"/>',
    "close": '<path d="m6 6 12 12M18 6 6 18"/>',
    "up": '<path d="M12 19V5M6.5 10.5 12 5l5.5 5.5"/>',
    "down": '<path d="M12 5v14M6.5 13.5 12 19l5.5-5.5"/>',
}

NONE: Final = "\u2013"
"""An en dash: what stands where nothing is known."""

LOGO: Final = (
    '<svg viewBox="0 0 32 32" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="2" '
    'stroke-linecap="round" stroke-linejoin="round"><path d="M2 7.5 12.5 9"/>'
    '<path d="M12.3 10.8a3.6 3.6 0 1 1 6.6-1.2c.4 2.6 2.6 3.6 5 4.6 2.6 1.1 4.6 2.6 6 5.3-3.4 2.3-6.6 3.3-9.9 3.3'
    '-5.2 0-8-3.2-8-7.3 0-1.7.4-3.2.3-4.7z" fill="currentColor" fill-opacity=".14"/>'
    '<path d="M18 22.5V29M22 22.3V29"/></svg>'
)


def text(value: object) -> str:
    """Return `value` as HTML text, safe in an attribute too."""
    return escape(str(value), quote=True)


def icon(name: str) -> str:
    """Return a line icon of 16 px, invisible to screen readers."""
    return f'<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">{_ICONS[name]}</svg>'


def age(time_ns: int, never: str = "never") -> str:
    """Return how long ago `time_ns` was; the browser keeps it true. 0 is `never`."""
    return f'<time data-ms="{time_ns // 1_000_000}"></time>' if time_ns else f'<span class="faint">{never}</span>'


def clock(time_ns: int) -> str:
    """Return the time of day of `time_ns` in the reader's zone."""
    return f'<time data-ms="{time_ns // 1_000_000}" data-form="clock"></time>'


def badge(words: object, tone: str = "") -> str:
    """Return a pill. `tone`: good, warn, bad, accent or empty."""
    return f'<span class="badge {tone}">{text(words)}</span>'


def severity(word: str) -> str:
    """Return the tone of a badge for how grave a device calls something."""
    if word in {"critical", "fatal", "error", "emergency", "alert"}:
        return "bad"
    return "warn" if word in {"warning", "warn"} else "accent"


def dot(*, online: bool) -> str:
    """Return the presence dot, with its meaning in words."""
    word = "online" if online else "offline"
    return f'<span class="dot {"on" if online else ""}" title="{word}"></span><span class="sr">{word}</span>'


def card(title: str, body: str, *, aside: str = "", classes: str = "", flush: bool = False) -> str:
    """Return a card. `aside` stands at the right of its title; `flush` lets the body touch the card's edges."""
    head = f"<header><h2>{text(title)}</h2>{aside}</header>" if title else ""
    return f'<section class="card {classes}">{head}<div class="body{" flush" if flush else ""}">{body}</div></section>'


def empty(title: str, body: str, *, name: str = "inbox", big: bool = False) -> str:
    """Return what stands where nothing is yet. `body` is HTML and says what to do next."""
    return f'<div class="empty{" big" if big else ""}">{icon(name)}<b>{text(title)}</b><div>{body}</div></div>'


def sheet(title: str, body: str, *, tone: str = "") -> str:
    """Return a dialogue's content: its title, which names it to screen readers, how to close it, and `body`.

    With a `tone` the title is a badge.
    """
    head = badge(title, tone) if tone else text(title)
    return (
        f'<div class="bar between"><h2 id="sheet-title">{head}</h2>'
        f'<button class="btn ghost icon-only" data-close aria-label="Close">{icon("close")}</button></div>{body}'
    )


def command(line: str) -> str:
    """Return a command to paste, with a button that copies it."""
    return (
        f'<div class="command"><code>{text(line)}</code>'
        f'<button class="btn ghost icon-only" data-copy="{text(line)}" aria-label="Copy the command">{icon("copy")}'
        "</button></div>"
    )


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Return a list of terms and values; values are HTML."""
    return '<dl class="facts">' + "".join(f"<dt>{text(term)}</dt><dd>{value}</dd>" for term, value in rows) + "</dl>"


def button(words: str, act: str, arg: object = "", *, classes: str = "", sure: str = "", disabled: bool = False) -> str:
    """Return a button that sends `act` with `arg` to the page; `sure` is asked first."""
    ask = f' data-sure="{text(sure)}"' if sure else ""
    off = " disabled" if disabled else ""
    return (
        f'<button class="btn {classes}" data-act="{text(act)}" data-arg="{text(arg)}" '
        f'data-focus="{text(act)}-{text(arg)}"{ask}{off}>{words}</button>'
    )


def form(act: str, fields: str, words: str, *, classes: str = "") -> str:
    """Return a form whose fields are sent, as JSON, as the argument of `act`."""
    return (
        f'<form class="fields {classes}" data-act="{text(act)}">{fields}'
        f'<div class="bar"><button class="btn primary">{text(words)}</button></div></form>'
    )


def field(label: str, name: str, value: str = "", *, hint: str = "", kind: str = "text", needed: bool = True) -> str:
    """Return a labelled field of a form."""
    told = f"<small>{text(hint)}</small>" if hint else ""
    must = " required" if needed else ""
    return (
        f'<label>{text(label)}<input class="field" aria-label="{text(label)}" name="{text(name)}" type="{kind}" '
        f'value="{text(value)}"{must} '
        f'maxlength="256" autocomplete="off" spellcheck="false">{told}</label>'
    )


def choice(label: str, name: str, choices: Iterable[tuple[str, str]], chosen: str) -> str:
    """Return a labelled drop-down of a form."""
    options = "".join(
        f'<option value="{text(value)}"{" selected" if value == chosen else ""}>{text(words)}</option>'
        for value, words in choices
    )
    return f'<label>{text(label)}<select class="field" name="{text(name)}">{options}</select></label>'


def segments(act: str, choices: Iterable[tuple[str, str]], chosen: str, label: str) -> str:
    """Return a row of choices of which one is in force."""
    buttons = "".join(
        f'<button data-act="{act}" data-arg="{text(value)}" data-focus="{act}-{text(value)}" '
        f'aria-pressed="{"true" if value == chosen else "false"}">{text(words)}</button>'
        for value, words in choices
    )
    return f'<div class="seg" role="group" aria-label="{text(label)}">{buttons}</div>'


def select(act: str, choices: Iterable[tuple[str, str]], chosen: str, label: str) -> str:
    """Return a drop-down of (value, words)."""
    options = "".join(
        f'<option value="{text(value)}"{" selected" if value == chosen else ""}>{text(words)}</option>'
        for value, words in choices
    )
    return f'<select class="field" data-act="{act}" aria-label="{text(label)}">{options}</select>'


def tenant_switch(choices: Iterable[tuple[str, str]], chosen: str, cookie: str) -> str:
    """Return the drop-down of tenants: the browser keeps the choice in a cookie, and loads the page anew."""
    options = "".join(
        f'<option value="{text(value)}"{" selected" if value == chosen else ""}>{text(words)}</option>'
        for value, words in choices
    )
    return (
        f'<div class="switch{" on" if chosen else ""}">{icon("tenants")}<select class="field" aria-label="Tenant" '
        f'data-tenant-switch="{text(cookie)}">{options}</select></div>'
    )


def search(act: str, value: str, label: str) -> str:
    """Return a search box; what is typed is sent after a pause of 200 ms."""
    return (
        f'<div class="search">{icon("search")}<input class="field" type="search" data-act="{act}" '
        f'value="{text(value)}" '
        f'placeholder="{text(label)}" aria-label="{text(label)}" autocomplete="off" spellcheck="false" '
        'maxlength="200"></div>'
    )


def meter(share: float) -> str:
    """Return a bar of `share` (0 to 1); it warns above 0.8 and is red above 0.95."""
    share = min(1.0, max(0.0, share))
    tone = "bad" if share > 0.95 else "warn" if share > 0.8 else ""
    return f'<div class="meter"><i class="{tone}" style="width:{share * 100:.1f}%"></i></div>'


def meter_plain(share: float) -> str:
    """Return a bar of `share` (0 to 1) that does not judge."""
    return f'<div class="meter"><i style="width:{min(1.0, max(0.0, share)) * 100:.1f}%"></i></div>'


def device_href(device_id: str) -> str:
    """Return the address of a device's page."""
    return f"/devices/{quote(device_id, safe='')}"


def query(values: dict[str, str]) -> str:
    """Return a query string of the values that are not empty."""
    return urlencode({name: value for name, value in values.items() if value})
