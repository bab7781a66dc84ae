"""`/account`: who am I here, where am I signed in, and which programs act for me."""

from nicegui import ui
from starlette.requests import Request

from godwit.server.accounts.model import ADMINISTRATOR, Session
from godwit.server.accounts.principal import grants_of
from godwit.server.console import parts
from godwit.server.console.frame import Frame, in_thread, markup
from godwit.server.console.token_parts import grants, make_token, shown_once, token_form, tokens_table
from godwit.server.platform import Platform

TICK_S = 5.0


def register(platform: Platform) -> None:
    """Put the page up."""

    @ui.page("/account", title="My account · godwit")
    async def page(request: Request) -> None:
        await _Page(Frame(platform, request, "account", "My account")).show()


class _Page:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._accounts = frame.platform.accounts

    def _load(self) -> tuple[str, str]:
        who, accounts = self._frame.who, self._accounts
        sessions = accounts.sessions.sessions(who.account)
        mine = [each for each in accounts.tokens.tokens(who) if not each.revoked]
        return render_sessions(sessions, self._frame.session), tokens_table(mine, with_owner=False)

    async def show(self) -> None:
        """Build the page."""
        frame, screen, who = self._frame, self._frame.screen, self._frame.who
        sessions, tokens = await in_thread(self._load)
        is_first = who.account == ADMINISTRATOR
        change = "" if is_first else '<a class="btn" href="/password">Change password</a>'
        what = (
            '<p class="soft">You signed in with the link or the token of the first start. '
            'Add a user for yourself under <a class="link" href="/access">Access</a>.</p>'
            if is_first
            else ""
        )
        with frame.main():
            markup(
                f'<div class="head"><div><h1>{parts.text(who.name)}</h1><div class="sub">{grants(grants_of(who))}</div>'
                f'</div><div class="bar">{change}<form method="post" action="/sign-out">'
                '<button class="btn">Sign out</button>'
                f"</form></div></div>{what}"
                f"{parts.card('Signed in', screen.sent('sessions', sessions), flush=True)}"
                f"{parts.card('My tokens', screen.sent('tokens', tokens), flush=True)}"
                f"{parts.card('Make a token', token_form(who))}"
            )
        frame.on("make-token", self._make_token)
        frame.on("revoke", self._revoke)
        frame.on("end-session", self._end_session)
        frame.tick(TICK_S, self._refresh)
        screen.flush()

    async def _refresh(self) -> None:
        sessions, tokens = await in_thread(self._load)
        self._frame.screen.put("sessions", sessions)
        self._frame.screen.put("tokens", tokens)

    async def _make_token(self, argument: str) -> None:
        made = await in_thread(make_token, self._accounts, self._frame.who, argument)
        why = "Copy it now: it is shown this once, and nobody can find it out again."
        self._frame.screen.open_sheet(shown_once(made.token.name, made.secret, why))
        await self._refresh()

    async def _revoke(self, argument: str) -> None:
        await in_thread(self._accounts.tokens.revoke, self._frame.who, argument)
        self._frame.screen.call("toast", "Revoked")
        await self._refresh()

    async def _end_session(self, argument: str) -> None:
        await in_thread(self._accounts.end_session, self._frame.who, self._frame.who.account, argument)
        self._frame.screen.call("toast", "Signed out there")
        await self._refresh()


def render_sessions(sessions: list[Session], here: str) -> str:
    """Return sessions as a list."""
    return '<ul class="rows">' + "".join(_session(each, is_here=each.session_id == here) for each in sessions) + "</ul>"


def _session(session: Session, *, is_here: bool) -> str:
    sure = "Sign out in that browser?"
    end = (
        parts.badge("this browser", "good")
        if is_here
        else parts.button("Sign out", "end-session", session.session_id, classes="danger", sure=sure)
    )
    return (
        f'<li><span class="grow"><b>{parts.text(session.agent)}</b> <span class="faint mono">'
        f'{parts.text(session.address)}</span><br><small class="faint">since {parts.age(session.created)}, '
        f"last seen {parts.age(session.seen)}</small></span>{end}</li>"
    )
