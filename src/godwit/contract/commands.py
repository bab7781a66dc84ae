"""Commands to a device, and what it answers."""

from enum import StrEnum
from typing import Annotated, Any

import msgspec

from godwit.contract.documents import Time, check_times, decode_document


class CommandType(StrEnum):
    """Commands that every device may know. A device type can have more of its own."""

    REBOOT = "reboot"
    UPDATE_FIRMWARE = "update_firmware"
    CHANGE_INTERVAL = "change_interval"
    CALIBRATE = "calibrate"
    SHUTDOWN = "shutdown"


class Priority(StrEnum):
    """How urgent a command is."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    CRITICAL = "critical"


class DeviceCommand(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A command. Times are RFC 3339; after `expires_at` it must not be carried out."""

    command_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    device_id: str
    command: Annotated[str, msgspec.Meta(min_length=1, max_length=64, examples=[str(each) for each in CommandType])]
    created_at: Time
    parameters: dict[str, Any] | None = None
    priority: Priority = Priority.NORMAL
    expires_at: Time | None = None


class CommandResult(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """How a command gets on: acked, running, succeeded, failed, interrupted. `progress` in percent."""

    command_id: str
    status: str
    device_id: str | None = None
    timestamp: Time | None = None
    progress: float | None = None
    message: str | None = None
    result: Any = None


def decode(payload: bytes, content_type: str | None = None) -> DeviceCommand:
    """Decode a command. Raises MalformedError only."""
    command = decode_document(payload, DeviceCommand, content_type)
    check_times(command.created_at, command.expires_at)
    return command


def decode_result(payload: bytes, content_type: str | None = None) -> CommandResult:
    """Decode what a device answers to a command. Raises MalformedError only."""
    result = decode_document(payload, CommandResult, content_type)
    check_times(result.timestamp)
    return result
