"""Fuzz the decoders, guided by coverage: `python tests/fuzz/contract/fuzz_decode.py -max_total_time=60`.

Arguments are libFuzzer's. The first byte of an input chooses the content type. A crash is any error but MalformedError.
"""

import resource
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["godwit.contract"]):
    from godwit.contract import status, telemetry
    from godwit.contract.errors import MalformedError

sys.path.insert(0, str(Path(__file__).parent))
from corpus import TYPES, messages

MEMORY_BYTES_MAX = 512 * 2**20
"""What an input may make us take. libFuzzer's own limit counts what the process that started it had, too."""


def fuzz(data: bytes) -> None:
    """Decode one input."""
    if not data:
        return
    content_type, payload = TYPES[data[0] % len(TYPES)], data[1:]
    with suppress(MalformedError):
        telemetry.decode(payload, content_type, now=1_705_314_600_000_000_000)
    with suppress(MalformedError):
        status.decode(payload, content_type)


def main() -> None:
    """Begin with the valid messages."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    with tempfile.TemporaryDirectory() as directory:
        for number, (payload, content_type) in enumerate(messages()):
            (Path(directory) / f"{number}").write_bytes(bytes([TYPES.index(content_type)]) + payload)
        atheris.Setup([sys.argv[0], directory, *sys.argv[1:]], fuzz)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
