"""Who may see the console: the session cookie, and the guard before every page and socket.

The guard is plain ASGI and stands before NiceGUI, for its WebSocket too. A request that changes something, and every
WebSocket, must come from a page of this very host (RFC 6455, 10.2). Every answer carries the security headers.
"""

import secrets
from asyncio import to_thread
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from time import time_ns
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from godwit.contract.errors import RejectedError
from godwit.contract.ids import TenantId
from godwit.server.accounts.principal import Principal
from godwit.server.accounts.room import Accounts, Known
from godwit.server.accounts.sessions import REPLACE_S, SECOND

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_OPEN: Final = ("/_nicegui/", "/console/", "/sign-in", "/favicon.ico")
"""Addresses that show nothing of the fleet: scripts, styles and the sign-in page."""

_MACHINES: Final = ("/api/", "/health/", "/metrics")
"""Addresses of the API: an unknown one is answered by it with a problem, not with a sign-in page."""

_KNOWN: Final = "godwit.known"
_BEFORE_ANYTHING_ELSE: Final = ("/password", "/sign-out")
"""What is open to who has to change his password first."""

HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_PAGE_CHARACTERS_MAX: Final = 512
_WANTED_S: Final = 600
_HSTS: Final = "max-age=31536000"


def content_policy(nonce: str) -> str:
    """Return the policy of a page whose own scripts have this nonce: none that was smuggled in runs.

    Two exceptions are left, both NiceGUI's: it compiles templates and runs what the server pushes by `eval`, and Quasar
    sets styles on elements.
    """
    return (
        f"default-src 'self'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    )


def is_own_origin(origin: str | None, host: str) -> bool:
    """Whether a request with this Origin header comes from a page of `host`. Programs send no Origin."""
    return origin is None or (host != "" and origin.partition("://")[2].lower() == host.lower())


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether a request that changes something comes from another site's page: two headers say so, and both count."""
    if not is_own_origin(headers.get("origin"), headers.get("host", "")):
        return True
    return headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}


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
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        answer = await self._refusal(scope, headers)
        if answer is not None and scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        send = _with_headers(send, is_tls=scope["scheme"] in {"https", "wss"})
        if answer is not None:
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, await self._renewed(scope, headers, send))

    async def _renewed(self, scope: Scope, headers: Mapping[str, str], send: Send) -> Send:
        """Give a session a new secret now and then, with a page: a copy of the old one gives itself away."""
        known: Known | None = scope.get(_KNOWN)
        is_page = scope["type"] == "http" and headers.get("sec-fetch-mode", "navigate") == "navigate"
        if known is None or not is_page or scope["method"] != "GET":
            return send
        if time_ns() - known.secret_since < REPLACE_S * SECOND:
            return send
        name = cookie_name(self._cookie, scope["scheme"])
        old = cookie_of(headers.get("cookie", ""), name)
        new = await to_thread(self._accounts.replace_secret, old)
        if new == old:
            return send
        return _with_cookie(send, cookie_header(name, new))

    async def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        path = str(scope["path"])
        is_socket = path.startswith("/_nicegui_ws")
        may_change = is_socket or scope["type"] == "websocket" or scope.get("method") not in {"GET", "HEAD"}
        if may_change and is_foreign(headers):
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
        first = "/sign-in" if known is None else "/password" if known.must_change else ""
        if first and path not in _BEFORE_ANYTHING_ELSE[: 0 if known is None else None]:
            return Response(f"Go to {first} first.\n", 401) if is_socket else self._sent_to(first, scope, headers)
        scope[_KNOWN] = known
        return None

    def _sent_to(self, first: str, scope: Scope, headers: Mapping[str, str]) -> Response:
        """Send somebody to sign in, or to choose a password, and remember which page he came for."""
        answer = RedirectResponse(first, 303)
        path, query = (scope.get(each, b"").decode("latin-1") for each in ("raw_path", "query_string"))
        page = f"{path}?{query}" if query else path
        is_page = scope.get("method") == "GET" and headers.get("sec-fetch-dest", "document") == "document"
        if is_page and own_page(page) == page != "/":
            name = cookie_name(wanted_cookie(self._cookie), scope["scheme"])
            answer.headers["set-cookie"] = f"{cookie_header(name, quote(page, safe=''))}; Max-Age={_WANTED_S}"
        return answer

    async def _known(self, scope: Scope, headers: Mapping[str, str]) -> Known | None:
        secret = cookie_of(headers.get("cookie", ""), cookie_name(self._cookie, scope["scheme"]))
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
    return known_of(request).principal


def known_of(request: Request) -> Known:
    """Return all that is known of who asks; `principal` is only what he is in the tenant that he has chosen to see."""
    known: Known = request.scope[_KNOWN]
    address = request.client.host if request.client else ""
    who = msgspec.structs.replace(known.principal, address=address)
    return msgspec.structs.replace(known, principal=narrowed(who, chosen_tenant(request)))


def whole_of(request: Request) -> Principal:
    """Return who asks with all his tenants, whatever he has chosen to see."""
    known: Known = request.scope[_KNOWN]
    return known.principal


def chosen_tenant(request: Request) -> str:
    """Return the one tenant that every page is to show; "" for all that the person may see."""
    return unquote(request.cookies.get(tenant_cookie(request), ""))[:64]


def tenant_cookie(request: Request) -> str:
    """Return the name of the cookie that says it: a wish, and no right. Cookies know no port."""
    return f"godwit-tenant-{request.url.port or request.url.scheme}"


def narrowed(who: Principal, tenant: str) -> Principal:
    """Return `who` as he is in one of his tenants. He never gets more by it; of another's name nothing comes."""
    role = who.role_in(tenant) if tenant else None
    if role is None or who.tenants == (tenant,):
        return who
    return msgspec.structs.replace(who, tenants=(TenantId(tenant),), role=role, roles=())


def wanted_cookie(name: str) -> str:
    """Return the name of the cookie that holds which page somebody wanted before he signed in."""
    return name.replace("session", "wanted")


def own_page(path: str) -> str:
    """Return a page of this host, or the first one: nobody is sent to where a made-up cookie points."""
    is_own = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isascii() and path.isprintable()
    return path if is_own and len(path) <= _PAGE_CHARACTERS_MAX else "/"


def cookie_name(name: str, scheme: str) -> str:
    """Return the cookie's name: on HTTPS one that browsers take from this very host only, and Secure."""
    return f"__Host-{name}" if scheme in {"https", "wss"} else name


def cookie_header(name: str, secret: str) -> str:
    """Return what sets the cookie. Lax: a link in a mail leads to a page; changes are asked where they come from."""
    return f"{name}={secret}; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if name.startswith("__Host-") else "")


def cookie_of(header: str, name: str) -> str:
    """Return a cookie's value, or nothing."""
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _with_headers(send: Send, *, is_tls: bool) -> Send:
    """Add the headers to an answer; a page is held until it is whole, and its scripts are marked as its own.

    Pages are built here, from text that is escaped: a script tag in one is ours.
    """
    nonce = secrets.token_urlsafe(16)
    held: list[MutableMapping[str, Any]] = []
    body = bytearray()

    async def wrapped(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("content-security-policy", content_policy(nonce))
            for name, value in (*HEADERS.items(), *((("strict-transport-security", _HSTS),) if is_tls else ())):
                headers.setdefault(name, value)
            if headers.get("content-type", "").startswith("text/html"):
                headers["cache-control"] = "no-store"  # a page of somebody who has signed out is not in the cache
                held.append(message)
                return
        elif held and message["type"] == "http.response.body":
            body.extend(message.get("body", b""))
            if message.get("more_body", False):
                return
            start, whole = held.pop(), bytes(body).replace(b"<script", f'<script nonce="{nonce}"'.encode())
            MutableHeaders(scope=start)["content-length"] = str(len(whole))
            await send(start)
            message = {"type": "http.response.body", "body": whole}
        await send(message)

    return wrapped


def _with_cookie(send: Send, cookie: str) -> Send:
    async def wrapped(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).append("set-cookie", cookie)
        await send(message)

    return wrapped
