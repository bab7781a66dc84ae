"""People at the console: signing in by password and at a real OIDC provider, what roles see, and who is kept out."""

import contextlib
import http.server
import json
import re
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from ports import free_port

pytestmark = pytest.mark.real

PASSWORD = "seven godwits fly south"
FORGED = """window.emitEvent("act", {act: "add-tenant", arg: '{"name": "forged"}'})"""
PEOPLE = (
    {"sub": "kim", "email": "kim@example.org", "email_verified": True, "groups": ["staff", "plant-admins"]},
    {"sub": "lee", "email": "lee@example.org", "preferred_username": "lee", "groups": ["staff"]},
    {"sub": "eve-at-oidc", "email": "mallory@example.org", "groups": []},
)


@pytest.fixture(scope="module")
def provider(eventually_anywhere: Callable[..., Any]) -> Iterator[str]:
    """Run a real OIDC provider."""
    port = free_port()
    people = [word for each in PEOPLE for word in ("--user-claims", json.dumps(each))]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port), "-n", "true", *people],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    issuer = f"http://127.0.0.1:{port}"
    eventually_anywhere(lambda: httpx.get(f"{issuer}/.well-known/openid-configuration").status_code == 200)
    yield issuer
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def eventually_anywhere() -> Callable[..., Any]:
    import time  # noqa: PLC0415

    def wait(look: Callable[[], Any], within_s: float = 30.0) -> Any:
        end = time.monotonic() + within_s
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if found := look():
                    return found
            assert time.monotonic() < end
            time.sleep(0.05)

    return wait


@pytest.fixture(scope="module")
def platform(
    tmp_path_factory: pytest.TempPathFactory, platform_class: Callable[..., Any], provider: str
) -> Iterator[Any]:
    platform = platform_class(
        tmp_path_factory.mktemp("access") / "data", OIDC_ISSUER=provider, OIDC_CLIENT_ID="godwit",
        OIDC_CLIENT_SECRET="not so secret", OIDC_NAME="Plant login",
        OIDC_GRANTS="staff=acme:viewer, plant-admins=acme:admin",
    ).start()  # fmt: skip
    platform.ask("PUT", "/api/v1/tenants/acme", None, {})
    for name, role in (("vera", "viewer"), ("olga", "operator"), ("ada", "admin")):
        user = {"name": name, "grants": {"*": role}, "password": PASSWORD, "mustChange": False}
        platform.post("/api/v1/users", user)
    kim = {"name": "kim-of-acme", "grants": {"acme": "admin"}, "password": PASSWORD, "mustChange": False}
    platform.post("/api/v1/users", kim)
    yield platform
    platform.stop()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context()
    page = context.new_page()
    yield page
    context.close()


@pytest.fixture
def browser_of(chromium: Browser) -> Iterator[Callable[[], Page]]:
    """Return what opens the browser of somebody else."""
    with contextlib.ExitStack() as open_ones:

        def another() -> Page:
            context = chromium.new_context()
            open_ones.callback(context.close)
            return context.new_page()

        yield another


def sign_in(page: Page, platform: Any, name: str, password: str = PASSWORD) -> None:
    page.goto(f"{platform.url}/sign-in")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()


def show(page: Page, platform: Any, path: str) -> None:
    page.goto(platform.url + path)
    page.wait_for_function("window.socket?.connected && document.querySelector('.wrap')")


def audited(platform: Any, **wanted: str) -> list[dict[str, Any]]:
    asked = "&".join(f"{name}={value}" for name, value in wanted.items())
    return platform.json(f"/api/v1/audit?{asked}")["items"]


def test_a_password_given_by_somebody_else_is_changed_first(page: Page, platform: Any) -> None:
    platform.post("/api/v1/users", {"name": "newt", "grants": {"*": "viewer"}, "password": "given to newt by mail"})
    sign_in(page, platform, "newt", "given to newt by mail")
    page.wait_for_url("**/password")
    page.goto(f"{platform.url}/devices")
    page.wait_for_url("**/password")
    page.get_by_label("Present password").fill("given to newt by mail")
    page.get_by_label("New password").fill("my own good sentence")
    page.get_by_label("Once more").fill("my own good sentence")
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_role("heading", name="Devices")).to_be_visible()  # the page that he came for


def test_a_viewer_is_shown_no_buttons_and_a_forged_press_is_refused(
    page: Page, platform: Any, eventually: Callable[..., Any]
) -> None:
    complaints: list[str] = []
    page.on("console", lambda said: said.type in {"error", "warning"} and complaints.append(said.text))
    sign_in(page, platform, "vera")
    expect(page.get_by_text("Send the first reading")).to_be_visible()
    assert page.get_by_role("link", name="Access").count() == 0
    platform.post("/api/v1/devices", {"deviceId": "mixer-1"})
    expect(page.get_by_role("link", name="mixer-1").first).to_be_visible()  # within the second the page keeps numbers
    assert page.get_by_role("link", name="Access").count() == 0
    show(page, platform, "/quarantine")
    assert page.get_by_role("button", name="Purge all").count() == 0
    page.evaluate("window.emitEvent('act', {act: 'purge-all', arg: ''})")
    expect(page.locator(".toast")).to_contain_text("needs the role operator")
    eventually(lambda: audited(platform, what="request.refuse", about="/quarantine: purge-all"))
    show(page, platform, "/access")
    expect(page.get_by_text("for administrators to see")).to_be_visible()
    page.evaluate('window.emitEvent(\'act\', {act: \'add-user\', arg: \'{"name": "x", "role": "admin"}\'})')
    assert {each["name"] for each in platform.json("/api/v1/users")["items"]} >= {"vera", "olga", "ada"}
    assert page.goto(f"{platform.url}/audit/export").status == 403
    assert "x" not in {each["name"] for each in platform.json("/api/v1/users")["items"]}
    assert [each for each in complaints if "403" not in each] == []  # nothing runs against the content policy


def test_an_administrator_adds_a_user_and_a_token(page: Page, platform: Any) -> None:
    sign_in(page, platform, "ada")
    show(page, platform, "/access")
    page.get_by_role("button", name="Add a user").click()
    dialog = page.locator("dialog")
    dialog.get_by_label("Name", exact=True).fill("Zoe")
    dialog.get_by_label("Role").select_option("operator")
    dialog.get_by_label("Tenants").fill("acme")
    dialog.get_by_role("button", name="Add").click()
    expect(dialog.get_by_role("heading")).to_have_text("zoe is added")
    password = dialog.locator("code").inner_text()
    show(page, platform, "/access?table=tokens")
    page.get_by_role("button", name="Make a token").click()
    dialog.get_by_label("Name").fill("reports")
    dialog.get_by_text("Only for some things").click()
    dialog.get_by_label("devices:read").check()
    dialog.get_by_role("button", name="Make token").click()
    expect(dialog.get_by_role("heading")).to_have_text("reports")
    token = dialog.locator("code").inner_text()
    assert token.startswith("gwt_")
    answer = httpx.get(f"{platform.url}/api/v1/devices", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    page.keyboard.press("Escape")
    page.once("dialog", lambda asked: asked.accept())
    page.get_by_role("row", name="reports").get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("row", name="reports")).to_contain_text("revoked")
    assert httpx.get(answer.request.url, headers=answer.request.headers).status_code == 401
    show(page, platform, "/audit")
    expect(page.locator("tbody")).to_contain_text("user.create")
    assert password not in page.content()
    assert token not in page.content()


def test_tenants_are_added_limited_watched_and_removed(
    page: Page, platform: Any, browser_of: Callable[[], Page]
) -> None:
    sign_in(page, platform, "ada")
    show(page, platform, "/access")
    page.get_by_role("link", name="Tenants").click()
    page.get_by_role("button", name="Add a tenant").click()
    dialog = page.locator("dialog")
    dialog.get_by_label("Name").fill("mill")
    dialog.get_by_role("button", name="Add").click()
    card = page.get_by_role("region", name="Tenant mill")
    card.get_by_role("button", name="Limits").click()
    dialog.get_by_label("Devices").fill("many")
    dialog.get_by_role("button", name="Change").click()
    expect(page.locator(".toast")).to_contain_text("a whole number such as 500")
    dialog.get_by_label("Devices").fill("1")
    dialog.get_by_label("Retained").fill("64Mi")
    dialog.get_by_role("button", name="Change").click()
    expect(card).to_contain_text("0 of 1")
    assert platform.json("/api/v1/tenants/mill")["quota"]["retainedBytes"] == 2**26
    platform.post("/api/v1/devices", {"deviceId": "mill-saw", "tenant": "mill"})
    expect(card).to_contain_text("at a limit")  # pushed: nobody has loaded the page anew
    assert card.get_by_role("button", name="Remove").count() == 0

    page.get_by_label("Tenant", exact=True).select_option("acme")  # every page is acme's now
    expect(page.get_by_text("Who administers all tenants")).to_be_visible()
    show(page, platform, "/devices")
    expect(page.get_by_label("Tenant", exact=True)).to_have_value("acme")
    assert page.get_by_text("mill-saw").count() == 0
    page.evaluate(FORGED)
    page.get_by_label("Tenant", exact=True).select_option("")
    expect(page.get_by_text("mill-saw").first).to_be_visible()

    other = browser_of()
    sign_in(other, platform, "kim-of-acme")
    show(other, platform, "/tenants")
    expect(other.get_by_text("Who administers all tenants")).to_be_visible()
    assert other.get_by_role("link", name="Tenants").count() == other.get_by_label("Tenant", exact=True).count() == 0
    show(other, platform, "/certificates")
    expect(other.get_by_role("heading", name="Authorities")).to_be_visible()
    assert other.get_by_role("heading", name="Rollover").count() == 0  # its numbers are those of all tenants
    other.context.add_cookies(
        [{"name": f"godwit-tenant-{urlsplit(platform.url).port}", "value": "mill", "url": platform.url}]
    )
    show(other, platform, "/devices")  # a tenant that is not his: the cookie gives nothing, and takes nothing
    assert other.get_by_text("mill-saw").count() == 0
    other.evaluate(FORGED)

    platform.ask("DELETE", "/api/v1/devices/mill-saw", None, {})
    show(page, platform, "/tenants")
    page.once("dialog", lambda asked: asked.accept())
    card.get_by_role("button", name="Remove").click()
    expect(card).to_have_count(0)
    names = platform.json("/api/v1/tenants")["items"]
    assert "acme" in names
    assert not {"mill", "forged"} & set(names)


def test_a_disabled_users_open_page_is_left(page: Page, platform: Any) -> None:
    sign_in(page, platform, "olga")
    show(page, platform, "/quarantine")
    platform.ask("PATCH", "/api/v1/users/olga", b'{"disabled": true}', {"Content-Type": "application/json"})
    page.wait_for_url("**/sign-in", timeout=5_000)
    sign_in(page, platform, "olga")
    expect(page.get_by_role("alert")).to_have_text("Name or password is wrong.")


def test_another_sites_page_changes_nothing(page: Page, platform: Any) -> None:
    """The cookie is sent along: ports are no borders for cookies. What is looked at is where the request comes from."""
    form = f'<form method="post" action="{platform.url}/sign-out"><button>win</button></form>'.encode()

    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(form)

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Evil) as evil:
        threading.Thread(target=evil.serve_forever, daemon=True).start()
        sign_in(page, platform, "vera")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        page.goto(f"http://127.0.0.1:{evil.server_address[1]}/")
        with page.expect_response("**/sign-out") as answer:
            page.get_by_role("button", name="win").click()
        assert answer.value.status == 403
        evil.shutdown()
    show(page, platform, "/")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def go_to_provider(page: Page, platform: Any, subject: str) -> None:
    page.goto(f"{platform.url}/sign-in")
    page.get_by_role("link", name="Sign in with Plant login").click()
    page.get_by_role("button", name=re.compile(subject)).first.click()


def test_oidc_signs_in_with_the_rights_that_the_provider_gives(page: Page, platform: Any) -> None:
    go_to_provider(page, platform, "kim")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    show(page, platform, "/account")
    expect(page.locator(".head")).to_contain_text("admin in acme")
    user = platform.json("/api/v1/users/kim@example.org")
    assert (user["grants"], user["hasPassword"], user["subject"]) == ({"acme": "admin"}, False, "kim")
    (line,) = audited(platform, what="sign-in", about="kim@example.org")
    assert line["after"] == {"by": "oidc"}


def test_whom_the_provider_gives_nothing_is_refused(page: Page, platform: Any, eventually: Callable[..., Any]) -> None:
    go_to_provider(page, platform, "eve-at-oidc")
    expect(page.get_by_role("alert")).to_contain_text("nobody here knows this account", ignore_case=True)
    eventually(
        lambda: [each for each in audited(platform, what="sign-in.refuse") if each["after"]["code"] == "not-admitted"]
    )


def test_who_loses_all_rights_at_the_provider_is_out_everywhere_at_the_next_sign_in(
    page: Page, platform: Any, provider: str
) -> None:
    lee = PEOPLE[1]
    go_to_provider(page, platform, "lee")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    httpx.put(f"{provider}/users/lee", json=lee | {"groups": []}).raise_for_status()
    try:
        with httpx.Client(headers={"user-agent": "test"}) as other:
            where = other.get(f"{platform.url}/sign-in/oidc").headers["location"]
            refused = other.get(httpx.post(where, data={"sub": "lee"}).headers["location"])
    finally:
        httpx.put(f"{provider}/users/lee", json=lee).raise_for_status()
    assert (refused.status_code, "no rights any more" in refused.text) == (403, True)
    expect(page).to_have_url(re.compile("/sign-in"))  # the page that was open elsewhere
    assert platform.json("/api/v1/users/lee")["grants"] == {}


def test_a_callback_is_good_once_and_in_the_browser_that_began(platform: Any) -> None:
    with contextlib.ExitStack() as browsers:

        def begun() -> tuple[httpx.Client, str]:
            browser = browsers.enter_context(httpx.Client(headers={"user-agent": "test"}))
            where = browser.get(f"{platform.url}/sign-in/oidc").headers["location"]
            assert "code_challenge_method=S256" in where
            assert "nonce=" in where
            back = httpx.post(where, data={"sub": "lee"}).headers["location"]
            assert back.startswith(f"{platform.url}/sign-in/oidc/callback?")
            return browser, back

        victim, back = begun()
        assert httpx.get(back).status_code == 403  # a thief has not the cookie
        assert victim.get(back).status_code == 403  # and it is used up
        victim, back = begun()
        assert victim.get(re.sub("code=[^&]+", "code=guessed", back)).status_code == 403
        victim, back = begun()
        assert (victim.get(back).status_code, victim.get(back).status_code) == (303, 403)
        assert victim.get(f"{platform.url}/account").status_code == 200
    assert platform.json("/api/v1/users/lee")["grants"] == {"acme": "viewer"}


def test_on_https_the_cookie_is_of_this_host_only(platform_in: Callable[..., Any]) -> None:
    platform = platform_in("tls", SERVER_HOST="0.0.0.0").start()
    trust = ssl.create_default_context(cafile=platform.certificate)
    trust.check_hostname = False
    with httpx.Client(verify=trust, base_url=platform.url) as browser:
        answer = browser.post("/sign-in", data={"token": platform.token})
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-godwit-session-")
        assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
        assert "Domain" not in cookie
        page = browser.get("/account")
        assert page.status_code == 200
        assert page.headers["strict-transport-security"].startswith("max-age=")
        policy = page.headers["content-security-policy"]
        assert "'unsafe-inline'" not in policy.split("style-src")[0]
        nonce = re.search(r"'nonce-([\w-]+)'", policy)
        assert nonce
        assert page.text.count("<script") == page.text.count(f'<script nonce="{nonce.group(1)}"') > 3
        plain = browser.post("/sign-out", headers={"sec-fetch-site": "cross-site"})
        assert plain.status_code == 403


def test_the_commands_add_users_and_make_tokens(platform: Any) -> None:
    def godwit(*words: str, token: str = "") -> subprocess.CompletedProcess[str]:
        environment = (
            platform.environment | {"GODWIT_SERVER": platform.url} | ({"GODWIT_TOKEN": token} if token else {})
        )
        command = [sys.executable, "-m", "godwit.cli.main", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)

    added = godwit("user", "add", "mia", "--role", "operator", "--tenant", "acme")
    assert re.search(r"^password: \S{20}", added.stdout, re.MULTILINE), added.stderr
    assert "mia" in godwit("user", "list").stdout
    assert godwit("user", "disable", "mia").returncode == 0
    assert "disabled" in godwit("user", "list").stdout
    assert "all sessions have ended" in godwit("user", "password", "mia").stdout
    made = godwit("token", "create", "reader", "--role", "viewer", "--scope", "users:read", "--scope", "devices:read")
    secret = made.stdout.strip()
    assert secret.startswith("gwt_")
    refused = godwit("user", "list", token=secret)
    assert refused.returncode == 1
    assert "needs the role admin" in refused.stderr
    number = made.stderr.split()[0]
    assert number in godwit("token", "list").stdout
    assert godwit("token", "revoke", number).returncode == 0
    request = urllib.request.Request(f"{platform.url}/api/v1/devices", headers={"authorization": f"Bearer {secret}"})
    with pytest.raises(urllib.error.HTTPError) as gone:
        urllib.request.urlopen(request, timeout=10)
    assert gone.value.code == 401
    gone.value.close()
