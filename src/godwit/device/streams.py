"""Streams: what a device sends, in lanes that do not wait for each other.

A stream has its own order, its own numbers and its own priority: an event is not stuck behind a week of backlog.
"""

from typing import Final, NamedTuple

from godwit.contract.topics import Channel

MAIN: Final = "main"
EVENTS: Final = "events"


class Stream(NamedTuple):
    """How a stream is sent.

    `priority`: 0 goes first and stays longest when the spool is full. `qos`: 0 or 1; nothing is lost at either, since
    at QoS 0 samples stay in the spool until the server says that they are stored. `linger_s`: how long a sample may
    wait for others to share its message.
    """

    name: str
    priority: int = 5
    qos: int = 1
    linger_s: float = 0.0
    channel: Channel = Channel.TELEMETRY


class Sent(NamedTuple):
    """Where a sample stands: its number in (stream, epoch)."""

    stream: str
    epoch: str
    seq: int


STREAM_MAIN: Final = Stream(MAIN)
STREAM_EVENTS: Final = Stream(EVENTS, priority=0, channel=Channel.EVENTS)
