"""What the tests with real processes share: a platform in a process of its own, and the data beside the repository."""

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pytest

sys.path.insert(0, str(Path(__file__).parent / "machine"))

from ports import free_port, free_ports

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parent.parent
READY_S_MAX = 90  # waits end at once when there is what they wait for: only what hangs takes so long
OUR_SETTINGS = (
    "SERVER_HOST", "SERVER_PORT", "LOG_LEVEL", "MQTT_HOST", "MQTT_PORT", "MQTTS_PORT", "MQTT_WS_PORT", "MQTT_CLIENT_ID",
    "MQTT_KEEP_ALIVE", "MQTT_CLEAN_SESSION", "MQTT_USERNAME", "MQTT_PASSWORD", "MQTT_BROKER", "MQTT_TLS",
    "MQTT_CA_FILE", "MQTT_CERT_FILE", "MQTT_KEY_FILE", "MQTT_SHARE_GROUP", "MQTT_REGISTER_DEVICES", "BRIDGES",
    "DATABASE_URL", "DATA_DIR", "DEVICE_HOST", "DEVICE_PORT",
)  # fmt: skip


def eventually(look: Callable[[], T], *, within_s: float = 30.0, every_s: float = 0.05) -> T:
    """Return what `look` returns as soon as it is true; fails with its last answer or error."""
    end = time.monotonic() + within_s
    while True:
        last: object
        try:
            found = look()
        except (OSError, LookupError, AssertionError) as error:
            last = error
        else:
            if found:
                return found
            last = found
        if time.monotonic() > end:
            pytest.fail(f"not within {within_s} s; last: {last!r}")
        time.sleep(every_s)


class PlatformProcess:
    """`godwit up` in a process of its own. The same data directory and ports serve every start."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.data_dir = data_dir
        self.http, self.mqtt, self.mqtts, self.websocket, self.https = free_ports(5)
        inherited = {name: value for name, value in os.environ.items() if name not in OUR_SETTINGS}
        self.environment = inherited | {
            "DATA_DIR": str(data_dir), "SERVER_PORT": str(self.http), "MQTT_PORT": str(self.mqtt),
            "MQTTS_PORT": str(self.mqtts), "MQTT_WS_PORT": str(self.websocket), "LOG_LEVEL": "warning",
            "DEVICE_PORT": str(self.https), "DEVICE_HOST": "127.0.0.1",
        } | settings  # fmt: skip
        self.is_tls = not settings.get("SERVER_HOST", "127.0.0.1").startswith("127.")
        self.log = data_dir.parent / f"{data_dir.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.trusted: Path | None = None
        """Whom its clients trust where it serves with files of its owner's."""

    @property
    def url(self) -> str:
        """Return where API and console are."""
        return f"http{'s' if self.is_tls else ''}://127.0.0.1:{self.http}"

    @property
    def certificate(self) -> Path:
        """Return whom its clients trust: the file is there once it runs."""
        return self.trusted or self.data_dir / "tls" / "ca.crt"

    def open(self, request: urllib.request.Request, timeout: float) -> Any:
        """Open an address of it, trusting its certificate."""
        trust = ssl.create_default_context(cafile=self.certificate) if self.is_tls else None
        return urllib.request.urlopen(request, timeout=timeout, context=trust)

    def start(self, *arguments: str, look: str = "/health/ready") -> "PlatformProcess":
        """Start, and return when it is ready (with `look` at `/health/live`: when it runs)."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "godwit.cli.main", "up", *arguments],
                env=self.environment, cwd=self.data_dir.parent, stdout=log, stderr=log,
            )  # fmt: skip
        end = time.monotonic() + READY_S_MAX
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                self.open(urllib.request.Request(f"{self.url}{look}"), 2).close()
            except OSError:
                time.sleep(0.05)
            else:
                return self
        self.stop(signal.SIGKILL)
        pytest.fail(f"godwit up is not ready:\n{self.output}")

    @property
    def output(self) -> str:
        """Return what it printed so far."""
        return self.log.read_text() if self.log.exists() else ""

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and wait; returns the exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(60)
        self.process = None
        return code

    def kill(self) -> None:
        """`kill -9`."""
        self.stop(signal.SIGKILL)

    @property
    def token(self) -> str:
        """Return the administrator's token."""
        return (self.data_dir / "admin-token").read_text().strip()

    def ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> bytes:
        """Ask the API as administrator."""
        request = urllib.request.Request(
            f"{self.url}{quote(path, safe='/?&=%,:+')}",
            data=body,
            method=method,
            headers={"Authorization": f"Bearer {self.token}"} | headers,
        )
        try:
            with self.open(request, 30) as answer:
                data: bytes = answer.read()
                return data
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{path} answers {error.code}: {error.read().decode()}") from None

    def get(self, path: str, accept: str = "application/json") -> bytes:
        """Ask the API; returns the answer's body."""
        return self.ask("GET", path, None, {"Accept": accept})

    def post(self, path: str, document: object) -> object:
        """Post a document; returns the one that comes back."""
        return json.loads(self.ask("POST", path, json.dumps(document).encode(), {"Content-Type": "application/json"}))

    def json(self, path: str) -> object:
        """Ask the API; returns the document."""
        return json.loads(self.get(path))


@pytest.fixture(scope="module", autouse=True)
def _log_level() -> Iterator[None]:
    """Give the log its level back: a platform in this process sets it for all of it."""
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


@pytest.fixture
def platform_in(tmp_path: Path) -> Iterator[Callable[..., PlatformProcess]]:
    """Make platforms that are not started yet; all are stopped at the end."""
    made: list[PlatformProcess] = []

    def make(name: str = "data", **settings: str) -> PlatformProcess:
        made.append(PlatformProcess(tmp_path / name, **settings))
        return made[-1]

    yield make
    for each in made:
        each.kill()


@pytest.fixture
def platform(platform_in: Callable[..., PlatformProcess]) -> PlatformProcess:
    """Give a running platform with a data directory of its own."""
    return platform_in().start()


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., object]:
    """Give `eventually`."""
    return eventually


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the repository's directory."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the directory of seeds and recorded data, which is not part of the repository."""
    path = Path(os.environ.get("GODWIT_SHARED", REPOSITORY.parent / "shared"))
    if not path.is_dir():
        pytest.skip("no shared data: set GODWIT_SHARED to its directory")
    return path


@pytest.fixture(scope="session")
def platform_class() -> type[PlatformProcess]:
    """Give the class, to fixtures of a wider scope."""
    return PlatformProcess


MOSQUITTO_S_MAX = 30


def find(command: str) -> str:
    """Return the path of a program that Debian keeps out of a user's PATH."""
    found = shutil.which(command) or shutil.which(command, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.fail(f"{command} is not installed: tests/install_services.sh does it")
    return found


class Mosquitto:
    """`mosquitto -c` on a configuration, with persistence. The same directory and port serve every start."""

    def __init__(self, directory: Path, lines: str = "allow_anonymous true") -> None:
        directory.mkdir(exist_ok=True)
        self.port = free_port()
        self.log = directory / "mosquitto.log"
        self.configuration = directory / "mosquitto.conf"
        self.configuration.write_text(
            f"listener {self.port} 127.0.0.1\n{lines}\nmax_queued_messages 0\n"
            f"persistence true\npersistence_location {directory}/\nuser root\n"
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Mosquitto":
        """Start; returns when it listens."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [find("mosquitto"), "-v", "-c", str(self.configuration)], stdout=log, stderr=log
            )
        end = time.monotonic() + MOSQUITTO_S_MAX
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.02)
        pytest.fail(f"mosquitto does not start: {self.log.read_text()}")

    def stop(self) -> None:
        """Stop in order: it writes down sessions and retained messages."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)
            self.process = None

    def kill(self) -> None:
        """End it as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def mosquitto_in(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Make brokers that are not started yet; all are stopped at the end."""
    made: list[Mosquitto] = []

    def make(name: str = "mosquitto", **options: str) -> Mosquitto:
        made.append(Mosquitto(tmp_path / name, **options))
        return made[-1]

    yield make
    for each in made:
        each.stop()
