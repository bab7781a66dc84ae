"""`/clocks`: how far off the clocks of the fleet are and how they drift, the worst first."""

from typing import Final, NamedTuple

from nicegui import ui
from starlette.requests import Request

from godwit.server.console import clock_parts, parts, words
from godwit.server.console.cached import Cached
from godwit.server.console.frame import Frame, in_thread, markup
from godwit.server.ingest import clock_report
from godwit.server.ingest.clock_report import SORTS, ClockReport
from godwit.server.platform import Platform

PAGE_ROWS: Final = 50
TICK_S: Final = 4.0
_COLUMNS: Final = (
    ("deviceId", "Device", False),
    ("offset", "Offset", True),
    ("uncertainty", "Uncertainty", True),
    ("drift", "Drift", True),
    ("steps", "Steps", True),
    ("measured", "Compared", True),
    ("", "Readings", True),
)


class Wanted(NamedTuple):
    """What the person asked for: it stands in the page's address."""

    search: str = ""
    sort: str = "offset"
    descending: bool = True
    offset: int = 0

    def address(self) -> str:
        """Return the query string that asks for the same, from its first row."""
        order = ("-" if self.descending else "") + self.sort
        return parts.query({"q": self.search, "sort": "" if order == "-offset" else order})


def wanted_from(query: dict[str, str]) -> Wanted:
    """Return what an address asks for; what it says wrongly is left out."""
    order = query.get("sort", "")
    if order.removeprefix("-") not in SORTS:
        order = "-offset"
    return Wanted(query.get("q", "")[:200], order.removeprefix("-"), order.startswith("-"))


def register(platform: Platform) -> None:
    """Put the page up."""
    looks: Cached[list[ClockReport]] = Cached(TICK_S / 2)

    @ui.page("/clocks", title="Clocks · godwit")
    async def page(request: Request) -> None:
        await _Page(Frame(platform, request, "clocks", "Clocks"), looks, wanted_from(dict(request.query_params))).show()


class _Page:
    def __init__(self, frame: Frame, looks: Cached[list[ClockReport]], wanted: Wanted) -> None:
        self._frame, self._looks, self._wanted = frame, looks, wanted
        self._platform = frame.platform
        self._reports: list[ClockReport] = []
        self._total = 0

    async def show(self) -> None:
        """Build the page."""
        frame, screen = self._frame, self._frame.screen
        drawn = await in_thread(self._draw)
        part = {name: screen.sent(name, html) for name, html in drawn.items()}
        tiles = "".join(
            f'<div class="card stat"><span class="label">{label}</span>{part[name]}</div>'
            for label, name in clock_parts.TILES
        )
        limit = words.duration(self._threshold_ns)
        with frame.main():
            markup(
                '<div class="head"><div><h1>Clocks</h1><div class="sub"><span>Readings are corrected where a clock is '
                f"further off than {limit}, and further than that can be wrong. The device's own time is kept."
                f'</span></div></div></div><div class="stats">{tiles}</div>{part["charts"]}'
                f'<div class="bar">{parts.search("search", self._wanted.search, "Device id")}</div>'
                f'<section class="card">{part["rows"]}</section>'
            )
        for act, do in (("search", self._on_search), ("sort", self._on_sort), ("turn", self._on_turn)):
            frame.on(act, do)
        frame.tick(TICK_S, self._show_anew)

    @property
    def _threshold_ns(self) -> int:
        return self._platform.settings.clock_error_ms_max * 1_000_000

    def _draw(self) -> dict[str, str]:
        """Look, and return all parts by their id. Blocks."""
        tenants = self._frame.who.tenants
        self._reports = self._looks.get(tenants, lambda: self._platform.ingest.clocks(tenants))
        reports, wanted = self._reports, self._wanted
        rows, self._total = clock_report.page(
            reports, wanted.search, wanted.sort, wanted.offset, PAGE_ROWS, descending=wanted.descending
        )
        return clock_parts.numbers(clock_report.fleet(reports)) | {
            "charts": clock_parts.charts(reports, self._threshold_ns),
            "rows": render_rows(wanted, rows, self._total, is_empty=not reports),
        }

    async def _show_anew(self) -> None:
        asked = self._wanted
        drawn = await in_thread(self._draw)
        if asked == self._wanted:
            for name, html in drawn.items():
                self._frame.screen.put(name, html)

    async def _want(self, wanted: Wanted) -> None:
        self._wanted = wanted
        await self._show_anew()
        self._frame.screen.call("address", wanted.address())

    async def _on_search(self, arg: str) -> None:
        await self._want(self._wanted._replace(search=arg.strip()[:200], offset=0))

    async def _on_sort(self, arg: str) -> None:
        wanted = self._wanted
        if arg in SORTS:
            descending = not wanted.descending if wanted.sort == arg else arg != "deviceId"
            await self._want(wanted._replace(sort=arg, descending=descending, offset=0))

    async def _on_turn(self, arg: str) -> None:
        step = PAGE_ROWS if arg == "next" else -PAGE_ROWS
        last = max(0, (self._total - 1) // PAGE_ROWS * PAGE_ROWS)
        await self._want(self._wanted._replace(offset=min(max(0, self._wanted.offset + step), last)))


def render_rows(wanted: Wanted, rows: list[ClockReport], total: int, *, is_empty: bool) -> str:
    """Return the table in view and its foot."""
    if is_empty:
        return clock_parts.NOTHING
    if not rows:
        return parts.empty("Nothing matches", "Loosen the search above.", name="search")
    columns = "".join(_column(name, title, wanted, is_right=is_right) for name, title, is_right in _COLUMNS)
    first = wanted.offset
    foot = (
        f'<div class="foot"><span class="num">{words.count(first + 1)}{parts.NONE}{words.count(first + len(rows))} '
        f'of {words.count(total)}</span><span class="bar">'
        f"{parts.button(parts.icon('left') + 'Previous', 'turn', 'previous', disabled=not first)}"
        f"{parts.button('Next' + parts.icon('right'), 'turn', 'next', disabled=first + len(rows) >= total)}"
        "</span></div>"
    )
    body = "".join(clock_parts.row(each) for each in rows)
    return (
        f'<div class="scroll"><table class="list cards"><thead><tr>{columns}</tr></thead><tbody>{body}</tbody>'
        f"</table></div>{foot}"
    )


def _column(name: str, title: str, wanted: Wanted, *, is_right: bool) -> str:
    right = ' class="right"' if is_right else ""
    if not name:
        return f"<th{right}>{title}</th>"
    is_chosen = wanted.sort == name
    order = f' aria-sort="{"descending" if wanted.descending else "ascending"}"' if is_chosen else ""
    arrow = parts.icon("down" if wanted.descending else "up") if is_chosen else ""
    button = f'<button data-act="sort" data-arg="{name}" data-focus="sort-{name}">{title}{arrow}</button>'
    return f"<th{order}{right}>{button}</th>"
