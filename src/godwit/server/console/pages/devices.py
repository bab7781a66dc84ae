"""`/devices`: find a device among very many.

Search, filters, order and pages are the registry's; one page is all that is ever loaded.
"""

from typing import NamedTuple

from nicegui import ui
from starlette.requests import Request

from godwit.contract.ids import TypeName
from godwit.server.accounts.principal import Principal
from godwit.server.console import parts, words
from godwit.server.console.frame import Frame, in_thread, markup
from godwit.server.console.pages.overview import first_message
from godwit.server.platform import Platform
from godwit.server.registry.model import Device, DevicePage, Lifecycle, Presence

PAGE_ROWS = 50
TICK_S = 5.0

_COLUMNS = (
    ("deviceId", "Device"),
    ("type", "Type"),
    ("lifecycle", "Lifecycle"),
    ("location", "Location"),
    ("lastSeen", "Last seen"),
)
_SORTS = frozenset({"deviceId", "type", "lastSeen"})


class Wanted(NamedTuple):
    """What the person asked for: it stands in the page's address."""

    search: str = ""
    device_type: str = ""
    online: str = ""
    lifecycle: str = ""
    sort: str = "deviceId"
    descending: bool = False

    @property
    def is_narrowed(self) -> bool:
        """Whether some devices are left out."""
        return bool(self.search or self.device_type or self.online or self.lifecycle)

    def address(self) -> str:
        """Return the query string that asks for the same."""
        order = "" if self.sort == "deviceId" and not self.descending else ("-" if self.descending else "") + self.sort
        return parts.query(
            {
                "q": self.search,
                "type": self.device_type,
                "online": self.online,
                "lifecycle": self.lifecycle,
                "sort": order,
            }
        )


def wanted_from(query: dict[str, str]) -> Wanted:
    """Return what an address asks for; what it says wrongly is left out."""
    order = query.get("sort", "")
    sort = order.removeprefix("-")
    online = query.get("online", "")
    lifecycle = query.get("lifecycle", "")
    return Wanted(
        search=query.get("q", "")[:200],
        device_type=query.get("type", ""),
        online=online if online in {"yes", "no"} else "",
        lifecycle=lifecycle if lifecycle in set(Lifecycle) else "",
        sort=sort if sort in _SORTS else "deviceId",
        descending=order.startswith("-"),
    )


class DeviceList:
    """The state of one open list: what is wanted, and the cursors that lead to the page in view."""

    def __init__(self, platform: Platform, who: Principal, wanted: Wanted) -> None:
        self._platform = platform
        self._who = who
        self.wanted = wanted
        self._cursors: list[str | None] = [None]

    def want(self, wanted: Wanted) -> None:
        """Ask for something else, from its first page."""
        self.wanted = wanted
        self._cursors = [None]

    def turn(self, page: DevicePage, *, forward: bool) -> None:
        """Go to the next or the previous page of `page`."""
        if forward and page.cursor:
            self._cursors.append(page.cursor)
        elif not forward and len(self._cursors) > 1:
            self._cursors.pop()

    def load(self) -> DevicePage:
        """Ask the registry for the page in view. Blocks."""
        wanted = self.wanted
        return self._platform.registry.devices(
            self._who,
            search=wanted.search,
            device_type=TypeName(wanted.device_type) if wanted.device_type else None,
            lifecycle=wanted.lifecycle or None,
            online=None if not wanted.online else wanted.online == "yes",
            sort=wanted.sort,
            descending=wanted.descending,
            cursor=self._cursors[-1],
            limit=PAGE_ROWS,
        )

    @property
    def first_row(self) -> int:
        """The number of the first row in view, from 0."""
        return (len(self._cursors) - 1) * PAGE_ROWS


def register(platform: Platform) -> None:
    """Put the page up."""

    @ui.page("/devices", title="Devices · godwit")
    async def page(request: Request) -> None:
        frame = Frame(platform, request, "devices", "Devices")
        listed = DeviceList(platform, frame.who, wanted_from(dict(request.query_params)))
        types = [each.name for each in await in_thread(platform.registry.types, frame.who)]
        _Page(frame, listed, await in_thread(listed.load), list(types)).show()


class _Page:
    def __init__(self, frame: Frame, listed: DeviceList, loaded: DevicePage, types: list[str]) -> None:
        self._frame = frame
        self._listed = listed
        self._loaded = loaded
        self._types = types

    def show(self) -> None:
        frame, wanted, screen = self._frame, self._listed.wanted, self._frame.screen
        bar = (
            '<div class="bar">'
            + parts.search("search", wanted.search, "Search by name or id")
            + parts.select(
                "online", (("", "Presence"), ("yes", "Online"), ("no", "Offline")), wanted.online, "Presence"
            )
            + parts.select("type", [("", "Type"), *((each, each) for each in self._types)], wanted.device_type, "Type")
            + parts.select(
                "lifecycle",
                [("", "Lifecycle"), *((each.value, each.value) for each in Lifecycle)],
                wanted.lifecycle,
                "Lifecycle",
            )
            + "</div>"
        )
        rows, total = self._drawn()
        with frame.main():
            markup(
                f'<div class="head"><div><h1>Devices</h1><div class="sub">{screen.sent("total", total)}</div>'
                f"</div></div>{bar}"
                f'<section class="card">{screen.sent("rows", rows)}</section>',
            )
        frame.on("search", lambda arg: self._want(search=arg.strip()[:200]))
        frame.on("online", lambda arg: self._want(online=arg))
        frame.on("type", lambda arg: self._want(device_type=arg))
        frame.on("lifecycle", lambda arg: self._want(lifecycle=arg))
        frame.on("sort", self._sort)
        frame.on("turn", self._turn)
        frame.tick(TICK_S, self._refresh)

    def _drawn(self) -> tuple[str, str]:
        listed, loaded = self._listed, self._loaded
        total = f"{words.count(loaded.total)} {'match' if listed.wanted.is_narrowed else 'in the fleet'}"
        if not loaded.items and not listed.wanted.is_narrowed:
            return _empty(self._frame.platform), total
        return render(loaded, listed.wanted, listed.first_row), total

    async def _want(self, **changed: str) -> None:
        self._listed.want(self._listed.wanted._replace(**changed))  # type: ignore[arg-type]
        await self._refresh()
        self._frame.screen.call("address", self._listed.wanted.address())

    async def _sort(self, arg: str) -> None:
        wanted = self._listed.wanted
        if arg in _SORTS:
            # times begin with the newest, words with A
            descending = not wanted.descending if wanted.sort == arg else arg == "lastSeen"
            self._listed.want(wanted._replace(sort=arg, descending=descending))
            await self._refresh()
            self._frame.screen.call("address", self._listed.wanted.address())

    async def _turn(self, arg: str) -> None:
        self._listed.turn(self._loaded, forward=arg == "next")
        await self._refresh()

    async def _refresh(self) -> None:
        asked = self._listed.wanted
        loaded = await in_thread(self._listed.load)
        if asked != self._listed.wanted:  # meanwhile something else was asked for, whose answer is on its way
            return
        self._loaded = loaded
        rows, total = self._drawn()
        self._frame.screen.put("rows", rows)
        self._frame.screen.put("total", total)


def render(page: DevicePage, wanted: Wanted, first_row: int) -> str:
    """Return the table and its foot."""
    if not page.items:
        return parts.empty("No device matches", "Loosen the search or the filters above.", name="search")
    head = "".join(_column(name, title, wanted) for name, title in _COLUMNS)
    body = "".join(_row(device, presence) for device, presence in page.items)
    last = first_row + len(page.items)
    foot = (
        f'<div class="foot"><span class="num">{words.count(first_row + 1)}{parts.NONE}{words.count(last)} '
        f"of {words.count(page.total)}</span>"
        f'<span class="bar">{parts.button(parts.icon("left") + "Previous", "turn", "previous", disabled=not first_row)}'
        f"{parts.button('Next' + parts.icon('right'), 'turn', 'next', disabled=page.cursor is None)}</span></div>"
    )
    table = f'<table class="list cards"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div>{foot}'


def _column(name: str, title: str, wanted: Wanted) -> str:
    if name not in _SORTS:
        return f"<th>{title}</th>"
    is_chosen = wanted.sort == name
    order = f' aria-sort="{"descending" if wanted.descending else "ascending"}"' if is_chosen else ""
    arrow = parts.icon("down" if wanted.descending else "up") if is_chosen else ""
    right = ' class="right"' if name == "lastSeen" else ""
    button = f'<button data-act="sort" data-arg="{name}" data-focus="sort-{name}">{title}{arrow}</button>'
    return f"<th{order}{right}>{button}</th>"


def _row(device: Device, presence: Presence) -> str:
    href = parts.device_href(device.device_id)
    return (
        f'<tr class="go" data-href="{href}"><td><a class="who" href="{href}">{parts.dot(online=presence.online)}'
        f"<span><b>{parts.text(device.name or device.device_id)}</b>"
        f"{f'<small>{parts.text(device.device_id)}</small>' if device.name else ''}</span></a></td>"
        f'<td class="hide soft">{parts.text(device.device_type)}</td><td '
        f'class="hide">{lifecycle_badge(device.lifecycle)}</td>'
        f'<td class="hide soft">{parts.text(place(device))}</td>'
        f'<td class="right faint num">{parts.age(presence.last_seen)}</td></tr>'
    )


def lifecycle_badge(lifecycle: Lifecycle) -> str:
    """Return the lifecycle as a pill."""
    tones = {Lifecycle.ACTIVE: "good", Lifecycle.UNCLAIMED: "warn", Lifecycle.SUSPENDED: "bad"}
    return parts.badge(lifecycle.value, tones.get(lifecycle, ""))


def place(device: Device) -> str:
    """Return where a device stands: a name, else degrees, else a dash."""
    where = device.location
    if where.name:
        return where.name
    if where.latitude is None or where.longitude is None:
        return parts.NONE
    return f"{where.latitude:.4f}, {where.longitude:.4f}"


def _empty(platform: Platform) -> str:
    return parts.empty(
        "No device yet",
        f'<p style="margin-bottom:16px">A device that publishes on the local listener registers itself:</p>'
        f"{parts.command(first_message(platform, 'sensor-1'))}",
        name="devices",
        big=True,
    )
