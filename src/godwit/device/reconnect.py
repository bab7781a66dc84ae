"""When to try again, and where, after a connection ended or was refused: the server's reason decides. Pure.

All waits have full jitter (`runtime.backoff`), so that a fleet that lost its server does not come back in one moment.
"""

from typing import Final, NamedTuple

from godwit.mqtt import reasons
from godwit.runtime.backoff import Backoff

LASTING_S: Final = 30.0
"""A connection that lasted so long was a success: the next waits begin small again."""


class Pace(NamedTuple):
    """Waits of one kind: at least `least_s`, and a random part of what doubles from `first_s` up to `most_s`."""

    least_s: float
    first_s: float
    most_s: float


_NETWORK: Final = Pace(0.0, 0.5, 60.0)
_BUSY: Final = Pace(2.0, 10.0, 300.0)
_AGAIN: Final = Pace(0.0, 1.0, 60.0)
_HUMAN: Final = Pace(30.0, 60.0, 900.0)
"""Somebody has to change something first: we ask now and then, and do not fill anybody's log."""

_PACES: Final = {
    reasons.SERVER_UNAVAILABLE: _BUSY,
    reasons.SERVER_BUSY: _BUSY,
    reasons.SERVER_SHUTTING_DOWN: Pace(1.0, 4.0, 60.0),
    reasons.CONNECTION_RATE_EXCEEDED: _BUSY,
    reasons.MESSAGE_RATE_TOO_HIGH: _BUSY,
    reasons.QUOTA_EXCEEDED: _BUSY,
    reasons.KEEP_ALIVE_TIMEOUT: _AGAIN,
    reasons.MAXIMUM_CONNECT_TIME: Pace(0.0, 1.0, 30.0),
    reasons.USE_ANOTHER_SERVER: _AGAIN,
    reasons.SERVER_MOVED: _AGAIN,
    reasons.SESSION_TAKEN_OVER: Pace(10.0, 30.0, 900.0),
    reasons.ADMINISTRATIVE_ACTION: Pace(5.0, 20.0, 300.0),
    reasons.CLIENT_IDENTIFIER_NOT_VALID: _HUMAN,
    reasons.BAD_USER_NAME_OR_PASSWORD: _HUMAN,
    reasons.NOT_AUTHORIZED: _HUMAN,
    reasons.BANNED: _HUMAN,
    reasons.BAD_AUTHENTICATION_METHOD: _HUMAN,
    reasons.RETAIN_NOT_SUPPORTED: _HUMAN,
    reasons.QOS_NOT_SUPPORTED: _HUMAN,
}
_ADVICE: Final = {
    reasons.SESSION_TAKEN_OVER: "somebody else is connected under this device's id: is there a second one, or a clone?",
    reasons.BAD_USER_NAME_OR_PASSWORD: "user name or password are wrong",
    reasons.NOT_AUTHORIZED: "the server does not let this device in",
    reasons.CLIENT_IDENTIFIER_NOT_VALID: "the server does not take this device id",
    reasons.BANNED: "the server has banned this device",
}


class Plan(NamedTuple):
    """What to do next: wait, then connect to `server` (None: the one configured), perhaps with an older version.

    `is_for_person`: somebody has to change something.
    """

    wait_s: float
    server: tuple[str, int | None] | None = None
    is_older_version: bool = False
    advice: str = ""
    is_for_person: bool = False


class Reconnect:
    """Remembers the tries of one device."""

    def __init__(self) -> None:
        self._backoff = Backoff()
        self._pace = _NETWORK
        self._server: tuple[str, int | None] | None = None

    def after(
        self, reason_code: int | None, chance: float, *, lasted_s: float = 0.0, server_reference: str | None = None
    ) -> Plan:
        """Return the plan after a connection that ended, or could not be made (`lasted_s` 0).

        `reason_code` is MQTT 5's, None where the network failed. `chance` is uniform in [0, 1).
        """
        pace = _NETWORK if reason_code is None else _PACES.get(reason_code, _AGAIN)
        if pace != self._pace or lasted_s >= LASTING_S:
            self._pace, self._backoff = pace, Backoff(pace.first_s, s_max=pace.most_s)
        if reason_code in (reasons.USE_ANOTHER_SERVER, reasons.SERVER_MOVED) and server_reference:
            self._server = parse_reference(server_reference)
        elif reason_code is None and self._server is not None and lasted_s == 0.0:
            self._server = None  # the other one does not answer: back to our own
        wait_s = pace.least_s + self._backoff.next_s(chance)
        if reason_code == reasons.UNSUPPORTED_PROTOCOL_VERSION:
            return Plan(0.0, self._server, is_older_version=True)
        return Plan(wait_s, self._server, advice=_ADVICE.get(reason_code or 0, ""), is_for_person=pace is _HUMAN)


def parse_reference(reference: str) -> tuple[str, int | None] | None:
    """Return (host, port) of the first server of a server reference (MQTT 5, 4.11); None where it names none."""
    first = reference.split(maxsplit=1)[0] if reference.split() else ""
    host, _, port = first.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:  # a bare IPv6 address
        host, port = first, ""
    if not host:
        host, port = port, ""
    if port and not port.isdecimal():
        return None
    return (host.strip("[]"), int(port) if port else None) if host else None
