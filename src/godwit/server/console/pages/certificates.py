"""`/certificates`: the authorities, the devices' certificates, rollovers, and batches from a file."""

import csv
import io
from asyncio import to_thread
from time import time_ns
from typing import Final

from nicegui import app as nicegui_app
from nicegui import ui
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from godwit.contract.errors import GodwitError, RejectedError
from godwit.contract.ids import DeviceId, TenantId, TypeName
from godwit.server.accounts.principal import Principal
from godwit.server.console import certificate_parts, parts
from godwit.server.console.frame import Frame, in_thread, markup
from godwit.server.console.session import principal_of
from godwit.server.identity.archive import packed
from godwit.server.identity.batch_lines import Line, Refused, read_lines
from godwit.server.identity.certificates import DAY, SOON_DAYS
from godwit.server.identity.model import CampaignKind, CampaignState, CertificateState
from godwit.server.identity.operators import Enrolled, Wanted
from godwit.server.platform import Platform
from godwit.server.registry.access import home
from godwit.server.registry.model import DEFAULT_TYPE, Device

TICK_S: Final = 2.0
ROWS: Final = 25
GROUP: Final = 250
FILE_BYTES_MAX: Final = 4_194_304
_STATES: Final = (
    ("", "All"), ("active", "In use"), ("pending", "Not used yet"), ("ending", "End soon"),
    ("grace", "In grace"), ("revoked", "Revoked"),
)  # fmt: skip

_batches: dict[str, tuple[int, int]] = {}
"""By person: how far a batch is."""


def register(platform: Platform) -> None:
    """Put the page up, and the roads by which a batch comes, and files go."""

    @ui.page("/certificates", title="Certificates · godwit")
    async def page(request: Request) -> None:
        await _Page(Frame(platform, request, "certificates", "Certificates")).show()

    @nicegui_app.post("/certificates/batch", include_in_schema=False)
    async def batch(request: Request) -> Response:
        who = principal_of(request)
        try:
            who.require("operator")
            text = await _file_of(request)
            content = await to_thread(_enroll_all, platform, who.limited_to("operator"), text)
        except GodwitError as error:
            return PlainTextResponse(f"{error}\n", 422)
        finally:
            _batches.pop(who.name, None)
        return _archive(content, "bundles.zip")

    @nicegui_app.post("/certificates/bundle/{device_id}", include_in_schema=False)
    async def bundle(request: Request, device_id: str) -> Response:
        who = principal_of(request)
        try:
            who.require("operator")
            enroll = platform.identity.operators.enroll
            done = await to_thread(enroll, who.limited_to("operator"), Wanted(Device(DeviceId(device_id))))
        except GodwitError as error:
            return PlainTextResponse(f"{error}\n", 422)
        return _archive(packed(platform.settings, platform.identity, [done]), "bundle.zip")


def _archive(content: bytes, name: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return Response(content, 200, headers, media_type="application/zip")


async def _file_of(request: Request) -> str:
    """Return the text of the file that was sent. Raises RejectedError (`csv-malformed`, `payload-too-large`)."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > FILE_BYTES_MAX:
        raise RejectedError(f"a batch has at most {FILE_BYTES_MAX >> 20} MiB", code="payload-too-large")
    async with request.form(max_files=1, max_fields=1) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise RejectedError("a file is expected", code="csv-malformed")
        try:
            return (await file.read()).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise RejectedError(f"the file is not UTF-8: {error}", code="csv-malformed") from None


def _enroll_all(platform: Platform, who: Principal, text: str) -> bytes:
    refused: list[Refused] = []
    lines = list(read_lines(text.splitlines(), {}, refused))
    done: list[Enrolled] = []
    for at in range(0, len(lines), GROUP):
        _batches[who.name] = at, len(lines)
        group = lines[at : at + GROUP]
        results = platform.identity.operators.enroll_all(who, [_wanted(each, who) for each in group])
        for line, each in zip(group, results, strict=True):
            if each.refusal is None:
                done.append(each)
            else:
                refused.append(Refused(line.number, line.device_id, each.refusal.code, str(each.refusal)))
    _batches[who.name] = len(lines), len(lines)
    return packed(platform.settings, platform.identity, done, {"refused.csv": _report(refused)} if refused else {})


def _wanted(line: Line, who: Principal) -> Wanted:
    said = line.document
    device = Device(
        DeviceId(line.device_id), TenantId(said.get("tenant") or home(who)),
        TypeName(said.get("deviceType") or DEFAULT_TYPE), said.get("name", "")[:256], tags=said.get("tags", {}),
    )  # fmt: skip
    return Wanted(device, None, tuple(said.get("groups", ())))


def _report(refused: list[Refused]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("line", "device_id", "code", "detail"))
    writer.writerows(sorted(refused))
    return text.getvalue().encode()


class _Page:
    def __init__(self, frame: Frame) -> None:
        self._frame, self._identity = frame, frame.platform.identity
        self._search, self._state = "", ""

    async def show(self) -> None:
        """Build the page."""
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
        upload = part["batch"] + certificate_parts.BATCH_FORM if frame.may("operator") else ""
        with frame.main():
            markup(
                '<div class="head"><div><h1>Certificates</h1><div class="sub"><span>Who vouches for whom, and until '
                'when.</span></div></div><div class="bar"><a class="btn" href="/pki/ca.crt" download>'
                f"{parts.icon('download')}ca.crt</a></div></div>"
                f'<div class="stats">{tiles}</div>'
                f"{parts.card('Authorities', part['authorities'], flush=True)}"
                f"{parts.card('Devices', part['certificates'], aside=tools, flush=True)}"
                f'<div class="grid"><div class="stack w6">{parts.card("Rollover", part["campaign"])}</div>'
                f'<div class="stack w6">{parts.card("Enroll a batch", upload) if upload else ""}</div></div>'
            )
        frame.on("search", self._on_search)
        frame.on("state", self._on_state)
        frame.on("revoke-certificate", self._revoke, "operator")
        frame.on("start", self._start, "admin")
        frame.on("campaign", self._change, "admin")
        frame.tick(TICK_S, self._refresh)

    def _draw(self) -> dict[str, str]:
        """Return all parts by their id. Blocks."""
        who, identity = self._frame.who, self._identity
        state = CertificateState(self._state) if self._state in set(CertificateState) else None
        page = identity.certificates.page(
            who,
            state=state,
            ends_before=time_ns() + SOON_DAYS * DAY if self._state == "ending" else None,
            is_in_grace=self._state == "grace",
            search=self._search,
            limit=ROWS,
        )
        shown = [each for each in identity.authorities.all() if each.tenant is None or who.role_in(each.tenant)]
        campaigns = identity.campaigns.all(limit=1)
        table = certificate_parts.certificates(
            page.items, may_change=self._frame.may("operator"), grace=identity.certificates.in_grace(page.items)
        )
        if page.total > len(page.items):
            words = f"The first {len(page.items)} of {page.total:,}: search for the others."
            table += f'<p class="faint" style="padding:12px 16px">{words}</p>'
        may_roll = who.tenants is None and self._frame.may("admin")
        return certificate_parts.tiles(identity.certificates.counts(who)) | {
            "authorities": certificate_parts.authorities(shown),
            "certificates": table,
            "campaign": certificate_parts.campaign(campaigns[0] if campaigns else None, may_change=may_roll),
            "batch": certificate_parts.batch(_batches.get(who.name)),
        }

    async def _refresh(self) -> None:
        for name, html in (await in_thread(self._draw)).items():
            self._frame.screen.put(name, html)

    async def _on_search(self, arg: str) -> None:
        self._search = arg.strip()[:128]
        await self._refresh()

    async def _on_state(self, arg: str) -> None:
        self._state = arg
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
