"""Does the page say of clocks what is known of them, and what to do where nothing is?"""

import re

import pytest

from godwit.server.console import clock_parts, words
from godwit.server.console.pages.clocks import Wanted, render_rows, wanted_from
from godwit.server.ingest.clock_report import ClockReport, drift_bins, fleet, offset_bins, page

NS = 1_000_000_000


def report(device_id: str, offset: int | None = 0, drift: float = 0.0, **more) -> ClockReport:
    fields = {
        "clock": "utc" if offset is not None else "uptime", "boot_id": "", "measured": NS, "uncertainty_ns": NS // 50,
        "drift_uncertainty_ppm": 2.0, "exchanges": 9, "steps": 0, "stepped": 0, "step_ns": 0, "is_corrected": False,
    }  # fmt: skip
    return ClockReport(device_id=device_id, offset_ns=offset, drift_ppm=drift, **(fields | more))


FLEET = [
    report("a", 3 * NS, 12.0, is_corrected=True, steps=2),
    report("B", -90 * NS, -40.0, is_corrected=True),
    report("c", None, 5.5),
    report("d", 5_000_000, 300.0, drift_uncertainty_ppm=400.0, uncertainty_ns=NS),
]


def test_the_worst_come_first_and_what_is_not_known_last() -> None:
    def order(sort: str, *, descending: bool = True) -> str:
        return "".join(each.device_id for each in page(FLEET, "", sort, 0, 9, descending=descending)[0])

    assert order("offset") == "Badc"
    assert order("drift") == "Bacd"
    assert order("uncertainty") == "dBac"
    assert order("steps") == "aBcd"
    assert order("deviceId") == "dcaB"
    assert order("deviceId", descending=False) == "Bacd"
    found, total = page(FLEET, "b", "offset", 0, 9, descending=True)
    assert ([each.device_id for each in found], total) == (["B"], 1)
    found, total = page(FLEET, "", "offset", 1, 2, descending=True)
    assert ([each.device_id for each in found], total) == (["a", "d"], 4)


def test_the_fleet_at_a_glance() -> None:
    seen = fleet(FLEET)
    assert (seen.devices, seen.corrected, seen.stepped) == (4, 2, 1)
    assert (seen.offset_ns_max, seen.offset_ns_median) == (90 * NS, 3 * NS)
    assert (seen.drift_ppm_max, seen.drift_ppm_median) == (40.0, 12.0)
    assert sum(offset_bins(FLEET)) == 3
    assert sum(drift_bins(FLEET)) == 3
    assert fleet([]).drift_ppm_max == 0.0


def test_drawings_say_in_words_what_they_show() -> None:
    drawn = clock_parts.offsets_drawing(FLEET, NS)
    assert "1 from \u22121 h to \u22121 min, 1 from \u221210 ms to +10 ms, 1 from +1 s to +1 min" in drawn
    assert len(re.findall(r'<i class="off"', drawn)) == 2
    assert 'aria-label="Devices by the offset of their clocks: none"' in clock_parts.offsets_drawing([], NS)
    assert "1 from +10 to +20" in clock_parts.drifts_drawing(FLEET)


@pytest.mark.parametrize(
    ("each", "offset", "drift"),
    [
        (FLEET[0], "3.0 s ahead", "+12.0 ± 2 ppm"),
        (FLEET[1], "1 min 30 s behind", "\u221240.0 ± 2 ppm"),
        (FLEET[2], "counts from boot", "+5.5 ± 2 ppm"),
        (FLEET[3], "within 1.0 s", "drift not known"),
    ],
)
def test_a_clock_in_words(each: ClockReport, offset: str, drift: str) -> None:
    assert clock_parts.offset_words(each) == offset
    assert clock_parts.drift_words(each) == drift


@pytest.mark.parametrize(
    ("nanoseconds", "said"),
    [(0, "0 µs"), (-12_000_000, "12 ms"), (3_240_000_000, "3.2 s"), (59_990_000_000, "1 min"), (90 * NS, "1 min 30 s")],
)
def test_lengths_of_time(nanoseconds: int, said: str) -> None:
    assert words.duration(nanoseconds) == said


def test_without_any_clock_the_page_says_how_to_get_one() -> None:
    assert "telemetry" in render_rows(Wanted(), [], 0, is_empty=True)
    assert "Loosen" in render_rows(Wanted("x"), [], 0, is_empty=False)
    assert "sync" in clock_parts.device_clock(None)
    assert set(clock_parts.numbers(fleet([]))) == set(clock_parts.numbers(fleet(FLEET)))


@pytest.mark.parametrize("address", ["", "sort=drift", "sort=-drift", "q=pump&sort=measured"])
def test_an_address_asks_for_the_same(address: str) -> None:
    query = dict(each.split("=") for each in address.split("&")) if address else {}
    assert wanted_from(query).address() == address
    assert wanted_from({"sort": "evil", "q": "x" * 999}) == Wanted("x" * 200)
