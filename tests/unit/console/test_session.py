"""Who is let in: signed-in people, from pages of this host, and nobody else; every answer carries the headers."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from godwit.contract.errors import RejectedError
from godwit.server.accounts.principal import Principal, principal_of
from godwit.server.accounts.room import Accounts
from godwit.server.console.session import Guard, is_own_origin, narrowed, own_page
from godwit.server.console.sign_in import SignIn
from godwit.server.storage.account_tables import sessions
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine

COOKIE = "godwit-session-1"
HOST = "godwit.test:8080"
Story = Callable[[httpx.AsyncClient], Awaitable[None]]


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    return Accounts(Database(open_engine("", tmp_path)), tmp_path)


@pytest.fixture
def app(accounts: Accounts) -> Starlette:
    async def home(request: Request) -> PlainTextResponse:
        return PlainTextResponse("the fleet")

    async def socket(ws: WebSocket) -> None:
        await ws.accept()

    sign_in = SignIn(accounts, COOKIE, "")
    routes = [
        Route("/", home),
        Route("/sign-in", sign_in.show, methods=["GET"]),
        Route("/sign-in", sign_in.submit, methods=["POST"]),
        Route("/sign-out", sign_in.leave, methods=["POST"]),
        WebSocketRoute("/_nicegui_ws/socket.io", socket),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, accounts=accounts, cookie=COOKIE)])


def tell(app: Starlette, story: Story) -> None:
    async def told() -> None:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as browser:
            await story(browser)

    asyncio.run(told())


def open_socket(app: Starlette, *, origin: str, cookie: str) -> str:
    """Return the type of the first message that answers a WebSocket."""
    headers = [(b"host", HOST.encode()), (b"origin", origin.encode()), (b"cookie", f"{COOKIE}={cookie}".encode())]
    scope = {"type": "websocket", "path": "/_nicegui_ws/socket.io", "headers": headers, "query_string": b""}
    scope |= {"scheme": "ws", "root_path": "", "subprotocols": []}
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message["type"])

    call: Coroutine[Any, Any, None] = app(scope, receive, send)  # type: ignore[arg-type, assignment]
    asyncio.run(call)
    return sent[0]


def test_a_stranger_is_led_to_the_sign_in_page(app: Starlette) -> None:
    async def story(browser: httpx.AsyncClient) -> None:
        answer = await browser.get("/")
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
        assert "Admin token" in (await browser.get("/sign-in")).text

    tell(app, story)


def test_who_signs_in_gets_the_page_that_he_came_for(app: Starlette, accounts: Accounts) -> None:
    page = "/device?user_code=WDJB-MJHT"

    async def story(browser: httpx.AsyncClient) -> None:
        assert (await browser.get(page)).headers["location"] == "/sign-in"
        await browser.get("/logo.png", headers={"sec-fetch-dest": "image"})  # what a page loads is no page
        answer = await browser.post("/sign-in", data={"token": accounts.admin_token})
        assert answer.headers["location"] == page
        answer = await browser.post("/sign-in", data={"token": accounts.admin_token})
        assert answer.headers["location"] == "/", "once"

    tell(app, story)


@pytest.mark.parametrize(
    "made_up", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\r\nb: c", "x", ""]
)
def test_nobody_is_sent_to_another_site(made_up: str) -> None:
    assert own_page(made_up) == "/"


def test_the_link_signs_in_once(app: Starlette, accounts: Accounts) -> None:
    link = f"/sign-in?token={accounts.issue_sign_in()}"

    async def story(browser: httpx.AsyncClient) -> None:
        assert (await browser.head(link)).status_code == 200  # looked at, not used up
        answer = await browser.get(link)
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert answer.headers["location"] == "/"
        assert (await browser.get("/")).text == "the fleet"
        browser.cookies.clear()
        assert (await browser.get(link)).status_code == 403

    tell(app, story)


def test_the_admin_token_signs_in_and_sign_out_ends_the_session(app: Starlette, accounts: Accounts) -> None:
    async def story(browser: httpx.AsyncClient) -> None:
        assert (await browser.post("/sign-in", data={"token": "wrong"})).status_code == 403
        assert (await browser.post("/sign-in", data={"token": "x" * 9_000})).status_code == 400
        await browser.post("/sign-in", data={"token": f" {accounts.admin_token}\n"})
        assert (await browser.get("/")).text == "the fleet"
        session = browser.cookies[COOKIE]
        await browser.post("/sign-out")
        browser.cookies.set(COOKIE, session)
        assert (await browser.get("/")).status_code == 303

    tell(app, story)


def test_another_site_may_not_post(app: Starlette, accounts: Accounts) -> None:
    async def story(browser: httpx.AsyncClient) -> None:
        await browser.get(f"/sign-in?token={accounts.issue_sign_in()}")
        assert (await browser.post("/sign-out", headers={"origin": "http://evil.example"})).status_code == 403
        assert (await browser.get("/")).text == "the fleet"

    tell(app, story)


def test_a_request_that_says_it_is_from_another_site_is_refused_without_an_origin_too(
    app: Starlette, accounts: Accounts
) -> None:
    async def story(browser: httpx.AsyncClient) -> None:
        await browser.get(f"/sign-in?token={accounts.issue_sign_in()}")
        for place in ("cross-site", "same-site"):
            assert (await browser.post("/sign-out", headers={"sec-fetch-site": place})).status_code == 403
        assert (await browser.post("/sign-out", headers={"origin": "null"})).status_code == 403
        assert (await browser.get("/")).text == "the fleet"

    tell(app, story)


def test_an_old_secret_is_replaced_with_the_next_page(app: Starlette, accounts: Accounts) -> None:
    async def story(browser: httpx.AsyncClient) -> None:
        await browser.get(f"/sign-in?token={accounts.issue_sign_in()}")
        first = browser.cookies[COOKIE]
        with accounts._database.write() as connection:
            connection.execute(sessions.update(), {"created": 1})
        accounts.forget()
        assert (await browser.get("/")).text == "the fleet"
        assert browser.cookies[COOKIE] != first
        assert (await browser.get("/")).text == "the fleet"

    tell(app, story)


def test_an_api_token_is_no_cookie(app: Starlette, accounts: Accounts) -> None:
    async def story(browser: httpx.AsyncClient) -> None:
        for token in (accounts.admin_token, accounts.tokens.create(Principal("admin"), "x").secret):
            browser.cookies.set(COOKIE, token)
            assert (await browser.get("/")).status_code == 303

    tell(app, story)


def test_the_socket_opens_for_our_pages_and_signed_in_people_only(app: Starlette, accounts: Accounts) -> None:
    session = accounts.redeem(accounts.issue_sign_in()) or ""
    own = f"http://{HOST}"
    assert open_socket(app, origin=own, cookie=session) == "websocket.accept"
    assert open_socket(app, origin="http://evil.example", cookie=session) == "websocket.close"
    assert open_socket(app, origin=own, cookie="") == "websocket.close"


def test_every_answer_carries_the_security_headers(app: Starlette) -> None:
    async def story(browser: httpx.AsyncClient) -> None:
        for path in ("/", "/sign-in", "/api/v1/nothing"):
            headers = (await browser.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert headers["referrer-policy"] == "same-origin"

    tell(app, story)


def test_an_unknown_address_of_the_api_is_a_problem_and_no_sign_in_page(app: Starlette) -> None:
    async def story(browser: httpx.AsyncClient) -> None:
        answer = await browser.get("/api/v1/nothing")
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("application/problem+json")

    tell(app, story)


@pytest.mark.parametrize(
    ("origin", "is_own"),
    [
        (None, True),
        ("http://a:1", True),
        ("https://a:1", True),
        ("http://a:2", False),
        ("null", False),
        ("", False),
        ("http://[", False),
    ],
)
def test_origins(origin: str | None, *, is_own: bool) -> None:
    assert is_own_origin(origin, "a:1") is is_own


def test_who_chooses_a_tenant_is_what_he_is_there_and_never_more() -> None:
    everywhere = Principal("ada", address="x")
    one = narrowed(everywhere, "acme")
    assert (one.tenants, one.role, one.address) == (("acme",), "admin", "x")
    with pytest.raises(RejectedError):
        one.require_installation()
    mixed = principal_of("eve", {"acme": "viewer", "beta": "admin", "gamma": "operator"})
    assert mixed is not None
    one = narrowed(mixed, "acme")
    assert (one.tenants, one.role, one.roles) == (("acme",), "viewer", ())
    assert not one.is_at_least("operator")
    assert narrowed(mixed, "delta") == narrowed(mixed, "") == mixed  # a name of another's gives nothing
    both = principal_of("eve", {"*": "viewer", "acme": "admin"})
    assert both is not None
    assert (narrowed(both, "acme").role, narrowed(both, "other").role) == ("admin", "viewer")
