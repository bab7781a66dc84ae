"""What passes between the owner and a worker: lists of events, one list a frame, in the order in which they happened.

A frame is four bytes of length, big-endian, and MessagePack. Both ends are of one installation and one version: this is
no public format. `number` names a connection within its worker.
"""

from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

from godwit.contract.telemetry import Telemetry
from godwit.mqtt.packets import NO_PROPERTIES, Publish, PublishProperties

_HEAD: Final = 4


class Read(msgspec.Struct, array_like=True, gc=False):
    """A PUBLISH that the worker has read, and its telemetry where that could be read too."""

    topic: str
    payload: bytes
    flags: int
    packet_id: int
    properties: PublishProperties | None = None
    alias: int | None = None
    telemetry: Telemetry | None = None


class Opened(msgspec.Struct, array_like=True, tag=1):
    """A connection was made; `certificate` is the client's, DER."""

    number: int
    listener: str
    certificate: bytes | None = None
    address: str = ""


class Took(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Whole packets came, `size` bytes in all: read, or as bytes."""

    number: int
    items: list[Read | bytes]
    size: int


class Parted(msgspec.Struct, array_like=True, tag=3):
    """The connection is gone."""

    number: int
    text: str


class Slowed(msgspec.Struct, array_like=True, tag=4):
    """The client began, or stopped, to read more slowly than it is sent to."""

    number: int
    is_slow: bool


class Expired(msgspec.Struct, array_like=True, tag=5):
    """The worker wants the connection closed: keep-alive."""

    number: int
    reason_code: int
    text: str


class TurnedAway(msgspec.Struct, array_like=True, tag=6):
    """So many connections were closed before anything was spent on them: there was no room."""

    count: int


class Refused(msgspec.Struct, array_like=True, tag=7):
    """Somebody's certificate was not accepted in the handshake."""

    code: str
    detail: str
    address: str


class Answer(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Bytes for the client."""

    number: int
    data: bytes


class Accepted(msgspec.Struct, array_like=True, tag=2):
    """The client has a session; silence is counted from now on. 0: for ever."""

    number: int
    keep_alive_s: int


class HangUp(msgspec.Struct, array_like=True, tag=3):
    """Close the connection once it was sent what is there."""

    number: int


class Pressure(msgspec.Struct, array_like=True, tag=4):
    """Whom to leave unread: everybody, or those whom nothing else slows; and whether one more may come in."""

    is_full: bool
    is_congested: bool
    has_room: bool = True


class Hold(msgspec.Struct, array_like=True, tag=6):
    """Leave the client unread for so long."""

    number: int
    seconds: float


class Choke(msgspec.Struct, array_like=True, tag=7):
    """Leave the client unread until told otherwise."""

    number: int
    is_choked: bool


class Seen(msgspec.Struct, array_like=True, tag=8):
    """So many more connections have been looked at since the last time."""

    opened: int


class Listener(msgspec.Struct, array_like=True):
    """A socket that listens already, inherited under a descriptor.

    With `frame_bytes_max`: MQTT over WebSocket.
    """

    name: str
    descriptor: int
    is_tls: bool = False
    frame_bytes_max: int = 0


class TlsTerms(msgspec.Struct, array_like=True):
    """Our certificate and key (files), who vouches for clients (PEM), and the lowest version."""

    certificate: str
    key: str
    authorities: str = ""
    minimum: str = "1.2"


class Begin(msgspec.Struct, array_like=True, tag=5):
    """The first event: what to listen on, and how to read."""

    listeners: list[Listener]
    packet_bytes_max: int
    topic_layout: str
    tls: TlsTerms


class Trust(msgspec.Struct, array_like=True, tag=9):
    """Shake hands on these terms from now on."""

    tls: TlsTerms


FromWorker: TypeAlias = Opened | Took | Parted | Slowed | Expired | TurnedAway | Refused
FromOwner: TypeAlias = Answer | Accepted | HangUp | Pressure | Begin | Hold | Choke | Seen | Trust

from_worker: Final = msgspec.msgpack.Decoder(list[FromWorker])
from_owner: Final = msgspec.msgpack.Decoder(list[FromOwner])
_encoder: Final = msgspec.msgpack.Encoder()


def frame(events: "list[FromWorker] | list[FromOwner]") -> bytes:
    """Return the frame of some events."""
    body = _encoder.encode(events)
    return len(body).to_bytes(_HEAD, "big") + body


class Frames:
    """Takes bytes as they come and gives out the bodies of whole frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[memoryview | bytes]:
        """Yield the bodies that are whole now."""
        if self._rest:
            self._rest += data
            if len(self._rest) < _HEAD or len(self._rest) < _HEAD + int.from_bytes(self._rest[:_HEAD], "big"):
                return
            data = bytes(self._rest)
            self._rest.clear()
        view, at, size = memoryview(data), 0, len(data)
        while at + _HEAD <= size:
            end = at + _HEAD + int.from_bytes(data[at : at + _HEAD], "big")
            if end > size:
                break
            yield view[at + _HEAD : end]
            at = end
        if at < size:
            self._rest += data[at:]


def read_of(publish: Publish, telemetry: Telemetry | None) -> Read:
    """Return what crosses of a PUBLISH."""
    flags = publish.qos | publish.retain << 2 | publish.dup << 3
    properties = publish.properties if publish.properties is not NO_PROPERTIES else None
    return Read(publish.topic, publish.payload, flags, publish.packet_id, properties, publish.topic_alias, telemetry)


def publish_of(read: Read) -> Publish:
    """Return the PUBLISH of what crossed."""
    flags = read.flags
    return Publish(
        read.topic,
        read.payload,
        flags & 3,
        flags & 4 != 0,
        flags & 8 != 0,
        read.packet_id,
        read.properties or NO_PROPERTIES,
        read.alias,
        read.telemetry,
    )
