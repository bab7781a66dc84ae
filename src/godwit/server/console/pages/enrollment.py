"""`/enrollment`: how new devices get in: claims, rules, devices without owner, and what became of requests."""

from asyncio import to_thread
from time import time_ns
from typing import Final

import msgspec
from nicegui import app as nicegui_app
from nicegui import ui
from starlette.requests import Request
from starlette.responses import Response

from godwit.contract.errors import GodwitError, RejectedError
from godwit.contract.ids import DeviceId, TenantId
from godwit.server.accounts.principal import Principal
from godwit.server.console import enrollment_parts, parts
from godwit.server.console.forms import form_of, landing_of_form, listed, number, posted
from godwit.server.console.frame import Frame, in_thread, markup
from godwit.server.console.labels import Label, sheet
from godwit.server.console.plain import whole
from godwit.server.console.session import principal_of
from godwit.server.identity.claims import LIFETIME_DEFAULT_S, NewClaim
from godwit.server.identity.labels import link_of
from godwit.server.identity.model import ClaimKind, ClaimState, EnrollmentRule
from godwit.server.identity.outcomes import counts, outcomes
from godwit.server.platform import Platform
from godwit.server.registry.access import home

TICK_S: Final = 3.0
ROWS: Final = 50
FORM_BYTES_MAX: Final = 131_072
DAY_NS: Final = 86_400_000_000_000


def register(platform: Platform) -> None:
    """Put the page up."""

    @ui.page("/enrollment", title="Enrollment · godwit")
    async def page(request: Request) -> None:
        await _Page(Frame(platform, request, "enrollment", "Enrollment")).show()

    @nicegui_app.post("/enrollment/labels", include_in_schema=False)
    async def labels(request: Request) -> Response:
        who = principal_of(request)
        try:
            who.require("operator")
            said = await posted(request, FORM_BYTES_MAX)
            made = await to_thread(_labels, platform, who.limited_to("operator"), said)
        except GodwitError as error:
            return _refused(who, str(error))
        return whole("Labels", sheet(made), who=None)


def _labels(platform: Platform, who: Principal, said: dict[str, str]) -> list[Label]:
    """Return the label of a claim whose token is shown, or of new claims for ids. Blocks. Raises RejectedError."""
    claims = platform.identity.enrollment.claims
    if "token" in said:
        made = [(claims.shown(who, said["token"]), said["token"])]
    else:
        ids = list(dict.fromkeys(said.get("ids", "").split()))
        if not 0 < len(ids) <= enrollment_parts.LABELS_MAX:
            raise RejectedError(
                f"1 to {enrollment_parts.LABELS_MAX} device ids, one to a line; these are {len(ids)}",
                code="too-many-devices",
            )
        wanted = NewClaim(
            TenantId(said["tenant"]) if said.get("tenant") else None, said.get("name", "")[:128],
            lifetime_s=number(said, "lifetime", LIFETIME_DEFAULT_S), landing=landing_of_form(said),
        )  # fmt: skip
        made = claims.create_all(who, [msgspec.structs.replace(wanted, device_id=DeviceId(each)) for each in ids])
    return [Label(claim, link_of(platform.settings, platform.identity, claim, token)) for claim, token in made]


def _refused(who: Principal, said: str) -> Response:
    body = parts.card(
        "",
        parts.empty("No claim was made", f'<p>{parts.text(said)}</p><p class="bar" style="justify-content:center">'
        '<a class="btn" href="/enrollment">Back to Enrollment</a></p>', name="warn", big=True),
    )  # fmt: skip
    return whole("Enrollment", body, who=who, page="enrollment", status=422)


class _Page:
    def __init__(self, frame: Frame) -> None:
        self._frame, self._platform = frame, frame.platform
        self._enrollment = frame.platform.identity.enrollment

    async def show(self) -> None:
        """Build the page."""
        frame, screen = self._frame, self._frame.screen
        part = {name: screen.sent(name, html) for name, html in (await in_thread(self._draw)).items()}
        tiles = "".join(
            f'<div class="card stat"><span class="label">{label}</span>{part[name]}</div>'
            for label, name in enrollment_parts.TILES
        )
        buttons = (
            f'<a class="btn" href="/device">Enter a device&rsquo;s code</a>{parts.button("New rule", "new-rule")}'
            f"{parts.button('Claims for many', 'new-claims')}"
            f"{parts.button('New claim', 'new-claim', classes='primary')}"
            if self._may_change
            else ""
        )
        with frame.main():
            markup(
                '<div class="head"><div><h1>Enrollment</h1><div class="sub"><span>How a device gets its certificate: '
                "by a claim, a factory certificate, an owner&rsquo;s word, or an operator.</span></div></div>"
                f'<div class="bar">{buttons}</div></div><div class="stats">{tiles}</div>'
                f"{parts.card('Waiting for an owner', part['unclaimed'], flush=True)}"
                f"{parts.card('Claims', part['claims'], flush=True)}"
                f"{parts.card('Rules: where new devices land', part['rules'], flush=True)}"
                f"{parts.card('Last requests', part['outcomes'], flush=True)}"
            )
        for act, do in (
            ("new-claim", self._new_claim), ("make-claim", self._make_claim), ("revoke", self._revoke),
            ("new-rule", self._new_rule), ("make-rule", self._make_rule), ("remove-rule", self._remove_rule),
            ("claim", self._claim), ("new-claims", self._new_claims),
        ):  # fmt: skip
            frame.on(act, do, "operator")
        frame.tick(TICK_S, self._refresh)

    @property
    def _may_change(self) -> bool:
        return self._frame.may("operator")

    def _acting(self) -> Principal:
        return self._frame.acting("operator")

    def _draw(self) -> dict[str, str]:
        """Return all parts by their id. Blocks."""
        who, may, enrollment = self._frame.who, self._may_change, self._enrollment
        claims = enrollment.claims.all(who, limit=200)
        now = time_ns()
        open_ones = [
            each for each in claims if each.state is ClaimState.OPEN and (not each.expires or each.expires > now)
        ]
        waiting = self._platform.registry.devices(
            who, lifecycle="unclaimed", sort="lastSeen", descending=True, limit=ROWS
        )
        granted, refused = counts(self._platform.database, who, now - DAY_NS)
        return enrollment_parts.tiles(len(open_ones), waiting.total, granted, refused) | {
            "claims": enrollment_parts.claims(claims[:ROWS], may_change=may),
            "rules": enrollment_parts.rules(enrollment.rules.all(who), may_change=may),
            "unclaimed": enrollment_parts.unclaimed(waiting.items, waiting.total, may_change=may),
            "outcomes": enrollment_parts.outcomes(outcomes(self._platform.database, who, ROWS)),
        }

    async def _refresh(self) -> None:
        for name, html in (await in_thread(self._draw)).items():
            self._frame.screen.put(name, html)

    async def _tenants(self) -> tuple[list[str], str]:
        who = self._acting()
        return [str(each) for each in await in_thread(self._platform.registry.tenants, who)], str(home(who))

    async def _new_claim(self, _arg: str) -> None:
        self._frame.screen.open_sheet(enrollment_parts.claim_form(*await self._tenants()))

    async def _new_claims(self, _arg: str) -> None:
        self._frame.screen.open_sheet(enrollment_parts.claims_form(*await self._tenants()))

    async def _new_rule(self, _arg: str) -> None:
        self._frame.screen.open_sheet(enrollment_parts.rule_form(*await self._tenants()))

    async def _make_claim(self, arg: str) -> None:
        said = form_of(arg)
        wanted = NewClaim(
            TenantId(said["tenant"]) if said.get("tenant") else None,
            said.get("name", "")[:128],
            ClaimKind.FLEET if said.get("kind") == "fleet" else ClaimKind.ONE_TIME,
            DeviceId(said["device"]) if said.get("device") else None,
            listed(said.get("ids", "")),
            number(said, "uses", 1) if said.get("uses") else None,
            number(said, "lifetime", LIFETIME_DEFAULT_S),
            landing_of_form(said),
        )
        claim, token = await in_thread(self._enrollment.claims.create, self._acting(), wanted)
        link = await in_thread(link_of, self._platform.settings, self._platform.identity, claim, token)
        self._frame.screen.open_sheet(enrollment_parts.shown_once(Label(claim, link)))
        await self._refresh()

    async def _revoke(self, arg: str) -> None:
        await in_thread(self._enrollment.claims.revoke, self._acting(), arg[:32])
        self._frame.screen.call("toast", "Revoked")
        await self._refresh()

    async def _make_rule(self, arg: str) -> None:
        said, who = form_of(arg), self._acting()
        if not said.get("name", "").strip():
            raise RejectedError("a rule has a name", code="invalid-name")
        rule = EnrollmentRule(
            said["name"].strip()[:64],
            TenantId(said["tenant"]) if said.get("tenant") else home(who),
            number(said, "position", 0),
            said.get("ids", "*").strip() or "*",
            landing=landing_of_form(said),
        )
        await in_thread(self._enrollment.rules.put, who, rule)
        self._frame.screen.close_sheet(f"New devices like {rule.ids} land by {rule.name}")
        await self._refresh()

    async def _remove_rule(self, arg: str) -> None:
        tenant, _, name = arg.partition("/")
        await in_thread(self._enrollment.rules.delete, self._acting(), TenantId(tenant), name)
        self._frame.screen.call("toast", "Removed")
        await self._refresh()

    async def _claim(self, arg: str) -> None:
        device = await in_thread(self._platform.identity.custody.claim, self._acting(), DeviceId(arg[:64]))
        self._frame.screen.call("toast", f"{device.device_id} is {device.tenant}'s")
        await self._refresh()
