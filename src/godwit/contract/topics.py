"""The one topic schema, both ways. No other module writes a `/`.

Interface only so far; see `TopicSchema`.
"""

from enum import StrEnum
from typing import NamedTuple, Protocol

from godwit.contract.ids import DeviceId


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


class DeviceTopic(NamedTuple):
    """A topic of the contract, taken apart. `tail` is the command id under command-results, else empty."""

    device_id: DeviceId
    channel: Channel
    tail: str = ""
    tenant: str | None = None
    location: str | None = None
    device_type: str | None = None


class Topics(Protocol):
    """A topic layout: `native` (`devices/{deviceId}/...`) or `placed` (`{tenant}/{location}/{type}/{deviceId}/...`)."""

    def parse(self, topic: str) -> DeviceTopic | None:
        """Take `topic` apart; None where it is no topic of the contract. Raises MalformedError for a bad device id."""
        ...

    def build(self, where: DeviceTopic) -> str:
        """Return the topic of `where`."""
        ...
