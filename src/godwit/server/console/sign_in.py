"""Pages without NiceGUI: signing in by name and password, by OIDC or with the first token; a new password; out."""

from asyncio import to_thread
from typing import Final
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from godwit.contract.errors import GodwitError, RejectedError, UnavailableError
from godwit.server.accounts.passwords import CHARACTERS_MIN
from godwit.server.accounts.room import Accounts
from godwit.server.accounts.sign_in import TooManyAttemptsError
from godwit.server.console import parts
from godwit.server.console.forms import posted
from godwit.server.console.session import (
    cookie_header,
    cookie_name,
    known_of,
    own_page,
    tenant_cookie,
    wanted_cookie,
)

_FORM_BYTES_MAX: Final = 4_096
LOGOUT_BYTES_MAX: Final = 65_536
_NOT_KEPT: Final = {"cache-control": "no-store"}
_USED: Final = "This sign-in link has been used or is no longer valid. Sign in another way."


class SignIn:
    """The page that every other one leads to, the way out, and the page for a new password."""

    def __init__(self, accounts: Accounts, cookie: str, head: str) -> None:
        self._accounts = accounts
        self._cookie = cookie
        self._head = head
        self._oidc_cookie = cookie.replace("session", "oidc")

    # --- in -------------------------------------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        """GET /sign-in: with `token`, sign in by the link; else show the form."""
        token = request.query_params.get("token")
        if token is None or request.method != "GET":  # whoever only looks at the link (HEAD) does not use it up
            return await self.form("")
        return await self._with_token(request, token, _USED)

    async def submit(self, request: Request) -> Response:
        """POST /sign-in: name and password, or the pasted token."""
        fields = await _fields(request)
        if fields is None:
            return await self.form("That is too long to be a password or a token.", 400)
        if "token" in fields:
            refusal = "That token is not valid. Copy the whole line of the file."
            return await self._with_token(request, fields["token"].strip(), refusal)
        name, password = fields.get("name", ""), fields.get("password", "")
        address, agent = _from(request)
        try:
            secret = await to_thread(self._accounts.sign_in.with_password, name, password, address=address, agent=agent)
        except TooManyAttemptsError as error:
            answer = await self.form(f"Too many wrong attempts. Try again in {error.left_s} s.", 429, name)
            answer.headers["retry-after"] = str(error.left_s)
            return answer
        except RejectedError:
            return await self.form("Name or password is wrong.", 403, name)
        return self.enter(request, secret)

    async def _with_token(self, request: Request, token: str, refusal: str) -> Response:
        address, agent = _from(request)
        secret = await to_thread(self._accounts.redeem, token, address=address, agent=agent) if token else None
        return await self.form(refusal, 403) if secret is None else self.enter(request, secret)

    def enter(self, request: Request, secret: str) -> Response:
        """Return the answer that signs a browser in, and sends it to the page that it came for."""
        wanted = cookie_name(wanted_cookie(self._cookie), request.url.scheme)
        answer = RedirectResponse(own_page(unquote(request.cookies.get(wanted, "/"))), 303)
        answer.headers["set-cookie"] = cookie_header(cookie_name(self._cookie, request.url.scheme), secret)
        answer.headers.append("set-cookie", f"{cookie_header(wanted, '')}; Max-Age=0")
        return answer

    async def leave(self, request: Request) -> Response:
        """POST /sign-out: end the session, and forget it in this browser."""
        name = cookie_name(self._cookie, request.url.scheme)
        await to_thread(self._accounts.sign_out, request.cookies.get(name, ""))
        answer = RedirectResponse("/sign-in", 303)
        answer.headers["set-cookie"] = f"{cookie_header(name, '')}; Max-Age=0"
        answer.headers.append("set-cookie", f"{tenant_cookie(request)}=; Path=/; Max-Age=0")
        return answer

    # --- in at the OIDC provider ----------------------------------------------------------------------------------

    async def go_to_provider(self, request: Request) -> Response:
        """GET /sign-in/oidc: to the provider, with a cookie that says who began."""
        oidc = self._accounts.oidc
        if oidc is None:
            return await self.form("There is no other way to sign in here.", 404)
        try:
            where, state = await to_thread(oidc.begin, _callback(request))
        except GodwitError as error:
            return await self.form(f"Signing in with {oidc.settings.name} does not work now: {error}.", 503)
        answer = RedirectResponse(where, 303)
        name = cookie_name(self._oidc_cookie, request.url.scheme)
        answer.headers["set-cookie"] = f"{cookie_header(name, state)}; Max-Age=600"
        return answer

    async def come_back(self, request: Request) -> Response:
        """GET /sign-in/oidc/callback: from the provider."""
        oidc = self._accounts.oidc
        if oidc is None:
            return await self.form("There is no other way to sign in here.", 404)
        address, agent = _from(request)
        name = cookie_name(self._oidc_cookie, request.url.scheme)
        query, state = dict(request.query_params), request.cookies.get(name, "")
        try:
            secret = await to_thread(oidc.finish, query, state, address=address, agent=agent)
        except GodwitError as error:
            status = 403 if isinstance(error, RejectedError) else 503
            return await self.form(f"{str(error)[:1].upper()}{str(error)[1:]}.", status)
        answer = self.enter(request, secret)
        answer.headers.append("set-cookie", f"{cookie_header(name, '')}; Max-Age=0")
        return answer

    async def signed_out(self, request: Request) -> Response:
        """POST /sign-in/oidc/logout: the provider says who has signed out there (back-channel logout)."""
        oidc, fields = self._accounts.oidc, await _fields(request, LOGOUT_BYTES_MAX)
        token = (fields or {}).get("logout_token", "")
        if oidc is None or not token:
            return JSONResponse({"error": "invalid_request"}, 400, headers=_NOT_KEPT)
        try:
            await to_thread(oidc.log_out, token, address=_from(request)[0])
        except RejectedError as error:
            told = {"error": "invalid_request", "error_description": str(error)}
            return JSONResponse(told, 400, headers=_NOT_KEPT)
        except UnavailableError as error:
            return JSONResponse({"error": "temporarily_unavailable", "error_description": str(error)}, 503)
        return Response(status_code=200, headers=_NOT_KEPT)

    # --- a new password -------------------------------------------------------------------------------------------

    async def show_password(self, request: Request) -> Response:
        """GET /password."""
        return self._password_form("", must_change=known_of(request).must_change)

    async def submit_password(self, request: Request) -> Response:
        """POST /password: all other sessions end, and this one gets a new secret."""
        known, fields = known_of(request), await _fields(request)
        if fields is None:
            return self._password_form("That is too long to be a password.", must_change=known.must_change, status=400)
        old, new = fields.get("old", ""), fields.get("new", "")
        if new != fields.get("again", ""):
            trouble = "The new password was not typed twice alike."
            return self._password_form(trouble, must_change=known.must_change, status=400)
        try:
            await to_thread(self._accounts.change_own_password, known.principal, old, new, keep_session=known.session)
        except GodwitError as error:
            return self._password_form(f"{str(error)[:1].upper()}{str(error)[1:]}.", known.must_change, 403)
        name = cookie_name(self._cookie, request.url.scheme)
        secret = await to_thread(self._accounts.replace_secret, request.cookies.get(name, ""), at_once=True)
        return self.enter(request, secret)

    def _password_form(self, trouble: str, must_change: bool, status: int = 200) -> Response:  # noqa: FBT001
        why = (
            "Your password was given to you by somebody else. Choose one of your own."
            if must_change
            else "Your other sessions end; your tokens stay."
        )
        back = "" if must_change else '<a class="btn" href="/account">Back</a>'
        return self._page(
            "New password",
            f'<p class="soft">{why}</p>{_note(trouble)}<form method="post" action="/password">'
            + _field("Present password", "old", "current-password", autofocus=True)
            + _field(f"New password, at least {CHARACTERS_MIN} characters", "new", "new-password")
            + _field("Once more", "again", "new-password")
            + f'<button class="btn primary">Change password</button>{back}</form>',
            status,
        )

    # --- the form -------------------------------------------------------------------------------------------------

    async def form(self, trouble: str, status: int = 200, name: str = "") -> Response:
        """Return the sign-in page."""
        oidc = self._accounts.oidc
        other = f'<a class="btn" href="/sign-in/oidc">Sign in with {parts.text(oidc.settings.name)}</a>' if oidc else ""
        # while nobody has a name, the way in is the token
        is_first = not await to_thread(self._accounts.users.are_any)
        focus = "" if name or is_first else " autofocus"
        fields = (
            '<label>Name<input class="field" name="name" required autocomplete="username" maxlength="128" '
            f'autocapitalize="none" spellcheck="false" value="{parts.text(name)}"{focus}></label>'
            + _field("Password", "password", "current-password", autofocus=bool(name))
        )
        return self._page(
            "Sign in",
            f'{_note(trouble)}<form method="post" action="/sign-in">{fields}<button class="btn primary">Sign in'
            f"</button></form>{other}{_token_form(is_first=is_first)}",
            status,
        )

    def _page(self, title: str, body: str, status: int) -> Response:
        page = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} · godwit</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">{self._head}</head><body>'
            f'<main class="gate"><div class="card"><div class="brand">{parts.LOGO}<span>godwit</span></div>'
            f"<h1>{title}</h1>{body}</div></main></body></html>"
        )
        return HTMLResponse(page, status, headers={"cache-control": "no-store"})


def _token_form(*, is_first: bool) -> str:
    opened, focus = (" open", " autofocus") if is_first else ("", "")
    return (
        f'<details class="other"{opened}><summary>With the admin token</summary><p class="soft">Open the sign-in link '
        "that the platform printed when it started, or paste the admin token from "
        '<code class="mono">admin-token</code> in its data directory.</p><form method="post" action="/sign-in">'
        '<label>Admin token<input class="field mono" type="password" name="token" required autocomplete="off" '
        f'maxlength="512"{focus}></label><button class="btn">Sign in with the token</button></form></details>'
    )


def _field(label: str, name: str, complete: str, *, autofocus: bool = False) -> str:
    focus = " autofocus" if autofocus else ""
    return (
        f'<label>{label}<input class="field" type="password" name="{name}" required autocomplete="{complete}" '
        f'maxlength="256"{focus}></label>'
    )


def _note(trouble: str) -> str:
    return f'<p class="note-block bad" role="alert">{parts.text(trouble)}</p>' if trouble else ""


def _callback(request: Request) -> str:
    return f"{request.url.scheme}://{request.headers.get('host', '')}/sign-in/oidc/callback"


def _from(request: Request) -> tuple[str, str]:
    return request.client.host if request.client else "", request.headers.get("user-agent", "")


async def _fields(request: Request, bytes_max: int = _FORM_BYTES_MAX) -> dict[str, str] | None:
    """Return the form's fields; None for more than a form of ours has."""
    try:
        return await posted(request, bytes_max)
    except RejectedError:
        return None
