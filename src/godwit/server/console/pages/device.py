"""`/devices/{id}`: all about one device. Its charts follow new readings: four pushes a second at most, points only."""

from time import time_ns

from nicegui import ui
from starlette.requests import Request

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId
from godwit.server.console import parts
from godwit.server.console.certificate_parts import certificates, credentials
from godwit.server.console.charts import Curves
from godwit.server.console.curves import RANGES, SHOWN_MAX, Window, batch, custom_window, history, window_of
from godwit.server.console.device_parts import Facts, account, last_messages, latest_values, render
from godwit.server.console.frame import Frame, in_thread, markup
from godwit.server.console.pages.certificates import revoke
from godwit.server.console.pages.device_custody import CustodyActs
from godwit.server.console.words import unit
from godwit.server.ingest.door import Latest, eyes
from godwit.server.platform import Platform
from godwit.server.telemetry.live import Listener, Reading

TICK_S = 0.25
ACCOUNT_TICKS = 4
"""Ledger and raw messages, which stand in memory, are looked at once a second while there is news."""
SLOW_TICKS = 8
"""The registry is asked every two seconds."""
EVENT_TICKS = 32
"""The store is asked for events every eight."""
EVENTS_MAX = 20


def register(platform: Platform) -> None:
    """Put the page up."""

    @ui.page("/devices/{device_id}", title="Device · godwit")
    async def page(request: Request, device_id: str) -> None:
        frame = Frame(platform, request, "devices", device_id[:64])
        shown = _Page(frame, DeviceId(device_id))
        try:
            facts = await in_thread(shown.ask)
        except RejectedError:
            _show_unknown(frame, device_id)
            return
        await shown.show(facts)


def _show_unknown(frame: Frame, device_id: str) -> None:
    with frame.main():
        markup(
            parts.card(
                "",
                parts.empty(
                    "No such device",
                    f'<span class="mono">{parts.text(device_id[:64])}</span> is not registered, or not yours to see. '
                    '<a class="link" href="/devices">All devices</a>',
                    name="search",
                    big=True,
                ),
            ),
        )


class _Page:
    def __init__(self, frame: Frame, device_id: DeviceId) -> None:
        self._frame = frame
        self._platform = frame.platform
        self._device_id = device_id
        self._range = "1h"
        self._from, self._to = "", ""
        self._window = window_of(self._range, time_ns())
        self._latest: list[Latest] = []
        self._chosen: list[str] = []
        self._listener: Listener | None = None
        self._ticks = 0
        self._has_news = False
        self._facts: Facts | None = None
        self._custody = CustodyActs(frame, device_id, self._show_custody)

    def ask(self) -> Facts:
        """Ask the doors for all but the charts. Blocks. Raises RejectedError when there is no such device."""
        platform, who, device_id = self._platform, self._frame.who, self._device_id
        device = platform.registry.device(who, device_id)
        events = self._facts.events if self._facts else []
        if self._ticks % EVENT_TICKS == 0 and (number := platform.ingest.device_no(device_id)) is not None:
            events = platform.store.documents(number, ["events"], EVENTS_MAX)
        self._facts = Facts(
            device=device,
            presence=platform.registry.presence(who, device_id),
            latest=self._ask_latest(),
            ledger=platform.ingest.ledger(device_id),
            gaps=platform.ingest.gaps(device_id),
            raw=platform.ingest.raw(device_id),
            events=events,
            said=platform.ingest.metadata(device_id),
            clock=platform.ingest.clock(device_id),
            sealing=platform.ingest.sealing(device_id),
        )
        return self._facts

    def _ask_latest(self) -> list[Latest]:
        return sorted(self._platform.ingest.latest(self._device_id), key=lambda each: each.name)

    async def show(self, facts: Facts) -> None:
        """Build the page."""
        frame, screen = self._frame, self._frame.screen
        # listen before history is read, so that nothing falls between the two
        may_see = eyes(self._platform.ingest, frame.who)
        self._listener = self._platform.live.listen(lambda: None, frozenset({self._device_id}), may_see)
        ui.context.client.on_delete(self._listener.close)
        self._latest = facts.latest
        self._chosen = self._first_choice()
        points = await in_thread(history, self._platform.store, self._series(), self._window)
        drawn = render(facts)
        part = {name: screen.sent(name, html) for name, html in drawn.items()}
        with frame.main():
            markup(part["head"] + part["clones"])
            markup(
                f'<div class="bar" style="justify-content:space-between">{screen.sent("ranges", self._ranges())}'
                f"{screen.sent('chips', self._chips())}</div>",
            )
            self._curves = Curves(self._units(), self._chosen)
            self._load(points)
            markup(screen.sent("no-curves", self._no_curves()))
            markup(
                '<div class="grid"><div class="stack w8">'
                + parts.card("Latest values", part["latest"], flush=True)
                + parts.card("Gaps", part["gaps"], flush=True)
                + parts.card(
                    "Credentials", screen.sent("certificates", await in_thread(self._certificates)), flush=True
                )
                + parts.card("Events", part["events"], flush=True)
                + parts.card("Last messages, as they came", part["raw"], flush=True)
                + '</div><div class="stack w4">'
                + parts.card("Status and health", part["health"])
                + parts.card("Owner and hardware", screen.sent("custody", await in_thread(self._custody.draw)))
                + parts.card("Ledger", part["ledger"])
                + parts.card("Clock", part["clock"])
                + parts.card("About", part["about"])
                + "</div></div>",
            )
        frame.on("revoke-certificate", self._revoke, "operator")
        frame.on("revoke-token", self._on_token, "operator")
        frame.on("retire-key", self._on_key, "operator")
        self._custody.listen()
        frame.on("range", self._on_range)
        frame.on("from", self._on_from)
        frame.on("to", self._on_to)
        frame.on("pick", self._on_pick)
        frame.tick(TICK_S, self._tick)

    def _certificates(self) -> str:
        """Return the device's certificates. Blocks."""
        page = self._platform.identity.certificates.page(self._frame.who, device_id=self._device_id, limit=20)
        may = self._frame.may("operator")
        identity, device = self._platform.identity, (self._frame.who, DeviceId(self._device_id))
        others = credentials(
            identity.device_tokens.of_device(*device), identity.device_keys.of_device(*device), may_change=may
        )
        grace = self._platform.identity.certificates.in_grace(page.items)
        return others + certificates(page.items[::-1], may_change=may, with_device=False, grace=grace)

    async def _on_token(self, arg: str) -> None:
        tokens = self._platform.identity.device_tokens
        await in_thread(tokens.revoke, self._frame.acting("operator"), DeviceId(self._device_id), arg[:64])
        await self._show_credentials()

    async def _on_key(self, arg: str) -> None:
        keys = self._platform.identity.device_keys
        await in_thread(keys.retire, self._frame.acting("operator"), DeviceId(self._device_id), arg[:64])
        await self._show_credentials()

    async def _revoke(self, arg: str) -> None:
        await revoke(self._frame, arg)
        await self._show_credentials()

    async def _show_credentials(self) -> None:
        """Show anew what the device comes in by, and whose it is."""
        for name, draw in (("certificates", self._certificates), ("custody", self._custody.draw)):
            self._frame.screen.put(name, await in_thread(draw))

    async def _show_custody(self) -> None:
        """Show what was just changed, without waiting for the next look."""
        if self._is_ours():
            facts = await in_thread(self.ask)
            for name, html in render(facts).items():
                self._frame.screen.put(name, html)
            await self._show_credentials()

    def _is_ours(self) -> bool:
        """Whether the person may still see the device: it may have become another tenant's."""
        return self._platform.ingest.is_of(self._frame.who.tenants, self._device_id)

    async def _tick(self) -> None:
        if not self._is_ours():
            ui.navigate.to("/devices")
            return
        news = self._listener.take() if self._listener else []
        readings = [each for each in news if isinstance(each, Reading)]
        if readings and self._window.follow and (points := batch(readings, self._chosen)):
            self._curves.append(points)
        self._ticks += 1
        self._has_news = self._has_news or bool(news)
        if readings:
            await self._show_latest(self._ask_latest())
        if self._has_news and self._ticks % ACCOUNT_TICKS == 0:
            self._has_news = False
            self._frame.screen.put("ledger", account(self._platform.ingest.ledger(self._device_id)))
            self._frame.screen.put("raw", last_messages(self._platform.ingest.raw(self._device_id)))
        if len(readings) < len(news) or self._ticks % SLOW_TICKS == 0:  # came, went, or it is time
            facts = await in_thread(self.ask)
            for name, html in render(facts).items():
                self._frame.screen.put(name, html)
            await self._show_credentials()
            await self._show_latest(facts.latest)

    async def _show_latest(self, latest: list[Latest]) -> None:
        self._frame.screen.put("latest", latest_values(latest))
        before = self._numeric()
        self._latest = latest
        if self._numeric() != before:
            await self._on_new_readings()

    async def _on_new_readings(self) -> None:
        """Show readings that the device never sent before, while there is room."""
        self._curves.extend(self._units())
        room = [name for name in self._numeric() if name not in self._chosen]
        self._chosen += room[: max(0, SHOWN_MAX - len(self._chosen))]
        await self._redraw()

    def _numeric(self) -> list[str]:
        return [each.name for each in self._latest if not isinstance(each.value, str)]

    def _first_choice(self) -> list[str]:
        """Return what is drawn before anybody has chosen: measurements before switches."""
        switches = {each.name for each in self._latest if isinstance(each.value, bool)}
        return sorted(self._numeric(), key=lambda name: name in switches)[:SHOWN_MAX]

    def _units(self) -> dict[str, str]:
        return {each.name: unit(each.unit) for each in self._latest if not isinstance(each.value, str)}

    def _series(self) -> dict[str, int]:
        latest = self._latest if self._is_ours() else []
        return {each.name: each.series for each in latest if each.name in self._chosen}

    def _load(self, points: dict[str, list[list[float]]]) -> None:
        start, end = self._window.milliseconds()
        self._curves.load(points, start, end, follow=self._window.follow)

    async def _redraw(self) -> None:
        """Read the history again and show it."""
        window: Window = self._window
        if window.follow:
            window = self._window = window_of(self._range, time_ns())
        points = await in_thread(history, self._platform.store, self._series(), window)
        if window is not self._window:  # another window was chosen meanwhile
            return
        self._curves.choose(self._chosen)
        self._load(points)
        for name, html in (("ranges", self._ranges()), ("chips", self._chips()), ("no-curves", self._no_curves())):
            self._frame.screen.put(name, html)

    async def _on_range(self, arg: str) -> None:
        self._range = arg
        if arg == "custom":
            self._frame.screen.put("ranges", self._ranges())
            return
        self._window = window_of(arg, time_ns())
        await self._redraw()

    async def _on_from(self, arg: str) -> None:
        self._from = arg
        await self._on_custom()

    async def _on_to(self, arg: str) -> None:
        self._to = arg
        await self._on_custom()

    async def _on_custom(self) -> None:
        window = custom_window(self._from, self._to)
        if window is not None:
            self._window = window
            points = await in_thread(history, self._platform.store, self._series(), window)
            if window is self._window:
                self._load(points)

    async def _on_pick(self, arg: str) -> None:
        if arg in self._chosen:
            self._chosen = [name for name in self._chosen if name != arg]
        elif arg in self._numeric():
            self._chosen = [name for name in self._numeric() if name in self._chosen or name == arg]
        await self._redraw()

    def _ranges(self) -> str:
        choices = [*((key, words) for key, words, _ in RANGES), ("custom", "Custom")]
        hidden = "" if self._range == "custom" else " hidden"
        fields = "".join(
            f'<label>{words} <input class="field" type="datetime-local" data-act="{act}"></label>'
            for act, words in (("from", "From"), ("to", "to"))
        )
        segments = parts.segments("range", choices, self._range, "Range")
        return f'<div class="bar">{segments}<div class="custom"{hidden}>{fields}</div></div>'

    def _chips(self) -> str:
        numeric = self._numeric()
        chips = "".join(
            f'<button class="chip" data-act="pick" data-arg="{parts.text(name)}" data-focus="pick-{parts.text(name)}" '
            f'style="--c:var(--chart-{at % 6 + 1})" aria-pressed="{"true" if name in self._chosen else "false"}">'
            f"<i></i>{parts.text(name)}</button>"
            for at, name in enumerate(numeric)
        )
        return f'<div class="chips" role="group" aria-label="Readings shown">{chips}</div>' if len(numeric) > 1 else ""

    def _no_curves(self) -> str:
        if self._chosen:
            return ""
        if self._numeric():
            return parts.card("", parts.empty("No reading chosen", "Choose what to draw above."))
        return parts.card(
            "",
            parts.empty("No readings yet", "Charts begin with the first numeric reading; this page follows by itself."),
        )
