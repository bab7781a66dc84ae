"""`/audit`: who changed what, from where, before and after; and who was refused. For administrators."""

from typing import NamedTuple

from nicegui import app as nicegui_app
from nicegui import ui
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from godwit.contract.errors import RejectedError
from godwit.server.accounts import audit_file
from godwit.server.accounts.audit_file import MEDIA, download_headers
from godwit.server.console import parts
from godwit.server.console.changes import changes
from godwit.server.console.frame import Frame, in_thread, markup
from godwit.server.console.pages.access import head, not_for_you
from godwit.server.console.session import principal_of
from godwit.server.platform import Platform
from godwit.server.storage import audit
from godwit.server.storage.audit import AuditFilter, AuditLine

PAGE_ROWS = 50
TICK_S = 3.0
ROOMS = (
    ("", "Everything"), ("device.", "Devices"), ("user.", "Users"), ("token.", "Tokens"), ("sign-in", "Sign-ins"),
    ("sign-in.refuse", "Refused sign-ins"), ("request.refuse", "Refused requests"), ("session.", "Sessions"),
    ("certificate.", "Certificates"), ("authority.", "Authorities"), ("quarantine.", "Quarantine"),
    ("broker.", "Broker"), ("type.", "Types"), ("group.", "Groups"), ("tenant.", "Tenants"),
)  # fmt: skip


class Wanted(NamedTuple):
    """Which lines are listed; it stands in the page's address."""

    who: str = ""
    what: str = ""
    about: str = ""

    def filter_for(self, tenants: tuple[str, ...] | None) -> AuditFilter:
        """Return the filter of the log."""
        return AuditFilter(tenants, self.who, self.what, self.about)


def wanted_from(query: dict[str, str]) -> Wanted:
    """Return what an address asks for; what it says wrongly is left out."""
    what = query.get("what", "")
    return Wanted(query.get("who", "")[:128], what if what in dict(ROOMS) else "", query.get("about", "")[:256])


def register(platform: Platform) -> None:
    """Put the page up, and the road by which the log is downloaded."""

    @ui.page("/audit", title="Audit log · godwit")
    async def page(request: Request) -> None:
        frame = Frame(platform, request, "access", "Audit log")
        if frame.may("admin"):
            await _Page(frame, wanted_from(dict(request.query_params))).show()
        else:
            not_for_you(frame)

    @nicegui_app.get("/audit/export", include_in_schema=False)
    def export(request: Request) -> Response:
        who, query = principal_of(request), dict(request.query_params)
        try:
            who.require("admin")
        except RejectedError as error:
            return PlainTextResponse(f"{error}\n", 403)
        wanted = wanted_from(query).filter_for(who.limited_to("admin").tenants)
        form = "csv" if query.get("format") == "csv" else "ndjson"
        content = audit_file.export(audit.pages(platform.database, wanted), form)
        return StreamingResponse(content, media_type=MEDIA[form], headers=download_headers(form))


class _Page:
    def __init__(self, frame: Frame, wanted: Wanted) -> None:
        self._frame, self._wanted = frame, wanted
        self._belows: list[int | None] = [None]
        self._lines: list[AuditLine] = []

    def _load(self) -> list[AuditLine]:
        """Ask for one line more than a page shows: it says whether there is a next page. Blocks."""
        wanted = self._wanted.filter_for(self._frame.acting("admin").tenants)
        return audit.lines(self._frame.platform.database, wanted, below=self._belows[-1], limit=PAGE_ROWS + 1)

    async def show(self) -> None:
        """Build the page."""
        frame, screen, wanted = self._frame, self._frame.screen, self._wanted
        self._lines = await in_thread(self._load)
        bar = (
            f'<div class="bar">{parts.select("what", ROOMS, wanted.what, "What")}'
            f"{parts.search('who', wanted.who, 'Who')}{parts.search('about', wanted.about, 'About')}</div>"
        )
        with frame.main():
            markup(
                f"{head('audit', screen.sent('export', self._export()), frame)}{bar}"
                f'<section class="card">{screen.sent("rows", self._drawn())}</section>'
            )
        for act, do in (("what", self._what), ("who", self._who), ("about", self._about), ("turn", self._turn)):
            frame.on(act, do, "admin")
        frame.tick(TICK_S, self._refresh)
        screen.flush()

    def _export(self) -> str:
        asked = parts.query(self._wanted._asdict())
        return "".join(
            f'<a class="btn" href="/audit/export?format={form}&amp;{parts.text(asked)}" download>'
            f"{parts.icon('download')}{form.upper()}</a>"
            for form in ("csv", "ndjson")
        )

    def _drawn(self) -> str:
        return render(self._lines, has_newer=len(self._belows) > 1, is_narrowed=self._wanted != Wanted())

    async def _refresh(self) -> None:
        self._lines = await in_thread(self._load)
        self._frame.screen.put("rows", self._drawn())

    async def _want(self, wanted: Wanted) -> None:
        self._wanted, self._belows = wanted, [None]
        self._frame.screen.call("address", parts.query(wanted._asdict()))
        self._frame.screen.put("export", self._export())
        await self._refresh()

    async def _what(self, argument: str) -> None:
        await self._want(self._wanted._replace(what=argument if argument in dict(ROOMS) else ""))

    async def _who(self, argument: str) -> None:
        await self._want(self._wanted._replace(who=argument.strip()[:128]))

    async def _about(self, argument: str) -> None:
        await self._want(self._wanted._replace(about=argument.strip()[:256]))

    async def _turn(self, argument: str) -> None:
        if argument == "next" and len(self._lines) > PAGE_ROWS:
            self._belows.append(self._lines[PAGE_ROWS - 1].number)
        elif argument == "previous" and len(self._belows) > 1:
            self._belows.pop()
        await self._refresh()


def render(lines: list[AuditLine], *, has_newer: bool, is_narrowed: bool) -> str:
    """Return the table and its foot; a line beyond the page only says that there is a next one."""
    if not lines:
        told = "Loosen the filters above." if is_narrowed else "What anybody changes is written down here."
        return parts.empty("Nothing matches" if is_narrowed else "Nothing yet", told, name="search")
    body = "".join(_row(each) for each in lines[:PAGE_ROWS])
    foot = ""
    if has_newer or len(lines) > PAGE_ROWS:
        foot = (
            '<div class="foot"><span></span><span class="bar">'
            f"{parts.button(parts.icon('left') + 'Newer', 'turn', 'previous', disabled=not has_newer)}"
            f"{parts.button('Older' + parts.icon('right'), 'turn', 'next', disabled=len(lines) <= PAGE_ROWS)}"
            "</span></div>"
        )
    return (
        '<div class="scroll"><table class="list cards log"><thead><tr><th>When</th><th>Who</th><th>What</th>'
        f"<th>About</th><th>Change</th></tr></thead><tbody>{body}</tbody></table></div>{foot}"
    )


def _row(line: AuditLine) -> str:
    tone = "bad" if line.what.endswith(".refuse") else ""
    about = parts.text(line.about)
    if line.what.startswith("device.") and line.what != "device.erase":
        about = f'<a class="link" href="{parts.device_href(line.about)}">{about}</a>'
    tenant = f'<br><small class="faint">{parts.text(line.tenant)}</small>' if line.tenant else ""
    return (
        f'<tr class="top"><td class="num faint one-line">{parts.age(line.at)}</td><td><b>{parts.text(line.who)}</b><br>'
        f'<small class="faint mono">{parts.text(line.address)}</small></td><td>{parts.badge(line.what, tone)}</td>'
        f'<td class="about">{about}{tenant}</td>'
        f'<td class="wide">{changes(line.before, line.after, f"line-{line.number}")}</td></tr>'
    )
