"""Is what was compressed read as what it was, and what swells or is broken refused?"""

import zlib

import cbor2
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from godwit.contract import codes, events, telemetry
from godwit.contract.compression import Compression, compress, decompress, is_compressed
from godwit.contract.errors import MalformedError
from godwit.contract.limits import PAYLOAD_BYTES_MAX

MESSAGE = cbor2.dumps({"stream": "main", "epoch": "e", "seq": 0, "samples": [{"timestamp": 1_700_000_000, "readings": {"t": 1.5 + n}} for n in range(50)]})  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("how", [Compression.DEFLATE, Compression.ZSTD])
def test_a_compressed_message_is_read(how: Compression) -> None:
    packed = compress(MESSAGE, how)
    assert len(packed) < len(MESSAGE) / 2
    assert telemetry.decode(packed) == telemetry.decode(MESSAGE)
    assert telemetry.decode(packed, "application/cbor") == telemetry.decode(MESSAGE)
    event = b'{"event": "boot", "message": "' + b"x" * 200 + b'"}'
    assert events.decode(compress(event, how)) == events.decode(event)


@pytest.mark.parametrize("how", list(Compression))
def test_what_does_not_shrink_is_sent_as_it_is(how: Compression) -> None:
    assert compress(b"\x01\x02\x03", how) == b"\x01\x02\x03"


@given(st.binary(max_size=2_000), st.sampled_from([Compression.DEFLATE, Compression.ZSTD]))
def test_there_and_back(data: bytes, how: Compression) -> None:
    packed = compress(data, how)
    assert (decompress(packed) if is_compressed(packed) and packed != data else packed) == data


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (zlib.compress(MESSAGE)[:-3], codes.MALFORMED_COMPRESSION),
        (zlib.compress(MESSAGE) + b"!", codes.MALFORMED_COMPRESSION),
        (b"\x78\x9c" + b"\xff" * 30, codes.MALFORMED_COMPRESSION),
        (zlib.compress(bytes(PAYLOAD_BYTES_MAX + 1)), codes.PAYLOAD_TOO_LARGE),
        (zlib.compress(bytes(500_000_000), 1), codes.PAYLOAD_TOO_LARGE),
        (zstandard.compress(MESSAGE)[:-3], codes.MALFORMED_COMPRESSION),
        (zstandard.compress(MESSAGE) + b"!", codes.MALFORMED_COMPRESSION),
        (zstandard.compress(bytes(PAYLOAD_BYTES_MAX + 1)), codes.PAYLOAD_TOO_LARGE),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 30, codes.MALFORMED_COMPRESSION),
        (b"\x28\xb5\x2f\xfd", codes.MALFORMED_COMPRESSION),
    ],
)
def test_what_is_broken_or_swells_is_refused(payload: bytes, code: str) -> None:
    with pytest.raises(MalformedError) as refused:
        telemetry.decode(payload)
    assert refused.value.code == code


def test_a_frame_that_does_not_say_its_size_is_bounded_too() -> None:
    packer = zstandard.ZstdCompressor(write_content_size=False)
    assert telemetry.decode(packer.compress(MESSAGE)) == telemetry.decode(MESSAGE)
    with pytest.raises(MalformedError):
        telemetry.decode(packer.compress(bytes(4 * PAYLOAD_BYTES_MAX)))
