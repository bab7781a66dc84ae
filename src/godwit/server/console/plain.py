"""Pages without NiceGUI that answer a form: what was refused, and what is to be printed. They look like the others."""

import hashlib
from pathlib import Path
from typing import Final

from starlette.responses import HTMLResponse

from godwit.server.accounts.principal import Principal
from godwit.server.console import parts, theme
from godwit.server.console.frame import navigation

STATIC: Final = Path(__file__).parent / "static"


def head_html() -> str:
    """Return what stands in the head of every page. Addresses change with the content, so that caches are right."""
    mark = hashlib.sha256(b"".join(each.read_bytes() for each in sorted(STATIC.iterdir()))).hexdigest()[:12]
    return (
        f"<script>{theme.BEFORE_PAINT}</script><style>{theme.css()}</style>"
        f'<link rel="stylesheet" href="/console/{mark}/console.css">'
        f'<script defer src="/console/{mark}/console.js"></script>'
    )


def whole(title: str, body: str, *, who: Principal | None, page: str = "", status: int = 200) -> HTMLResponse:
    """Return a page; with the navigation of `who`, where `page` is one of it. `body` is HTML."""
    side = navigation(who, page) if who is not None else ""
    main = f'<div class="main" role="main" id="main"><div class="wrap">{body}</div></div>' if side else body
    return HTMLResponse(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{parts.text(title)} · godwit</title>{head_html()}</head><body>{side}{main}</body></html>",
        status,
        {"cache-control": "no-store"},
    )
