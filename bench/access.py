"""`make bench BENCH=access`: what asking who asks adds to a request of the API.

The same request, with and without the checks before it, in one process and one run, in turn: the difference is what
they cost. Everything else (routing, validation, JSON) is on both sides. On SQLite, or on the empty database of
DATABASE_URL.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Response
from fastapi.routing import APIRoute

from godwit.server.accounts.passwords import Passwords
from godwit.server.accounts.principal import Principal
from godwit.server.accounts.room import Accounts
from godwit.server.api import problems
from godwit.server.api.access import Operator, Who, refuse_unknown_queries
from godwit.server.api.answers import answer
from godwit.server.api.request_rates import RequestRates
from godwit.server.api.strict import StrictRoute
from godwit.server.registry.model import TenantQuota
from godwit.server.settings import load
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine

TOKENS = 1_000
LIMIT_MS = 0.3


def _app(accounts: Accounts) -> FastAPI:
    app = FastAPI()
    app.state.tokens = accounts
    app.state.request_rates = RequestRates(lambda _tenant: TenantQuota())
    problems.install(app)

    async def checked(who: Who) -> Response:
        return answer({"name": "x"} if who else {})

    async def changed(who: Operator) -> Response:
        return answer({"name": "x"} if who else {})

    async def plain() -> Response:
        return answer({"name": "x"})

    strict = [Depends(refuse_unknown_queries)]
    for path, endpoint, route in (
        ("/api/v1/devices", checked, StrictRoute), ("/api/v1/devices/change", changed, StrictRoute),
        ("/plain", plain, APIRoute),
    ):  # fmt: skip
        app.router.add_api_route(path, endpoint, dependencies=strict, route_class_override=route)
    return app


def _request(app: FastAPI, path: str, token: str) -> Callable[[], Awaitable[None]]:
    headers = [(b"authorization", f"Bearer {token}".encode()), (b"host", b"x"), (b"user-agent", b"bench")]

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        assert message.get("status", 200) == 200, message

    async def ask() -> None:
        scope: dict[str, Any] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": path,
            "raw_path": path.encode(), "query_string": b"", "headers": headers, "scheme": "http", "root_path": "",
            "client": ("192.0.2.7", 1), "server": ("x", 80),
        }  # fmt: skip
        await app(scope, receive, send)

    return ask


async def _turns(asks: dict[str, Callable[[], Awaitable[None]]], turns: int, each: int) -> dict[str, list[float]]:
    """Return CPU in ms per request, turn by turn."""
    found: dict[str, list[float]] = {name: [] for name in asks}
    for _ in range(turns):
        for name, ask in asks.items():
            begin = time.process_time()
            for _ in range(each):
                await ask()
            found[name].append((time.process_time() - begin) / each * 1_000)
    return found


def _anew(accounts: Accounts, ask: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """Return a request whose token has to be looked up in the database."""

    async def forgotten() -> None:
        accounts.forget()
        await ask()

    return forgotten


def run(*, quick: bool) -> dict[str, object]:
    """Measure; rows of the table."""
    directory = Path(tempfile.mkdtemp(prefix="godwit-access-"))
    accounts = Accounts(
        Database(open_engine(load(os.environ, None, {}).settings.database_url, directory)),
        directory,
        passwords=Passwords(),
    )
    admin = Principal("admin")
    for number in range(10 if quick else TOKENS - 1):
        accounts.tokens.create(admin, f"other-{number}")
    mixed = {"*": "viewer", "acme": "operator", "beta": "admin"}
    token = accounts.tokens.create(admin, "bench", grants=mixed, scopes=["devices:read", "devices:write"]).secret
    accounts.users.create(admin, "eve", grants=mixed)
    session = accounts.sign_in.begin("eve", address="192.0.2.7", agent="bench")
    app = _app(accounts)
    asks = {
        "without": _request(app, "/plain", ""),
        "API token, roles by tenant, scopes": _request(app, "/api/v1/devices", token),
        "API token, a change": _request(app, "/api/v1/devices/change", token),
        "session": _request(app, "/api/v1/devices", session),
        "administrator": _request(app, "/api/v1/devices", accounts.admin_token),
    }
    for name in ("API token, roles by tenant, scopes", "session"):
        asks[f"{name}; looked up anew"] = _anew(accounts, asks[name])
    found = asyncio.run(_turns(asks, 5 if quick else 30, 100 if quick else 500))
    base = statistics.median(found["without"])
    rows = []
    for name, times in found.items():
        median = statistics.median(times)
        rows.append({"case": name, "CPU ms a request": median, "added ms": median - base, "ratio": median / base})
    most = max(float(row["added ms"]) for row in rows)  # type: ignore[arg-type]
    return {
        "requests": rows,
        "limit": [{"added ms at most": most, "limit ms": LIMIT_MS, "missing": most > LIMIT_MS}],
    }
