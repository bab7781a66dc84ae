"""Devices for trials with real processes: each sends a fixed number of samples, whose value is their number.

`python -m godwit.sim.crowd PORT DIRECTORY FIRST COUNT SAMPLES SECONDS`. Killed at any moment and started again, it goes
on where the spools are: so what the store must hold in the end is known without a book being kept. Ends when all is
stored.
"""

import asyncio
import sys
from pathlib import Path
from random import Random
from typing import Final

from godwit.device import Device, Stream
from godwit.spool import Spool

READINGS: Final = ("a", "b", "c", "d", "e")
STREAM: Final = "main"


async def live(port: int, directory: Path, name: str, samples: int, seconds: float) -> None:
    """Be one device, from its first sample to the last that is stored."""
    random = Random()
    spool = Spool.open(directory / f"{name}.spool")
    stream = Stream(STREAM, qos=int(name.rpartition("-")[2]) % 2)
    async with Device(name, port=port, spool=spool, streams=(stream,), keep_alive=10, health_every_s=20) as device:
        while (number := spool.highest(STREAM) + 1) < samples:
            sent = await device.send(dict.fromkeys(READINGS, number))
            assert sent.seq == number, (sent, number)
            await asyncio.sleep(random.expovariate(samples / seconds))
        await device.flush()


async def main() -> None:
    """Be all of them."""
    port, directory, first, count, samples, seconds = sys.argv[1:]
    names = [f"chaos-{number}" for number in range(int(first), int(first) + int(count))]
    await asyncio.gather(*(live(int(port), Path(directory), each, int(samples), float(seconds)) for each in names))


if __name__ == "__main__":
    asyncio.run(main())
