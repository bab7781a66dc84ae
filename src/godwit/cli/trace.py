"""`godwit trace DEVICE`: follow one device live, from its packets to the committed rows."""

import argparse
import json
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from godwit.cli.platform_client import address_of, own_authority, trusting
from godwit.contract.errors import RejectedError, UnavailableError
from godwit.contract.ids import parse_device_id

if TYPE_CHECKING:
    from godwit.server.settings import Settings

EXAMPLES: Final = """Examples:
  godwit trace sensor-1                      the platform of this directory's settings
  godwit trace sensor-1 --for 60 --json      one JSON document an event, for a minute
  godwit trace sensor-1 --url https://iot.example:8080 --token-file token --cafile ca.pem"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "trace",
        help="follow one device live, from packet to row",
        description="Follow one device live: its packets, what each station of the road made of its messages, and the "
        "commit. The device need not be known yet. Ctrl-C ends it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("device", metavar="DEVICE", help="device id")
    parser.add_argument("--json", action="store_true", help="one JSON document an event")
    parser.add_argument("--no-payload", action="store_true", help="leave payloads out")
    parser.add_argument("--for", dest="seconds", type=float, metavar="S", help="end after S seconds")
    parser.add_argument("--url", "--server", metavar="URL", help="of the platform (SERVER_HOST, SERVER_PORT)")
    parser.add_argument("--token-file", metavar="FILE", help="file with a token (DATA_DIR/admin-token)")
    parser.add_argument(
        "--cafile", "--server-ca", metavar="FILE", help="PEM of whom to trust (the platform's own certificate)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Follow until Ctrl-C; returns the exit code."""
    from godwit.server.settings import load_settings  # noqa: PLC0415 - reads the environment: when it is run

    device_id = parse_device_id(options.device)
    settings = load_settings({})
    show = _show_json if options.json else _painter(with_payload=not options.no_payload)
    for event in events(options, settings, device_id):
        show(event)
    return 0


def events(options: argparse.Namespace, settings: "Settings", device_id: str) -> Iterator[dict[str, Any]]:
    """Yield what happens to a device. Raises RejectedError or UnavailableError when there is no way to follow it."""
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI  # noqa: PLC0415
    from websockets.sync.client import connect  # noqa: PLC0415

    base = options.url or address_of(settings)
    address = f"{base.replace('http', 'ws', 1).rstrip('/')}/api/v1/trace?device={quote(device_id)}"
    end = None if options.seconds is None else monotonic() + options.seconds
    headers = {"Authorization": f"Bearer {_token(options, settings)}"}
    tls = _context(options, settings) if address.startswith("wss:") else None
    try:
        with connect(address, additional_headers=headers, ssl=tls, max_size=None) as socket:
            while True:
                left = None if end is None else max(0.0, end - monotonic())
                yield from _events_of(json.loads(socket.recv(left)), device_id, base)
    except TimeoutError:
        if end is None:
            raise UnavailableError(f"{base} does not answer") from None
    except ConnectionClosed as closed:
        why = closed.rcvd.reason if closed.rcvd is not None else ""
        if why == "unauthorized":
            raise RejectedError(f"{base} does not know this token", code="unauthorized") from closed
        raise UnavailableError(f"{base} ended the connection{f': {why}' if why else ''}") from closed
    except (InvalidHandshake, InvalidURI) as error:
        raise UnavailableError(f"{base} does not speak for a platform: {error}") from error
    except ssl.SSLCertVerificationError as error:
        hint = f"{base}: the certificate is not trusted ({error.verify_message}); --cafile says whom to trust"
        raise RejectedError(hint, code="tls") from error
    except OSError as error:
        raise UnavailableError(f"no platform at {base}: {error.strerror or error}") from error


def _events_of(document: dict[str, Any], device_id: str, base: str) -> Iterator[dict[str, Any]]:
    """Yield the events in what the platform sent; its word that following has begun is one of them."""
    if document["type"] == "ready":
        yield {"kind": "ready", "deviceId": device_id, "url": base}
    if document.get("lost"):
        print(f"godwit: {document['lost']} events were lost: they came too fast", file=sys.stderr)
    yield from document.get("events", ())


def _token(options: argparse.Namespace, settings: "Settings") -> str:
    path = Path(options.token_file) if options.token_file else settings.data_dir / "admin-token"
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        hint = "run it where the platform runs, or say --token-file (and --url)"
        raise RejectedError(f"no token: {path} cannot be read; {hint}") from error


def _context(options: argparse.Namespace, settings: "Settings") -> ssl.SSLContext:
    own = own_authority(settings) if options.url is None else None
    return trusting(Path(options.cafile) if options.cafile else own)


def _show_json(event: dict[str, Any]) -> None:
    if event["kind"] != "ready":
        print(json.dumps(event, ensure_ascii=False, separators=(",", ":")), flush=True)


PAINTED: Final = {"stored": "bold green", "passed": "green", "duplicate": "yellow", "quarantined": "bold red"}
ARROWS: Final = {"in": "[cyan]→[/]", "out": "[magenta]←[/]"}
FAILURE: Final = 0x80
"""Reason codes from here on are refusals (MQTT 5, 2.4)."""
SHOWN: Final = 200
"""Characters of a payload on a line."""


def _painter(*, with_payload: bool) -> Callable[[dict[str, Any]], None]:
    """Return what prints an event for people: in colours on a terminal, without in a file."""
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    last = ""

    def show(event: dict[str, Any]) -> None:
        nonlocal last
        if event["kind"] == "ready":
            console.print(f"[dim]following {escape(event['deviceId'])} at {escape(event['url'])}; Ctrl-C ends it[/]")
            return
        payload = " ".join(event.get("payload", "").split())
        time = f"[dim]{event['at'][11:23]}[/]"
        console.print(f"{time} {_line({name: _escaped(value, escape) for name, value in event.items()})}")
        if payload and with_payload and payload != last:  # a message has it in its packet and at its first station
            shown = payload if len(payload) <= SHOWN else f"{payload[:SHOWN]}…"
            console.print(f"{'':12}   [dim]{_escaped(shown, escape)}[/]")
        if event["kind"] == "packet" or event.get("name") == "receive":
            last = payload

    return show


def _escaped(value: object, escape: Callable[[str], str]) -> Any:
    """Return a text so that neither rich nor the terminal takes what a device sent for a command."""
    if not isinstance(value, str):
        return value
    return escape("".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in value))


def _line(event: dict[str, Any]) -> str:
    """Return one event on one line, in rich's markup; its texts are escaped."""
    detail = event.get("detail", "")
    if event["kind"] == "packet":
        return _packet_line(event)
    if event["kind"] == "connection":
        who = event.get("clientId", "")
        return f"[bold]\N{MULTIPLICATION SIGN} connection {event['name']}[/] {detail} [dim]({who})[/]"
    if event["kind"] == "committed":
        outcome = event["outcome"]
        row = f"{event['rows']} row{'' if event['rows'] == 1 else 's'}"
        twice = f", {event['duplicates']} duplicate" if event.get("duplicates") else ""
        took = f"{event['micros'] / 1000:.1f} ms after it came"
        return (
            f"  └ [{PAINTED.get(outcome, '')}]{outcome}[/] {row}{twice}, in commit {event['commit']}, {took}"
            f"{f' [red]{detail}[/]' if detail else ''}"
        )
    if event["name"] == "receive":
        return (
            f"  ┌ message {event['message']} from [bold]{event.get('clientId', '')}[/] on {event['topic']}"
            f" ({event['size']} B) {detail}"
        )
    outcome = event["outcome"]
    return (
        f"  ├ {event['name']:<12}[{PAINTED.get(outcome, 'red')}]{outcome}[/] {detail} [dim]{event['micros']:.0f} µs[/]"
    )


def _packet_line(event: dict[str, Any]) -> str:
    pieces = [f"{ARROWS[event['direction']]} [bold]{event['name']}[/]"]
    if event["name"] == "PUBLISH":
        flags = "".join(f" {name}" for name in ("retain", "dup") if event.get(name))
        pieces.append(f"{event.get('topic', '')} [dim]QoS {event['qos']}{flags}, {event['size']} B[/]")
    if event.get("packetId"):
        pieces.append(f"[dim]#{event['packetId']}[/]")
    code = event.get("reasonCode")
    if code is not None:
        pieces.append(f"[{'red' if code >= FAILURE else 'green'}]0x{code:02X}[/]")
    if event.get("detail"):
        pieces.append(event["detail"])
    return " ".join(pieces)
