"""What is shown: escaped, in words people read, and an explanation for every reason code."""

import json
import zlib

import cbor2
import pytest

from godwit.contract import codes
from godwit.contract.telemetry import Metadata
from godwit.server.console import clock_parts, parts, theme, words
from godwit.server.console.curves import PUSHED_MAX, batch, custom_window, window_of
from godwit.server.console.device_parts import CLONE_NS, Facts, clone_banner, gaps_table, message_state, render
from godwit.server.console.pages.devices import Wanted, wanted_from
from godwit.server.console.pages.quarantine import render_sheet
from godwit.server.console.reasons import REASONS
from godwit.server.ingest.clock_report import ClockReport
from godwit.server.ingest.door import Clone, DeviceLedger, Gap, Latest, RawMessage, Sealing
from godwit.server.registry.model import Device, Location, Presence, Protection
from godwit.server.telemetry.live import Reading
from godwit.server.telemetry.model import Document, Quarantined

EVIL = "\"><script>alert(1)</script>'"


def test_every_reason_code_is_explained() -> None:
    named = {value for name, value in vars(codes).items() if name.isupper() and isinstance(value, str)}
    assert named == set(REASONS)


def test_nothing_that_a_device_says_becomes_markup() -> None:
    device = Device(
        EVIL, name=EVIL, device_type=EVIL, tags={EVIL: EVIL}, metadata={EVIL: EVIL}, location=Location(name=EVIL)
    )
    status: dict[str, object] = {
        "status": EVIL,
        "health": {"cpu": EVIL},
        "errors": [{"code": EVIL, "message": EVIL}, EVIL],
    }
    facts = Facts(
        device=device,
        presence=Presence(EVIL, status=status, reason=EVIL),
        latest=[Latest(1, EVIL, EVIL, 1, EVIL, EVIL, 1)],
        ledger=DeviceLedger(EVIL, 1, 1, 1, 1, 1, 1, {EVIL: 1}, 1, [Clone(EVIL, EVIL, EVIL, 1, 1, 2**62)], 1, {EVIL: 1}),
        gaps=[Gap(EVIL, EVIL, 1, 2, 2, EVIL, EVIL)],
        raw=[RawMessage(1, EVIL, EVIL.encode(), EVIL)],
        events=[Document(1, "events", 1, 1, b'{"event": "<script>", "message": "<script>"}')],
        said=Metadata(firmware_version=EVIL, battery_level=9.4, signal_strength=-61.0, uptime=90.0),
        clock=ClockReport(EVIL, "uptime", EVIL, 1, None, 1, 1.0, 1.0, 9, 1, 1, -7_000_000_000, is_corrected=False),
    )
    assert facts.clock is not None
    shown = clock_parts.row(facts.clock)
    shown += "".join(render(facts).values())
    assert "7.0 s back" in shown
    shown += render_sheet(Quarantined(1, EVIL, EVIL, EVIL, EVIL, EVIL, EVIL, 1, EVIL.encode(), 0))
    assert "9 %" in shown
    assert "-61 dBm" in shown
    shown += parts.search("x", EVIL, EVIL) + parts.command(EVIL) + parts.button("go", EVIL, EVIL, sure=EVIL)
    assert "<script" not in shown
    assert EVIL not in shown


def test_an_event_is_told_in_words() -> None:
    assert words.event(b'{"event": "boot", "message": "after a power cut", "severity": "Info"}') == (
        "boot", "after a power cut", "info",
    )  # fmt: skip
    assert words.event(b'{"type": "alert", "details": {"t": 81}, "limit": 80}') == ("alert", "limit 80, t 81", "")
    assert words.event(b"\xff") == ("event", "1 bytes", "")
    assert words.event(b"[1]") == ("event", "[1]", "")
    assert parts.severity("error") == "bad"


@pytest.mark.parametrize(
    ("raw", "begins"),
    [
        (b'{"a":1}', '{\n  "a": 1\n}'),
        (b"plain", "plain"),
        (b"\xff\x00ab", "0000  ff 00 61 62"),
        (b"\x00\x01", "0000  00 01"),
        (b"[" * 5_000, "[[["),
        (b"", ""),
    ],
)
def test_a_payload_is_shown_as_json_text_or_hex(raw: bytes, begins: str) -> None:
    assert words.payload(raw).startswith(begins)


def test_clones_are_warned_of_while_they_speak() -> None:
    def warned(heard: int) -> str:
        clone = Clone("main", "e", "e~2", 300, 1_234, heard)
        return clone_banner(DeviceLedger("d", 1, 1, 1, 1, 1, 1, {}, 1_234, [clone], 1, {}), now=CLONE_NS + 1_000)

    assert "1,234 samples" in warned(1_001)
    assert "from number 300" in warned(1_001)
    assert warned(1_000) == ""
    assert clone_banner(None, 0) == ""


def test_gaps_say_whether_they_are_asked_for_or_lost() -> None:
    gaps = [Gap("main", "e", 5, 7, 3, "missing", ""), Gap("", "e", 9, 9, 1, "lost", "evicted-size")]
    shown = gaps_table(gaps * 20)
    assert "missing" in shown
    assert "evicted-size" in shown
    assert "and 20 more" in shown
    assert "No gaps" in gaps_table([])


def test_of_a_large_payload_four_kibibytes_are_shown() -> None:
    assert len(words.payload(b"x" * 10_000)) == 4_096


@pytest.mark.parametrize(
    ("shown", "as_"),
    [
        (words.span(90_061), "1 d 1 h"),
        (words.span(0), "0 s"),
        (words.about(0.4), "under 1 s"),
        (words.about(2.9), "2 s"),
        (words.about(100), "1 min 40 s"),
        (words.about(9_000), "2 h 30 min"),
        (words.about(6.9 * 86_400), "6 d"),
        (words.size(3_500_000), "3.3 MiB"),
        (words.rate(0.02), "0.02"),
        (words.rate(1234.4), "1,234"),
        (words.value(value) if (value := True) else "", "yes"),
        (words.value(2**60), "1152921504606846976"),
        (words.unit("Cel"), "°C"),
    ],
)
def test_numbers_in_words(shown: str, as_: str) -> None:
    assert shown == as_


def test_live_points_are_chosen_sorted_and_thinned() -> None:
    def reading(name: str, ms: int, value: float | str = 1.5, quality: str = "good") -> Reading:
        return Reading("d", name, "", ms * 1_000_000, value, quality, 0)

    news = [reading("a", 2), reading("a", 1), reading("b", 1), reading("a", 3, "text"), reading("a", 4, 9.0, "bad")]
    assert batch(news, ["a"]) == {"a": [[1, 1.5], [2, 1.5]]}
    many = batch([reading("a", at) for at in range(10_000)], ["a"])["a"]
    assert len(many) <= PUSHED_MAX + 1
    assert many[-1][0] == 9_999


def test_windows() -> None:
    assert window_of("24h", 10**18).start == 10**18 - 86_400 * 10**9
    assert window_of("nonsense", 10**18).start == 10**18 - 3_600 * 10**9
    assert custom_window("1000", "2000") == (10**9, 2 * 10**9, False)
    assert custom_window("2000", "1000") is None
    assert custom_window("", "1000") is None
    assert custom_window("9" * 30, "1") is None


def test_what_a_list_shows_stands_in_its_address_and_comes_back() -> None:
    wanted = Wanted("pump & co", "climate", "yes", "unclaimed", "lastSeen", descending=True)
    address = dict(
        pair.split("=") for pair in wanted.address().replace("+", " ").replace("%26", "&").split("&") if "=" in pair
    )
    assert wanted_from(address | {"q": "pump & co"}) == wanted
    assert wanted_from({"sort": "-drop table", "online": "maybe", "lifecycle": "x"}) == Wanted(descending=True)


def _contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_text_can_be_read_in_both_modes(colours: dict[str, str]) -> None:
    pairs = [(ink, ground) for ink in ("ink", "ink-soft", "ink-faint") for ground in ("ground", "surface", "sunken")]
    pairs += [(tone, f"{tone}-wash") for tone in ("good", "warn", "bad", "accent")] + [("accent-ink", "accent")]
    short = {pair: _contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert not {pair: round(value, 2) for pair, value in short.items() if value < 4.5}


def test_cbor_and_compressed_payloads_are_shown_as_json() -> None:
    said = cbor2.dumps({"event": "boot", "details": {"n": 1, "raw": b"\x01\xff"}})
    assert json.loads(words.payload(said)) == {"event": "boot", "details": {"n": 1, "raw": "01ff"}}
    assert words.payload(zlib.compress(said)) == words.payload(said)
    assert words.event(cbor2.dumps({"event": "leak", "severity": "error", "details": {"litres": 3}})) == (
        "leak",
        "litres 3",
        "error",
    )
    assert words.payload(b"\x80\x01\x02").startswith("0000  80 01 02")


def test_the_device_page_says_how_messages_come_and_how_they_should() -> None:
    assert message_state(None) == parts.NONE
    assert "plain" in message_state(Sealing(Protection.NONE, "", ""))
    both = message_state(Sealing(Protection.SIGNED_ENCRYPTED, "a", "b"))
    assert "signed and encrypted" in both
    assert "have to be" not in both
    assert "have to be signed and encrypted" in message_state(Sealing(Protection.SIGNED_ENCRYPTED, "a", ""))
    assert "have to be signed" in message_state(Sealing(Protection.SIGNED, "", ""))
