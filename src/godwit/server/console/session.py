"""Who may see the console: the sign-in page, the session cookie, and the guard before every page and socket.

The guard is plain ASGI and stands before NiceGUI, for its WebSocket too. A request that changes something, and every
WebSocket, must come from a page of this very host (RFC 6455, 10.2). Every answer carries the security headers.
"""

from asyncio import to_thread
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from godwit.contract.errors import RejectedError
from godwit.server.accounts.principal import Principal
from godwit.server.accounts.room import Accounts, Known
from godwit.server.console import parts

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_OPEN: Final = ("/_nicegui/", "/console/", "/sign-in", "/favicon.ico")
"""Addresses that show nothing of the fleet: scripts, styles and the sign-in page."""

_MACHINES: Final = ("/api/", "/health/", "/metrics")
"""Addresses of the API: an unknown one is answered by it with a problem, not with a sign-in page."""

_KNOWN: Final = "godwit.known"
_FORM_BYTES_MAX: Final = 4_096

HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    # NiceGUI's page is an inline script and its Vue templates are compiled in the browser, hence the two exceptions
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
}


def is_own_origin(origin: str | None, host: str) -> bool:
    """Whether a request with this Origin header comes from a page of `host`. Programs send no Origin."""
    return origin is None or (host != "" and origin.partition("://")[2].lower() == host.lower())


class Guard:
    """Lets through who has signed in, from our own pages."""

    def __init__(self, app: App, accounts: Accounts, cookie: str) -> None:
        self._app = app
        self._accounts = accounts
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        answer = await self._refusal(scope)
        if answer is not None and scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
        elif answer is not None:
            await answer(scope, receive, _with_headers(send))
        else:
            await self._app(scope, receive, _with_headers(send))

    async def _refusal(self, scope: Scope) -> Response | None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path = str(scope["path"])
        may_change = scope["type"] == "websocket" or scope.get("method") not in {"GET", "HEAD"}
        is_socket = path.startswith("/_nicegui_ws")
        if (may_change or is_socket) and not is_own_origin(headers.get("origin"), headers.get("host", "")):
            return Response("This request came from a page of another site.\n", 403)
        if path.startswith(_OPEN):
            return None
        if path.startswith(_MACHINES):
            return JSONResponse(
                {"type": "about:blank", "title": "Not found", "status": 404, "detail": f"There is nothing at {path}."},
                404,
                media_type="application/problem+json",
            )
        known = await self._known(scope, headers)
        if known is None:
            return Response("Sign in first.\n", 401) if is_socket else RedirectResponse("/sign-in", 303)
        scope[_KNOWN] = known
        return None

    async def _known(self, scope: Scope, headers: Mapping[str, str]) -> Known | None:
        secret = cookie_of(headers.get("cookie", ""), self._cookie)
        if not secret:
            return None
        address, agent = (scope.get("client") or ("",))[0], headers.get("user-agent", "")
        known = self._accounts.recall(secret, address=address, agent=agent)
        if known is None:
            try:
                known = await to_thread(self._accounts.known, secret, address=address, agent=agent)
            except RejectedError:  # somebody else's cookie: it was written down, and the session has ended
                return None
        return known if known is not None and known.session else None


def principal_of(request: Request) -> Principal:
    """Return who asks: the guard has put it there."""
    known: Known = request.scope[_KNOWN]
    return known.principal


def cookie_of(header: str, name: str) -> str:
    """Return a cookie's value, or nothing."""
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _with_headers(send: Send) -> Send:
    async def wrapped(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return wrapped


class SignIn:
    """The page that every other one leads to, and the way out."""

    def __init__(self, accounts: Accounts, cookie: str, head: str) -> None:
        self._accounts = accounts
        self._cookie = cookie
        self._head = head

    async def show(self, request: Request) -> Response:
        """GET /sign-in: with `token`, sign in by the link; else show the form."""
        token = request.query_params.get("token")
        if token is None or request.method != "GET":  # whoever only looks at the link (HEAD) does not use it up
            return self._form("")
        return await self._enter(
            request, token, "This sign-in link has been used or is no longer valid. Paste the admin token instead."
        )

    async def submit(self, request: Request) -> Response:
        """POST /sign-in: the pasted token."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _FORM_BYTES_MAX:
                return self._form("That is too long to be a token.", 400)
        token = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0].strip()
        return await self._enter(request, token, "That token is not valid. Copy the whole line of the file.")

    async def leave(self, request: Request) -> Response:
        """POST /sign-out: end the session, and forget it in this browser."""
        await to_thread(self._accounts.sign_out, request.cookies.get(self._cookie, ""))
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(self._cookie)
        return answer

    async def _enter(self, request: Request, token: str, refusal: str) -> Response:
        address, agent = request.client.host if request.client else "", request.headers.get("user-agent", "")
        session = await to_thread(self._accounts.redeem, token, address=address, agent=agent) if token else None
        if session is None:
            return self._form(refusal, 403)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            self._cookie, session, httponly=True, samesite="lax", secure=request.url.scheme == "https", path="/"
        )
        return answer

    def _form(self, trouble: str, status: int = 200) -> Response:
        note = f'<p class="note-block bad" role="alert">{parts.text(trouble)}</p>' if trouble else ""
        page = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sign in · godwit</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">{self._head}</head><body>'
            f'<main class="gate"><div class="card"><div class="brand">{parts.LOGO}<span>godwit</span></div>'
            '<p class="soft">Open the sign-in link that the platform printed when it started, or paste the admin token '
            f'from <code class="mono">admin-token</code> in its data directory.</p>{note}'
            '<form method="post" action="/sign-in"><label>Admin token<input class="field mono" type="password" '
            'name="token" required autofocus autocomplete="current-password" maxlength="512"></label>'
            '<button class="btn primary">Sign in</button></form></div></main></body></html>'
        )
        return HTMLResponse(page, status, headers={"cache-control": "no-store"})
