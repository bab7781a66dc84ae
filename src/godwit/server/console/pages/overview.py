"""`/`: how the fleet and the platform are, at a glance."""

import shlex
from collections import deque
from time import monotonic
from typing import Any, NamedTuple

from nicegui import ui
from starlette.requests import Request

from godwit.contract.ids import DeviceId
from godwit.contract.topics import Channel, DeviceTopic, topics_for
from godwit.server.accounts.principal import Principal
from godwit.server.console import parts, words
from godwit.server.console.cached import Cached
from godwit.server.console.charts import Places
from godwit.server.console.frame import Frame, in_thread, markup
from godwit.server.console.reasons import reason
from godwit.server.ingest.door import Freshness, IngestStats
from godwit.server.platform import BrokerStats, Platform
from godwit.server.registry.access import sees
from godwit.server.registry.model import Device, Lifecycle, Presence
from godwit.server.telemetry.model import Document, Quarantined
from godwit.server.telemetry.store import StoreStats

TICK_S = 1.0
SLOW_TICKS = 5
"""Lists and map are asked for on every fifth tick, numbers on each."""

SPARK_POINTS = 90
_ROWS = 6
PLACES_MAX = 10_000
"""Dots on the map."""

Rows = list[tuple[Device, Presence]]


class Numbers(NamedTuple):
    """What changes every second."""

    counts: dict[str, int]
    fresh: Freshness
    quarantined_bytes: int
    platform: "PlatformNumbers | None"
    """Of all tenants together: for who may see all of them."""


class PlatformNumbers(NamedTuple):
    """What the machine does, whoever it is for."""

    ingest: IngestStats
    broker: BrokerStats
    store: StoreStats


class Lists(NamedTuple):
    """What is asked for less often."""

    newest: Rows
    unclaimed: Rows
    refused: list[Quarantined]
    events: list[tuple[str, Document]]
    """With the device that said it."""
    places: list[list[Any]]


class Overview:
    """Asks the doors, for all open overviews together."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._numbers: Cached[Numbers] = Cached(TICK_S * 0.8)
        self._rates: deque[tuple[float, float, float]] = deque(maxlen=SPARK_POINTS)
        self._lists: Cached[Lists] = Cached(TICK_S * SLOW_TICKS * 0.9)

    def numbers(self, who: Principal, younger_s: float | None = None) -> Numbers:
        """Return the numbers of the tiles. Blocks."""
        return self._numbers.get(who.tenants, lambda: self._ask_numbers(who), younger_s)

    def _ask_numbers(self, who: Principal) -> Numbers:
        platform = self._platform
        kept = platform.store.quarantine_sizes().items() if who.tenants is not None else ()
        return Numbers(
            platform.registry.counts(who),
            platform.ingest.freshness(who.tenants),
            sum(size for (tenant, _), size in kept if sees(who, tenant)),
            self._ask_platform() if who.tenants is None else None,
        )

    def _ask_platform(self) -> PlatformNumbers:
        ingest, now = self._platform.ingest.stats(), monotonic()
        if self._rates and now - self._rates[-1][0] > 3 * TICK_S:
            self._rates.clear()  # nobody was looking meanwhile: a curve across the gap would be made up
        self._rates.append((now, round(ingest.messages_per_s, 2), round(ingest.readings_per_s, 2)))
        return PlatformNumbers(ingest, self._platform.broker.stats(), self._platform.store.stats())

    def rates(self) -> tuple[list[float], list[float]]:
        """Return messages and readings per second of the last ticks."""
        rates = list(self._rates)
        return [each[1] for each in rates], [each[2] for each in rates]

    def lists(self, who: Principal, younger_s: float | None = None) -> Lists:
        """Return map and lists. Blocks."""
        registry, store = self._platform.registry, self._platform.store
        return self._lists.get(
            who.tenants,
            lambda: Lists(
                registry.devices(who, sort="lastSeen", descending=True, limit=_ROWS).items,
                registry.devices(who, lifecycle=Lifecycle.UNCLAIMED, limit=_ROWS).items,
                store.quarantine(tenants=who.tenants, limit=_ROWS),
                self._events(who),
                [[east, north, device, online] for device, north, east, online in registry.positions(who, PLACES_MAX)],
            ),
            younger_s,
        )

    def _events(self, who: Principal) -> list[tuple[str, Document]]:
        """Return the newest events of the fleet, as far as `who` may see it."""
        found: list[tuple[str, Document]] = []
        asked = _ROWS if who.tenants is None else _ROWS * 20  # those of other tenants are left out
        for each in self._platform.store.documents(None, [Channel.EVENTS], asked):
            device = self._platform.ingest.device_of(each.device_no)
            if device is not None and sees(who, device[1]):
                found.append((device[0], each))
        return found[:_ROWS]


def register(platform: Platform) -> None:
    """Put the page up."""
    overview = Overview(platform)

    @ui.page("/", title="Overview · godwit")
    async def page(request: Request) -> None:
        frame = Frame(platform, request, "overview", "Overview")
        numbers = await in_thread(overview.numbers, frame.who)
        # Who opens the page has just done something and looks for it: what others were shown is too old for him.
        lists = await in_thread(overview.lists, frame.who, 0.0)
        if not numbers.counts.get("total"):
            numbers = await in_thread(overview.numbers, frame.who, 0.0)
        if not numbers.counts.get("total"):
            _show_empty(frame, overview)
            return
        _show(frame, overview, numbers, lists)


def _show_empty(frame: Frame, overview: Overview) -> None:
    """Show what to do first; the page comes by itself when the first device has spoken."""
    with frame.main():
        markup(_heading() + parts.card("", _first_steps(frame)))

    async def tick() -> None:
        if (await in_thread(overview.numbers, frame.who)).counts.get("total"):
            ui.navigate.reload()

    frame.tick(TICK_S, tick)


def _show(frame: Frame, overview: Overview, numbers: Numbers, lists: Lists) -> None:
    screen, platform = frame.screen, frame.platform
    drawn = render_numbers(platform, numbers) | render_lists(lists)
    part = {name: screen.sent(name, html) for name, html in drawn.items()}
    with frame.main():
        markup(_heading() + _tiles(part))
        with ui.element("div").classes("grid"):
            with ui.element("section").classes("card w8"):
                markup(_map_head(part["placed"]))
                places = Places(lists.places)
                if not lists.places:
                    places.set_visibility(False)
                    markup(_no_places())
            markup(
                parts.card("Platform", part["platform"], aside=part["ready"], classes="w4")
                + parts.card("Last heard from", part["newest"], aside=_more("/devices"), classes="w6", flush=True)
                + parts.card("Newest events", part["events"], classes="w6", flush=True)
                + parts.card(
                    "Unclaimed",
                    part["unclaimed"],
                    aside=_more("/devices?lifecycle=unclaimed"),
                    classes="w6",
                    flush=True,
                )
                + parts.card(
                    "Newest in quarantine", part["refused"], aside=_more("/quarantine"), classes="w6", flush=True
                ),
            )
    if numbers.platform is not None:
        messages, readings = overview.rates()
        screen.call("spark", "spark-messages", messages)
        screen.call("spark", "spark-readings", readings)
    screen.flush()
    ticks = 0
    shown = lists.places

    async def tick() -> None:
        nonlocal ticks, shown
        ticks += 1
        now = await in_thread(overview.numbers, frame.who)
        for name, html in render_numbers(platform, now).items():
            screen.put(name, html)
        if now.platform is not None:
            screen.call("spark", "spark-messages", round(now.platform.ingest.messages_per_s, 2))
            screen.call("spark", "spark-readings", round(now.platform.ingest.readings_per_s, 2))
        if ticks % SLOW_TICKS == 0:
            then = await in_thread(overview.lists, frame.who)
            for name, html in render_lists(then).items():
                screen.put(name, html)
            if then.places != shown:
                shown = then.places
                places.set_visibility(visible=True)
                places.load(shown)

    frame.tick(TICK_S, tick)


def _heading() -> str:
    return '<div class="head"><h1>Overview</h1></div>'


def _more(href: str) -> str:
    return f'<a class="more" href="{href}">View all</a>'


def _tiles(part: dict[str, str]) -> str:
    def tile(label: str, name: str, *, href: str = "", spark: str = "") -> str:
        tag, link = ("a", f' href="{href}"') if href else ("div", "")
        drawing = (
            f'<svg class="spark" id="{spark}" viewBox="0 0 100 44" preserveAspectRatio="none" aria-hidden="true">'
            '<path class="area"/><path class="line"/></svg>'
            if spark
            else ""
        )
        return f'<{tag} class="card stat"{link}><span class="label">{label}</span>{part[name]}{drawing}</{tag}>'

    if "messages" in part:
        tiles = [
            tile("Messages per second", "messages", spark="spark-messages"),
            tile("Readings per second", "readings", spark="spark-readings"),
            tile("Freshness", "fresh"),
            tile("Quarantined since start", "quarantine", href="/quarantine"),
        ]
    else:  # for who sees some tenants only
        tiles = [tile("Freshness", "fresh"), tile("In quarantine", "quarantine", href="/quarantine")]
    online = tile("Devices online", "online", href="/devices?online=yes")
    return f'<div class="stats {"five" if len(tiles) > 3 else "three"}">{online}{"".join(tiles)}</div>'


def _map_head(placed: str) -> str:
    return f'<header><h2>Locations</h2><span class="more">{placed}</span></header>'


def _no_places() -> str:
    return parts.empty(
        "No device has a location yet",
        "Send <code class=mono>location</code> with the telemetry, or set it on the device through the API.",
        name="place",
    )


def render_numbers(platform: Platform, numbers: Numbers) -> dict[str, str]:
    """Return the parts that are drawn from numbers, by their id."""
    counts = numbers.counts
    total, online = counts.get("total", 0), counts.get("online", 0)
    trouble = platform.trouble()
    drawn = {
        "online": f'<span class="value">{words.count(online)}<small>of {words.count(total)}</small></span>'
        f'{parts.meter_plain(online / total if total else 0)}<span class="note">{_states(counts)}</span>',
        "fresh": _freshness(numbers.fresh),
        "quarantine": f'<span class="value">{words.size(numbers.quarantined_bytes)}</span>'
        '<span class="note">of messages that could not be accepted</span>',
        "ready": parts.badge("not ready", "bad") if trouble else parts.badge("ready", "good"),
        "platform": parts.facts([_heartbeat(trouble), _started(platform)]),
    }
    return drawn | (_render_platform(platform, numbers.platform, trouble) if numbers.platform is not None else {})


def _heartbeat(trouble: list[str]) -> tuple[str, str]:
    return "Heartbeat", parts.badge("held back", "warn") if trouble else '<span class="num">every 10 s</span>'


def _started(platform: Platform) -> tuple[str, str]:
    return "Started", parts.age(platform.started)


def _render_platform(platform: Platform, numbers: PlatformNumbers, trouble: list[str]) -> dict[str, str]:
    ingest, broker, store = numbers
    pending = f"{words.count(ingest.pending_messages)} · {words.size(ingest.pending_bytes)}"
    stored = store.points_hot + store.points_sealed
    return {
        "messages": f'<span class="value">{words.rate(ingest.messages_per_s)}</span>',
        "readings": f'<span class="value">{words.rate(ingest.readings_per_s)}</span>',
        "quarantine": f'<span class="value">{words.count(ingest.quarantined)}</span>'
        f'<span class="note">of {words.count(ingest.messages)} messages</span>',
        "platform": parts.facts(
            (
                _heartbeat(trouble),
                _started(platform),
                ("Connections", words.count(broker.connections)),
                ("Sessions · subscriptions", f"{words.count(broker.sessions)} · {words.count(broker.subscriptions)}"),
                ("Retained documents", words.count(broker.retained)),
                ("Waiting for commit", pending),
                ("Duplicates · late", f"{words.count(ingest.duplicates)} · {words.count(ingest.late)}"),
                ("Points stored", words.count(stored)),
                ("On disk", words.size(store.bytes_hot + store.bytes_sealed)),
                *(
                    (f"Listener {name}", f'<span class="mono one-line">{parts.text(at)}</span>')
                    for name, at in sorted(broker.listeners.items())
                ),
                *((f"Bridge {name}", parts.text(state)) for name, state in sorted(broker.bridges.items())),
            )
        ),
    }


def _freshness(fresh: Freshness) -> str:
    """Say how old the newest sample of a live device is, and who delivers what it kept while it was away."""
    if not fresh.live:
        return f'<span class="value">{parts.NONE}</span><span class="note">nothing stored in the last 5 min</span>'
    behind = (
        f"<br>{words.count(fresh.catching_up)} catching up, {words.about(fresh.behind_max_s)} behind"
        if fresh.catching_up
        else " · nobody catching up"
    )
    return (
        f'<span class="value" title="Age of the newest stored sample, over the {words.count(fresh.live)} devices that '
        f'delivered any in the last 5 minutes"><span class="one-line">{words.about(fresh.age_p50_s)}</span>'
        "<small>typical</small></span>"
        f"{parts.meter_plain(1 - fresh.catching_up / fresh.live)}"
        f'<span class="note">95 % within {words.about(fresh.age_p95_s)}{behind}</span>'
    )


def _states(counts: dict[str, int]) -> str:
    states = ((counts.get(name, 0), name) for name in ("unclaimed", "suspended", "retired"))
    return " · ".join(f"{words.count(number)} {name}" for number, name in states if number) or "all claimed and active"


def render_lists(lists: Lists) -> dict[str, str]:
    """Return the parts that are drawn from lists, by their id."""
    refused = "".join(
        f'<li class="go" data-href="/quarantine?open={each.number}"><a class="grow" '
        f'href="/quarantine?open={each.number}">'
        f'{parts.badge(each.code, "warn")}<br><span class="faint">{parts.text(each.device_id or each.topic)}</span></a>'
        f'<span class="end" title="{parts.text(reason(each.code).what)}">{parts.age(each.received)}</span></li>'
        for each in lists.refused
    )
    return {
        "placed": _placed(len(lists.places)),
        "newest": _device_rows(lists.newest)
        or parts.empty("Nothing heard yet", "Devices appear here when they speak."),
        "unclaimed": _device_rows(lists.unclaimed)
        or parts.empty(
            "Every device is claimed", "A device that registers itself on the local listener waits here.", name="ok"
        ),
        "events": _event_rows(lists.events)
        or parts.empty("No events yet", "Boots, errors and local alerts that devices report are listed here."),
        "refused": f'<ul class="rows">{refused}</ul>'
        if refused
        else parts.empty("Quarantine is empty", "Every message so far could be read and stored.", name="ok"),
    }


def _device_rows(rows: Rows) -> str:
    items = "".join(
        f'<li class="go" data-href="{parts.device_href(device.device_id)}"><a class="who" '
        f'href="{parts.device_href(device.device_id)}">'
        f"{parts.dot(online=presence.online)}<span><b>{parts.text(device.name or device.device_id)}</b>"
        f"<small>{parts.text(device.device_type)}</small></span></a>"
        f'<span class="end">{parts.age(presence.last_seen)}</span></li>'
        for device, presence in rows
    )
    return f'<ul class="rows">{items}</ul>' if items else ""


def _placed(number: int) -> str:
    return f"{words.count(number)} placed" if number < PLACES_MAX else f"the first {words.count(PLACES_MAX)} placed"


def _event_rows(events: list[tuple[str, Document]]) -> str:
    items = ""
    for device_id, each in events:
        kind, detail, severity = words.event(each.payload)
        href = parts.device_href(device_id)
        items += (
            f'<li class="go" data-href="{href}"><a class="grow" href="{href}">'
            f"{parts.badge(kind, parts.severity(severity))} {parts.text(detail[:120])}<br>"
            f'<span class="faint">{parts.text(device_id)}</span>'
            f'</a><span class="end">{parts.age(each.received)}</span></li>'
        )
    return f'<ul class="rows">{items}</ul>' if items else ""


def _first_steps(frame: Frame) -> str:
    """Return what to do first: each way only to who may go it."""
    platform = frame.platform
    line = first_message(platform, "sensor-1")
    ways = (
        '<p style="margin-bottom:16px">Paste this into a terminal on this machine. The device registers itself, '
        "and this page "
        f"fills the moment the message is stored.</p>{parts.command(line)}"
        '<p style="margin:16px 0 8px">Or start a simulated fleet of twelve:</p>'
        + parts.command(f"godwit simulate --devices 12 --port {platform.settings.mqtt_port}")
    )
    if frame.may("operator"):
        ways += (
            '<p style="margin:16px 0 8px">A device of your own, with its own certificate, over TLS:</p>'
            + parts.command("godwit device enroll sensor-1 --out bundles")
            + '<p style="margin-top:16px">Other ways are under <a class="link" href="/enrollment">Enrollment</a>.</p>'
        )
    if frame.may("admin"):
        ways += '<p>People who work here are added under <a class="link" href="/access">Access</a>.</p>'
    return parts.empty("Send the first reading", ways, name="devices", big=True)


def first_message(platform: Platform, device_id: str) -> str:
    """Return a `mosquitto_pub` command that publishes a reading as `device_id`."""
    settings = platform.settings
    topic = topics_for(settings.topic_layout).build(DeviceTopic(DeviceId(device_id), Channel.TELEMETRY))
    payload = f'{{"deviceId": "{device_id}", "sensors": {{"temperature": 21.5, "humidity": 48.2}}}}'
    where = f"-h {settings.mqtt_host} -p {settings.mqtt_port}"
    return f"mosquitto_pub {where} -q 1 -t {shlex.quote(topic)} -m {shlex.quote(payload)}"
