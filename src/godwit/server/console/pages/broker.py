"""`/broker`: who is connected, which sessions are kept, who subscribes to what, and at which rates; with a way to part.

One page of rows is all that is ever drawn; looking for them is the broker's, and shared by all who look.
"""

from collections import deque
from time import monotonic
from typing import Any, Final, NamedTuple

from nicegui import ui
from starlette.requests import Request

from godwit.contract.errors import RejectedError
from godwit.server.accounts.acts import record_act
from godwit.server.broker.inspection import SORTS, ConnectionRow, SessionRow, SubscriptionRow
from godwit.server.console import parts, words
from godwit.server.console.cached import Cached
from godwit.server.console.frame import Frame, in_thread, markup
from godwit.server.platform import BrokerStats, Platform

PAGE_ROWS: Final = 50
TICK_S: Final = 1.0
SLOW_TICKS: Final = 3
"""Rows are asked for on every third tick, numbers on each."""
CURVE_POINTS: Final = 120
NEVER_ENDS: Final = 0xFFFF_FFFF

TABLES: Final = (("connections", "Connections"), ("sessions", "Sessions"), ("subscriptions", "Subscriptions"))
SEARCHES: Final = {
    "connections": "Client, device or listener",
    "sessions": "Client id",
    "subscriptions": "Filter or client id",
}
LARGEST_FIRST: Final = frozenset({"since", "inflight", "queued", "dropped", "messagesPerS", "bytesIn", "subscriptions"})


class Wanted(NamedTuple):
    """What the person asked for: it stands in the page's address."""

    table: str = "connections"
    search: str = ""
    sort: str = ""
    descending: bool = False
    offset: int = 0

    @property
    def order(self) -> str:
        """The column that the rows are ordered by."""
        return self.sort or SORTS[self.table][0]

    def address(self) -> str:
        """Return the query string that asks for the same, from its first row."""
        order = ("-" if self.descending else "") + self.sort if self.sort else ""
        table = self.table if self.table != "connections" else ""
        return parts.query({"table": table, "q": self.search, "sort": order})


def wanted_from(query: dict[str, str]) -> Wanted:
    """Return what an address asks for; what it says wrongly is left out."""
    table = query.get("table", "connections")
    if table not in SORTS:
        table = "connections"
    order = query.get("sort", "")
    sort = order.removeprefix("-")
    return Wanted(table, query.get("q", "")[:200], sort if sort in SORTS[table] else "", order.startswith("-"))


class Rates:
    """Messages per second, in and out, while anybody looks. Shared by all open pages."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._now: Cached[BrokerStats] = Cached(TICK_S * 0.8)
        self._last: tuple[float, int, int] | None = None
        self.points: deque[tuple[float, float]] = deque(maxlen=CURVE_POINTS)

    def look(self) -> BrokerStats:
        """Return the broker's numbers, and note its rates. Blocks."""
        return self._now.get((), self._ask)

    def _ask(self) -> BrokerStats:
        stats, now = self._platform.broker.stats(), monotonic()
        last, self._last = self._last, (now, stats.messages_in, stats.messages_out)
        if last is not None:
            span = now - last[0]
            if span > 3 * TICK_S:
                self.points.clear()  # nobody was looking meanwhile: a curve across the gap would be made up
            self.points.append(((stats.messages_in - last[1]) / span, (stats.messages_out - last[2]) / span))
        return stats

    @property
    def newest(self) -> tuple[float, float]:
        """Messages per second in and out, of the last second."""
        return self.points[-1] if self.points else (0.0, 0.0)

    def curves(self) -> list[list[float]]:
        """Return both curves, oldest first, for the browser."""
        points = list(self.points)
        return [[round(each[0], 2) for each in points], [round(each[1], 2) for each in points]]


def register(platform: Platform) -> None:
    """Put the page up."""
    rates = Rates(platform)

    @ui.page("/broker", title="Broker · godwit")
    async def page(request: Request) -> None:
        frame = Frame(platform, request, "broker", "Broker")
        if frame.who.tenants is not None:
            with frame.main():
                nothing = parts.empty("Not for you", "Connections are for administrators of the whole platform.")
                markup(parts.card("", nothing))
            return
        if platform.settings.mqtt_broker != "embedded":
            with frame.main():
                address = parts.text(", ".join(platform.broker.stats().listeners.values()))
                nothing = parts.empty(
                    "The broker is somewhere else",
                    f"MQTT_BROKER=external: devices connect to {address}. Ask that broker who is connected.",
                    name="broker",
                )
                markup(parts.card("", nothing))
            return
        await _Page(frame, rates, wanted_from(dict(request.query_params))).show()


class _Page:
    def __init__(self, frame: Frame, rates: Rates, wanted: Wanted) -> None:
        self._frame, self._rates, self._wanted = frame, rates, wanted
        self._platform = frame.platform
        self._found: Any = None
        self._ticks = 0

    async def show(self) -> None:
        """Build the page."""
        frame, screen = self._frame, self._frame.screen
        stats = await in_thread(self._rates.look)
        self._found = await in_thread(self._load)
        numbers = {name: screen.sent(name, html) for name, html in render_numbers(stats, self._rates.newest).items()}
        with frame.main():
            markup(
                f'<div class="head"><div><h1>Broker</h1><div class="sub">{_listeners(stats)}</div></div></div>'
                f'<div class="stats">{_tiles(numbers)}</div>'
                f'<div class="grid">{_chart_card()}'
                f"{parts.card('Limits hit', numbers['limits'], classes='w4')}</div>"
                f'{screen.sent("bar", self._bar())}<section class="card">{screen.sent("rows", self._rows())}</section>'
            )
        screen.call("rates", "rates", self._rates.curves())
        screen.flush()
        for act, do in (
            ("table", self._on_table),
            ("search", self._on_search),
            ("sort", self._on_sort),
            ("turn", self._on_turn),
        ):
            frame.on(act, do)
        frame.on("kick", self._on_kick, "operator")
        frame.tick(TICK_S, self._tick)

    def _load(self) -> Any:
        wanted = self._wanted
        look = getattr(self._platform.broker.inspection, wanted.table)
        return look(wanted.search, wanted.order, wanted.offset, PAGE_ROWS, descending=wanted.descending)

    def _rows(self) -> str:
        return render_rows(self._wanted, self._found.items, self._found.total, may_change=self._frame.may("operator"))

    def _bar(self) -> str:
        wanted = self._wanted
        return (
            f'<div class="bar">{parts.segments("table", TABLES, wanted.table, "Table")}'
            f"{parts.search('search', wanted.search, SEARCHES[wanted.table])}</div>"
        )

    async def _tick(self) -> None:
        self._ticks += 1
        screen = self._frame.screen
        stats = await in_thread(self._rates.look)
        for name, html in render_numbers(stats, self._rates.newest).items():
            screen.put(name, html)
        screen.call("rates", "rates", self._rates.curves())
        if self._ticks % SLOW_TICKS == 0:
            await self._refresh()

    async def _refresh(self) -> None:
        asked = self._wanted
        found = await in_thread(self._load)
        if asked == self._wanted:  # else something else was asked for meanwhile, whose answer is on its way
            self._found = found
            self._frame.screen.put("rows", self._rows())

    async def _want(self, wanted: Wanted) -> None:
        self._wanted = wanted
        await self._refresh()
        self._frame.screen.call("address", wanted.address())

    async def _on_table(self, arg: str) -> None:
        if arg in SORTS:
            self._wanted = Wanted(arg)
            self._frame.screen.put("bar", self._bar())
            await self._want(self._wanted)

    async def _on_search(self, arg: str) -> None:
        await self._want(self._wanted._replace(search=arg.strip()[:200], offset=0))

    async def _on_sort(self, arg: str) -> None:
        wanted = self._wanted
        if arg in SORTS[wanted.table]:
            descending = not wanted.descending if wanted.order == arg else arg in LARGEST_FIRST
            await self._want(wanted._replace(sort=arg, descending=descending, offset=0))

    async def _on_turn(self, arg: str) -> None:
        step = PAGE_ROWS if arg == "next" else -PAGE_ROWS
        last = max(0, (self._found.total - 1) // PAGE_ROWS * PAGE_ROWS)
        self._wanted = self._wanted._replace(offset=min(max(0, self._wanted.offset + step), last))
        await self._refresh()

    async def _on_kick(self, arg: str) -> None:
        who = self._frame.acting("operator")
        if who.tenants is not None:
            raise RejectedError("Connections are for those who see all tenants.", code="forbidden")
        if not await self._platform.broker.kick(arg):
            raise RejectedError("That client is no longer connected.", code="not-found")
        await in_thread(record_act, self._platform.database, who, "broker.disconnect", arg)
        self._frame.screen.call("toast", "Disconnected")
        await self._refresh()


def _listeners(stats: BrokerStats) -> str:
    return "".join(
        f'<span>{parts.text(name)} <span class="mono">{parts.text(at)}</span></span>'
        for name, at in sorted(stats.listeners.items())
    )


def _tiles(numbers: dict[str, str]) -> str:
    return "".join(
        f'<div class="card stat"><span class="label">{label}</span>{numbers[name]}</div>'
        for label, name in (
            ("Connections", "connected"),
            ("Messages in per second", "in"),
            ("Messages out per second", "out"),
            ("Traffic", "traffic"),
        )
    )


def _chart_card() -> str:
    legend = (
        '<span class="more key"><i style="background:var(--chart-1)"></i>in'
        '<i style="background:var(--chart-2)"></i>out</span>'
    )
    drawing = (
        '<div class="rates" id="rates" role="img" aria-label="Messages per second, in and out">'
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none"><path class="one"/><path class="two"/></svg>'
        '<span class="top num"></span><span class="zero num">0</span></div>'
    )
    return parts.card("Messages per second", drawing, aside=legend, classes="w8")


def render_numbers(stats: BrokerStats, rates: tuple[float, float]) -> dict[str, str]:
    """Return the parts that are drawn from numbers, by their id."""
    away = max(0, stats.sessions - stats.connections)
    people = f"{_counted(stats.subscriptions, 'subscription')} · {_counted(away, 'session')} of clients away"
    if stats.redirect:
        people = parts.badge(f"clients are sent to {stats.redirect}", "warn")
    hit = sum(number for _, number in limits_of(stats))
    return {
        "connected": f'<span class="value">{words.count(stats.connections)}</span><span class="note">{people}</span>',
        "in": f'<span class="value">{words.rate(rates[0])}</span><span class="note">{words.count(stats.messages_in)} '
        "since start</span>",
        "out": f'<span class="value">{words.rate(rates[1])}</span><span class="note">{words.count(stats.messages_out)} '
        "since start</span>",
        "traffic": f'<span class="value">{words.size(stats.bytes_in)}<small>in</small></span><span class="note">'
        f"{words.size(stats.bytes_out)} out since start</span>",
        "limits": parts.facts([(name, _hits(number)) for name, number in limits_of(stats)])
        + ("" if hit else '<p class="faint" style="margin-top:12px;font-size:12px">Nothing has been refused.</p>'),
    }


def _counted(number: int, noun: str) -> str:
    return f"{words.count(number)} {noun}{'' if number == 1 else 's'}"


def limits_of(stats: BrokerStats) -> list[tuple[str, int]]:
    """Return what the broker refused or dropped since start, by reason: a new counter has its line here."""
    return [
        ("Dropped: queue full, or not read", stats.dropped),
        ("Refused: no right to the topic", stats.forbidden),
        *((_LIMITS[name], number) for name, number in stats.limited.items()),
    ]


_LIMITS: Final = {
    "connections": "Refused: too many connections",
    "connects": "Refused: connect rate, or busy",
    "messages": "Refused: more than the rate allows",
    "held": "Read later: rate or share exceeded",
    "subscriptions": "Refused: too many subscriptions",
    "retained": "Refused: no room for retained documents",
}


def _hits(number: int) -> str:
    return parts.badge(words.count(number), "warn") if number else '<span class="faint num">0</span>'


def render_rows(wanted: Wanted, rows: list[Any], total: int, *, may_change: bool = True) -> str:
    """Return the table in view and its foot."""
    if not rows:
        if wanted.search:
            return parts.empty("Nothing matches", "Loosen the search above.", name="search")
        title, body = _NOTHING[wanted.table]
        return parts.empty(title, body, name="broker")
    head, draw = _TABLES[wanted.table]
    columns = "".join(_column(name, title, wanted, is_right=is_right) for name, title, is_right in head)
    how = {} if wanted.table != "connections" else {"may_change": may_change}
    body = "".join(draw(each, **how) for each in rows)
    first = wanted.offset
    foot = (
        f'<div class="foot"><span class="num">{words.count(first + 1)}{parts.NONE}{words.count(first + len(rows))} '
        f'of {words.count(total)}</span><span class="bar">'
        f"{parts.button(parts.icon('left') + 'Previous', 'turn', 'previous', disabled=not first)}"
        f"{parts.button('Next' + parts.icon('right'), 'turn', 'next', disabled=first + len(rows) >= total)}"
        "</span></div>"
    )
    return (
        f'<div class="scroll"><table class="list cards"><thead><tr>{columns}</tr></thead><tbody>{body}</tbody>'
        f"</table></div>{foot}"
    )


def _column(name: str, title: str, wanted: Wanted, *, is_right: bool) -> str:
    right = ' class="right"' if is_right else ""
    if name not in SORTS[wanted.table]:
        return f"<th{right}>{title}</th>"
    is_chosen = wanted.order == name
    order = f' aria-sort="{"descending" if wanted.descending else "ascending"}"' if is_chosen else ""
    arrow = parts.icon("down" if wanted.descending else "up") if is_chosen else ""
    button = f'<button data-act="sort" data-arg="{name}" data-focus="sort-{name}">{title}{arrow}</button>'
    return f"<th{order}{right}>{button}</th>"


def _client(client_id: str, below: str, *, online: bool = True) -> str:
    return (
        f'<td><span class="who">{parts.dot(online=online)}<span><b>{parts.text(client_id)}</b>'
        f"{f'<small>{below}</small>' if below else ''}</span></span></td>"
    )


def _number(value: str, *, is_zero: bool) -> str:
    return f'<td class="right num hide{" faint" if is_zero else ""}">{value}</td>'


def _connection_row(row: ConnectionRow, *, may_change: bool = True) -> str:
    if row.device_id:
        is_same = row.device_id == row.client_id  # said once is enough
        name, short = ("itself", " one-line") if is_same else (parts.text(row.device_id), "")
        device = f'<a class="link{short}" href="{parts.device_href(row.device_id)}">{name}</a>'
    else:
        device = f"{words.count(row.devices)} devices" if row.devices else f'<span class="faint">{parts.NONE}</span>'
    sure = f"Disconnect {row.client_id}? It may connect again at once; its session goes on."
    part = parts.button("Disconnect", "kick", row.client_id, classes="danger", sure=sure) if may_change else ""
    waits = words.count(row.queued) + (f" · {words.size(row.queued_bytes)}" if row.queued else "")
    if row.dropped:
        waits += f" {parts.badge(words.count(row.dropped) + ' dropped', 'warn')}"
    traffic = f"{words.size(row.bytes_in)} · {words.size(row.bytes_out)}"
    return (
        f"<tr>{_client(row.client_id, f'MQTT {row.version} · {parts.text(row.listener)}')}"
        f'<td class="hide">{device}</td><td class="hide faint num">{parts.age(row.since)}</td>'
        f"{_number(words.rate(row.messages_per_s), is_zero=not row.messages_per_s)}"
        f"{_number(traffic, is_zero=False)}{_number(words.count(row.inflight), is_zero=not row.inflight)}"
        f"{_number(waits, is_zero=not (row.queued or row.dropped))}"
        f'<td class="right">{part}</td></tr>'
    )


def _session_row(row: SessionRow) -> str:
    kind = "device" if row.is_device else "application"
    waits = words.count(row.queued) + (f" · {words.size(row.queued_bytes)}" if row.queued else "")
    dropped = parts.badge(words.count(row.dropped), "warn") if row.dropped else "0"
    return (
        f"<tr>{_client(row.client_id, kind, online=row.connected)}"
        f'<td class="soft">{_expiry(row)}</td>'
        f"{_number(words.count(row.subscriptions), is_zero=not row.subscriptions)}"
        f"{_number(words.count(row.inflight), is_zero=not row.inflight)}"
        f"{_number(waits, is_zero=not row.queued)}{_number(dropped, is_zero=not row.dropped)}</tr>"
    )


def _expiry(row: SessionRow) -> str:
    if row.expiry_s == NEVER_ENDS:
        return "kept for ever"
    if not row.expiry_s:
        return "ends with its connection"
    return f"kept {words.span(row.expiry_s)}"


def _subscription_row(row: SubscriptionRow) -> str:
    options = [f"QoS {row.qos}"]
    options += ["no local"] * row.no_local + ["retain as published"] * row.retain_as_published
    options += [f"id {row.subscription_id}"] * bool(row.subscription_id)
    return (
        f'<tr><td><span class="mono">{parts.text(row.topic_filter)}</span></td>'
        f"{_client(row.client_id, '', online=row.connected)}"
        f'<td class="right soft wide">{" · ".join(options)}</td></tr>'
    )


_TABLES: Final[dict[str, tuple[tuple[tuple[str, str, bool], ...], Any]]] = {
    "connections": (
        (
            ("clientId", "Client", False),
            ("", "Device", False),
            ("since", "Since", False),
            ("messagesPerS", "Messages/s", True),
            ("bytesIn", "In · out", True),
            ("inflight", "In flight", True),
            ("queued", "Queue", True),
            ("", "", True),
        ),
        _connection_row,
    ),
    "sessions": (
        (
            ("clientId", "Client", False),
            ("", "Session", False),
            ("subscriptions", "Subscriptions", True),
            ("inflight", "In flight", True),
            ("queued", "Queue", True),
            ("dropped", "Dropped", True),
        ),
        _session_row,
    ),
    "subscriptions": (
        (("topicFilter", "Filter", False), ("clientId", "Client", False), ("", "Options", True)),
        _subscription_row,
    ),
}

_NOTHING: Final = {
    "connections": (
        "Nobody is connected",
        "A client appears here as soon as the broker has accepted it: <code class=mono>godwit mqtt sub '#'</code>",
    ),
    "sessions": ("No session", "Sessions of clients that are connected, or asked to be remembered, stand here."),
    "subscriptions": ("Nobody subscribes", "Try <code class=mono>godwit mqtt sub '#'</code>"),
}
