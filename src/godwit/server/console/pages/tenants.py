"""`/tenants`: who shares the platform, what each uses of what it may. For administrators of all tenants."""

from typing import Final

from nicegui import ui
from starlette.requests import Request

from godwit.contract.ids import TenantId
from godwit.server.console import parts, tenant_parts
from godwit.server.console.cached import Cached
from godwit.server.console.forms import form_of
from godwit.server.console.frame import Frame, in_thread, markup
from godwit.server.console.pages.access import head
from godwit.server.platform import Platform, TenantUse
from godwit.server.registry.model import Tenant

TICK_S: Final = 2.0
SEARCH_FROM: Final = 7
"""So many tenants, and there is something to search."""


def register(platform: Platform) -> None:
    """Put the page up."""
    looks: Cached[tuple[list[Tenant], dict[str, TenantUse]]] = Cached(1.0)

    @ui.page("/tenants", title="Tenants · godwit")
    async def page(request: Request) -> None:
        frame = Frame(platform, request, "access", "Tenants")
        if frame.may("admin") and frame.who.limited_to("admin").tenants is None:
            await _Page(frame, looks).show()
            return
        with frame.main():
            nothing = parts.empty("Not for you", "Who administers all tenants adds and limits them.", name="access")
            markup(f'<div class="head"><h1>Tenants</h1></div>{parts.card("", nothing)}')


class _Page:
    def __init__(self, frame: Frame, looks: Cached[tuple[list[Tenant], dict[str, TenantUse]]]) -> None:
        self._frame, self._platform, self._looks = frame, frame.platform, looks
        self._tenancy = frame.platform.registry.tenancy
        self._search = frame.query.get("q", "")[:64]

    def _look(self) -> tuple[list[Tenant], dict[str, TenantUse]]:
        tenants = self._tenancy.all(self._frame.acting("admin"))
        return tenants, self._platform.use_of(tenants)

    def _load(self, *, is_new: bool = False) -> tuple[str, str]:
        tenants, uses = self._looks.get("all", self._look, 0.0 if is_new else None)
        settings = self._platform.settings
        near = sum(tenant_parts.fullest(each, uses[each.name], settings) >= tenant_parts.NEARLY for each in tenants)
        told = f"{len(tenants)} tenants" if len(tenants) > 1 else "1 tenant"
        told += f" · {parts.badge(f'{near} near a limit', 'warn')}" if near else ""
        return tenant_parts.render(tenants, uses, settings, self._search), f'<span class="faint num">{told}</span>'

    async def show(self) -> None:
        """Build the page."""
        frame, screen = self._frame, self._frame.screen
        cards, told = await in_thread(self._load)
        count = len(self._tenancy.names())
        search = parts.search("search", self._search, "Name") if count >= SEARCH_FROM or self._search else ""
        bar = f'<div class="bar">{search}{screen.sent("told", told)}</div>'
        add = parts.button("Add a tenant", "new", classes="primary")
        with frame.main():
            markup(f"{head('tenants', add, frame)}{bar}{screen.sent('tenants', cards)}")
        for act, do in (
            ("new", self._new), ("add-tenant", self._add), ("edit", self._edit), ("limit", self._limit),
            ("remove", self._remove), ("search", self._on_search),
        ):  # fmt: skip
            frame.on(act, do, "admin")
        frame.tick(TICK_S, self._refresh)
        screen.flush()

    async def _refresh(self) -> None:
        await self._put(*await in_thread(self._load))

    async def _put(self, cards: str, told: str) -> None:
        self._frame.screen.put("tenants", cards)
        self._frame.screen.put("told", told)

    async def _on_search(self, argument: str) -> None:
        self._search = argument.strip()[:64]
        self._frame.screen.call("address", parts.query({"q": self._search}))
        await self._refresh()

    async def _done(self, told: str) -> None:
        self._frame.screen.close_sheet(told)
        await self._put(*await in_thread(lambda: self._load(is_new=True)))

    async def _new(self, _argument: str) -> None:
        self._frame.screen.open_sheet(tenant_parts.add_form())

    async def _add(self, argument: str) -> None:
        name = TenantId(form_of(argument).get("name", ""))
        await in_thread(self._platform.registry.put_tenant, self._frame.who, name)
        await self._done(f"{name} is there: give somebody a role in it")

    async def _edit(self, argument: str) -> None:
        tenant = await in_thread(self._tenancy.get, self._frame.who, TenantId(argument))
        self._frame.screen.open_sheet(tenant_parts.quota_form(tenant, self._platform.settings))

    async def _limit(self, argument: str) -> None:
        fields = form_of(argument)
        name, changes = TenantId(fields.get("tenant", "")), tenant_parts.quota_from(fields)
        await in_thread(self._tenancy.set_quota, self._frame.who, name, changes)
        await self._done(f"The limits of {name} count from now on")

    async def _remove(self, argument: str) -> None:
        await in_thread(self._tenancy.remove, self._frame.who, TenantId(argument))
        await self._done(f"{argument} is removed")
