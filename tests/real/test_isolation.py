"""Two tenants on a running platform: what does one hear and see of the other, over MQTT and at the console?

The API is walked in tests/unit/api/test_isolation.py. Clients are mosquitto's.
"""

import html
import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from programs import running

from godwit.server.console.frame import _PAGES

pytestmark = pytest.mark.real

A, B, NOBODY = "qamarkq", "qbmarkq", "qnobody"
PASSWORD: Final = "seven godwits fly south"
WIDE: Final = (
    "#",
    "devices/#",
    "devices/+/telemetry",
    f"devices/{B}-pump/#",
    "+/+/events",
    "tenants/#",
    "$SYS/#",
    "system/#",
)
"""Filters that would catch the other's messages."""


class Street:
    """A running platform with two tenants that are planted alike."""

    def __init__(self, directory: Path, platform: Any) -> None:
        self.directory, self.platform = directory, platform
        self.ca = platform.data_dir / "tls" / "ca.crt"
        for mark in (A, B):
            self.plant(mark)

    def put(self, path: str, document: object = None) -> None:
        body = None if document is None else json.dumps(document).encode()
        self.platform.ask("PUT", path, body, {"Content-Type": "application/json"})

    def http(self, path: str, document: object) -> None:
        self.platform.ask("POST", path, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def plant(self, mark: str) -> None:
        """Give a tenant a device with a certificate, a group, a type, a person and a claim."""
        post, tenant = self.platform.post, f"{mark}-tenant"
        self.put(f"/api/v1/tenants/{tenant}")
        self.put(f"/api/v1/types/{mark}-type?tenant={tenant}", {"description": mark})
        self.put(f"/api/v1/groups/{mark}-group?tenant={tenant}", {"description": mark})
        self.put(f"/api/v1/enrollment-rules/{mark}-rule?tenant={tenant}", {"landing": {"tags": {"x": mark}}})
        device = {"deviceId": f"{mark}-pump", "tenant": tenant, "deviceType": f"{mark}-type", "name": f"{mark} name"}
        post("/api/v1/devices", device | {"location": {"name": mark, "latitude": 1.5, "longitude": 2.5}})
        post("/api/v1/claims", {"tenant": tenant, "name": f"{mark} claim"})
        grants = {tenant: "admin"}
        user = {"name": f"{mark}-user", "grants": grants, "password": PASSWORD, "mustChange": False}
        post("/api/v1/users", user)
        made: Any = post(f"/api/v1/devices/{mark}-pump/enroll", {})
        (self.directory / f"{mark}.crt").write_text(made["certificate"] + "".join(made["chain"]))
        (self.directory / f"{mark}.key").write_text(made["key"])

    def mqtt(self, program: str, mark: str, *arguments: str) -> list[str]:
        """Return the command of a client that is a tenant's device."""
        keys = ["--cert", str(self.directory / f"{mark}.crt"), "--key", str(self.directory / f"{mark}.key")]
        where = ["-h", "localhost", "-p", str(self.platform.mqtts), "--cafile", str(self.ca), "-V", "mqttv5"]
        return ["stdbuf", "-oL", program, *where, *keys, "-i", f"{mark}-pump", *arguments]

    def say(self, mark: str, channel: str, document: object, *arguments: str) -> int:
        topic = f"devices/{mark}-pump/{channel}"
        command = self.mqtt("mosquitto_pub", mark, "-q", "1", "-t", topic, "-m", json.dumps(document), *arguments)
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode

    def say_all(self, mark: str) -> None:
        assert self.say(mark, "telemetry", {"readings": {f"{mark}-reading": 1.5}}) == 0
        assert self.say(mark, "status", {"status": "online", "note": mark}, "-r") == 0
        assert self.say(mark, "events", {"event": f"{mark}-event", "severity": "info"}) == 0
        assert self.say(mark, "telemetry", {"readings": f"nonsense {mark}"}) != 1


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory, platform_class: Callable[..., Any]) -> Iterator[Street]:
    directory = tmp_path_factory.mktemp("street")
    platform = platform_class(directory / "data").start()
    yield Street(directory, platform)
    platform.stop()


def test_a_device_hears_nothing_of_another_tenant_on_any_filter(street: Street) -> None:
    """Not what is retained, not what comes, not through a shared subscription; and of $SYS nothing at all."""
    street.say_all(B)  # what is retained is there before anybody listens
    filters = [*WIDE, f"$share/group/devices/{B}-pump/#"]
    command = street.mqtt(
        "mosquitto_sub", A, "-d", "-v", "-W", "6", *(part for each in filters for part in ("-t", each))
    )
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as listening:
        assert listening.stdout is not None
        while "SUBACK" not in (line := listening.stdout.readline()):
            assert line, "the client has gone"
        street.say_all(B)
        street.http(f"/api/v1/devices/{B}-pump/telemetry", {"readings": {"by-http": 2}})
        time.sleep(0.5)
        heard = listening.communicate(timeout=20)[0]
    received = [line for line in heard.splitlines() if "PUBLISH" in line or "{" in line]
    assert not [line for line in received if B in line]
    assert not [line for line in received if "$SYS" in line]


def test_a_program_hears_its_own_tenant_on_the_widest_filters(street: Street) -> None:
    street.say_all(B)
    wanted = {"name": "listener", "grants": {f"{A}-tenant": "operator"}, "scopes": ["mqtt:subscribe"]}
    made: Any = street.platform.post("/api/v1/tokens", wanted)
    where = ["-h", "localhost", "-p", str(street.platform.mqtts), "--cafile", str(street.ca), "-V", "mqttv5"]
    command = ["stdbuf", "-oL", "mosquitto_sub", *where, "-u", "listener", "-P", made["secret"], "-d", "-v", "-W", "6"]
    command += [part for each in WIDE for part in ("-t", each)]
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as listening:
        assert listening.stdout is not None
        while "SUBACK" not in (line := listening.stdout.readline()):
            assert line, "the client has gone"
        for mark in (B, A):
            street.say_all(mark)
        heard = listening.communicate(timeout=20)[0]
    received = [line for line in heard.splitlines() if "PUBLISH" in line or "{" in line]
    assert [line for line in received if f"{A}-reading" in line]
    assert not [line for line in received if B in line]
    assert not [line for line in received if "$SYS" in line]


def test_a_device_says_nothing_for_another_tenants(street: Street) -> None:
    for channel in ("telemetry", "events", "status", "commands", "twin/desired"):
        command = street.mqtt("mosquitto_pub", A, "-q", "1", "-t", f"devices/{B}-pump/{channel}", "-m", "{}")
        foreign = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        command[command.index(f"devices/{B}-pump/{channel}")] = f"devices/{NOBODY}-pump/{channel}"
        free = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert "ot authorized" in foreign.stderr
        assert foreign.stderr == free.stderr  # and it cannot tell which of them is there


def test_a_person_sees_nothing_of_another_tenant_on_any_page(street: Street) -> None:
    for mark in (A, B):
        street.say_all(mark)
    cookie = sign_in(street)
    pages = [href for href, _, _ in _PAGES] + ["/account", "/audit"]
    seen = ""
    for path in pages:
        status, page = look(street, cookie, path)
        page = page.replace(f"devices/{B}-pump", "")  # what the own device tried, in the own log
        assert status in {200, 404}, path
        at = page.find(B)
        assert at < 0, (path, page[max(0, at - 300) : at + 300])
        seen += page
    assert A in seen
    mine = look(street, cookie, f"/devices/{A}-pump")
    assert mine[0] == 200
    assert f"{A} name" in mine[1]
    answers = [(mark, *look(street, cookie, f"/devices/{mark}-pump")) for mark in (B, NOBODY)]
    plain = [(status, anonymous(page, mark)) for mark, status, page in answers]
    first = next((at for at, pair in enumerate(zip(plain[0][1], plain[1][1], strict=False)) if len(set(pair)) > 1), 0)
    assert plain[0] == plain[1], [page[max(0, first - 80) : first + 80] for _, page in plain]
    number: Any = street.platform.json(f"/api/v1/quarantine?deviceId={B}-pump")
    for each in number["items"][:1]:
        assert look(street, cookie, f"/quarantine/{each['number']}/payload")[0] == 404
        assert B not in look(street, cookie, f"/quarantine?open={each['number']}")[1]


def sign_in(street: Street) -> str:
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            """Look at the redirect itself: it has the cookie."""

    form = urllib.parse.urlencode({"name": f"{A}-user", "password": PASSWORD}).encode()
    request = urllib.request.Request(f"{street.platform.url}/sign-in", form)
    try:
        urllib.request.build_opener(Stay).open(request, timeout=10).close()
    except urllib.error.HTTPError as answer:
        with answer:
            return str(answer.headers["set-cookie"]).partition(";")[0]
    raise AssertionError("not signed in")


def look(street: Street, cookie: str, path: str) -> tuple[int, str]:
    """Return status and text of a page; what NiceGUI puts into it is there as JSON."""
    request = urllib.request.Request(street.platform.url + path, headers={"Cookie": cookie})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, html.unescape(answer.read().decode())
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.status, html.unescape(answer.read().decode())


def anonymous(page: str, mark: str) -> str:
    """Return a page without the id that was asked for, and without what NiceGUI names each visit."""
    page = re.sub(r'nonce="[^"]+"', "", page)
    page = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "visit", page)
    return re.sub(r"\d{9,}", "number", page.replace(mark, "*"))
