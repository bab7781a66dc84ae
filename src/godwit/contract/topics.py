"""The one topic schema, both ways. No other module writes a `/`.

Two layouts: *native*, `devices/{deviceId}/{channel}`, with the aliases of older devices (`device/{id}/telemetry`,
`device/commands/#`), and *placed*, `{tenant}/{location}/{deviceType}/{deviceId}/{channel}`. A server in the placed
layout still understands the native one. Names that begin topics of other kinds (`devices`, `alerts`, `$SYS` ...) are no
tenants.
"""

# ruff: noqa: FBT003 - the table of channels is a table of flags

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote

from godwit.contract.ids import DeviceId, parse_device_id

HEARTBEAT_TOPIC: Final = "system/heartbeat"
COMMAND_ALIASES: Final = ("device/commands/#", "device/commands")
"""Filters by which an older device means its own commands."""
ENROLLMENT_QOS: Final = 2
ALERTS_QOS: Final = 1
HEARTBEAT_QOS: Final = 0
_KEPT_MAX: Final = 100_000
_KEPT_CHARACTERS_MAX: Final = 256
"""Longer topics are taken apart anew each time: no peer fills the memory with names of 64 KiB."""


def response_prefix(client_id: str) -> str:
    """Return where a client may have responses sent to (MQTT 5, 4.10): what begins like this is its own.

    A client id may be any text; as a level of a topic it must not hold what filters and topics mean something by.
    """
    return f"responses/{quote(client_id, safe='')}/"


class Channel(StrEnum):
    """What a topic of the contract is for. The value is the topic's tail in the native layout."""

    TELEMETRY = "telemetry"
    TELEMETRY_STORED = "telemetry/stored"
    STATUS = "status"
    EVENTS = "events"
    COMMANDS = "commands"
    COMMAND_RESULTS = "command-results"
    TWIN_DESIRED = "twin/desired"
    TWIN_DELTA = "twin/delta"
    TWIN_GET = "twin/get"
    TWIN_REPORTED = "twin/reported"
    TWIN_RESPONSE = "twin/response"
    FIRMWARE_OFFER = "firmware/offer"
    FIRMWARE_PROGRESS = "firmware/progress"
    FIRMWARE_CHUNK = "firmware/chunk"
    NOTICES = "notices"


class EnrollmentStep(StrEnum):
    """What is said on an enrollment topic."""

    REQUEST = "request"
    GRANT = "grant"


_STEPS: Final = frozenset(str(step) for step in EnrollmentStep)


class Rule(NamedTuple):
    """How a channel is used. `is_up`: the device sends; `is_down`: the server does."""

    is_up: bool
    is_down: bool
    qos: int
    is_retained: bool
    summary: str


RULES: Final[dict[Channel, Rule]] = {
    Channel.TELEMETRY: Rule(True, False, 1, False, "Readings; QoS 0 for frequent streams, 1 for important ones"),
    Channel.TELEMETRY_STORED: Rule(False, True, 1, False, "Up to which sample a stream is stored"),
    Channel.STATUS: Rule(True, False, 1, True, "Online or offline, health and errors; also the last will"),
    Channel.EVENTS: Rule(True, False, 1, False, "Boot, error, local alert"),
    Channel.COMMANDS: Rule(False, True, 1, False, "Commands to the device"),
    Channel.COMMAND_RESULTS: Rule(True, False, 1, False, "Progress and results of commands"),
    Channel.TWIN_DESIRED: Rule(False, True, 2, True, "The whole desired state"),
    Channel.TWIN_DELTA: Rule(False, True, 1, False, "What desired and reported differ in"),
    Channel.TWIN_GET: Rule(True, False, 1, False, "Asks for the twin"),
    Channel.TWIN_REPORTED: Rule(True, False, 1, False, "What the device reports of its state"),
    Channel.TWIN_RESPONSE: Rule(False, True, 1, False, "Answers to twin messages"),
    Channel.FIRMWARE_OFFER: Rule(False, True, 1, True, "A release that the device should install"),
    Channel.FIRMWARE_PROGRESS: Rule(True, False, 1, False, "How an update gets on"),
    Channel.FIRMWARE_CHUNK: Rule(True, True, 1, False, "Requests for pieces of an artifact, and the pieces"),
    Channel.NOTICES: Rule(False, True, 1, False, "Limit hit, quarantined, renew, new CA, gap wanted"),
}  # fmt: skip

_TAILS: Final[dict[str, Channel]] = {
    str(channel): channel for channel in Channel if channel is not Channel.COMMAND_RESULTS
}
_PLACED_TAILS: Final[dict[str, Channel]] = {**_TAILS, "readings": Channel.TELEMETRY}
_NO_TENANTS: Final = frozenset(("devices", "device", "enrollment", "alerts", "tenants", "system", "responses"))
_PLACED_NAMES: Final = {Channel.TELEMETRY: "readings"}
_MORE: Final = {Channel.COMMAND_RESULTS: "/+"}
"""What stands behind a channel's name in the topics of any device."""


class DeviceTopic(NamedTuple):
    """A topic of the contract, taken apart. `tail` is the command id under command-results, else empty."""

    device_id: DeviceId
    channel: Channel
    tail: str = ""
    tenant: str | None = None
    location: str | None = None
    device_type: str | None = None


class Topics(Protocol):
    """A topic layout: what both classes below are."""

    def parse(self, topic: str) -> DeviceTopic | None:
        """Take `topic` apart; None where it is no topic of the contract. Raises MalformedError for a bad device id."""
        ...

    def build(self, where: DeviceTopic) -> str:
        """Return the topic of `where`."""
        ...

    def filters(self, channels: Iterable[Channel]) -> list[str]:
        """Return filters that match the topics of these channels, of any device, and no topic twice."""
        ...


def _find(tail: str, tails: dict[str, Channel]) -> tuple[Channel, str] | None:
    channel = tails.get(tail)
    if channel is not None:
        return channel, ""
    head, _slash, rest = tail.partition("/")
    if head == Channel.COMMAND_RESULTS and rest and "/" not in rest:
        return Channel.COMMAND_RESULTS, rest
    return None


class NativeTopics:
    """`devices/{deviceId}/{channel}`, and the aliases `device/{deviceId}/telemetry`, `device/commands/{deviceId}`."""

    def __init__(self) -> None:
        self._known: dict[str, DeviceTopic | None] = {}

    def parse(self, topic: str) -> DeviceTopic | None:
        """Take `topic` apart; None where it is no topic of the contract. Raises MalformedError for a bad device id."""
        try:
            return self._known[topic]
        except KeyError:
            pass
        found = self._parse(topic)
        if len(topic) <= _KEPT_CHARACTERS_MAX:
            if len(self._known) >= _KEPT_MAX:  # bounded, whatever names peers make up
                self._known.clear()
            self._known[topic] = found
        return found

    def _parse(self, topic: str) -> DeviceTopic | None:
        head, _slash, rest = topic.partition("/")
        if head not in ("devices", "device"):
            return None
        name, _slash, tail = rest.partition("/")
        if head == "device":
            if name == "commands" and tail:
                return DeviceTopic(parse_device_id(tail), Channel.COMMANDS)
            return DeviceTopic(parse_device_id(name), Channel.TELEMETRY) if tail == "telemetry" else None
        found = _find(tail, _TAILS)
        return None if found is None else DeviceTopic(parse_device_id(name), *found)

    def build(self, where: DeviceTopic) -> str:
        """Return the topic of `where`."""
        tail = f"/{where.tail}" if where.tail else ""
        return f"devices/{where.device_id}/{where.channel}{tail}"

    def filters(self, channels: Iterable[Channel]) -> list[str]:
        """Return filters that match the topics of these channels, of any device, and no topic twice."""
        wanted = sorted(channels)
        found = [f"devices/+/{channel}{_MORE.get(channel, '')}" for channel in wanted]
        if Channel.TELEMETRY in wanted:
            found.append(f"device/+/{Channel.TELEMETRY}")
        return found


class PlacedTopics(NativeTopics):
    """`{tenant}/{location}/{deviceType}/{deviceId}/{channel}`; telemetry is called `readings` here."""

    def _parse(self, topic: str) -> DeviceTopic | None:
        native = super()._parse(topic)
        if native is not None:
            return native
        # Tenant, location, type and device never hold a slash; the channel may.
        parts = topic.split("/", 4)
        if len(parts) < 5 or not all(parts) or parts[0] in _NO_TENANTS or topic.startswith("$"):
            return None
        found = _find(parts[4], _PLACED_TAILS)
        if found is None:
            return None
        channel, tail = found
        return DeviceTopic(parse_device_id(parts[3]), channel, tail, parts[0], parts[1], parts[2])

    def build(self, where: DeviceTopic) -> str:
        """Return the topic of `where`: native unless its place is known."""
        if where.tenant is None:
            return super().build(where)
        name = _PLACED_NAMES.get(where.channel, str(where.channel))
        tail = f"/{where.tail}" if where.tail else ""
        return f"{where.tenant}/{where.location}/{where.device_type}/{where.device_id}/{name}{tail}"

    def filters(self, channels: Iterable[Channel]) -> list[str]:
        """Return filters that match the topics of these channels, of any device, and no topic twice."""
        wanted = sorted(channels)
        names = [f"{channel}{_MORE.get(channel, '')}" for channel in wanted]
        names += [name for channel, name in _PLACED_NAMES.items() if channel in wanted]
        return [*super().filters(wanted), *(f"+/+/+/+/{name}" for name in names)]


def topics_for(layout: str) -> NativeTopics:
    """Return the layout named `native` or `placed`."""
    return PlacedTopics() if layout == "placed" else NativeTopics()


def alerts_topic(severity: str, tenant: str | None = None) -> str:
    """Return the topic on which alerts of a severity leave."""
    return f"alerts/{severity}" if tenant is None else f"tenants/{tenant}/alerts/{severity}"


def enrollment_topic(client_id: str, step: EnrollmentStep) -> str:
    """Return the topic of a client's enrollment: it requests, the server grants."""
    return f"enrollment/{client_id}/{step}"


def parse_enrollment(topic: str) -> tuple[str, EnrollmentStep] | None:
    """Return (client id, step) of an enrollment topic; None for others."""
    parts = topic.split("/")
    if len(parts) != 3 or parts[0] != "enrollment" or not parts[1] or parts[2] not in _STEPS:
        return None
    return parts[1], EnrollmentStep(parts[2])


def resolve_alias(topic_filter: str, device_id: DeviceId) -> str:
    """Return the filter that a device means which subscribes to `device/commands/#`: its own commands."""
    if topic_filter in COMMAND_ALIASES:
        return f"devices/{device_id}/commands" + ("/#" if topic_filter.endswith("#") else "")
    return topic_filter
