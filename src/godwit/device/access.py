"""How a device gets in: by a certificate of its own (`certified`), a token, a signed claim (JWT), or a password.

A link asks for a `Login` before each connection, has the server's certificate looked at, and says how it went. While it
is connected it lets the access do what it has to do beside (`attend`): renewals happen over the open session.
"""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId
from godwit.contract.notices import NewAuthorities, RenewalWanted
from godwit.device.jwt import make_jwt
from godwit.device.keys import FileKey, Key
from godwit.device.trust import Seen, TimeGuard, Trust, fetch_root, read_fingerprint, read_pems
from godwit.mqtt.client import MqttClient
from godwit.runtime.clock import Clock

Wire = ssl.SSLObject | ssl.SSLSocket


class Login(NamedTuple):
    """What a connection is made with."""

    tls: ssl.SSLContext | None = None
    inspect: Callable[[Wire], None] | None = None
    username: str | None = None
    password: bytes | None = None


class Access(Protocol):
    """See the module."""

    async def login(self) -> Login:
        """Return what to connect with.

        Raises OSError, UnavailableError, ReasonError: later; RejectedError, MalformedError: a person has to help.
        """
        ...

    async def accepted(self) -> None:
        """Note that the server let us in."""
        ...

    async def refused(self, reason: int | None = None) -> bool:
        """Note that it did not, for `reason`, or that there was no way to it (None).

        Returns whether we have another credential to try.
        """
        ...

    async def attend(self, client: MqttClient) -> None:
        """Do what is to be done while connected; returns when another connection is wanted."""
        ...

    def hear_grant(self, payload: bytes) -> None:
        """Take an answer to a request. Raises MalformedError."""
        ...

    def hear_renewal(self, wanted: RenewalWanted) -> None:
        """Take the platform's wish for a renewal."""
        ...

    async def hear_authorities(self, new: NewAuthorities) -> bool:
        """Take up whom to trust; returns whether that was news. Raises RejectedError."""
        ...

    def hear_time(self, time: int) -> None:
        """Take the platform's time, ns UTC."""
        ...

    @property
    def trusts(self) -> list[str] | None:
        """Return the fingerprints of the roots that are trusted, None where that is not our business."""
        ...

    @property
    def due_s(self) -> float:
        """Return the seconds until a connection is wanted; 0 while one is, infinite where none will be."""
        ...

    @property
    def patience_s(self) -> float:
        """Return how long we may stay away at the most, where nobody says how long we have to."""
        ...

    def close(self) -> None:
        """End."""
        ...


class Plain:
    """Whatever the application says: a context, a user name, a password."""

    def __init__(
        self, tls: ssl.SSLContext | None = None, username: str | None = None, password: bytes | None = None
    ) -> None:
        self._login = Login(tls, None, username, password)

    async def login(self) -> Login:
        """Return it."""
        return self._login

    async def accepted(self) -> None:
        """Nothing follows."""

    async def refused(self, reason: int | None = None) -> bool:  # noqa: ARG002 - see `Access`
        """There is nothing else to try."""
        return False

    async def attend(self, client: MqttClient) -> None:
        """Nothing is to be done."""
        await client.wait_closed()

    def hear_grant(self, payload: bytes) -> None:
        """Nothing was asked for."""

    def hear_renewal(self, wanted: RenewalWanted) -> None:
        """There is nothing to renew."""

    async def hear_authorities(self, new: NewAuthorities) -> bool:  # noqa: ARG002 - see `Access`
        """Whom to trust is the application's business."""
        return False

    def hear_time(self, time: int) -> None:
        """Nobody's dates are checked here."""

    @property
    def trusts(self) -> list[str] | None:
        """Not our business."""
        return None

    @property
    def due_s(self) -> float:
        """Nothing is ever due."""
        return float("inf")

    @property
    def patience_s(self) -> float:
        """As long as it takes."""
        return float("inf")

    def close(self) -> None:
        """Nothing is open."""


class Server(NamedTuple):
    """Where the platform is, and by what its authority is known before there is an identity.

    `ca`: PEM file of its roots; `ca_fingerprint`: SHA-256 of one. `https_port` is that of devices.
    """

    host: str
    port: int
    https_port: int
    version: int = 5
    ca: Path | None = None
    ca_fingerprint: str | None = None


class Pinned(Plain):
    """A user name and a password, to a server whose root is pinned."""

    def __init__(self, server: Server, clock: Clock, username: str | None, password: bytes | None) -> None:
        super().__init__(None, username, password)
        self._server = server
        self._guard = TimeGuard(clock)
        self._trust = Trust(self._guard)
        self._roots: tuple[str, ...] = ()
        self._seen: Seen | None = None

    async def login(self) -> Login:
        """Return it, with a context that trusts the root that was named."""
        if not self._roots:
            self._roots = await asyncio.to_thread(first_roots, self._server)
        return self._login._replace(tls=self._trust.context(self._roots), inspect=self._look)

    def _look(self, wire: Wire) -> None:
        self._seen = self._trust.inspect(wire)

    def hear_time(self, time: int) -> None:
        """Know the time of certificates."""
        if self._seen is not None:
            self._guard.told(time, self._seen.root_ends)


class Token(Pinned):
    """A device token as password, or a JWT that is made anew for each connection; over TLS only.

    `tls`: a context of the application, in the place of pinned roots. `secret`: the token, or what makes one at a time
    (ns UTC).
    """

    def __init__(
        self, device_id: DeviceId, server: Server, tls: ssl.SSLContext | None, clock: Clock,
        secret: str | Callable[[int], str],
    ) -> None:  # fmt: skip
        super().__init__(server, clock, device_id, None)
        if tls is None and server.ca is None and server.ca_fingerprint is None:
            raise RejectedError(
                "a token needs TLS: say tls=True, or whom to trust (ca, ca_fingerprint)", code="tls-needed"
            )
        self._tls, self._secret = tls, secret

    async def login(self) -> Login:
        """Return the token, or make one."""
        login = self._login._replace(tls=self._tls) if self._tls is not None else await super().login()
        secret = self._secret if isinstance(self._secret, str) else self._secret(self._guard.now_ns())
        return login._replace(password=secret.encode())


def jwt_of(device_id: DeviceId, key: Key | Path | str, audience: str) -> Callable[[int], str]:
    """Return what makes JWTs of a device for a platform. Raises RejectedError (`key-missing`, `key-damaged`)."""
    signing = FileKey(Path(key)) if isinstance(key, Path | str) else key
    return lambda now: make_jwt(device_id, signing, now, audience=audience)


def first_roots(server: Server) -> tuple[str, ...]:
    """Return whom to trust, as a person said. Blocks. Raises OSError, RejectedError, MalformedError."""
    if server.ca is not None:
        return read_pems(server.ca)
    if server.ca_fingerprint is None:
        raise RejectedError(
            "nobody said whom to trust: give the platform's CA (a file, or its SHA-256 fingerprint)", code="ca-needed"
        )
    wanted = read_fingerprint(server.ca_fingerprint)
    return (fetch_root(server.host, server.port, wanted, https_port=server.https_port),)
