"""A TCP proxy that behaves badly on demand: for trials with real processes.

It cuts connections, lets them stall, limits what passes, and closes one direction only; `Faults` says what holds now.
Run it in the loop of whoever plays fate.
"""

import asyncio
import contextlib
from random import Random
from typing import Final

PIECE_BYTES: Final = 4_096


class Faults:
    """What is wrong with the way at the moment."""

    def __init__(self) -> None:
        self.is_refusing = False
        """New connections are closed at once."""
        self.is_stalled = False
        """Nothing passes, and nobody is told."""
        self.bytes_per_s: float | None = None
        """Of each direction of each connection; None: as fast as it goes."""


class Proxy:
    """Listens on loopback, and passes on to a port of loopback."""

    def __init__(self, port: int, random: Random) -> None:
        self._to = port
        self._random = random
        self.faults = Faults()
        self.port = 0
        self.cuts = self.connections = 0
        self._open: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1_024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self.port

    async def close(self) -> None:
        """Stop, and cut everything."""
        if self._server is not None:
            self._server.close()
        self.cut(1.0)
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.faults.is_refusing:
            writer.transport.abort()
            return
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        self._open[writer] = to_writer
        try:
            await asyncio.gather(self._pass(reader, to_writer), self._pass(to_reader, writer))
        finally:
            self._open.pop(writer, None)
            writer.transport.abort()
            to_writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while data := await reader.read(PIECE_BYTES):
                while self.faults.is_stalled:  # noqa: ASYNC110 - many wait, for a change that is rare
                    await asyncio.sleep(0.05)
                if self.faults.bytes_per_s:
                    await asyncio.sleep(len(data) / self.faults.bytes_per_s)
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    def cut(self, share: float) -> int:
        """Break a share of the connections, in the middle of whatever they send; returns how many."""
        chosen = [pair for pair in list(self._open.items()) if self._random.random() < share]
        for near, far in chosen:
            near.transport.abort()
            far.transport.abort()
        self.cuts += len(chosen)
        return len(chosen)

    def half_close(self, share: float) -> int:
        """Close a share of the connections in one direction only: one side hears nothing more, and may still speak."""
        chosen = [pair for pair in list(self._open.items()) if self._random.random() < share]
        for pair in chosen:
            with contextlib.suppress(OSError):
                self._random.choice(pair).write_eof()
        self.cuts += len(chosen)
        return len(chosen)
