"""What the pages show of clocks: pure functions from reports to HTML."""

from collections.abc import Sequence
from typing import Final

from godwit.server.console import parts, words
from godwit.server.ingest.clock_report import (
    DRIFT_EDGES_PPM,
    OFFSET_EDGES_NS,
    ClockReport,
    FleetClocks,
    drift_bins,
    offset_bins,
)

HOW: Final = (
    "A device is compared with the platform when it says <code class=mono>sync</code> in its telemetry, as the device "
    "SDK does by itself. Nothing is ever corrected by how long a message took one way."
)
_OFFSET_WORDS: Final = ("1 d", "1 h", "1 min", "1 s", "100 ms", "10 ms")
MINUS: Final = "\u2212"


def offset_words(report: ClockReport) -> str:
    """Return how far off a clock is: 3.2 s ahead."""
    if report.offset_ns is None:
        return "counts from boot"
    if abs(report.offset_ns) <= report.uncertainty_ns:
        return f"within {words.duration(report.uncertainty_ns)}"
    return f"{words.duration(report.offset_ns)} {'ahead' if report.offset_ns > 0 else 'behind'}"


def drift_words(report: ClockReport) -> str:
    """Return the drift: +12.3 ± 0.4 ppm."""
    if not report.is_drift_known:
        return "drift not known"
    return f"{_signed(report.drift_ppm)} ± {report.drift_uncertainty_ppm:.0f} ppm"


def _signed(number: float) -> str:
    text = f"{abs(number):.1f}"
    return text if text == "0.0" else f"{'+' if number > 0 else MINUS}{text}"


def state(report: ClockReport) -> str:
    """Return what is done about a clock, as a badge."""
    if report.clock == "uptime":
        return parts.badge("from boot", "accent")
    return parts.badge("corrected", "warn") if report.is_corrected else parts.badge("good", "good")


def device_clock(report: ClockReport | None) -> str:
    """Return what a device's page says of its clock."""
    if report is None:
        return parts.empty("Not compared yet", HOW, name="clocks")
    rows = [
        ("Offset", parts.text(offset_words(report))),
        ("Uncertainty", f"± {words.duration(report.uncertainty_ns)}"),
        ("Drift", drift_words(report) if report.is_drift_known else "not known yet"),
        ("Readings", state(report)),
        ("Compared", parts.age(report.measured)),
    ]
    if report.boot_id:
        rows.append(("Boot", f'<span class="mono">{parts.text(report.boot_id[:36])}</span>'))
    if report.steps:
        size = f"{words.duration(report.step_ns)} {'forward' if report.step_ns > 0 else 'back'}"
        rows.append(("Last set", f"{size}, {parts.age(report.stepped)}"))
    return parts.facts(rows)


def numbers(fleet: FleetClocks) -> dict[str, str]:
    """Return the tiles of the page, by their id."""
    if not fleet.devices:
        return {name: _tile(parts.NONE, "no clock was compared") for _, name in TILES}
    half = words.duration(fleet.offset_ns_median)
    return {
        "compared": _tile(words.count(fleet.devices), f"{words.count(fleet.stepped)} were seen to step"),
        "corrected": _tile(words.count(fleet.corrected), "their readings are stored at the corrected time"),
        "furthest": _tile(words.duration(fleet.offset_ns_max), f"half are within {half}"),
        "drift": _tile(
            f"{fleet.drift_ppm_median:.1f}<small>ppm</small>",
            f"at most {fleet.drift_ppm_max:.1f} ppm, {fleet.drift_ppm_max * 0.0864:.1f} s a day",
        )
        if fleet.drifts
        else _tile(parts.NONE, "known after some minutes"),
    }  # fmt: skip


TILES: Final = (
    ("Clocks compared", "compared"),
    ("Corrected", "corrected"),
    ("Furthest off", "furthest"),
    ("Drift, median", "drift"),
)


def _tile(value: str, note: str) -> str:
    return f'<span class="value">{value}</span><span class="note">{note}</span>'


def offsets_drawing(reports: Sequence[ClockReport], threshold_ns: int) -> str:
    """Return devices by how far off their clocks are: those that are behind at the left."""
    counts = offset_bins(reports)
    edges = (-float("inf"), *OFFSET_EDGES_NS, float("inf"))
    is_off = [edges[at + 1] <= -threshold_ns or edges[at] >= threshold_ns for at in range(len(counts))]
    marks = [f"{MINUS}{each}" for each in _OFFSET_WORDS] + [f"+{each}" for each in reversed(_OFFSET_WORDS)]
    scale = ((2, marks[1]), (4, marks[3]), (6.5, "± 10 ms"), (9, marks[8]), (11, marks[10]))
    return _drawing(counts, is_off, marks, "Devices by the offset of their clocks", scale)


def charts(reports: Sequence[ClockReport], threshold_ns: int) -> str:
    """Return both drawings, as cards; nothing where there is nothing to draw."""
    if not reports:
        return ""
    return (
        f'<div class="grid">{parts.card("Offset", offsets_drawing(reports, threshold_ns), classes="w6")}'
        f"{parts.card('Drift, ppm', drifts_drawing(reports), classes='w6')}</div>"
    )


def drifts_drawing(reports: Sequence[ClockReport]) -> str:
    """Return devices by the drift of their clocks."""
    counts = drift_bins(reports)
    if not any(counts):
        return parts.empty("No drift is known yet", "It takes some minutes between the first exchange and the last.")
    marks = [f"{MINUS if each < 0 else '+'}{abs(each):.0f}" for each in DRIFT_EDGES_PPM]
    scale = ((1, marks[0]), (3, marks[2]), (5, marks[4]), (6.5, "± 5"), (8, marks[7]), (10, marks[9]), (12, marks[11]))
    return _drawing(counts, [False] * len(counts), marks, "Devices by the drift of their clocks, ppm", scale)


def _drawing(
    counts: Sequence[int],
    is_off: Sequence[bool],
    marks: Sequence[str],
    label: str,
    scale: Sequence[tuple[float, str]],
) -> str:
    most = max(*counts, 1)
    said = ", ".join(
        f"{words.count(count)} {_between(at, marks)}" for at, count in enumerate(counts) if count
    )  # fmt: skip
    bars = "".join(
        f'<span title="{words.count(count)} {parts.text(_between(at, marks))}">'
        f"{f'<b>{words.count(count)}</b>' if count else ''}"
        f'<i class="{"none" if not count else "off" if off else ""}" style="height:{count / most * 80:.1f}%"></i>'
        "</span>"
        for at, (count, off) in enumerate(zip(counts, is_off, strict=True))
    )
    places = "".join(
        f'<span style="left:{at / len(counts) * 100:.2f}%">{parts.text(text)}</span>' for at, text in scale
    )
    return (
        f'<div class="bins" role="img" aria-label="{label}: {parts.text(said) or "none"}">{bars}</div>'
        f'<div class="scale" aria-hidden="true">{places}</div>'
    )


def _between(at: int, marks: Sequence[str]) -> str:
    if at == 0:
        return f"below {marks[0]}"
    return f"from {marks[at - 1]} to {marks[at]}" if at < len(marks) else f"above {marks[-1]}"


def row(report: ClockReport) -> str:
    """Return a device's row."""
    known = report.is_drift_known
    href = parts.device_href(report.device_id)
    below = "" if report.clock == "utc" else "counts from boot"
    uncertain = f"± {words.duration(report.uncertainty_ns)}"
    offset = parts.text(offset_words(report)) if report.clock == "utc" else parts.NONE
    steps = words.count(report.steps) if report.steps else '<span class="faint">0</span>'
    return (
        f'<tr><td><a class="who" href="{href}"><span><b>{parts.text(report.device_id)}</b>'
        f"{f'<small>{below}</small>' if below else ''}</span></a></td>"
        f'<td class="right num">{offset}</td><td class="right num hide faint">{uncertain}</td>'
        f'<td class="num right{"" if known else " faint"}">{drift_words(report)}</td>'
        f'<td class="right num hide">{steps}</td><td class="right hide faint num">{parts.age(report.measured)}</td>'
        f'<td class="right">{state(report)}</td></tr>'
    )


NOTHING: Final = parts.empty("No clock was compared yet", HOW, name="clocks", big=True)
