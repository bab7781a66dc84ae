"""`telemetry/stored`: up to which sample a stream is stored.

And four times from which both sides know clock and delay.
"""

import msgspec

from godwit.contract.documents import decode_document


class StoredUpTo(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """All samples of (stream, epoch) up to `seq` are durable: stored, or in quarantine (then `code` says why).

    Times in ns UTC: when the device sent what this answers, when the server received it, when the server sent this.
    """

    stream: str
    epoch: str
    seq: int
    code: str = ""
    device_sent: int | None = None
    server_received: int = 0
    server_sent: int = 0


_encoder = msgspec.json.Encoder()


def encode(notice: StoredUpTo) -> bytes:
    """Return the JSON payload."""
    return _encoder.encode(notice)


def decode(payload: bytes, content_type: str | None = None) -> StoredUpTo:
    """Decode a notice. Raises MalformedError only."""
    return decode_document(payload, StoredUpTo, content_type)
