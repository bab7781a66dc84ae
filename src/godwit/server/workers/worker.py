"""A worker process: sockets, TLS and parsing.

The owner starts it as `python -m godwit.server.workers.worker DESCRIPTOR`. It ends when the owner does, or when the
owner closes the pipe.
"""

import asyncio
import os
import signal
import socket
import ssl
import sys
from pathlib import Path
from typing import Final, cast

import uvloop

from godwit.contract.topics import topics_for
from godwit.mqtt.tls import fleet_context
from godwit.server.broker.listener import Server
from godwit.server.workers.frames import Begin, Frames, TlsTerms, Trust, frame, from_owner
from godwit.server.workers.relay import Relay

PIPE_BYTES_HIGH: Final = 65_536
"""What may wait before the pipe; beyond it nobody is read."""

LOOK_AGAIN_S: Final = 1.0
"""When files of the server's certificate that could not be read are read again."""


class Pipe(asyncio.Protocol):
    """The worker's end of the pipe."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._frames = Frames()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._relay: Relay | None = None
        self._server: Server | None = None
        self._is_held = False
        self._terms: TlsTerms | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the owner to begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=0)  # we are told as soon as anything has to wait

    def data_received(self, data: bytes) -> None:
        """Do what the owner says."""
        for body in self._frames.feed(data):
            for event in from_owner.decode(body):
                if isinstance(event, Begin):
                    self._begin(event)
                elif isinstance(event, Trust):
                    self._trust(event.tls)
                elif self._relay is not None:
                    self._relay.follow(event)
        self._ease()

    def _begin(self, begin: Begin) -> None:
        relay = self._relay = Relay(begin.packet_bytes_max, topics_for(begin.topic_layout), self._tell_soon)
        server = self._server = Server(relay)
        for each in begin.listeners:
            listening = socket.socket(fileno=each.descriptor)
            server.serve(
                each.name, listening, _context(begin.tls) if each.is_tls else None, frame_bytes_max=each.frame_bytes_max
            )

    def _trust(self, terms: TlsTerms) -> None:
        self._terms = terms
        self._shake_hands_by(terms)

    def _shake_hands_by(self, terms: TlsTerms) -> None:
        if self._server is None or terms is not self._terms:
            return  # others came meanwhile
        try:
            self._server.trust(_context(terms))
        except OSError as error:  # half replaced by its owner at this moment
            sys.stderr.write(f"the TLS listener of worker {os.getpid()} goes on as before: {error}\n")
            self._loop.call_later(LOOK_AGAIN_S, self._shake_hands_by, terms)

    def _tell_soon(self) -> None:
        self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        assert self._relay is not None
        events = self._relay.take_events()
        if events and self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(events))
            self._relay.is_pipe_full = self._transport.get_write_buffer_size() > PIPE_BYTES_HIGH
        self._ease()

    def pause_writing(self) -> None:
        """Read no more of what is flushed: the pipe is full. Of nobody, once much waits (see `_tell`)."""
        if self._relay is not None:
            self._relay.is_behind = True
            self._ease()

    def resume_writing(self) -> None:
        """Go on."""
        if self._relay is not None:
            self._relay.is_behind = self._relay.is_pipe_full = False
            self._ease()

    def _ease(self) -> None:
        """Accept, or let who comes wait in the kernel, as the owner keeps up."""
        relay, server = self._relay, self._server
        if relay is not None and server is not None and relay.may_accept == self._is_held:
            self._is_held = not self._is_held
            server.hold(is_held=self._is_held)

    def connection_lost(self, error: Exception | None) -> None:
        """End: without the owner nothing can be acknowledged."""
        del error
        self.ended.set()


def _context(terms: TlsTerms) -> ssl.SSLContext:
    return fleet_context(Path(terms.certificate), Path(terms.key), terms.authorities, terms.minimum)


async def _run(descriptor: int) -> None:
    end = socket.socket(fileno=descriptor)
    end.setblocking(False)  # noqa: FBT003
    _, pipe = await asyncio.get_running_loop().create_unix_connection(Pipe, sock=end)
    await pipe.ended.wait()


def main() -> None:
    """Serve until the owner closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the owner says when it is over
    uvloop.run(_run(int(sys.argv[1])))


if __name__ == "__main__":
    main()
