"""`godwit simulate`: a fleet of plausible devices, or the replay of a recorded series, through the real broker."""

import argparse
import asyncio
import sys
from pathlib import Path
from time import time_ns
from typing import Final

from godwit.contract.errors import RejectedError
from godwit.contract.ids import parse_device_id
from godwit.sim.profiles import PROFILES

INTERVAL_S: Final = 2.0
BATCH: Final = 200


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "simulate",
        help="simulate a fleet, or replay a recorded series",
        description="Simulate a fleet, or replay a recorded series, through the real broker over the network. "
        "What was not acknowledged is sent again, across restarts of the platform.",
        epilog="Examples: godwit simulate --devices 100 --rate 2 --profile machine\n"
        "          godwit simulate --replay machine.csv --device machine-1 --reading temperature --speed 0",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="of the broker (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=1883, help="of the broker (default 1883)")
    fleet = parser.add_argument_group("a fleet")
    fleet.add_argument("--devices", type=int, default=12, metavar="N", help="how many (default 12)")
    fleet.add_argument(
        "--rate", type=float, default=1 / INTERVAL_S, metavar="R", help="messages a second of each device (default 0.5)"
    )
    fleet.add_argument(
        "--profile", choices=("mixed", *PROFILES), default="mixed", help="kind of device (default: all in turn)"
    )
    fleet.add_argument("--duration", type=float, metavar="S", help="stop after S seconds (default: at Ctrl-C)")
    fleet.add_argument("--seed", type=int, default=1, help="the same seed makes the same fleet (default 1)")
    replay = parser.add_argument_group("a replay")
    replay.add_argument("--replay", type=Path, metavar="FILE", help="CSV with rows of timestamp,value (no zone: UTC)")
    replay.add_argument("--device", default="replay-1", help="device id to speak for (default replay-1)")
    replay.add_argument("--reading", default="value", help="name of the reading (default value)")
    replay.add_argument("--unit", default="", help="unit of the reading, such as Cel")
    replay.add_argument(
        "--speed", type=float, default=1.0, help="times as fast as recorded; 0: as fast as it goes (default 1)"
    )
    replay.add_argument("--shift", action="store_true", help="move the times so that the series ends now")
    replay.add_argument("--batch", type=int, default=BATCH, metavar="N", help=f"samples a message (default {BATCH})")
    parser.add_argument("--quiet", action="store_true", help="say nothing unless something is wrong")
    parser.add_argument("--until-eof", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Simulate; returns the exit code."""
    work = _replay(options) if options.replay else _fleet(options)
    try:
        import uvloop  # noqa: PLC0415 - the base install does without
    except ModuleNotFoundError:
        summary = asyncio.run(work)
    else:
        summary = uvloop.run(work)
    if not options.quiet:
        print(summary)
    return 0


async def _fleet(options: argparse.Namespace) -> str:
    from godwit.sim.fleet import run_fleet  # noqa: PLC0415
    from godwit.sim.progress import Progress  # noqa: PLC0415

    if options.devices < 1 or options.rate <= 0:
        raise RejectedError("--devices and --rate must be greater than 0")
    return await run_fleet(
        options.host, options.port, devices=options.devices, rate=options.rate, profile=options.profile,
        seed=options.seed, duration_s=options.duration, until_eof=options.until_eof,
        progress=Progress("messages", None, sys.stderr, is_quiet=options.quiet),
    )  # fmt: skip


async def _replay(options: argparse.Namespace) -> str:
    from godwit.sim.progress import Progress  # noqa: PLC0415
    from godwit.sim.recording import read_rows, shift_to  # noqa: PLC0415
    from godwit.sim.replay import run_replay  # noqa: PLC0415

    if options.speed < 0 or options.batch < 1:
        raise RejectedError("--speed must not be negative, --batch must be 1 or more")
    try:
        with options.replay.open(encoding="utf-8", newline="") as lines:
            rows = read_rows(lines)
    except OSError as error:
        raise RejectedError(f"{options.replay} cannot be read: {error.strerror}") from error
    if options.shift:
        rows = shift_to(rows, time_ns())
    return await run_replay(
        options.host, options.port, rows, device_id=parse_device_id(options.device), reading=options.reading,
        unit=options.unit, speed=options.speed, batch=options.batch,
        progress=Progress("samples", len(rows), sys.stderr, is_quiet=options.quiet),
    )  # fmt: skip
