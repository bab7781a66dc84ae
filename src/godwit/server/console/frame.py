"""The frame around every page: navigation, banners, the screen that pushes, and the road for clicks."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from time import monotonic, time_ns
from typing import Any, Final, ParamSpec, TypeVar, cast

from nicegui import run, ui
from nicegui.events import GenericEventArguments
from starlette.requests import Request

from godwit.contract.errors import GodwitError, RejectedError
from godwit.server.accounts.principal import Principal
from godwit.server.console import parts
from godwit.server.console.screen import Screen
from godwit.server.console.session import chosen_tenant, known_of, narrowed, tenant_cookie, whole_of
from godwit.server.platform import Platform

P = ParamSpec("P")
T = TypeVar("T")
Act = Callable[[str], Awaitable[None]]

ARGUMENT_MAX: Final = 24_000
"""Characters of what a form says: a certificate and its terms."""
_CHECK_S: Final = 30.0
"""How often an open page asks whether its session still is one, where nothing has changed meanwhile."""

_PAGES: Final = (
    ("/", "overview", "Overview"),
    ("/devices", "devices", "Devices"),
    ("/enrollment", "enrollment", "Enrollment"),
    ("/certificates", "certificates", "Certificates"),
    ("/quarantine", "quarantine", "Quarantine"),
    ("/clocks", "clocks", "Clocks"),
    ("/broker", "broker", "Broker"),
    ("/security", "security", "Security"),
    ("/access", "access", "Access"),
)
_OF_ADMINISTRATORS: Final = frozenset({"access", "security"})


class Frame:
    """One page in one tab. Build the page inside `with frame.main():`, then say what clicks do and what ticks."""

    def __init__(self, platform: Platform, request: Request, page: str, title: str) -> None:
        self.platform = platform
        self._known = known_of(request)
        self._cookie, self._chosen = tenant_cookie(request), chosen_tenant(request)
        self.who, self._whole = self._known.principal, whole_of(request)
        self._generation, self._checked = platform.accounts.generation, monotonic()
        self.query = request.query_params
        self._acts: dict[str, tuple[Act, str]] = {}
        client = ui.context.client
        client.title = f"{title} · godwit"
        self.screen = Screen(client)
        markup(navigation(self.who, page, self._switch()))
        ui.on("act", self._on_act)
        self.screen.call("clock", time_ns() // 1_000_000)
        self._main = ui.element("div").classes("main").props('role="main" id="main"')
        with self._main:
            markup(self._banners())
        markup(
            '<dialog class="sheet" id="sheet" aria-labelledby="sheet-title">'
            '<div class="in" id="sheet-in"></div></dialog>'
        )

    def main(self) -> AbstractContextManager[Any]:
        """Return the place where the page goes."""
        with self._main:
            wrap: AbstractContextManager[Any] = ui.element("div").classes("wrap")
        return wrap

    @property
    def session(self) -> str:
        """The session that shows the page."""
        return self._known.session

    def acting_anywhere(self, role: str) -> Principal:
        """Return who asks, as far as he has `role` in any tenant, whichever of them is looked at."""
        self._whole.require(role)
        return self._whole.limited_to(role)

    def may(self, role: str) -> bool:
        """Whether to show what `role` may do: it is refused to the others."""
        return self.who.is_at_least(role)

    def acting(self, role: str) -> Principal:
        """Return who asks, as far as he has `role`. Raises RejectedError (`forbidden`)."""
        self.who.require(role)
        return self.who.limited_to(role)

    def on(self, act: str, do: Act, role: str = "viewer") -> None:
        """Let `do` answer buttons and fields of the name `act`, where the person has `role`."""
        self._acts[act] = (do, role)

    def tick(self, every_s: float, do: Callable[[], Awaitable[None]]) -> None:
        """Call `do` at this interval and push what it changed. One per page."""

        async def ticked() -> None:
            if await self._is_in():
                await self.do(do())

        ui.timer(every_s, ticked, immediate=False)

    async def _on_act(self, event: GenericEventArguments) -> None:
        told = event.args if isinstance(event.args, dict) else {}
        name = str(told.get("act"))
        do, role = self._acts.get(name, (None, ""))
        if do is not None and await self._is_in(is_active=True):
            await self.do(self._as(role, name, do, str(told.get("arg", ""))[:ARGUMENT_MAX]))

    async def _as(self, role: str, act: str, do: Act, argument: str) -> None:
        """Do it where the person has the role: a button that was not shown may still be pressed by a forger."""
        try:
            self.who.require(role)
        except RejectedError as error:
            about = f"{ui.context.client.page.path}: {act}"
            await in_thread(self._refuse, about, error.code)
            raise
        await do(argument)

    def _refuse(self, about: str, code: str) -> None:
        refusals = self.platform.accounts.refusals
        refusals.note(self.who.name, "request.refuse", about, code=code, address=self.who.address)

    async def _is_in(self, *, is_active: bool = False) -> bool:
        """Whether the session still is one; if not, or with other rights than it began with, the page is left."""
        accounts = self.platform.accounts
        generation, now = accounts.generation, monotonic()
        if generation == self._generation and now - self._checked < _CHECK_S:
            return True
        self._generation, self._checked = generation, now
        known = await in_thread(accounts.session, self._known.session, is_active=is_active)
        who = None if known is None else narrowed(known.principal, self._chosen)
        mine = self.who
        if who is not None and (who.role, who.tenants, who.roles) == (mine.role, mine.tenants, mine.roles):
            return True
        self._acts.clear()
        ui.run_javascript("location.assign('/sign-in')")
        return False

    async def do(self, work: Awaitable[None]) -> None:
        """Do `work`; what the platform refuses is told to the person, who may act on it."""
        try:
            await work
        except GodwitError as error:
            self.screen.call("toast", str(error))
        self.screen.put("banner-trouble", self._trouble())
        self.screen.flush()

    def _switch(self) -> str:
        """Return the choice of a tenant, for who has several."""
        whole = self._whole.tenants
        names = self.platform.registry.tenancy.names() if whole is None else list(whole)
        if len(names) < 2:
            return ""
        choices = [("", "All tenants"), *((each, each) for each in names)]
        chosen = self._chosen if self.who.tenants != whole else ""
        return parts.tenant_switch(choices, chosen, self._cookie)

    def _banners(self) -> str:
        return self.screen.sent("banner-trouble", self._trouble()) + self._local()

    def _local(self) -> str:
        settings = self.platform.settings
        where = parts.text(f"{settings.mqtt_host}:{settings.mqtt_port}")
        if settings.mqtt_broker == "external":
            return (
                f'<div class="banner" id="banner-foreign">{parts.icon("warn")}<span>Behind the broker at '
                f"<code>{where}</code>: a device without numbered samples has that broker's guarantees; the others "
                "learn from <code>telemetry/stored</code> what is safe.</span></div>"
            )
        if not settings.local_listener:
            return ""
        websocket = f"ws://{settings.mqtt_host}:{settings.mqtt_ws_port}/mqtt"
        also = f", and over WebSocket on <code>{parts.text(websocket)}</code>" if settings.mqtt_ws_port else ""
        return (
            f'<div class="banner" id="banner-local">{parts.icon("warn")}<span>Plaintext MQTT is open on '
            f"<code>{where}</code>{also}, for trying things out. Turn it off with <code>LOCAL_LISTENER=false</code>."
            "</span></div>"
        )

    def _trouble(self) -> str:
        return "".join(
            f'<div class="banner bad" role="alert">{parts.icon("warn")}<span>{parts.text(each)}</span></div>'
            for each in self.platform.trouble()
        ) + "".join(
            f'<div class="banner" role="status">{parts.icon("warn")}<span>{parts.text(each)}</span></div>'
            for each in self.platform.warnings(self.who)
        )


def navigation(who: Principal, page: str, switch: str = "") -> str:
    """Return the strip of pages that somebody may see, with the one that is open. `switch`: of tenants."""
    is_admin = who.is_at_least("admin")
    links = "".join(
        f'<a href="{href}"{" aria-current=page" if name == page else ""}>{parts.icon(name)}<span>{words}</span></a>'
        for href, name, words in _PAGES
        if name not in _OF_ADMINISTRATORS or is_admin
    )
    own = "page" if page == "account" else "false"
    return (
        f'<a class="skip" href="#main">Skip to content</a>{switch}<nav class="side" aria-label="Pages">'
        f'<a class="brand" href="/">{parts.LOGO}<span>godwit</span></a><div class="nav">{links}</div>'
        f'<div class="side-foot"><a href="/account" aria-current="{own}" title="{parts.text(who.name)}">'
        f'{parts.icon("account")}<span class="cut">{parts.text(who.name)}</span></a>'
        f"<button data-theme-toggle>{parts.icon('theme')}<span>Theme</span></button>"
        f'<form method="post" action="/sign-out"><button>{parts.icon("leave")}<span>Sign out</span></button></form>'
        "</div></nav>"
    )


async def in_thread(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Run blocking `work` apart from the event loop."""
    # NiceGUI answers None only while it is shutting down; then nobody sees what is made of it
    return cast("T", await run.io_bound(work, *arguments, **named))


def markup(html: str) -> None:
    """Put markup of our own making on the page; what strangers sent was escaped in `parts`."""
    ui.html(html, sanitize=False).classes("bare")
