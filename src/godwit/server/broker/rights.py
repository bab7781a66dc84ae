"""Who a connection is, and what it may publish and subscribe to.

The local listener trusts whoever can reach it. Elsewhere a client must say a user name and password, if the settings
have them; certificates will be another `Authenticator`.
"""

import hmac
from typing import Protocol

import msgspec

from godwit.mqtt.packets import Connect

LOCAL = "local"
INSIDE = "inside"
"""The listener of connections that are made inside this process (bridges). Only they use ids that begin with `$`."""
WEBSOCKET = "websocket"
"""MQTT over WebSocket, on loopback like `local`."""
WEBSOCKET_HTTP = "websocket-http"
"""The same on the console's plaintext port, by whoever may be on another machine: through a proxy."""
WEBSOCKET_TLS = "websocket-tls"
"""The same on the console's TLS port."""


class Rights(Protocol):
    """What one connection may do. Asked once per topic and connection kind, not per message, where it can be."""

    def may_publish(self, topic: str) -> bool:
        """Whether the connection may publish to `topic`."""
        ...

    def may_subscribe(self, topic_filter: str) -> bool:
        """Whether the connection may subscribe to `topic_filter` (without a `$share` prefix)."""
        ...


class Grant(msgspec.Struct, frozen=True):
    """A client that may come in. `rights` None: everything that is not reserved to the server."""

    identity: str | None = None
    rights: Rights | None = None
    may_register: bool = False


class Authenticator(Protocol):
    """Decides who may connect."""

    def authenticate(self, listener: str, connect: Connect, certificate: bytes | None) -> Grant | None:
        """Return what the client may do, or None: not authorised. `certificate` is the client's, DER, verified."""
        ...


class PasswordAuthenticator:
    """The local listener admits everybody; others only who says the one user name and password, where there is one."""

    def __init__(self, username: str = "", password: str = "") -> None:
        self._username = username
        self._password = password

    def authenticate(self, listener: str, connect: Connect, certificate: bytes | None) -> Grant | None:
        """See `Authenticator`."""
        del certificate  # no client certificates yet
        if listener in (LOCAL, WEBSOCKET):
            return Grant(may_register=True)
        if listener == INSIDE:
            return Grant(identity=connect.client_id)
        if not self._username or not self._password or connect.username is None or connect.password is None:
            return None
        is_user = hmac.compare_digest(connect.username.encode(), self._username.encode())
        is_password = hmac.compare_digest(connect.password, self._password.encode())
        return Grant(identity=connect.username) if is_user and is_password else None


def is_reserved(topic: str) -> bool:
    """Whether only the server itself publishes there."""
    return topic.startswith(("$SYS", "$CONTROL", "$share"))
