"""Device pages that follow the live feed, without their browsers: WebSockets, one a device.

`python -m bench.pages PORT TOKEN COUNT`: says when all stand, reads until a line comes in, says how much came.
"""

import asyncio
import contextlib
import json
import sys

from websockets.asyncio.client import connect


async def follow(port: int, token: str, device: str, stands: asyncio.Semaphore) -> int:
    """Read the feed of one device, as its page does, until cancelled; returns the messages."""
    count = 0
    async with connect(f"ws://127.0.0.1:{port}/api/v1/live", max_size=None) as page:
        await page.send(json.dumps({"token": token, "devices": [device]}))
        await page.recv()
        stands.release()
        with contextlib.suppress(asyncio.CancelledError):
            async for _ in page:
                count += 1
    return count


async def main() -> None:
    """Follow with all pages."""
    port, token, pages = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    stands = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(follow(port, token, f"lat{number}", stands)) for number in range(pages)]
    for _ in tasks:
        await stands.acquire()
    print("stands", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for task in tasks:
        task.cancel()
    print(sum(await asyncio.gather(*tasks)))


if __name__ == "__main__":
    asyncio.run(main())
