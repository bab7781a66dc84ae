"""What a connection may publish, subscribe to and be told: by the contract, and by whose devices they are.

A device speaks upwards on its own topics and hears its own downwards; a gateway also those of its children. An
application has the devices of its tenants. The loopback listener has what belongs to nobody: devices that nobody has
claimed, and topics of no device. What is delivered is asked per topic, not per message: routes keep the answer until
somebody's rights change.
"""

from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import unquote

import msgspec

from godwit.contract import codes
from godwit.contract.ids import DEFAULT_TENANT
from godwit.contract.topics import (
    COMMAND_ALIASES,
    RULES,
    DeviceTopic,
    EnrollmentStep,
    enrollment_topic,
    parse_enrollment,
    response_prefix,
)
from godwit.mqtt.packets import Connect
from godwit.server.broker.refusals import NOT_AUTHORISED, Denial
from godwit.server.identity.model import Credential
from godwit.server.identity.roster import Roster
from godwit.server.registry.model import Lifecycle

LOCAL = "local"
INSIDE = "inside"
"""The listener of connections that are made inside this process (bridges). Only they use ids that begin with `$`."""
WEBSOCKET = "websocket"
"""MQTT over WebSocket, on loopback like `local`."""
WEBSOCKET_HTTP = "websocket-http"
"""The same on the console's plaintext port, by whoever may be on another machine: through a proxy."""
WEBSOCKET_TLS = "websocket-tls"
"""The same on the console's TLS port."""
LOOPBACK: Final = (LOCAL, WEBSOCKET)

_ENROLLMENT: Final = "enrollment/"
_RESPONSES: Final = "responses/"
_TENANTS: Final = "tenants/"
PUBLISH: Final = "mqtt:publish"
SUBSCRIBE: Final = "mqtt:subscribe"


class Rights(Protocol):
    """What one connection may do."""

    def refusal(self, topic: str, place: DeviceTopic | None) -> str:
        """Return an empty string, or the code for which a message to `topic` is refused.

        `place`: what it is in the contract.
        """
        ...

    def may_subscribe(self, topic_filter: str) -> bool:
        """Whether the connection may subscribe to `topic_filter` (without a `$share` prefix)."""
        ...

    def may_receive(self, topic: str, place: DeviceTopic | None) -> bool:
        """Whether the connection is told what comes to `topic`, by whatever filter."""
        ...

    def sees(self, device_id: str) -> bool:
        """Whether what a device answers may be for it."""
        ...


class Grant(msgspec.Struct, frozen=True):
    """A client that may come in. `rights` None: everything that is not reserved to the server."""

    identity: str | None = None
    """Whose its session is: nobody else takes it over. None: whoever reaches the listener."""
    rights: Rights | None = None
    may_register: bool = False
    is_unproven: bool = False
    """Nobody has proven anything: it speaks for unclaimed devices only."""
    credential: Credential | None = None
    tenant: str = ""
    """Whose it counts as; empty: its device's."""
    terms: str = ""
    """What has to be kept of the rights to know them again after a restart."""
    still: Callable[[], Denial | None] | None = None
    """Asks in a thread whether it may stay, where nobody tells when that changes."""


Decision = Grant | Denial
Question = Callable[[], Decision]


class Authenticator(Protocol):
    """Decides who may connect."""

    def authenticate(
        self, listener: str, connect: Connect, certificate: bytes | None, address: str
    ) -> "Decision | Question":
        """Return what the client may do, or why it may not come in; or what is to be asked in a thread to know.

        `certificate` is the client's, DER; that it has the key, and that a trusted authority issued it, is verified.
        """
        ...

    def rights_of(self, identity: str, terms: str, client_id: str) -> Rights | None:
        """Return the rights of a session's owner, after a restart, until it is back."""
        ...


class LocalRights:
    """On loopback: what belongs to nobody."""

    def __init__(self, roster: Roster, client_id: str) -> None:
        self._roster = roster
        self._responses = response_prefix(client_id)

    def refusal(self, topic: str, place: DeviceTopic | None) -> str:
        """See `Rights`."""
        if place is not None:
            return codes.DEVICE_CLAIMED if self._roster.is_claimed(place.device_id) else ""
        return NOT_AUTHORISED if topic.startswith((_ENROLLMENT, _TENANTS)) else ""

    def sees(self, device_id: str) -> bool:
        """See `Rights`."""
        return not self._roster.is_claimed(device_id)

    def may_subscribe(self, topic_filter: str) -> bool:
        """See `Rights`."""
        head, _, rest = topic_filter.partition("/")
        if head in ("devices", "device"):
            return not self._roster.is_claimed(rest.partition("/")[0])
        return not topic_filter.startswith((_ENROLLMENT, _TENANTS))

    def may_receive(self, topic: str, place: DeviceTopic | None) -> bool:
        """See `Rights`."""
        if place is not None:
            return not self._roster.is_claimed(place.device_id)
        if topic.startswith(_RESPONSES):
            return topic.startswith(self._responses)
        return not topic.startswith((_ENROLLMENT, _TENANTS))


class DeviceRights:
    """A device's: its own topics and those of its children, in their direction. It may ask to be renewed."""

    def __init__(self, roster: Roster, device_id: str, may_answer: Callable[[str, str], bool]) -> None:
        self._roster = roster
        self._device_id = device_id
        self._responses = response_prefix(device_id)
        self._may_answer = may_answer
        """Whether a client (by its id) may be told what a device has to say."""

    def _is_own(self, place: DeviceTopic) -> bool:
        known = self._roster.devices.get(place.device_id)
        if known is None:
            return False
        if place.device_id != self._device_id:
            gateway = self._roster.devices.get(self._device_id)
            if known.gateway != self._device_id or gateway is None or gateway.tenant != known.tenant:
                return False
            if known.lifecycle in (Lifecycle.RETIRED, Lifecycle.SUSPENDED):
                return False
        return place.tenant is None or (
            (place.tenant, place.location, place.device_type) == (known.tenant, known.place, known.device_type)
        )

    def refusal(self, topic: str, place: DeviceTopic | None) -> str:
        """See `Rights`."""
        if place is not None:
            return "" if RULES[place.channel].is_up and self._is_own(place) else NOT_AUTHORISED
        if topic.startswith(_RESPONSES):
            client_id = unquote(topic.split("/", 2)[1])
            return "" if self._may_answer(client_id, self._device_id) else NOT_AUTHORISED
        is_request = topic == enrollment_topic(self._device_id, EnrollmentStep.REQUEST)
        return "" if is_request else NOT_AUTHORISED

    def may_subscribe(self, topic_filter: str) -> bool:
        """See `Rights`. Whatever it matches, only what may be received is delivered."""
        if topic_filter in COMMAND_ALIASES or topic_filter.startswith(self._responses):
            return True
        levels = topic_filter.split("/")
        if levels[0] in ("devices", "device"):
            named = levels[2] if levels[:2] == ["device", "commands"] and len(levels) > 2 else _level(levels, 1)
            return self._speaks_for(named)
        if levels[0] == "enrollment":
            return _level(levels, 1) == self._device_id
        known = self._roster.devices.get(_level(levels, 3))
        return (
            known is not None
            and self._speaks_for(levels[3])
            and all(
                level in ("+", said)
                for level, said in zip(levels, (known.tenant, known.place, known.device_type), strict=False)
            )
        )

    def sees(self, device_id: str) -> bool:
        """See `Rights`: devices do not ask each other."""
        del device_id
        return False

    def _speaks_for(self, device_id: str) -> bool:
        known = self._roster.devices.get(device_id)
        return device_id == self._device_id or (known is not None and known.gateway == self._device_id)

    def may_receive(self, topic: str, place: DeviceTopic | None) -> bool:
        """See `Rights`."""
        if place is not None:
            return RULES[place.channel].is_down and self._is_own(place)
        return topic.startswith(self._responses) or topic == enrollment_topic(self._device_id, EnrollmentStep.GRANT)


class EnrollmentRights:
    """Of a credential that opens nothing but `enrollment/{deviceId}/#`; everything else is refused with `code`."""

    def __init__(self, device_id: str, code: str = NOT_AUTHORISED) -> None:
        self._device_id, self._code = device_id, code

    def refusal(self, topic: str, place: DeviceTopic | None) -> str:
        """See `Rights`."""
        is_request = place is None and topic == enrollment_topic(self._device_id, EnrollmentStep.REQUEST)
        return "" if is_request else self._code

    def may_subscribe(self, topic_filter: str) -> bool:
        """See `Rights`."""
        levels = topic_filter.split("/")
        return levels[0] == "enrollment" and _level(levels, 1) == self._device_id

    def may_receive(self, topic: str, place: DeviceTopic | None) -> bool:
        """See `Rights`."""
        return place is None and parse_enrollment(topic) == (self._device_id, EnrollmentStep.GRANT)

    def sees(self, device_id: str) -> bool:
        """See `Rights`."""
        del device_id
        return False


class ApplicationTerms(msgspec.Struct, frozen=True):
    """Of which tenants a program is told, and for whose devices it may speak; None: of all."""

    hears: tuple[str, ...] | None = ()
    speaks: tuple[str, ...] | None = ()


class ApplicationRights:
    """A program's: the devices of its tenants. Who has all tenants has the topics of no device too."""

    def __init__(
        self,
        roster: Roster,
        client_id: str,
        terms: ApplicationTerms,
    ) -> None:
        self._roster, self._terms = roster, terms
        self.hears_all = terms.hears is None
        self._responses = response_prefix(client_id)

    def sees(self, device_id: str) -> bool:
        """See `Rights`: whether a device is of its tenants."""
        return self._is_of(device_id, self._terms.hears)

    def _is_of(self, device_id: str, tenants: tuple[str, ...] | None) -> bool:
        if tenants is None:
            return True
        known = self._roster.devices.get(device_id)
        return (known.tenant if known is not None else DEFAULT_TENANT) in tenants

    def refusal(self, topic: str, place: DeviceTopic | None) -> str:
        """See `Rights`."""
        speaks = self._terms.speaks
        if topic.startswith(_ENROLLMENT):
            return NOT_AUTHORISED
        if place is not None:
            return "" if self._is_of(place.device_id, speaks) else NOT_AUTHORISED
        return "" if speaks is None else NOT_AUTHORISED

    def may_subscribe(self, topic_filter: str) -> bool:
        """See `Rights`. Whatever it matches, only what may be received is delivered."""
        hears = self._terms.hears
        if hears == () or topic_filter.startswith(_ENROLLMENT):
            return False
        return hears is None or not topic_filter.startswith("$")

    def may_receive(self, topic: str, place: DeviceTopic | None) -> bool:
        """See `Rights`."""
        if place is not None:
            return self.sees(place.device_id)
        if topic.startswith(_RESPONSES):
            return topic.startswith(self._responses)
        if topic.startswith(_ENROLLMENT):
            return False
        hears = self._terms.hears
        return hears is None or topic.startswith(tuple(f"{_TENANTS}{each}/" for each in hears))


def _level(levels: list[str], index: int) -> str:
    return levels[index] if len(levels) > index else ""


def is_reserved(topic: str) -> bool:
    """Whether only the server itself publishes there."""
    return topic.startswith(("$SYS", "$CONTROL", "$share"))
