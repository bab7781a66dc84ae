"""Does a person at a browser see what the devices say, as they say it, and nobody else see anything?"""

import asyncio
import http.client
import json
import re
import shlex
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, expect
from visits import Visit, say, telemetry

from godwit.device import Device
from godwit.runtime.clock import SystemClock

pytestmark = pytest.mark.real

WITHIN_MS = 1_000
"""A published message stands on the page after this long at most."""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, platform_class: Callable[..., Any]) -> Iterator[Any]:
    running = platform_class(tmp_path_factory.mktemp("console") / "data").start()
    yield running
    running.kill()


@pytest.fixture
def visit(chromium: Browser, platform: Any) -> Iterator[Visit]:
    visit = Visit(chromium, platform, viewport={"width": 1440, "height": 900})
    visit.sign_in(platform.token)
    yield visit
    assert visit.complaints == []
    assert {host for host in visit.hosts if host} == {f"127.0.0.1:{platform.http}"}
    visit.page.context.close()


def test_the_first_message_fills_the_empty_overview(visit: Visit, platform: Any) -> None:
    page = visit.show("/")
    command = page.locator(".command code").first.inner_text()
    assert str(platform.mqtt) in command
    subprocess.run(command, shell=True, check=True, timeout=10)
    expect(page.locator("#newest")).to_contain_text("sensor-1", timeout=10_000)
    expect(page.locator("#online")).to_contain_text("of 1")
    expect(page.locator("#unclaimed")).to_contain_text("sensor-1")
    expect(page.locator("#banner-local")).to_contain_text(f"127.0.0.1:{platform.mqtt}")
    expect(page.locator("#banner-local")).to_contain_text(f"ws://127.0.0.1:{platform.websocket}/mqtt")


def test_a_message_stands_on_the_open_device_page_within_a_second(visit: Visit, platform: Any) -> None:
    say(platform, "devices/boiler/telemetry", telemetry(temperature=61.5))
    page = visit.show("/devices/boiler")
    expect(page.locator("[data-reading=temperature] .now")).to_have_text("61.5")
    page.evaluate("window.notReloaded = true")

    say(platform, "devices/boiler/telemetry", telemetry(temperature=73.25))
    expect(page.locator("[data-reading=temperature] .now")).to_have_text("73.25", timeout=WITHIN_MS)
    expect(page.locator("tr[data-name=temperature] .value-cell")).to_contain_text("73.25", timeout=WITHIN_MS)

    say(platform, "devices/boiler/telemetry", telemetry(temperature=74, pressure=2.5))
    expect(page.locator("[data-reading=pressure] .now")).to_have_text("2.5", timeout=3_000)
    say(platform, "devices/boiler/status", '{"status": "online", "health": {"cpu": 45.2, "uptime": 86400}}')
    expect(page.locator("#health")).to_contain_text("45 %", timeout=4_000)
    expect(page.locator("#ledger")).to_contain_text("Samples accepted")
    assert page.evaluate("window.notReloaded") is True


def test_the_overview_tells_how_fresh_the_fleet_is_and_who_catches_up(visit: Visit, platform: Any) -> None:
    for _ in range(2):
        say(platform, "devices/up-to-date/telemetry", telemetry(level=1))
    page = visit.show("/")
    expect(page.locator("#fresh")).to_contain_text("typical", timeout=4_000)
    expect(page.locator("#fresh")).to_contain_text("nobody catching up")
    a_week_ago = int(time.time() - 7 * 86_400)
    say(platform, "devices/was-away/telemetry", json.dumps({"timestamp": a_week_ago, "sensors": {"level": 1}}))
    expect(page.locator("#fresh")).to_contain_text("1 catching up, 7 d behind", timeout=4_000)
    metrics = platform.get("/metrics").decode()
    assert "\ngodwit_devices_catching_up 1\n" in metrics
    # What it kept has been delivered: its newest sample is fresh.
    say(platform, "devices/was-away/telemetry", telemetry(level=2))
    expect(page.locator("#fresh")).to_contain_text("nobody catching up", timeout=4_000)


def test_a_clock_that_is_wrong_stands_on_the_clocks_page(visit: Visit, platform: Any, tmp_path: Path) -> None:
    page = visit.show("/clocks")
    expect(page.locator("#rows")).to_contain_text("No clock was compared yet")
    page.evaluate("window.notReloaded = true")

    class Slow(SystemClock):
        def now_ns(self) -> int:
            return super().now_ns() - 90 * 10**9

    async def live() -> None:
        async with Device("slow-clock", port=platform.mqtt, spool=tmp_path / "spool", clock=Slow()) as device:
            for _ in range(3):
                await device.send(temperature=20.5)
                await device.flush(10)
                await asyncio.sleep(0.8)

    thread = threading.Thread(target=asyncio.run, args=(live(),))  # Playwright has this one's loop
    thread.start()
    thread.join()
    row = page.locator("#rows tr", has_text="slow-clock")
    expect(row).to_contain_text("1 min 30 s behind", timeout=10_000)
    expect(row).to_contain_text("corrected")
    expect(page.locator("#charts .off")).to_have_count(1)
    page.get_by_placeholder("Device id").fill("nothing")
    expect(page.locator("#rows")).to_contain_text("Nothing matches")
    assert page.evaluate("window.notReloaded") is True
    page = visit.show("/devices/slow-clock")
    expect(page.locator("#clock")).to_contain_text("1 min 30 s behind")


def test_ranges_and_readings_are_chosen(visit: Visit, platform: Any) -> None:
    say(platform, "devices/chooser/telemetry", telemetry(temperature=20, humidity=50))
    page = visit.show("/devices/chooser")
    expect(page.locator(".panel")).to_have_count(2)
    page.get_by_role("button", name="24 h").click()
    expect(page.get_by_role("button", name="24 h")).to_have_attribute("aria-pressed", "true")
    page.locator(".chip", has_text="humidity").click()
    expect(page.locator(".panel")).to_have_count(1)


def test_the_list_searches_filters_and_links(visit: Visit, platform: Any) -> None:
    for name in ("pump-north", "pump-south", "silo"):
        say(platform, f"devices/{name}/telemetry", telemetry(level=1))
    page = visit.show("/devices")
    expect(page.locator("tbody")).to_contain_text("silo")
    page.get_by_placeholder("Search by name or id").fill("pump")
    expect(page.locator("tbody tr")).to_have_count(2)
    assert "q=pump" in page.url
    page.get_by_label("Lifecycle").select_option("retired")
    expect(page.locator("#rows")).to_contain_text("No device matches")
    page.get_by_label("Lifecycle").select_option("")
    page.get_by_role("button", name="Type").click()
    expect(page.locator("th[aria-sort]")).to_have_text("Type")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_role("link", name="pump-south").click()
    page.wait_for_url("**/devices/pump-south")


def test_a_refused_message_is_explained_downloaded_and_replayed(visit: Visit, platform: Any) -> None:
    payload = '{"deviceId": "somebody-else", "sensors": {"t": 1}}<script>window.evil = 1</script>'
    say(platform, "devices/liar/telemetry", payload)
    page = visit.show("/quarantine?device=liar")
    page.get_by_role("button", name="Inspect").click()
    sheet = page.locator("#sheet")
    expect(sheet).to_contain_text("The payload is not valid JSON.")
    expect(sheet.locator("pre")).to_contain_text("somebody-else")
    assert page.evaluate("window.evil") is None
    with page.expect_download() as download:
        sheet.get_by_role("link", name="Download").click()
    assert Path(download.value.path()).read_text() == payload
    sheet.get_by_role("button", name="Replay").click()
    expect(page.locator(".toast")).to_contain_text("Refused again")

    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Inspect").click()
    sheet.get_by_role("button", name="Purge").click()
    expect(page.locator("#rows")).to_contain_text("Nothing matches")


def test_a_message_is_accepted_once_its_cause_is_mended(visit: Visit, platform: Any) -> None:
    hot = {"name": "temperature", "maximum": 100.0, "outside": "quarantine"}
    ask(platform, "PUT", "/api/v1/types/oven", {"readings": [hot]})
    ask(platform, "POST", "/api/v1/devices", {"deviceId": "oven-1", "deviceType": "oven", "lifecycle": "unclaimed"})
    say(platform, "devices/oven-1/telemetry", telemetry(temperature=180))
    page = visit.show("/quarantine?device=oven-1")
    expect(page.locator("tbody tr")).to_contain_text("out-of-range")

    ask(platform, "PUT", "/api/v1/types/oven", {"readings": [hot | {"maximum": 300.0}]})
    page.get_by_role("button", name="Inspect").click()
    page.locator("#sheet").get_by_role("button", name="Replay").click()
    expect(page.locator(".toast")).to_have_text("Accepted: 1 sample stored")
    expect(page.locator("#rows")).to_contain_text("Nothing matches")
    expect(page.locator("#sheet")).not_to_be_visible()
    visit.show("/devices/oven-1")
    expect(page.locator("[data-reading=temperature] .now")).to_have_text("180")


def ask(platform: Any, method: str, path: str, document: object) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{platform.http}{path}", json.dumps(document).encode(), method=method,
        headers={"Authorization": f"Bearer {platform.token}", "Content-Type": "application/json"},
    )  # fmt: skip
    urllib.request.urlopen(request, timeout=10).close()


def test_events_of_the_fleet_stand_on_the_overview(visit: Visit, platform: Any) -> None:
    say(platform, "devices/boiler/events", '{"event": "boot", "message": "after a power cut"}')
    say(platform, "devices/pump-north/events", '{"event": "leak<b>", "severity": "error", "details": {"litres": 3}}')
    page = visit.show("/")
    newest = page.locator("#events li")
    expect(newest.nth(0)).to_contain_text("leak<b> litres 3")
    expect(newest.nth(0)).to_contain_text("pump-north")
    expect(newest.nth(1)).to_contain_text("after a power cut")
    newest.nth(0).get_by_role("link").click()
    page.wait_for_url("**/devices/pump-north")


def test_every_page_fits_a_telephone(chromium: Browser, platform: Any) -> None:
    say(platform, "devices/phone/telemetry", telemetry(temperature=20, humidity=50, pressure=1000, battery=80))
    say(platform, "devices/phone/telemetry", "{")
    visit = Visit(chromium, platform, viewport={"width": 390, "height": 844}, color_scheme="dark")
    visit.sign_in(platform.token)
    for path in (
        "/",
        "/devices",
        "/devices/phone",
        "/enrollment",
        "/device",
        "/quarantine",
        "/broker",
        "/broker?table=subscriptions",
        "/certificates",
        "/security",
        "/access",
        "/audit",
        "/account",
    ):
        page = visit.show(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 19, 20)"
        here = page.locator(".side [aria-current=page]")  # the strip of pages is scrolled to the one that is open
        if here.count():
            expect(here).to_be_in_viewport(ratio=1)
    assert visit.complaints == []
    visit.page.context.close()


def test_a_claim_is_made_and_a_device_is_let_in_by_its_code(visit: Visit, platform: Any) -> None:
    page = visit.show("/enrollment")
    page.get_by_role("button", name="New claim").click()
    page.get_by_label("Device id").fill("page-1")
    page.get_by_label("Name").fill("made on <b>the page")
    page.get_by_role("button", name="Make the claim").click()
    expect(page.locator("dialog .command code").first).to_contain_text("gwc_")
    visit.show("/enrollment")
    expect(page.locator("tr", has_text="made on <b>the page")).to_contain_text("page-1")
    assert "gwc_" not in page.content()

    form = {"content-type": "application/x-www-form-urlencoded"}
    begun = json.loads(platform.ask("POST", "/oauth/device_authorization", b"client_id=page-2", form))
    page = visit.show(f"/device?user_code={begun['user_code']}")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#grant")).to_contain_text("page-2")
    page.get_by_role("button", name="Approve").click()
    expect(page.locator("#grant")).to_contain_text("page-2 may come in")
    kind = "urn:ietf:params:oauth:grant-type:device_code"
    asked = f"grant_type={quote(kind)}&device_code={begun['device_code']}&client_id=page-2".encode()
    assert json.loads(platform.ask("POST", "/oauth/token", asked, form))["token_type"] == "Bearer"


def test_a_token_of_a_device_is_seen_and_revoked_on_its_page(visit: Visit, platform: Any) -> None:
    ask(platform, "POST", "/api/v1/devices", {"deviceId": "meter-3"})
    ask(platform, "POST", "/api/v1/devices/meter-3/tokens", {"name": "hall <b>2"})
    page = visit.show("/devices/meter-3")
    row = page.locator("#certificates tr", has_text="hall <b>2")
    expect(row.locator(".badge")).to_have_text("active")
    page.on("dialog", lambda dialog: dialog.accept())
    row.get_by_role("button", name="Revoke").click()
    expect(row.locator(".badge")).to_have_text("revoked")


def test_hardware_is_replaced_from_the_device_page_by_the_link_of_its_code(
    visit: Visit, platform: Any, tmp_path: Path
) -> None:
    ask(platform, "POST", "/api/v1/devices/enroll", {"items": [{"deviceId": "swap-1"}]})
    page = visit.show("/devices/swap-1")
    custody = page.locator("#custody")
    expect(custody.locator(".steps [aria-current=step]")).to_contain_text("Waiting for the device")
    page.evaluate("window.notReloaded = true")
    page.get_by_role("button", name="Replace hardware").click()
    expect(page.locator("dialog")).to_contain_text("the old one is out for good, with 1 certificate")
    page.get_by_role("button", name="Make the claim").click()
    expect(page.locator("dialog svg.qr")).to_be_visible()
    command = page.locator("dialog .command code").nth(1).text_content() or ""
    with page.context.expect_page() as opened:
        page.get_by_role("button", name="Print a label").click()
    expect(opened.value.locator(".claim-label")).to_contain_text("swap-1")
    opened.value.close()
    page.get_by_role("button", name="Close").click()
    expect(custody.locator(".steps [aria-current=step]")).to_contain_text("to ask with the claim")

    joined = subprocess.run(
        [sys.executable, "-m", "godwit.cli.main", *shlex.split(command)[1:], "--identity", str(tmp_path / "id")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert joined.returncode == 0, joined.stderr
    expect(custody).to_contain_text("nobody comes in with the old ones")
    expect(page.locator("#certificates tr", has_text="batch")).to_contain_text("revoked")
    assert page.evaluate("window.notReloaded") is True

    page.get_by_role("button", name="Release").click()
    page.locator("dialog input[name=typed]").fill("another")
    page.get_by_role("button", name="Release", exact=True).click()
    expect(page.locator("dialog .toast")).to_contain_text("nothing was done")
    page.locator("dialog input[name=typed]").fill("swap-1")
    page.get_by_role("button", name="Release", exact=True).click()
    expect(custody.get_by_role("button", name="Claim")).to_be_visible()
    expect(custody).to_contain_text("nobody yet")
    custody.get_by_role("button", name="Claim").click()
    page.get_by_role("button", name="Suspend…").click()
    page.get_by_role("button", name="Suspend", exact=True).click()
    custody.get_by_role("button", name="Resume").click()
    expect(custody.get_by_role("button", name="Suspend…")).to_be_visible()


def test_claims_for_many_are_labels_to_print(visit: Visit) -> None:
    page = visit.show("/enrollment")
    page.get_by_role("button", name="Claims for many").click()
    page.locator("textarea[name=ids]").fill("label-1\nlabel-2\n\nlabel-1\n")
    with page.context.expect_page() as opened:
        page.get_by_role("button", name="Make claims and labels").click()
    labels = opened.value.locator(".claim-label")
    expect(labels).to_have_count(2)
    expect(labels.nth(1)).to_contain_text("gwc_")
    expect(labels.nth(1).locator("svg.qr path").first).to_be_attached()
    opened.value.close()
    expect(page.locator("#claims tr", has_text="label-2")).to_have_count(1)


def test_a_batch_says_what_is_wrong_goes_on_and_is_rolled_over(visit: Visit, tmp_path: Path) -> None:
    file = tmp_path / "devices.csv"
    page = visit.show("/certificates")

    def send() -> None:
        page.set_input_files("input[type=file]", file)
        page.get_by_role("button", name="Enroll and download").click()

    file.write_text("name\nno id\n")
    send()
    expect(page.get_by_role("heading", name="This file cannot be read")).to_be_visible()
    visit.show("/certificates")
    good = [f"batch-{each}" for each in range(300)]
    file.write_text("device_id\n" + "\n".join([*good, "?", "batch-1"]) + "\n")
    send()
    expect(page.get_by_role("heading", name="2 lines of this file are wrong")).to_be_visible()
    expect(page.locator("tbody tr")).to_contain_text(["no device id", "named twice"])
    with page.expect_download() as download:
        page.get_by_role("button", name="Enroll the other 300").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert {each.partition("/")[0] for each in archive.namelist()} == {*good, "refused.csv"}
    visit.show("/certificates")
    expect(page.locator("#batches")).to_contain_text("300 devices enrolled, 2 lines refused")
    assert (
        visit.complaints
        == ["Failed to load resource: the server responded with a status of 422 (Unprocessable Entity)"] * 2
    )
    visit.complaints.clear()

    page.get_by_role("button", name="Next").click()
    expect(page.locator("#certificates .foot")).to_contain_text("11 to 20 of")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Roll over the intermediate").click()
    expect(page.locator("#campaign .cells li").first).to_contain_text("batch-0")
    expect(page.locator("#campaign .cells li")).to_have_count(48)
    page.get_by_role("button", name="More", exact=True).click()
    expect(page.locator("#campaign .cells")).not_to_contain_text("batch-0")
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator("#campaign .badge").first).to_have_text("cancelled")


def openssl(directory: Path, words: str) -> None:
    subprocess.run(["openssl", *shlex.split(words)], cwd=directory, check=True, capture_output=True, timeout=20)


def test_a_factorys_authority_is_trusted_once_it_has_signed_the_code(
    visit: Visit, platform: Any, tmp_path: Path
) -> None:
    openssl(
        tmp_path,
        "req -x509 -days 400 -newkey rsa:2048 -nodes -keyout authority.key -out authority.pem -subj /CN=works<b>",
    )
    openssl(tmp_path, "x509 -in authority.pem -outform DER -out authority.der")
    page = visit.show("/certificates")
    opener = page.get_by_role("button", name="Trust another")
    opener.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Trust an authority")
    expect(dialog.get_by_label("Certificate of the authority", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    expect(opener).to_be_focused()
    page.keyboard.press("Enter")
    dialog.locator("input[type=file]").set_input_files(tmp_path / "authority.der")
    dialog.get_by_label("Ids it may name").fill("fan-*, pump-?")
    dialog.get_by_label("Lands in groups").fill("works")
    dialog.get_by_role("button", name="Go on").click()
    proof = page.get_by_role("dialog", name="Prove works<b>")
    signing = proof.locator(".command code").nth(1).text_content() or ""
    assert (proof.locator(".command code").first.text_content() or "?") in signing

    page.get_by_role("button", name="Close").click()
    row = page.locator("#authorities tr", has_text="works<b>")
    expect(row).to_contain_text("not proven yet")
    assert "works<b>" not in {each["name"] for each in platform.json("/api/v1/authorities")["items"]}
    row.get_by_role("button", name="Prove").click()
    proof.locator("input[type=file]").set_input_files(tmp_path / "authority.pem")  # not what was asked for
    proof.get_by_role("button", name="Prove it").click()
    expect(page.locator("dialog .toast")).to_contain_text("the proof is a certificate with CN")
    for line in signing.splitlines():
        openssl(tmp_path, line.removeprefix("openssl "))
    proof.locator("input[type=file]").set_input_files(tmp_path / "proof.pem")
    proof.get_by_role("button", name="Prove it").click()
    expect(row.locator(".badge")).to_have_text("active")
    expect(row).to_contain_text("fan-*, pump-?")
    (trusted,) = [each for each in platform.json("/api/v1/authorities")["items"] if each["name"] == "works<b>"]
    assert (trusted["tenant"], trusted["terms"]["landing"]["groups"]) == ("default", ["works"])


def test_the_broker_page_finds_a_client_and_disconnects_it(visit: Visit, platform: Any) -> None:
    words = [
        "-h",
        "127.0.0.1",
        "-p",
        str(platform.mqtt),
        "-V",
        "5",
        "-i",
        "listener<b>",
        "-t",
        "some/+/where",
        "-q",
        "1",
    ]
    client = subprocess.Popen(["mosquitto_sub", *words, "-d"], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    try:
        page = visit.show("/broker")
        page.get_by_label("Client, device or listener").fill("listener")
        expect(page.locator("tbody tr")).to_have_count(1, timeout=5_000)
        expect(page.locator("tbody")).to_contain_text("listener<b>")
        page.get_by_role("button", name="Subscriptions").click()
        expect(page.locator("tbody")).to_contain_text("some/+/where")
        assert "table=subscriptions" in page.url
        page.get_by_role("button", name="Sessions").click()
        expect(page.locator("tbody")).to_contain_text("ends with its connection")

        page.get_by_role("button", name="Connections").click()
        page.get_by_label("Client, device or listener").fill("listener")
        asked = []
        page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        page.get_by_role("button", name="Disconnect").click()
        expect(page.locator("tbody tr")).to_have_count(1)
        assert asked == ["Disconnect listener<b>? It may connect again at once; its session goes on."]
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Disconnect").click()
        expect(page.locator(".toast")).to_have_text("Disconnected")
    finally:
        client.terminate()
        said, _ = client.communicate(timeout=10)
    assert "Received DISCONNECT (152)" in said


def test_the_printed_link_signs_in_once(chromium: Browser, platform: Any) -> None:
    link = re.search(r"http://\S+/sign-in\?token=\S+", platform.output)
    assert link
    first, second = chromium.new_context().new_page(), chromium.new_context().new_page()
    first.goto(link.group())
    expect(first.get_by_role("heading", name="Overview")).to_be_visible()
    second.goto(link.group())
    expect(second.get_by_role("alert")).to_contain_text("has been used")
    first.context.close()
    second.context.close()


def test_a_foreign_page_is_refused_the_socket(visit: Visit, platform: Any) -> None:
    (cookie,) = (each for each in visit.page.context.cookies() if each["name"].startswith("godwit-session"))

    agent = visit.page.evaluate("navigator.userAgent")

    def shake_hands(origin: str, cookies: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", platform.http, timeout=10)
        headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        headers |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": origin, "Cookie": cookies}
        headers["User-Agent"] = agent
        connection.request("GET", "/_nicegui_ws/socket.io/?EIO=4&transport=websocket", headers=headers)
        status = connection.getresponse().status
        connection.close()
        return status

    session = f"{cookie['name']}={cookie['value']}"
    assert shake_hands(visit.base, session) == 101
    assert shake_hands("http://evil.example", session) == 403
    assert shake_hands("null", session) == 403
    assert shake_hands(visit.base, "") == 403
