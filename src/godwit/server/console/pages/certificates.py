"""`/certificates`: the authorities, the devices' certificates, rollovers, and batches from a file."""

import io
from asyncio import to_thread
from time import time_ns
from typing import Final

from nicegui import app as nicegui_app
from nicegui import ui
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from godwit.contract.errors import GodwitError, RejectedError
from godwit.contract.ids import DeviceId
from godwit.server.accounts.principal import Principal
from godwit.server.console import batch_parts, certificate_parts, parts, rollover_parts
from godwit.server.console.batches import Batch, Batches, Download, Known, Stage, first_group
from godwit.server.console.frame import Frame, in_thread, markup
from godwit.server.console.pages.authority_trust import TrustActs
from godwit.server.console.plain import whole
from godwit.server.console.session import principal_of
from godwit.server.identity.archive import packed
from godwit.server.identity.batch_lines import Line, Refused, read_lines
from godwit.server.identity.certificates import DAY, SOON_DAYS
from godwit.server.identity.model import Authority, CampaignKind, CampaignState, CertificateState, Step
from godwit.server.identity.operators import Wanted
from godwit.server.platform import Platform
from godwit.server.registry.model import Device

TICK_S: Final = 1.0
SLOW_TICKS: Final = 3
"""All but the progress of a batch is looked at every three seconds."""
ROWS: Final = 10
FILE_BYTES_MAX: Final = 4_194_304
LINES_MAX: Final = 50_000
_NO_STORE: Final = {"cache-control": "no-store"}
_STATES: Final = (
    ("", "All"), ("active", "In use"), ("pending", "Not used yet"), ("ending", "End soon"),
    ("grace", "In grace"), ("revoked", "Revoked"),
)  # fmt: skip


def register(platform: Platform) -> None:
    """Put the page up, and the roads by which a batch comes, and files go."""
    batches = Batches()

    @ui.page("/certificates", title="Certificates · godwit")
    async def page(request: Request) -> None:
        await _Page(Frame(platform, request, "certificates", "Certificates"), batches).show()

    @nicegui_app.post("/certificates/batch", include_in_schema=False)
    async def batch(request: Request) -> Response:
        who = principal_of(request)
        try:
            who.require("operator")
            return await _answer(platform, batches, who, request)
        except GodwitError as error:
            return whole("Batch", batch_parts.wrong_file(str(error)), who=who, page="certificates", status=422)

    @nicegui_app.post("/certificates/bundle/{device_id}", include_in_schema=False)
    async def bundle(request: Request, device_id: str) -> Response:
        who = principal_of(request)
        try:
            who.require("operator")
            enroll = platform.identity.operators.enroll
            done = await to_thread(enroll, who.limited_to("operator"), Wanted(Device(DeviceId(device_id))))
        except GodwitError as error:
            body = batch_parts.refused_bundle(device_id, str(error))
            return whole("No certificate", body, who=who, page="devices", status=422)
        headers = {"content-disposition": 'attachment; filename="bundle.zip"', **_NO_STORE}
        return Response(packed(platform.settings, platform.identity, [done]), 200, headers, "application/zip")


async def _answer(platform: Platform, batches: Batches, who: Principal, request: Request) -> Response:
    """Return the archive as it is made; or a page about the lines that are wrong, before anything is done."""
    text, said = await _file_of(request)
    lines, refused = await to_thread(_read, text)
    known = Known(said["known"]) if said.get("known") in set(Known) else Known.LEAVE
    if refused and not (said.get("go") and lines):
        body = batch_parts.wrong_lines(refused, len(lines), text, known)
        return whole("Batch", body, who=who, page="certificates", status=422)
    if not lines:
        raise RejectedError("the file names no device: below its header there is no line", code="csv-malformed")
    acting = who.limited_to("operator")
    batch = Batch(platform, acting, lines, refused, known)
    batches.begin(who, batch)
    return Download(batch, await to_thread(first_group, batch))


def _read(text: str) -> tuple[list[Line], list[Refused]]:
    """Return the lines of a file, and those that are wrong. Raises RejectedError (`too-many-devices`, `csv-...`)."""
    if max(text.count("\n"), text.count("\r")) > LINES_MAX:
        raise RejectedError(f"a batch has at most {LINES_MAX:,} lines", code="too-many-devices")
    refused: list[Refused] = []
    return list(read_lines(io.StringIO(text, newline=""), {}, refused)), refused


async def _file_of(request: Request) -> tuple[str, dict[str, str]]:
    """Return the text of the file that was sent, or of its field `text`; and the other fields.

    Raises RejectedError (`csv-malformed`, `payload-too-large`).
    """
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > FILE_BYTES_MAX + 4_096:
        raise RejectedError(f"a batch has at most {FILE_BYTES_MAX >> 20} MiB", code="payload-too-large")
    async with request.form(max_files=1, max_fields=8, max_part_size=FILE_BYTES_MAX) as form:
        said = {name: value for name, value in form.items() if isinstance(value, str)}
        file = form.get("file")
        if isinstance(file, UploadFile):
            try:
                return (await file.read()).decode("utf-8-sig"), said
            except UnicodeDecodeError as error:
                raise RejectedError(f"the file is not UTF-8: {error}", code="csv-malformed") from None
        if "text" not in said:
            raise RejectedError("a file is expected", code="csv-malformed")
        return said.pop("text"), said


class _Page:
    def __init__(self, frame: Frame, batches: Batches) -> None:
        self._frame, self._identity, self._batches = frame, frame.platform.identity, batches
        self._search, self._state, self._step, self._after = "", "", "", ""
        self._cursors: list[str] = []
        self._next: str | None = None
        self._ticks = 0

    async def show(self) -> None:
        """Build the page: what has to be looked after first, what is looked up after it."""
        frame, screen = self._frame, self._frame.screen
        part = {name: screen.sent(name, html) for name, html in (await in_thread(self._draw)).items()}
        tiles = "".join(
            f'<div class="card stat"><span class="label">{label}</span>{part[name]}</div>'
            for label, name in certificate_parts.TILES
        )
        tools = (
            f'<div class="bar">{parts.search("search", "", "Device, fingerprint or serial")}'
            f"{parts.select('state', _STATES, self._state, 'Which certificates')}</div>"
        )
        batch = f'<div class="health" id="batch">{part["batches"]}<div>{batch_parts.form()}</div></div>'
        rollover = parts.card("Rollover", part["campaign"]) if frame.who.tenants is None else ""
        trust = parts.button("Trust another…", "trust") if frame.may("admin") else ""
        upload = parts.card("Enroll a batch", batch) if frame.may("operator") else ""
        with frame.main():
            markup(
                '<div class="head"><div><h1>Certificates</h1><div class="sub"><span>Who vouches for whom, and until '
                'when.</span></div></div><div class="bar"><a class="btn" href="/pki/ca.crt" download>'
                f"{parts.icon('download')}ca.crt</a></div></div>"
                f'<div class="stats">{tiles}</div>'
                f"{parts.card('When they end', part['ends'])}{rollover}"
                f"{parts.card('Devices', part['certificates'], aside=tools, flush=True)}"
                f"{parts.card('Authorities', part['authorities'], aside=trust, flush=True)}{upload}"
            )
        for act, do, role in (
            ("search", self._on_search, "viewer"), ("state", self._on_state, "viewer"),
            ("page", self._on_page, "viewer"), ("step", self._on_step, "viewer"),
            ("more-devices", self._on_more, "viewer"), ("forget-batch", self._on_forget, "operator"),
            ("revoke-certificate", self._revoke, "operator"), ("start", self._start, "admin"),
            ("campaign", self._change, "admin"),
        ):  # fmt: skip
            frame.on(act, do, role)
        TrustActs(frame, self._refresh).listen()
        frame.tick(TICK_S, self._tick)

    def _draw(self) -> dict[str, str]:
        """Return all parts by their id. Blocks."""
        who, identity = self._frame.who, self._identity
        shown = [each for each in identity.authorities.all() if each.tenant is None or who.role_in(each.tenant)]
        return certificate_parts.tiles(identity.certificates.counts(who)) | {
            "ends": certificate_parts.ends(identity.certificates.ends(who)),
            "authorities": certificate_parts.authorities(shown, self._may_change, identity.trusted.waiting(who)),
            "certificates": self._table(),
            "campaign": self._campaign(),
            "batches": batch_parts.progress(self._batches.last(who)),
        }

    def _may_change(self, authority: Authority) -> bool:
        return authority.tenant is not None and self._frame.who.is_at_least("admin", authority.tenant)

    def _table(self) -> str:
        who = self._frame.who
        page = self._identity.certificates.page(
            who,
            state=CertificateState(self._state) if self._state in set(CertificateState) else None,
            ends_before=time_ns() + SOON_DAYS * DAY if self._state == "ending" else None,
            is_in_grace=self._state == "grace",
            search=self._search,
            cursor=self._cursors[-1] if self._cursors else None,
            limit=ROWS,
        )
        self._next = page.cursor
        pager = certificate_parts.pager(page, len(self._cursors) * ROWS, has_before=bool(self._cursors))
        if not page.items and (self._search or self._state):
            return parts.empty("No certificate matches", "Search for how an id, a fingerprint or a serial begins.")
        return (
            certificate_parts.certificates(
                page.items,
                may_change=self._frame.may("operator"),
                grace=self._identity.certificates.in_grace(page.items),
            )
            + pager
        )

    def _campaign(self) -> str:
        who, campaigns = self._frame.who, self._identity.campaigns
        if who.tenants is not None:  # its numbers are those of all tenants
            return ""
        may = self._frame.may("admin")
        newest = next(iter(campaigns.all(limit=1)), None)
        step = Step(self._step) if self._step in set(Step) else None
        rows = (
            campaigns.devices(newest.campaign_id, step, after=self._after, limit=rollover_parts.DEVICES_MAX + 1)
            if newest is not None and may
            else []
        )
        return rollover_parts.campaign(newest, rows, self._step, may_change=may)

    async def _tick(self) -> None:
        self._ticks += 1
        last = self._batches.last(self._frame.who)
        if self._ticks % SLOW_TICKS == 0:
            await self._refresh()
        elif last is not None and last.stage is Stage.RUNNING:
            self._frame.screen.put("batches", batch_parts.progress(last))

    async def _refresh(self) -> None:
        for name, html in (await in_thread(self._draw)).items():
            self._frame.screen.put(name, html)

    async def _on_search(self, arg: str) -> None:
        self._search, self._cursors = arg.strip()[:128], []
        await self._refresh()

    async def _on_state(self, arg: str) -> None:
        self._state, self._cursors = arg, []
        await self._refresh()

    async def _on_page(self, arg: str) -> None:
        if arg == "back":
            self._cursors = self._cursors[:-1]
        elif self._next is not None:
            self._cursors.append(self._next)
        await self._refresh()

    async def _on_step(self, arg: str) -> None:
        self._step, self._after = arg, ""
        await self._refresh()

    async def _on_more(self, arg: str) -> None:
        self._after = arg[:64]
        await self._refresh()

    async def _on_forget(self, _arg: str) -> None:
        self._batches.forget(self._frame.who)
        await self._refresh()

    async def _revoke(self, arg: str) -> None:
        await revoke(self._frame, arg)
        await self._refresh()

    async def _start(self, arg: str) -> None:
        if arg in set(CampaignKind):
            await in_thread(self._identity.campaigns.start, self._frame.acting("admin"), CampaignKind(arg))
            await self._refresh()

    async def _change(self, arg: str) -> None:
        number, _, said = arg.partition(" ")
        state = "finished" if said == "forced" else said
        if number.isdecimal() and state in set(CampaignState):
            who, change = self._frame.acting("admin"), self._identity.campaigns.change
            await to_thread(change, who, int(number), CampaignState(state), force=said == "forced")
            await self._refresh()


async def revoke(frame: Frame, fingerprint: str) -> None:
    """Revoke a certificate of a device that the person may change."""
    who, identity = frame.acting("operator"), frame.platform.identity
    found = await in_thread(identity.certificates.get, who, fingerprint[:64])
    await to_thread(identity.revocation.revoke, found.fingerprint, "unspecified", who.name, address=who.address)
    frame.screen.call("toast", f"The certificate of {found.device_id} counts no more")
