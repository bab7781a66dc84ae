"""Processes that a benchmark starts and looks at: CPU and memory from /proc, a godwit, a Mosquitto, a load."""

import contextlib
import datetime as dt
import getpass
import ipaddress
import json
import os
import resource
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench.load import PASSWORD, USERNAME
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds a process has used, all threads, user and system (proc_pid_stat(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def rss_bytes(pid: int) -> int:
    """Return a process's resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def tree(pid: int) -> list[int]:
    """Return a process and all that it started, and what these started."""
    found, at = [pid], 0
    while at < len(found):
        with contextlib.suppress(FileNotFoundError):  # it ended while we looked
            for task in Path(f"/proc/{found[at]}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        at += 1
    return found


def free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _raise_limits() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Target(NamedTuple):
    """Something under load: the processes whose CPU counts, with all that they started, and where it listens."""

    name: str
    pids: tuple[int, ...]
    port: int
    tls_port: int
    http_port: int = 0
    data_dir: Path = Path()
    ready_s: float = 0.0

    def cpu_s(self) -> float:
        """Return the CPU seconds of all of it."""
        return self._sum(cpu_s)

    def rss_bytes(self) -> float:
        """Return the memory of all of it."""
        return self._sum(rss_bytes)

    def _sum(self, of: Callable[[int], float]) -> float:
        total = 0.0
        for each in (each for pid in self.pids for each in tree(pid)):
            with contextlib.suppress(FileNotFoundError):  # it ended while we looked
                total += of(each)
        return total

    def token(self) -> str:
        """Return the administrator's token of a godwit."""
        return (self.data_dir / "admin-token").read_text().strip()

    def get(self, path: str, accept: str = "application/json") -> bytes:
        """Ask a godwit's API."""
        headers = {"Authorization": f"Bearer {self.token()}", "Accept": accept}
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            data: bytes = answer.read()
            return data


@contextlib.contextmanager
def started(command: list[str], **more: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process for the length of a block."""
    process = subprocess.Popen(command, preexec_fn=_raise_limits, **more)  # type: ignore[call-overload]  # noqa: PLW1509
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def godwit(data_dir: Path, **settings: str) -> Iterator[Target]:
    """Run a platform in a process of its own, ready when the block begins."""
    http, mqtt, mqtts, websocket = free_ports(4)
    environment = os.environ | {
        "DATA_DIR": str(data_dir), "SERVER_PORT": str(http), "MQTT_PORT": str(mqtt), "MQTTS_PORT": str(mqtts),
        "MQTT_WS_PORT": str(websocket), "DEVICE_PORT": "0", "LOG_LEVEL": "warning",
        "MQTT_USERNAME": USERNAME, "MQTT_PASSWORD": PASSWORD,
    } | settings  # fmt: skip
    begin = time.perf_counter()
    path = data_dir.parent / f"{data_dir.name}.log"
    with (
        path.open("wb") as log,
        started([sys.executable, "-m", "godwit.cli.main", "up"], env=environment, stdout=log, stderr=log) as process,
    ):
        _wait_ready(process, http, path)
        yield Target("godwit", (process.pid,), mqtt, mqtts, http, data_dir, time.perf_counter() - begin)


def _wait_ready(process: subprocess.Popen[bytes], http: int, log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if process.poll() is not None:
            sys.exit(f"godwit ended with {process.returncode}: {log.read_text()[-2_000:]}")
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{http}/health/ready", timeout=2).close()
            return
        time.sleep(0.02)
    sys.exit("godwit was not ready within a minute")


def write_certificate(directory: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for loopback; returns (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "server.crt", directory / "server.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
    return paths


@contextlib.contextmanager
def mosquitto(directory: Path) -> Iterator[Target]:
    """Run the baseline of ingest: Mosquitto, and a subscriber that writes everything to nowhere. Both are counted."""
    with mosquitto_alone(directory) as broker:
        command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(broker.port), "-q", "1", "-V", "5", "-t", "devices/#"]
        quiet = subprocess.DEVNULL
        with started(command, stdout=quiet, stderr=quiet) as subscriber:
            time.sleep(0.3)
            yield broker._replace(name="mosquitto + mosquitto_sub", pids=(*broker.pids, subscriber.pid))


@contextlib.contextmanager
def mosquitto_alone(directory: Path, tls: str = "") -> Iterator[Target]:
    """Run the baseline of broker work: Mosquitto; `tls`: more lines for its TLS listener."""
    directory.mkdir(parents=True, exist_ok=True)
    port, tls_port = free_ports(2)
    certificate, key = write_certificate(directory)
    settings = directory / "mosquitto.conf"
    settings.write_text(
        f"user {getpass.getuser()}\nallow_anonymous true\nlistener {port} 127.0.0.1\n"
        f"listener {tls_port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}\n{tls}"
        "max_queued_messages 0\nmax_inflight_messages 1000\nlog_type error\n"
    )
    path = os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin"
    environment = os.environ | {"PATH": path}
    quiet = subprocess.DEVNULL
    with started(["mosquitto", "-c", str(settings)], env=environment, stdout=quiet, stderr=quiet) as broker:
        _wait_port(port)
        yield Target("mosquitto", (broker.pid,), port, tls_port)


def _wait_port(port: int) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.05)
    sys.exit("Mosquitto did not open its port")


class Load:
    """A load generator, connected and waiting for the word."""

    def __init__(
        self, target: Target, mode: str, *, tls: bool = False, program: str = "bench.load", **options: object
    ) -> None:
        command = [sys.executable, "-m", program, "--mode", mode]
        command += ["--port", str(target.tls_port if tls else target.port), *(["--tls"] if tls else [])]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if mode != "handshakes":
            self._read()

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"the load generator ended with {self._process.wait()}")
        found: dict[str, float] = json.loads(line)
        return found

    def go(self) -> None:
        """Begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, float]:
        """Wait until it is done; returns its figures."""
        found = self._read()
        self._process.wait()
        return found

    def run(self) -> dict[str, float]:
        """Begin, and wait until it is done."""
        self.go()
        return self.result()
