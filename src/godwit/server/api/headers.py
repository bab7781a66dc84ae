"""Headers that every answer of the front carries: the API's own, and what a browser is to be told on HTTPS.

Plain ASGI, since this stands before each request. The console adds its own (`console/session`), which stay.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HSTS: Final = (b"strict-transport-security", b"max-age=31536000")
"""A year. Without subdomains and preloading: this platform is one service of a domain that is not its own."""

_OF_ALL: Final = ((b"x-content-type-options", b"nosniff"),)
_OF_API: Final = (
    *_OF_ALL,
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)


class SecureHeaders:
    """Adds what an answer does not say itself."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        wanted = _OF_API if scope["path"].startswith(("/api/", "/metrics", "/health/")) else _OF_ALL
        if scope["scheme"] == "https":
            wanted = (*wanted, HSTS)

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                said = {name.lower() for name, _ in headers}
                message["headers"] = headers + [each for each in wanted if each[0] not in said]
            await send(message)

        await self._app(scope, receive, with_headers)
