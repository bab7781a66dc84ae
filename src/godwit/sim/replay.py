"""The replay of a recorded series: numbered samples in batches, until the last one is stored."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from random import Random
from time import time_ns
from typing import Final

from godwit.contract.ids import DeviceId
from godwit.sim.device import Sample, encode, epoch_of, status
from godwit.sim.fleet import again
from godwit.sim.progress import Progress
from godwit.sim.recording import Row
from godwit.sim.uplink import Outgoing, Tally, Uplink

IN_FLIGHT_MAX: Final = 20


def batches(rows: Sequence[Row], device_id: str, reading: str, unit: str, batch: int) -> Iterator[tuple[int, Outgoing]]:
    """Yield (number of the first row, message). The same rows make the same epoch: what is replayed again is known."""
    epoch = epoch_of("replay", reading, tuple(rows))
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        samples = [Sample(row.time, {reading: (row.value, unit)}) for row in part]
        yield start, Outgoing(encode(device_id, epoch, start, samples), len(part))


async def run_replay(
    host: str,
    port: int,
    rows: Sequence[Row],
    *,
    device_id: DeviceId,
    reading: str,
    unit: str,
    speed: float,
    batch: int,
    progress: Progress,
) -> str:
    """Replay `rows`, `speed` times as fast as recorded (0: as fast as it goes); returns a summary."""
    tally = Tally()
    if speed:
        batch = 1  # each sample at its time
    uplink = Uplink(
        host, port, device_id,
        online=lambda: status(device_id, "online"), offline=status(device_id, "offline"),
        random=Random(device_id),
        tally=tally, in_flight_max=IN_FLIGHT_MAX,
        on_stored=lambda message: progress.advance(message.samples), say=progress.say,
    )  # fmt: skip
    with progress:
        link = asyncio.create_task(uplink.run())
        feed = asyncio.create_task(_feed(uplink, rows, batches(rows, device_id, reading, unit, batch), speed))
        await asyncio.wait((link, feed), return_when=asyncio.FIRST_COMPLETED)
        if link.done():
            feed.cancel()
            link.result()  # it runs until cancelled: ended by itself, it says why
        await feed
        link.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await link
    seconds = progress.elapsed_s
    rate = tally.samples / seconds if seconds else 0.0
    return f"{tally.samples:,} of {len(rows):,} samples stored in {seconds:.1f} s ({rate:,.0f}/s){again(tally)}"


async def _feed(uplink: Uplink, rows: Sequence[Row], messages: Iterator[tuple[int, Outgoing]], speed: float) -> None:
    began = time_ns()
    for first, message in messages:
        if speed:
            # rows are not sorted: one that goes back in time is due at once
            due = began + (rows[first].time - rows[0].time) / speed
            await asyncio.sleep(max(0.0, (due - time_ns()) / 1e9))
        await uplink.send(message)
    await uplink.drain()
