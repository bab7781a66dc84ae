"""What a line of the audit log changed, for people: field by field, what it was and what it is."""

import json
from typing import Any, Final

from godwit.contract.times import format_time
from godwit.server.console import parts

_NOTHING: Final = (None, "", "null", "{}", "[]", "0", "false")
"""What a field holds that was never filled: not worth a line."""
SHOWN_MAX: Final = 2
_A_TIME: Final = 10**17
"""Numbers above this one are times in ns."""


def changes(before: Any, after: Any, key: str = "") -> str:
    """Return what differs, field by field: what it was struck out, what it is now beside it.

    Of much that differs the first fields are seen, and the others opened. `key` names the line among those of the page.
    """
    was, now = _flat(before), _flat(after)
    rows = [(name, was.get(name), now.get(name)) for name in sorted({*was, *now}) if was.get(name) != now.get(name)]
    untold = {"updated", "created"} if before is None else {"updated"}  # when is what the line begins with
    rows = [row for row in rows if row[0] not in untold and not (row[1] in _NOTHING and row[2] in _NOTHING)]
    if not rows:
        return '<span class="faint">nothing differs</span>'
    shown = SHOWN_MAX if len(rows) > SHOWN_MAX + 1 else len(rows)
    return _listed(rows[:shown]) + (_folded(rows[shown:], key) if rows[shown:] else "")


def _folded(rows: list[tuple[str, str | None, str | None]], key: str) -> str:
    """Return rows behind a line that opens them, and stays open when the page is pushed anew."""
    return (
        f'<details class="plain" data-key="{parts.text(key)}"><summary>{len(rows)} more fields</summary>'
        f"<div>{_listed(rows)}</div></details>"
    )


def _listed(rows: list[tuple[str, str | None, str | None]]) -> str:
    return '<dl class="changes">' + "".join(_change(*row) for row in rows) + "</dl>"


def _change(name: str, was: str | None, now: str | None) -> str:
    old = f"<del>{parts.text(was)}</del> " if was is not None else ""
    new = f"<ins>{parts.text(now)}</ins>" if now is not None else ""
    return f"<dt>{parts.text(name)}</dt><dd>{old}{new}</dd>"


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """Return nested fields under dotted names."""
    if value is None and not name:
        return {}
    if isinstance(value, dict) and value:
        found: dict[str, str] = {}
        for key, each in value.items():
            found |= _flat(each, f"{name}.{key}" if name else str(key))
        return found
    if isinstance(value, int) and value > _A_TIME:
        return {name: format_time(value)}
    return {name: value if isinstance(value, str) else json.dumps(value)}
