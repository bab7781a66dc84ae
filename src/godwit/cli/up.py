"""`godwit up` and `godwit demo`: start the platform, say in one box where it is, and stop it at Ctrl-C."""

import argparse
import signal
import sys
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING

from godwit.cli.box import can_draw, draw
from godwit.cli.fleet_process import FleetProcess
from godwit.cli.ports import Wanted, next_free, require_free
from godwit.contract.errors import RejectedError

if TYPE_CHECKING:  # imported when a platform is started; other commands do without it
    from godwit.server.main import Running
    from godwit.server.settings import Settings

DEMO_DEVICES = 12
SETTINGS_OF_FLAGS = (
    ("--data-dir", "DATA_DIR", "directory of everything that is kept"),
    ("--server-host", "SERVER_HOST", "where API and console listen; anything but loopback is HTTPS"),
    ("--server-port", "SERVER_PORT", "port of API and console"),
    ("--mqtt-host", "MQTT_HOST", "where the plaintext MQTT listener listens"),
    ("--mqtt-port", "MQTT_PORT", "port of the plaintext MQTT listener"),
    ("--mqtts-port", "MQTTS_PORT", "port of the TLS MQTT listener"),
    ("--mqtt-ws-port", "MQTT_WS_PORT", "port of MQTT over WebSocket, plaintext like --mqtt-port; 0 for none"),
    ("--device-port", "DEVICE_PORT", "HTTPS port of devices: telemetry, enrollment, EST, SCEP; 0 for none"),
    ("--database-url", "DATABASE_URL", "registry in PostgreSQL instead of SQLite"),
    ("--log-level", "LOG_LEVEL", "debug, info, warning or error"),
)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both commands."""
    up = commands.add_parser(
        "up",
        help="start the platform",
        description="Start the platform and run until Ctrl-C. Settings come from flags, the environment and .env.",
        epilog="Example: godwit up --data-dir /var/lib/godwit --simulate 3",
    )
    up.add_argument("--simulate", type=int, default=0, metavar="N", help="add a fleet of N simulated devices")
    up.set_defaults(run=run_up)
    demo = commands.add_parser(
        "demo",
        help="start the platform with a simulated fleet, on ports that are free",
        description=f"Start the platform with {DEMO_DEVICES} simulated devices, on the next ports that are free.",
        epilog="Example: godwit demo --data-dir /tmp/godwit-demo",
    )
    demo.add_argument(
        "--simulate", type=int, default=DEMO_DEVICES, metavar="N", help=f"number of devices (default {DEMO_DEVICES})"
    )
    demo.set_defaults(run=run_demo)
    for parser in (up, demo):
        for flag, setting, text in SETTINGS_OF_FLAGS:
            parser.add_argument(flag, dest=setting, metavar="...", help=f"{text} ({setting})")


def _settings(options: argparse.Namespace) -> "Settings":
    from godwit.server.settings import load_settings  # noqa: PLC0415

    given = {setting: getattr(options, setting) for _, setting, _ in SETTINGS_OF_FLAGS}
    return load_settings({setting: value for setting, value in given.items() if value is not None})


def wanted_ports(settings: "Settings") -> list[Wanted]:
    """Return the ports that these settings open."""
    wanted = [Wanted("SERVER_PORT", settings.server_host, settings.server_port)]
    if settings.mqtt_broker == "embedded":
        if settings.local_listener:
            wanted.append(Wanted("MQTT_PORT", settings.mqtt_host, settings.mqtt_port))
            if settings.mqtt_ws_port:
                wanted.append(Wanted("MQTT_WS_PORT", settings.mqtt_host, settings.mqtt_ws_port))
        wanted.append(Wanted("MQTTS_PORT", settings.mqtts_host, settings.mqtts_port))
    if settings.device_port:
        wanted.append(Wanted("DEVICE_PORT", settings.device_host, settings.device_port))
    return wanted


def run_up(options: argparse.Namespace) -> int:
    """Start on exactly the ports of the settings."""
    settings = _settings(options)
    require_free(wanted_ports(settings))
    return serve(settings, options.simulate)


def run_demo(options: argparse.Namespace) -> int:
    """Start on ports that are free."""
    from msgspec.structs import replace  # noqa: PLC0415

    settings = _settings(options)
    chosen = next_free(wanted_ports(settings))
    settings = replace(settings, **{setting.lower(): port for setting, port in chosen.items()})
    return serve(settings, options.simulate)


def serve(settings: "Settings", devices: int) -> int:
    """Run a platform, and a fleet when `devices` is not 0, until SIGINT or SIGTERM."""
    began = monotonic()  # people wait for the imports too
    from godwit.server.main import Server  # noqa: PLC0415

    if devices and settings.mqtt_broker != "embedded":
        raise RejectedError(
            "--simulate is for the embedded broker; with MQTT_BROKER=external use godwit simulate",
            code="invalid-setting",
        )
    server = Server(settings)
    fleet: FleetProcess | None = None

    def stop(_number: int, _frame: FrameType | None) -> None:
        if fleet is not None:
            fleet.stop()  # first: devices say goodbye while somebody listens
        server.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    running = server.start()._replace(seconds=monotonic() - began)
    try:
        print(announcement(running, settings), flush=True)
        if devices:
            fleet = FleetProcess(devices, running.mqtt_address)
        server.wait()
    finally:
        if fleet is not None:
            fleet.stop()
        server.stop()
    return 0


def announcement(running: "Running", settings: "Settings") -> str:
    """Return the box."""
    rows = [("Console", running.console_url), ("Sign in", running.sign_in_url)]
    if running.mqtt_address:
        host, _, port = running.mqtt_address.rpartition(":")
        rows += [
            ("MQTT", running.mqtt_address),
            ("Try", publish_line(host, port)),
        ]
    if running.mqtts_address:
        rows.append(("MQTT, TLS", running.mqtts_address))
    rows += [("MQTT, WebSocket", address) for address in running.websocket_addresses]
    if running.device_address:
        rows.append(("Devices, HTTPS", running.device_address))
    if running.foreign_address:
        rows.append(("MQTT", f"behind the broker at {running.foreign_address}"))
        rows += [("", sentence) for sentence in running.trouble]
    rows += [("Data", str(settings.data_dir)), ("", f"ready in {running.seconds:.1f} s; Ctrl-C stops everything")]
    return draw("godwit is up", rows, fancy=can_draw(sys.stdout))


def publish_line(host: str, port: str) -> str:
    """Return a line to paste that sends one message. It needs no timestamp: the server then takes its own time."""
    return (
        f"mosquitto_pub -h {host} -p {port} -q 1 -t devices/my-first-device/telemetry "
        """-m '{"sensors": {"temperature": 21.5}}'"""
    )
