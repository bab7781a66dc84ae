"""Virtual time: an event loop whose clock stands still while there is work, and leaps to the next timer when not.

Nothing in it waits, no thread runs, and chance comes from one seed: the same seed is the same run, to the last byte.
What a program does in a thread (`run_in_executor`) is done in the loop, after a delay that the world decides on.
"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from random import Random
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")
NS: Final = 1_000_000_000
STARTED_NS: Final = 1_767_225_600 * NS
"""When every world begins: 2026-01-01."""
STEPS_MAX: Final = 5_000_000


class Connects(Protocol):
    """Who makes connections in this world."""

    async def connect(
        self, protocol: Callable[[], asyncio.BaseProtocol], host: str, _port: int, /
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connect. Raises OSError."""
        ...


class StandstillError(RuntimeError):
    """Everybody waits, and nobody will ever be woken."""


class _Selector:
    """Stands where a real loop asks the kernel."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise StandstillError(f"at {self._loop.time():.3f} s")
        self._loop.leap(timeout)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._seconds = 0.0
        self._steps = 0
        self._selector = _Selector(self)
        self._random = random
        self.network: Connects | None = None
        self.thread_s: Callable[[], tuple[float, float]] = lambda: (0.0, self._random.random() * 0.005)
        """How long work in a thread takes until it is done, and then until the loop hears of it."""

    def leap(self, seconds: float) -> None:
        """Let time pass. Raises RuntimeError when a world does not come to rest."""
        self._steps += 1
        if self._steps > STEPS_MAX:
            raise RuntimeError(f"the world does not come to rest: {STEPS_MAX} steps until {self._seconds:.1f} s")
        self._seconds += seconds

    def time(self) -> float:
        """Return the seconds since the world began."""
        return self._seconds

    def _process_events(self, _events: list[Any]) -> None:
        """Nothing: no file is looked at."""

    def _write_to_self(self) -> None:
        """Nothing: no other thread has to wake this one."""

    def run_in_executor(  # type: ignore[override]
        self, _executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Do the work in the loop, when its time has come."""
        future: asyncio.Future[T] = self.create_future()
        done_s, heard_s = self.thread_s()

        def work() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except BaseException as error:  # noqa: BLE001 - as an executor does: it is the caller's
                self.call_later(heard_s, _settle, future, None, error)
            else:
                self.call_later(heard_s, _settle, future, result, None)

        self.call_later(done_s, work)
        return future

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], host: str = "", port: int = 0, **_more: Any
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connect through the network of the world."""
        if self.network is None:
            raise OSError("this world has no network")
        return await self.network.connect(protocol_factory, host, port)


def _settle(future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class LoopClock:
    """The clocks of a machine in the world: the true time, off by what is wrong with it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, offset_s: float = 0.0, drift_ppm: float = 0.0) -> None:
        self._loop = loop
        self.offset_s = offset_s
        self.drift_ppm = drift_ppm

    def now_ns(self) -> int:
        """Return the time of day as this machine has it, ns UTC."""
        seconds = self._loop.time()
        return STARTED_NS + round((seconds * (1 + self.drift_ppm / 1e6) + self.offset_s) * NS)

    def monotonic_s(self) -> float:
        """Return seconds since the world began, as this machine counts them."""
        return self._loop.time() * (1 + self.drift_ppm / 1e6)

    def uptime_ns(self) -> int:
        """Return ns since the world began: its machines are started with it."""
        return round(self.monotonic_s() * NS)


def run(loop: VirtualLoop, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end, then end what is left, as `asyncio.run` does."""
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(work)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()
