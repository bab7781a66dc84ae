"""Compressed payloads: zlib (RFC 1950) and Zstandard (RFC 8878), told by their first bytes, whatever the transport.

No other encoding of the contract begins like them: in CBOR 0x78 begins a text and 0x28 a negative number, which are no
messages, and JSON knows neither. Protobuf could begin so, and is not looked at. What comes out is bounded before it is
made: a small payload that swells is refused.
"""

import zlib
from enum import StrEnum
from typing import Any, Final

from godwit.contract import codes
from godwit.contract.errors import MalformedError
from godwit.contract.limits import PAYLOAD_BYTES_MAX

_ZLIB: Final = frozenset((b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"))
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_LEVEL: Final = 3
_ZLIB_LEVEL: Final = 6
WINDOW_BYTES_MAX: Final = 8 * 1_048_576


class Compression(StrEnum):
    """How a device may compress what it sends."""

    NONE = "none"
    DEFLATE = "deflate"
    ZSTD = "zstd"


def is_compressed(payload: bytes) -> bool:
    """Whether a payload begins like a compressed one."""
    return payload[:2] in _ZLIB or payload[:4] == _ZSTD


def compress(payload: bytes, how: Compression) -> bytes:
    """Return the payload compressed, or as it is where that is no longer. Zstandard needs the package `zstandard`."""
    if how is Compression.DEFLATE:
        packed = zlib.compress(payload, _ZLIB_LEVEL)
    elif how is Compression.ZSTD:
        packed = _zstandard().ZstdCompressor(level=_ZSTD_LEVEL).compress(payload)
    else:
        return payload
    return packed if len(packed) < len(payload) else payload


def decompress(payload: bytes) -> bytes:
    """Return what a compressed payload holds. Raises MalformedError (`malformed-compression`, `payload-too-large`)."""
    return _unpack_zstd(payload) if payload[:4] == _ZSTD else _inflate(payload)


def _inflate(payload: bytes) -> bytes:
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(payload, PAYLOAD_BYTES_MAX + 1)
    except zlib.error as error:
        raise MalformedError(f"not zlib: {error}"[:200], code=codes.MALFORMED_COMPRESSION) from None
    if len(plain) > PAYLOAD_BYTES_MAX:
        raise _too_large()
    if not stream.eof:
        raise MalformedError("the zlib stream is cut off", code=codes.MALFORMED_COMPRESSION)
    if stream.unused_data:
        raise MalformedError("bytes follow the zlib stream", code=codes.MALFORMED_COMPRESSION)
    return plain


def _unpack_zstd(payload: bytes) -> bytes:
    zstandard = _zstandard()
    try:
        size = zstandard.frame_content_size(payload)  # -1: the frame does not say
        if size > PAYLOAD_BYTES_MAX:
            raise _too_large()
        unpacker = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
        plain: bytes = unpacker.decompress(payload, max_output_size=PAYLOAD_BYTES_MAX, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as error:
        raise MalformedError(f"not Zstandard: {error}"[:200], code=codes.MALFORMED_COMPRESSION) from None
    return plain


def _too_large() -> MalformedError:
    return MalformedError(f"it swells beyond {PAYLOAD_BYTES_MAX} bytes", code=codes.PAYLOAD_TOO_LARGE)


def _zstandard() -> Any:
    import zstandard  # noqa: PLC0415 - optional on a device, and imported when used

    return zstandard
