"""`/security`: the security audit: what is weak in the fleet and the platform, why it matters, and what to do."""

from typing import Final

from nicegui import ui
from starlette.requests import Request

from godwit.server.accounts.principal import Principal
from godwit.server.checks.audit import Audit, audit
from godwit.server.checks.facts import gather
from godwit.server.checks.model import Severity
from godwit.server.console import parts
from godwit.server.console.cached import Cached
from godwit.server.console.frame import Frame, in_thread, markup
from godwit.server.console.security_parts import render
from godwit.server.platform import Platform

TICK_S: Final = 60.0
KEEP_S: Final = 50.0


def register(platform: Platform) -> None:
    """Put the page up."""
    looks: Cached[Audit] = Cached(KEEP_S)

    @ui.page("/security", title="Security · godwit")
    async def page(request: Request) -> None:
        frame = Frame(platform, request, "security", "Security")
        if not frame.who.is_at_least("admin"):
            with frame.main():
                nothing = parts.empty("Not for you", "What is weak is for administrators to know and to put right.")
                markup(f'<div class="head"><h1>Security</h1></div>{parts.card("", nothing)}')
            return
        await _Page(frame, platform, looks).show()


class _Page:
    def __init__(self, frame: Frame, platform: Platform, looks: Cached[Audit]) -> None:
        self._frame, self._platform, self._looks = frame, platform, looks
        wanted = frame.query.get("severity", "")
        self._severity = wanted if wanted in list(Severity) else ""

    def _look(self, *, is_new: bool = False) -> Audit:
        who: Principal = self._frame.who
        return self._looks.get(
            who.tenants,
            lambda: audit(gather(self._platform, who), is_whole=who.tenants is None),
            0.0 if is_new else None,
        )

    async def show(self) -> None:
        """Build the page."""
        frame, screen = self._frame, self._frame.screen
        drawn = render(await in_thread(self._look), self._severity)
        part = {name: screen.sent(name, html) for name, html in drawn.items()}
        with frame.main():
            markup(
                f'<div class="head"><div><h1>Security</h1><div class="sub">{part["looked"]}</div></div>'
                f'<div class="bar">{parts.button("Look again", "again")}</div></div>'
                f"{part['tiles']}{part['filters']}{part['findings']}{part['passed']}"
            )
        frame.on("severity", self._on_severity)
        frame.on("again", self._on_again)
        frame.tick(TICK_S, self._show_anew)

    async def _show_anew(self) -> None:
        await self._put(await in_thread(self._look))

    async def _put(self, found: Audit) -> None:
        for name, html in render(found, self._severity).items():
            self._frame.screen.put(name, html)

    async def _on_severity(self, arg: str) -> None:
        self._severity = arg if arg in list(Severity) else ""
        self._frame.screen.call("address", parts.query({"severity": self._severity}))
        await self._show_anew()

    async def _on_again(self, _arg: str) -> None:
        found = await in_thread(lambda: self._look(is_new=True))
        await self._put(found)
        self._frame.screen.call("toast", "Looked again")
