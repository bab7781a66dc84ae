"""`/quarantine`: what was refused, why, and what to do about it. It is looked at, replayed or purged; never dropped."""

from typing import NamedTuple

from nicegui import app as nicegui_app
from nicegui import ui
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from godwit.contract.errors import RejectedError
from godwit.server.accounts.acts import record_act
from godwit.server.accounts.principal import Principal
from godwit.server.console import parts, words
from godwit.server.console.frame import Frame, in_thread, markup
from godwit.server.console.reasons import REASONS, reason
from godwit.server.console.session import principal_of
from godwit.server.platform import Platform
from godwit.server.registry.access import sees
from godwit.server.telemetry.model import Quarantined

PAGE_ROWS = 50
PURGE_MAX = 10_000
TICK_S = 2.0
IDLE_TICKS = 5


class Wanted(NamedTuple):
    """Which messages are listed; it stands in the page's address."""

    device_id: str = ""
    code: str = ""


def may_see(who: Principal, message: Quarantined | None) -> Quarantined:
    """Return the message if it exists and `who` may see it. Raises RejectedError (not-found) otherwise."""
    if message is None or not sees(who, message.tenant):
        raise RejectedError("That message is no longer in quarantine.", code="not-found")
    return message


def register(platform: Platform) -> None:
    """Put the page up, and the road by which a payload is downloaded."""

    @ui.page("/quarantine", title="Quarantine · godwit")
    async def page(request: Request) -> None:
        await _Page(Frame(platform, request, "quarantine", "Quarantine")).show()

    @nicegui_app.get("/quarantine/{number}/payload", include_in_schema=False)
    def payload(number: int, request: Request) -> Response:
        try:
            message = may_see(principal_of(request), platform.store.quarantined(number))
        except RejectedError as error:
            return PlainTextResponse(f"{error}\n", 404)
        # always a download: the bytes are a stranger's, and must not run as a page of ours
        name = f"quarantine-{number}.bin"
        return Response(
            message.payload,
            media_type="application/octet-stream",
            headers={"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"},
        )


class _Page:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._platform = frame.platform
        query = frame.query
        self._wanted = Wanted(
            query.get("device", "")[:64], query.get("code", "") if query.get("code") in REASONS else ""
        )
        self._befores: list[int | None] = [None]
        self._rows: list[Quarantined] = []
        self._refused = -1
        self._ticks = 0

    def _load(self) -> list[Quarantined]:
        """Ask for one row more than a page shows: it says whether there is a next page. Blocks."""
        return self._platform.store.quarantine(
            tenants=self._frame.who.tenants,
            device_id=self._wanted.device_id or None,
            code=self._wanted.code or None,
            before=self._befores[-1],
            limit=PAGE_ROWS + 1,
        )

    async def show(self) -> None:
        """Build the page."""
        frame, screen = self._frame, self._frame.screen
        self._rows = await in_thread(self._load)
        bar = (
            '<div class="bar">'
            + parts.search("device", self._wanted.device_id, "Device id")
            + parts.select(
                "code", [("", "Reason"), *((each, each) for each in sorted(REASONS))], self._wanted.code, "Reason"
            )
            + "</div>"
        )
        with frame.main():
            markup(
                '<div class="head"><div><h1>Quarantine</h1><div class="sub">Messages that could not be '
                "accepted, kept whole. "
                "Correct the cause, then replay.</div></div><div "
                f'class="bar">{screen.sent("purge-all", self._purge_button())}</div></div>'
                f'{bar}<section class="card">{screen.sent("rows", self._drawn())}</section>',
            )
        for act, do in (
            ("device", self._on_device),
            ("code", self._on_code),
            ("turn", self._turn),
            ("inspect", self._inspect),
        ):
            frame.on(act, do)
        for act, change in (("replay", self._replay), ("purge", self._purge), ("purge-all", self._purge_all)):
            frame.on(act, change, "operator")
        frame.tick(TICK_S, self._tick)
        if (number := frame.query.get("open", "")).isdecimal():
            ui.timer(0.1, lambda: self._open_at_start(number), once=True)

    async def _open_at_start(self, number: str) -> None:
        await self._frame.do(self._inspect(number))

    def _drawn(self) -> str:
        return render(self._rows, len(self._befores) > 1, is_narrowed=self._wanted != Wanted())

    def _purge_button(self) -> str:
        if not self._frame.may("operator"):
            return ""
        what = "these messages" if self._wanted != Wanted() else "everything in quarantine"
        sure = f"Purge {what}? The payloads are gone then."
        return parts.button("Purge all", "purge-all", classes="danger", sure=sure, disabled=not self._rows)

    async def _tick(self) -> None:
        """Look again when something was refused, and now and then: others purge and replay too."""
        self._ticks += 1
        refused = self._platform.ingest.stats().quarantined
        if refused != self._refused or self._ticks % IDLE_TICKS == 0:
            self._refused = refused
            await self._refresh()

    async def _refresh(self) -> None:
        self._rows = await in_thread(self._load)
        self._frame.screen.put("rows", self._drawn())
        self._frame.screen.put("purge-all", self._purge_button())

    async def _want(self, wanted: Wanted) -> None:
        self._wanted, self._befores = wanted, [None]
        self._frame.screen.call("address", parts.query({"device": wanted.device_id, "code": wanted.code}))
        await self._refresh()

    async def _on_device(self, arg: str) -> None:
        await self._want(self._wanted._replace(device_id=arg.strip()[:64]))

    async def _on_code(self, arg: str) -> None:
        await self._want(self._wanted._replace(code=arg if arg in REASONS else ""))

    async def _turn(self, arg: str) -> None:
        if arg == "next" and len(self._rows) > PAGE_ROWS:
            self._befores.append(self._rows[PAGE_ROWS - 1].number)
        elif arg == "previous" and len(self._befores) > 1:
            self._befores.pop()
        await self._refresh()

    async def _one(self, arg: str, who: Principal | None = None) -> Quarantined:
        number = int(arg) if arg.isdecimal() else -1
        return may_see(who or self._frame.who, await in_thread(self._platform.store.quarantined, number))

    async def _inspect(self, arg: str) -> None:
        message = await self._one(arg)
        may_change = self._frame.who.is_at_least("operator", message.tenant)
        self._frame.screen.open_sheet(render_sheet(message, may_change=may_change))

    async def _audit(self, what: str, about: str, tenant: str = "", after: object = None) -> None:
        who, database = self._frame.who, self._platform.database
        await in_thread(record_act, database, who, what, about, after=after, tenant=tenant)

    async def _replay(self, arg: str) -> None:
        who = self._frame.acting("operator")
        message = await self._one(arg, who)
        if not self._platform.ingest.may_speak_for(who.tenants, message.device_id):
            raise RejectedError("That message is no longer in quarantine.", code="not-found")
        outcome = await self._platform.ingest.replay(message.number)
        await self._audit("quarantine.replay", message.device_id, message.tenant, {"number": message.number})
        if outcome.code:
            told = f"Refused again: {outcome.detail or outcome.code}"
        elif outcome.accepted:
            told = f"Accepted: {words.count(outcome.accepted)} sample{'s' if outcome.accepted != 1 else ''} stored"
        else:
            told = "Already stored: it was a duplicate"
        self._frame.screen.close_sheet(told)
        await self._refresh()

    async def _purge(self, arg: str) -> None:
        message = await self._one(arg, self._frame.acting("operator"))
        await self._platform.ingest.purge([message.number])
        await self._audit("quarantine.purge", message.device_id, message.tenant, {"number": message.number})
        self._frame.screen.close_sheet("Purged")
        await self._refresh()

    async def _purge_all(self, _arg: str) -> None:
        numbers = await in_thread(self._numbers)
        purged = await self._platform.ingest.purge(numbers)
        await self._audit("quarantine.purge", self._wanted.device_id, after={"purged": purged})
        self._befores = [None]
        self._frame.screen.call("toast", f"{words.count(purged)} purged")
        await self._refresh()

    def _numbers(self) -> list[int]:
        """Return the numbers of all messages that the filters leave, up to `PURGE_MAX`. Blocks."""
        numbers: list[int] = []
        who = self._frame.acting("operator")
        while len(numbers) < PURGE_MAX:
            rows = self._platform.store.quarantine(
                tenants=who.tenants, device_id=self._wanted.device_id or None,
                code=self._wanted.code or None, before=numbers[-1] if numbers else None, limit=200,
            )  # fmt: skip
            if not rows:
                break
            numbers += [row.number for row in rows]
        return numbers


def render(rows: list[Quarantined], has_previous: bool, *, is_narrowed: bool) -> str:  # noqa: FBT001
    """Return the table and its foot; a row beyond the page only says that there is a next one."""
    if not rows:
        if is_narrowed or has_previous:
            return parts.empty("Nothing matches", "Loosen the filters above.", name="search")
        return parts.empty(
            "Quarantine is empty",
            "What a device sends and the platform cannot accept is kept here whole, with the reason, until you "
            "replay or purge it.",
            name="ok",
        )
    body = "".join(_row(each) for each in rows[:PAGE_ROWS])
    foot = ""
    if has_previous or len(rows) > PAGE_ROWS:
        foot = (
            f'<div class="foot"><span></span><span class="bar">'
            f"{parts.button(parts.icon('left') + 'Newer', 'turn', 'previous', disabled=not has_previous)}"
            f"{parts.button('Older' + parts.icon('right'), 'turn', 'next', disabled=len(rows) <= PAGE_ROWS)}"
            "</span></div>"
        )
    return (
        '<div class="scroll"><table class="list cards"><thead><tr><th>Reason</th><th>Device</th><th>Detail</th>'
        f'<th class="right">Size</th><th class="right">Received</th><th></th></tr></thead><tbody>{body}</tbody>'
        f"</table></div>{foot}"
    )


def _row(each: Quarantined) -> str:
    device = (
        f'<a class="link" href="{parts.device_href(each.device_id)}">{parts.text(each.device_id)}</a>'
        if each.device_id
        else f'<span class="faint">{parts.text(each.topic[:64])}</span>'
    )
    return (
        f"<tr><td>{parts.badge(each.code, 'warn')}</td><td>{device}</td>"
        '<td class="wide soft" '
        f'title="{parts.text(reason(each.code).what)}">{parts.text(each.detail[:160] or reason(each.code).what)}</td>'
        f'<td class="right faint num hide">{words.size(len(each.payload))}</td><td class="right faint num '
        f'start">{parts.age(each.received)}</td>'
        f'<td class="right">{parts.button("Inspect", "inspect", each.number)}</td></tr>'
    )


def render_sheet(message: Quarantined, *, may_change: bool = True) -> str:
    """Return one message in full: why, what to do, and what it holds."""
    why = reason(message.code)
    cut = f" · first {words.size(words.LINES_MAX)} shown" if len(message.payload) > words.LINES_MAX else ""
    rows = [
        ("Device", parts.text(message.device_id or parts.NONE)),
        ("Topic", f'<span class="mono">{parts.text(message.topic)}</span>'),
        ("Received", parts.age(message.received)),
        ("Content type", parts.text(message.content_type or "not given")),
        ("Size", words.size(len(message.payload)) + cut),
    ]
    if message.sample >= 0:
        rows.append(("Sample", f"number {message.sample + 1} of its message"))
    number = message.number
    sure = "Purge this message? Its payload is gone then."
    body = (
        f'<div class="note-block"><b>{parts.text(why.what)}</b> {parts.text(message.detail)}<br>'
        f'<span class="soft">{parts.text(why.what_to_do)}</span></div>{parts.facts(rows)}'
        f'<pre class="payload" tabindex="0">{parts.text(words.payload(message.payload)) or "(empty)"}</pre>'
        f'<div class="bar">{parts.button("Replay", "replay", number, classes="primary") if may_change else ""}'
        f'<a class="btn" href="/quarantine/{number}/payload" download>{parts.icon("download")}Download</a>'
        f"{parts.button('Purge', 'purge', number, classes='danger', sure=sure) if may_change else ''}</div>"
    )
    return parts.sheet(message.code, body, tone="warn")
