"""`godwit device`: be a device, or give one its credentials.

`run` turns lines on standard input into its samples; `join` only enrolls.

They are in the spool before the next line is read, and leave it when the server has stored them: the network may be
away, and this process may be killed and started again.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from godwit.cli import device_enroll, device_join, device_owner, device_token
from godwit.cli.device_lines import CsvLines, JsonLines, LineSplit, reader_of
from godwit.contract.credentials import AUDIENCE
from godwit.contract.errors import MalformedError, UnavailableError
from godwit.contract.ids import parse_device_id

if TYPE_CHECKING:
    from godwit.device import Device

PART_BYTES: Final = 65_536
PARTS_HELD: Final = 4
SAY_EVERY_S: Final = 5.0


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "device",
        help="be a device, or give devices their identities",
        description="Be a device. Example: echo '{\"temperature\": 21.5}' | godwit device run press-7",
    )
    actions = parser.add_subparsers(title="actions", metavar="action", required=True)
    device_join.add_parser(actions)
    device_owner.add_actions(actions)
    device_enroll.add_parser(actions)
    device_token.add_parsers(actions)
    run = actions.add_parser(
        "run",
        help="send lines of CSV or JSON from standard input",
        description="Take samples from standard input, keep them safe, and get them to the server. Lines are JSON\n"
        "objects, or CSV with a header; a field `timestamp`, `time` or `ts` is the time, all others are readings.\n"
        "At the end of the input it waits until everything is stored. Ctrl-C ends it at once: what is not stored\n"
        "stays in the spool, and leaves when the device runs again.",
        epilog="Examples: godwit device run press-7 --format csv < week.csv\n"
        "          echo '{\"temperature\": 21.5}' | godwit device run press-7\n"
        "          vmstat-to-json | godwit device run press-7 --host iot.example.org --claim-file claim \\\n"
        "              --ca-fingerprint 5f1d...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("device_id", metavar="ID", help="of the device")
    to = run.add_argument_group("server")
    device_join.add_server_arguments(to)
    to.add_argument("--tls", action="store_true", help="trust the system's authorities")
    getting_in = run.add_argument_group("getting in")
    device_join.add_identity_arguments(getting_in)
    getting_in.add_argument("--username", metavar="NAME")
    getting_in.add_argument("--password-file", type=Path, metavar="FILE", help="file that holds the password")
    getting_in.add_argument("--token-file", type=Path, metavar="FILE", help="file that holds a device token")
    getting_in.add_argument("--jwt-key", type=Path, metavar="FILE", help="PEM of the key that signs tokens (ES256)")
    getting_in.add_argument(
        "--jwt-audience", default=AUDIENCE, metavar="NAME", help="what the platform is called: its setting JWT_AUDIENCE"
    )
    keep = run.add_argument_group("spool")
    keep.add_argument("--spool", type=Path, metavar="FILE", help="(default: in the user's state directory)")
    keep.add_argument(
        "--durability", choices=("full", "normal", "memory"), default="normal",
        help="full: nothing is lost by a power cut; normal: nothing by kill -9 (default)",
    )  # fmt: skip
    keep.add_argument("--spool-mb", type=int, default=256, metavar="N", help="at most so large (default 256)")
    how = run.add_argument_group("sending")
    how.add_argument("--format", choices=("auto", "json", "csv"), default="auto", help="of the lines (default: looks)")
    how.add_argument("--stream", default="main", metavar="NAME", help="(default main)")
    how.add_argument("--qos", type=int, choices=(0, 1), default=1, help="nothing is lost at either (default 1)")
    how.add_argument(
        "--compression", choices=("none", "deflate", "zstd"), default="deflate", help="of batches (default deflate)"
    )
    how.add_argument("--strict", action="store_true", help="end at the first line that cannot be read")
    how.add_argument("--wait", type=float, metavar="S", help="at the end of the input, wait at most S seconds")
    how.add_argument("--quiet", action="store_true", help="say nothing unless something is wrong")
    run.set_defaults(run=run_device)


def run_device(options: argparse.Namespace) -> int:
    """Run; returns the exit code."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    from godwit.device import Bounds, Device, Stream  # noqa: PLC0415 - the other commands do without

    device = Device(
        parse_device_id(options.device_id), options.host, options.port, tls=options.tls, username=options.username,
        password=device_join.secret_of(options.password_file), token=device_join.secret_of(options.token_file),
        jwt_key=options.jwt_key, jwt_audience=options.jwt_audience, spool=options.spool, durability=options.durability,
        bounds=Bounds(bytes_max=options.spool_mb * 2**20), streams=(Stream(options.stream, qos=options.qos),),
        compression=options.compression, **device_join.identity_of(options),
    )  # fmt: skip
    async with device:
        say = asyncio.create_task(_say(device, quiet=options.quiet))
        try:
            taken, faults = await _feed(device, options)
            with contextlib.suppress(UnavailableError):
                await device.flush(options.wait)
        finally:
            say.cancel()
        left = device.depth.items
        if not options.quiet:
            kept = f"; {left:,} wait in the spool: {device.trouble or 'on their way'}" if left else ""
            bad = f"; {faults:,} lines could not be read" if faults else ""
            print(f"{taken:,} samples taken, {max(0, taken - left):,} stored{kept}{bad}")
        return 1 if faults or left else 0


async def _feed(device: "Device", options: argparse.Namespace) -> tuple[int, int]:
    """Take every line; returns (samples taken, lines that could not be read)."""
    reader: JsonLines | CsvLines | None = None
    taken = faults = number = 0
    async for text in _lines():
        number += 1
        if reader is None and text.strip():
            reader = reader_of(options.format, text)
        try:
            line = reader.read(text) if reader is not None else None
            if line is not None:
                await device.send(line.readings, at=line.at, stream=options.stream)
                taken += 1
        except MalformedError as error:
            faults += 1
            sentence = f"line {number}: {error}"
            if options.strict:
                raise MalformedError(sentence) from error
            print(f"godwit: {sentence}", file=sys.stderr)
    return taken, faults


async def _lines() -> AsyncIterator[str]:
    """Yield the lines of standard input, read in a thread: a pipe that is silent blocks nobody."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[bytes](PARTS_HELD)

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            data = b"-"
            while data:
                data = os.read(sys.stdin.fileno(), PART_BYTES)  # what is there, without waiting for more
                asyncio.run_coroutine_threadsafe(queue.put(data), loop).result()

    threading.Thread(target=read, daemon=True).start()
    split = LineSplit()
    while data := await queue.get():
        for text in split.feed(data):
            yield text
    for text in split.rest():
        yield text


async def _say(device: "Device", *, quiet: bool) -> None:
    """Say now and then how far it is."""
    said = ""
    while not quiet:
        await asyncio.sleep(SAY_EVERY_S if said else 1.0)
        left = device.depth.items
        state = f"{left:,} samples wait: {device.trouble}" if device.trouble and left else ""
        if state and state != said:
            print(f"godwit: {state}", file=sys.stderr, flush=True)
        said = state or said
