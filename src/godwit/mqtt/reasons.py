"""Reason codes of MQTT 5 (2.4), and the errors that carry them. The names are the standard's."""

from typing import Final

from godwit.contract.errors import RejectedError

SUCCESS: Final = 0x00
GRANTED_QOS_1: Final = 0x01
GRANTED_QOS_2: Final = 0x02
DISCONNECT_WITH_WILL: Final = 0x04
NO_MATCHING_SUBSCRIBERS: Final = 0x10
NO_SUBSCRIPTION_EXISTED: Final = 0x11
CONTINUE_AUTHENTICATION: Final = 0x18
REAUTHENTICATE: Final = 0x19
UNSPECIFIED_ERROR: Final = 0x80
MALFORMED_PACKET: Final = 0x81
PROTOCOL_ERROR: Final = 0x82
IMPLEMENTATION_SPECIFIC_ERROR: Final = 0x83
UNSUPPORTED_PROTOCOL_VERSION: Final = 0x84
CLIENT_IDENTIFIER_NOT_VALID: Final = 0x85
BAD_USER_NAME_OR_PASSWORD: Final = 0x86
NOT_AUTHORIZED: Final = 0x87
SERVER_UNAVAILABLE: Final = 0x88
SERVER_BUSY: Final = 0x89
BANNED: Final = 0x8A
SERVER_SHUTTING_DOWN: Final = 0x8B
BAD_AUTHENTICATION_METHOD: Final = 0x8C
KEEP_ALIVE_TIMEOUT: Final = 0x8D
SESSION_TAKEN_OVER: Final = 0x8E
TOPIC_FILTER_INVALID: Final = 0x8F
TOPIC_NAME_INVALID: Final = 0x90
PACKET_IDENTIFIER_IN_USE: Final = 0x91
PACKET_IDENTIFIER_NOT_FOUND: Final = 0x92
RECEIVE_MAXIMUM_EXCEEDED: Final = 0x93
TOPIC_ALIAS_INVALID: Final = 0x94
PACKET_TOO_LARGE: Final = 0x95
MESSAGE_RATE_TOO_HIGH: Final = 0x96
QUOTA_EXCEEDED: Final = 0x97
ADMINISTRATIVE_ACTION: Final = 0x98
PAYLOAD_FORMAT_INVALID: Final = 0x99
RETAIN_NOT_SUPPORTED: Final = 0x9A
QOS_NOT_SUPPORTED: Final = 0x9B
USE_ANOTHER_SERVER: Final = 0x9C
SERVER_MOVED: Final = 0x9D
SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: Final = 0x9E
CONNECTION_RATE_EXCEEDED: Final = 0x9F
MAXIMUM_CONNECT_TIME: Final = 0xA0
SUBSCRIPTION_IDS_NOT_SUPPORTED: Final = 0xA1
WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED: Final = 0xA2

_NAMES: Final[dict[int, str]] = {
    value: name.lower().replace("_", " ") for name, value in list(globals().items()) if isinstance(value, int)
}

_CONNACK_311: Final = {
    SUCCESS: 0,
    UNSUPPORTED_PROTOCOL_VERSION: 1,
    CLIENT_IDENTIFIER_NOT_VALID: 2,
    SERVER_UNAVAILABLE: 3,
    SERVER_BUSY: 3,
    QUOTA_EXCEEDED: 3,
    CONNECTION_RATE_EXCEEDED: 3,
    USE_ANOTHER_SERVER: 3,
    SERVER_MOVED: 3,
    BAD_USER_NAME_OR_PASSWORD: 4,
}


_RETURN_CODES_311: Final = {
    0: SUCCESS,
    1: UNSUPPORTED_PROTOCOL_VERSION,
    2: CLIENT_IDENTIFIER_NOT_VALID,
    3: SERVER_UNAVAILABLE,
    4: BAD_USER_NAME_OR_PASSWORD,
    5: NOT_AUTHORIZED,
}


def connack_return_code(reason_code: int) -> int:
    """Return what CONNACK says in MQTT 3.1.1 (3.2.2.3) for a reason code of MQTT 5."""
    return _CONNACK_311.get(reason_code, 5)


def connack_reason(return_code: int) -> int:
    """Return the reason code of MQTT 5 for what CONNACK says in MQTT 3.1.1."""
    return _RETURN_CODES_311.get(return_code, UNSPECIFIED_ERROR)


def reason_name(code: int) -> str:
    """Return the standard's name of a reason code, in words."""
    return _NAMES.get(code, f"reason 0x{code:02X}")


class ProtocolViolation(Exception):  # noqa: N818 - it is the peer's violation, not an error of ours
    """The peer broke the protocol. `reason_code` says how (MQTT 5, 2.4); the connection ends."""

    def __init__(self, reason_code: int, text: str) -> None:
        super().__init__(text)
        self.reason_code = int(reason_code)
        self.text = text


class ReasonError(RejectedError):
    """The other side refused with a reason code of 0x80 or above."""

    code = "refused"

    def __init__(self, reason_code: int, reason_string: str | None = None, server_reference: str | None = None) -> None:
        said = reason_name(reason_code)
        super().__init__(f"{said}: {reason_string}" if reason_string else said)
        self.reason_code = reason_code
        self.reason_string = reason_string
        self.server_reference = server_reference
