"""A fleet at work: each device on a connection of its own, sending at its rate until told to stop."""

import asyncio
import contextlib
import os
import signal
import sys
from random import Random
from time import time_ns

from godwit.sim.device import SimulatedDevice, make_fleet
from godwit.sim.progress import Progress
from godwit.sim.uplink import Outgoing, Tally, Uplink

IN_FLIGHT_MAX = 5


async def run_fleet(
    host: str,
    port: int,
    *,
    devices: int,
    rate: float,
    profile: str,
    seed: int,
    duration_s: float | None,
    until_eof: bool,
    progress: Progress,
) -> str:
    """Simulate until Ctrl-C, SIGTERM, the end of `duration_s` or (with `until_eof`) of standard input.

    Returns a summary.
    """
    fleet = make_fleet(devices, profile, seed, time_ns())
    tally = Tally()
    stop = _stop_event(until_eof=until_eof)

    def uplink(device: SimulatedDevice) -> Uplink:
        return Uplink(
            host, port, device.device_id,
            online=lambda: device.online(time_ns()), offline=device.offline(),
            random=Random(f"{seed}/{device.device_id}"),
            tally=tally, in_flight_max=IN_FLIGHT_MAX, on_stored=lambda _: progress.advance(1), say=progress.say,
        )  # fmt: skip

    with progress:
        tasks = [asyncio.create_task(_live(device, uplink(device), 1.0 / rate)) for device in fleet]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), duration_s)
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
    return f"{tally.messages:,} messages of {devices} devices stored in {progress.elapsed_s:.1f} s{again(tally)}"


def again(tally: Tally) -> str:
    """Return what else is to be said of a run: what was sent again, what was refused."""
    parts = [f", {tally.sent_again:,} sent again"] if tally.sent_again else []
    parts += [f", {tally.refused:,} refused"] if tally.refused else []
    return "".join(parts)


def _stop_event(*, until_eof: bool) -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if until_eof:

        def read() -> None:
            if not os.read(sys.stdin.fileno(), 64):
                loop.remove_reader(sys.stdin.fileno())
                stop.set()

        loop.add_reader(sys.stdin.fileno(), read)
    return stop


async def _live(device: SimulatedDevice, uplink: Uplink, interval_s: float) -> None:
    """Be one device until cancelled."""
    link = asyncio.create_task(uplink.run())
    loop = asyncio.get_running_loop()
    due = loop.time() + device.phase * interval_s
    try:
        while not link.done():
            await asyncio.sleep(due - loop.time())
            await uplink.send(Outgoing(device.telemetry(time_ns()), 1))
            # after a long wait for the broker, go on from now instead of catching up in a burst
            due = max(due + interval_s, loop.time())
        link.result()  # it runs until cancelled: ended by itself, it says why
    finally:
        link.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await link
