"""Accepting: connections are taken in at the pace that the rest of the platform can bear.

A TLS handshake costs more than a millisecond of the one thread that also serves everybody who is connected. So sockets
are accepted by hand, and handshakes are begun one after the other with a pause; who comes with a storm waits for his
turn, in the kernel's queue and then here. Who gave up meanwhile is passed over. Running out of file descriptors pauses
accepting instead of ending it.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeAlias

from godwit.server.broker.handshakes import code_of

log = logging.getLogger(__name__)

ACCEPTS_A_TURN: Final = 64
HANDSHAKE_EVERY_S: Final = 0.003
"""So many handshakes take less than half of a core, whatever comes."""
HANDSHAKES_AT_ONCE: Final = 8
"""As many begin without a pause after a quiet time."""
HANDSHAKE_S_MAX: Final = 10
WAITING_MAX: Final = 512
"""Accepted, and waiting for their handshake; more wait in the kernel."""
TIRED_S: Final = 0.2
_TIRED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Accepted: TypeAlias = tuple[socket.socket, str]
"""A connection, and from where it comes."""
OnRefused: TypeAlias = Callable[[str, str, str], None]
"""Told code, sentence and address."""


class Acceptor:
    """Accepts on one listening socket."""

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[], asyncio.BaseProtocol],
        tls: ssl.SSLContext | None,
        has_room: Callable[[], bool],
        on_refused: OnRefused = lambda _code, _detail, _address: None,
    ) -> None:
        self._has_room = has_room
        self._on_refused = on_refused
        """Told of a certificate that the handshake did not accept."""
        self.refused = 0
        """Connections that ended before their handshake did."""
        self._listening, self._protocol = listening, protocol
        self.tls = tls
        """The context of handshakes from now on; None: there are none."""
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Accepted] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._credit = float(HANDSHAKES_AT_ONCE)
        self._credited_at = self._loop.time()
        self._is_listening = self._is_held = False
        listening.setblocking(False)  # noqa: FBT003
        self._listen()

    def close(self) -> None:
        """Accept nobody any more."""
        self._rest()
        self._listening.close()
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting:
            self._waiting.popleft()[0].close()
        for task in list(self._tasks):
            task.cancel()

    def hold(self, *, is_held: bool) -> None:
        """Accept nobody until told otherwise: who comes waits in the kernel."""
        self._is_held = is_held
        if is_held:
            self._rest()
        else:
            self._listen()

    def _listen(self) -> None:
        if not self._is_listening and not self._is_held and self._listening.fileno() >= 0:
            self._is_listening = True
            self._loop.add_reader(self._listening, self._accept)

    def _rest(self) -> None:
        if self._is_listening:
            self._is_listening = False
            self._loop.remove_reader(self._listening)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_A_TURN):
            if len(self._waiting) >= WAITING_MAX:
                self._rest()  # until some of them have had their turn
                break
            try:
                accepted, address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:
                if error.errno not in _TIRED:
                    raise
                log.warning("no connection can be accepted now: %s", error)
                self._rest()
                self._loop.call_later(TIRED_S, self._listen)
                break
            if not self._has_room():  # no handshake is spent on it
                accepted.close()
                continue
            accepted.setblocking(False)  # noqa: FBT003
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is None:
                self._begin(self._connect(accepted, ""))
            else:
                self._waiting.append((accepted, str(address[0])))
        if self._waiting:
            self._shake_hands()

    def _shake_hands(self) -> None:
        """Begin as many handshakes as the pace allows, and come back for the rest."""
        now = self._loop.time()
        self._credit = min(HANDSHAKES_AT_ONCE, self._credit + (now - self._credited_at) / HANDSHAKE_EVERY_S)
        self._credited_at = now
        while self._waiting and self._credit >= 1:
            accepted, address = self._waiting.popleft()
            if _has_gone(accepted):
                self.refused += 1
                accepted.close()
                continue
            self._credit -= 1
            self._begin(self._connect(accepted, address))
        if len(self._waiting) < WAITING_MAX // 2:
            self._listen()
        if self._waiting and self._timer is None:
            self._timer = self._loop.call_later(HANDSHAKE_EVERY_S, self._come_back)

    def _come_back(self) -> None:
        self._timer = None
        self._shake_hands()

    def _begin(self, connecting: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(connecting)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, accepted: socket.socket, address: str) -> None:
        timeout = HANDSHAKE_S_MAX if self.tls is not None else None
        try:
            await self._loop.connect_accepted_socket(
                self._protocol, accepted, ssl=self.tls, ssl_handshake_timeout=timeout
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is one of the first
            self.refused += 1
            if isinstance(error, ssl.SSLCertVerificationError):
                self._on_refused(code_of(error), f"TLS: {error.verify_message}", address)
            log.debug("a connection ended before it began: %s", error)
            accepted.close()


def _has_gone(accepted: socket.socket) -> bool:
    """Whether the peer has hung up while it waited."""
    try:
        return not accepted.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False  # it has not said anything yet, and is there
    except OSError:
        return True
