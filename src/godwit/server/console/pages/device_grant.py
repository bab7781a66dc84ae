"""`/device`: the owner of a device types the code that it shows, and says whether it may come in (RFC 8628)."""

from nicegui import ui
from starlette.requests import Request

from godwit.contract.errors import RejectedError
from godwit.contract.ids import TenantId
from godwit.server.accounts.principal import Principal
from godwit.server.console import enrollment_parts, parts
from godwit.server.console.forms import form_of, listed
from godwit.server.console.frame import Frame, in_thread, markup
from godwit.server.identity.device_grant import normal, shown
from godwit.server.platform import Platform
from godwit.server.registry.access import home


def register(platform: Platform) -> None:
    """Put the page up."""

    @ui.page("/device", title="Connect a device · godwit")
    async def page(request: Request) -> None:
        frame = Frame(platform, request, "enrollment", "Connect a device")
        await _Page(frame, frame.query.get("user_code", "")).show()


class _Page:
    def __init__(self, frame: Frame, code: str) -> None:
        self._frame, self._platform = frame, frame.platform
        self._grants = frame.platform.identity.grants
        self._code = shown(normal(code)) if normal(code) else ""

    async def show(self) -> None:
        """Build the page. A code in the address is filled in, not sent: a link alone decides nothing."""
        frame = self._frame
        card = frame.screen.sent("grant", enrollment_parts.grant_form(self._code, ""))
        if not frame.may("operator"):
            card = parts.card("", parts.empty("Not for you", "An operator connects devices: ask one."))
        with frame.main():
            markup(
                '<div class="head"><div><a class="crumb" href="/enrollment">Enrollment</a><h1>Connect a device</h1>'
                '<div class="sub"><span>A device with a screen shows a code: who types it here says whose the device '
                f'is.</span></div></div></div><div style="max-width:560px">{card}</div>'
            )
        for act, do in (("look", self._look), ("approve", self._approve), ("deny", self._deny)):
            frame.on(act, do, "operator")

    def _acting(self) -> Principal:
        return self._frame.acting("operator")

    async def _look(self, arg: str) -> None:
        code, who = form_of(arg).get("code", ""), self._acting()
        try:
            grant = await in_thread(self._grants.look, who, code)
        except RejectedError as error:
            self._frame.screen.put("grant", enrollment_parts.grant_form(code[:16], str(error)))
            return
        tenants = [str(each) for each in await in_thread(self._platform.registry.tenants, who)]
        exists = await in_thread(self._grants.device, who, grant.device_id) is not None
        self._frame.screen.put(
            "grant",
            enrollment_parts.grant_question(grant, shown(normal(code)), tenants, str(home(who)), exists=exists),
        )

    async def _approve(self, arg: str) -> None:
        said = form_of(arg)
        tenant = TenantId(said["tenant"]) if said.get("tenant") else None
        groups = listed(said.get("groups", ""))
        grant = await in_thread(
            self._grants.decide, self._acting(), said.get("code", ""), approve=True, tenant=tenant, groups=groups
        )
        self._frame.screen.put("grant", enrollment_parts.grant_done(grant))

    async def _deny(self, arg: str) -> None:
        grant = await in_thread(self._grants.decide, self._acting(), arg, approve=False)
        self._frame.screen.put("grant", enrollment_parts.grant_done(grant))
