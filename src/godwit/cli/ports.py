"""Which ports a platform wants, whether they are free, and what to say when they are not."""

import socket
from collections.abc import Iterable
from typing import Final, NamedTuple

from godwit.contract.errors import RejectedError

TRIES_MAX: Final = 200


class Wanted(NamedTuple):
    """A port that a setting asks for."""

    setting: str
    host: str
    port: int


def is_free(host: str, port: int, besides: Iterable[int] = ()) -> bool:
    """Whether a listener could be opened now. Port 0 is always free: the system picks one."""
    if port == 0:
        return True
    if port in besides:
        return False
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise RejectedError(f"{host!r} is no address of this machine: {error.strerror}", code="bad-host") from error
    return all(_may_bind(family, address) for family, _, _, _, address in found)


def _may_bind(family: int, address: object) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # as asyncio does: a port whose old connections are in TIME_WAIT may be used
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)  # type: ignore[arg-type]  # as getaddrinfo gave it
            probe.listen(1)
    except OSError as error:
        # no IPv6 on this machine, or not this address of it: that is not a taken port
        return family == socket.AF_INET6 and error.errno in _ABSENT
    return True


_ABSENT: Final = frozenset({97, 99})
"""EAFNOSUPPORT, EADDRNOTAVAIL."""


def require_free(wanted: Iterable[Wanted]) -> None:
    """Raise RejectedError with one sentence about the first port that is taken."""
    seen: list[int] = []
    for setting, host, port in wanted:
        if not is_free(host, port, seen):
            option = "--" + setting.lower().replace("_", "-")
            raise RejectedError(
                f"Port {port} on {host} is taken: choose another with {setting}=... or {option} ..., "
                f"or see who holds it with: ss -ltnp 'sport = :{port}'",
                code="port-taken",
            )
        if port:
            seen.append(port)


def next_free(wanted: Iterable[Wanted]) -> dict[str, int]:
    """Return setting -> the wanted port, or the next free one above it."""
    chosen: dict[str, int] = {}
    for setting, host, port in wanted:
        for candidate in range(port, min(port + TRIES_MAX, 65_536)):
            if is_free(host, candidate, chosen.values()):
                chosen[setting] = candidate
                break
        else:
            raise RejectedError(f"No port from {port} to {port + TRIES_MAX} on {host} is free", code="port-taken")
    return chosen
