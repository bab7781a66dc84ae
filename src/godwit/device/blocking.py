"""The same device for scripts that do not use asyncio: a thin shell around it, with an event loop in a thread.

with Device("press-7", "iot.example.org") as device:
device.send(temperature=21.5)
"""

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from typing import Any, Self, TypeVar

from godwit.contract.samples import Reading, Value
from godwit.device.client import Device as AsyncDevice
from godwit.device.client import Time, Wait
from godwit.device.streams import MAIN, Sent
from godwit.spool import Depth

T = TypeVar("T")


class Device:
    """Takes what `godwit.device.Device` takes. Safe to use from any thread; every call blocks as little as that one."""

    def __init__(self, device_id: str, host: str = "127.0.0.1", port: int | None = None, **more: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._arguments = (device_id, host, port), more
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"device {device_id}", daemon=True)
        self.device: AsyncDevice
        """The device itself, for what this shell does not have; it lives on the loop of the thread."""

    def __enter__(self) -> Self:
        """Open it. Raises what the device raises."""
        self._thread.start()
        try:
            self._run(self._open())
        except BaseException:
            self._stop()
            raise
        return self

    async def _open(self) -> None:
        arguments, more = self._arguments
        self.device = AsyncDevice(*arguments, **more)
        await self.device.__aenter__()

    def __exit__(self, *error: object) -> None:
        """Close it; what is not stored stays in the spool."""
        try:
            self._run(self.device.__aexit__(None, None, None))
        finally:
            self._stop()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def send(
        self,
        readings: Mapping[str, Value | Reading | None] | None = None,
        /,
        *,
        at: Time = None,
        stream: str = MAIN,
        wait: Wait = "spooled",
        **more: Value | Reading | None,
    ) -> Sent:
        """Take a sample."""
        return self._run(self.device.send(readings, at=at, stream=stream, wait=wait, **more))

    def event(self, event: str, **more: Any) -> Sent:
        """Say that something happened."""
        return self._run(self.device.event(event, **more))

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until everything taken so far is stored. Raises UnavailableError when that takes longer."""
        self._run(self.device.flush(timeout_s))

    def report(self, code: str, message: str = "", severity: str | None = None) -> None:
        """Say that something is wrong."""
        self._loop.call_soon_threadsafe(self.device.report, code, message, severity)

    def clear(self, code: str) -> None:
        """Say that it is in order again."""
        self._loop.call_soon_threadsafe(self.device.clear, code)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self.device.is_connected

    @property
    def trouble(self) -> str:
        """Empty while we are connected, else why not."""
        return self.device.trouble

    @property
    def configuration(self) -> dict[str, Any] | None:
        """What the platform gave with the identity."""
        return self.device.configuration

    @property
    def depth(self) -> Depth:
        """What waits in the spool."""
        return self.device.depth
