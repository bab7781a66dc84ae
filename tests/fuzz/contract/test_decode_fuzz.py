"""Can any bytes make the decoders fail in another way than the documented one, or let something unstorable through?"""

import importlib.util
import json
import subprocess
import sys
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from godwit.contract import codes, status
from godwit.contract.errors import MalformedError
from godwit.contract.limits import INTEGER_MAX, INTEGER_MIN, TEXT_VALUE_BYTES_MAX
from godwit.contract.samples import Telemetry
from godwit.contract.telemetry import decode
from godwit.contract.times import EARLIEST_NS, LATEST_NS

HERE = Path(__file__).parent
NOW = 1_705_314_600_000_000_000
CODES = {value for name, value in vars(codes).items() if name.isupper()}


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


corpus = _load("corpus")
VALID = corpus.messages()


def is_storable(message: Telemetry) -> bool:
    """Whether everything in a decoded message can go into the store's columns."""
    for sample in message.samples:
        if sample.code:
            assert sample.code in CODES
            continue
        assert sample.values
        assert sample.time is None or EARLIEST_NS <= sample.time < LATEST_NS + 2**28 * 10**9
        for name, value in sample.values.items():
            name.encode()
            assert 1 <= len(name) <= 128
            if type(value) is str:
                assert len(value.encode()) <= TEXT_VALUE_BYTES_MAX
            elif type(value) is int:
                assert INTEGER_MIN <= value <= INTEGER_MAX
            else:
                assert type(value) is bool or (type(value) is float and isfinite(value))
        assert all(quality in {0, 1, 2} for quality in (sample.qualities or {}).values())
    for text in (message.stream, message.epoch, message.message_id):
        assert text is None or text.isprintable()
    assert message.seq is None or 0 <= message.seq < 2**62
    return bool(message.samples)


def attempt(payload: bytes, content_type: str | None, codec: str | None = None) -> str:
    """Return the code of the refusal, or nothing; the second time the caches are warm, and the answer is the same."""
    answers = []
    for _ in range(2):
        try:
            assert is_storable(decode(payload, content_type, codec, now=NOW))
            answers.append("")
        except MalformedError as error:
            str(error).encode()
            answers.append(error.code)
    assert answers[0] == answers[1]
    assert answers[0] in CODES | {""}
    return answers[0]


def attempt_status(payload: bytes, content_type: str | None) -> None:
    code = ""
    try:
        status.decode(payload, content_type)
    except MalformedError as error:
        code = error.code
    assert code in CODES | {""}


@pytest.mark.parametrize(("payload", "content_type"), VALID)
def test_the_corpus_is_valid(payload: bytes, content_type: str | None) -> None:
    assert attempt(payload, content_type) == ""


@pytest.mark.parametrize(("payload", "content_type"), VALID)
def test_every_prefix(payload: bytes, content_type: str | None) -> None:
    for end in range(len(payload)):
        code = attempt(payload[:end], content_type)
        assert code or content_type == "application/protobuf", "a prefix of a Protobuf message may be one"


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(corpus.TYPES), st.sampled_from([None, "json", "cbor", "protobuf", "x"]))
@example(b"\xd8\x1c\x80", "application/cbor", None)
@example(b"\xc1\xf9\x7e\x00", "application/cbor", None)
@example(b"\xa1\x00\x01", None, None)
def test_arbitrary_bytes(payload: bytes, content_type: str | None, codec: str | None) -> None:
    attempt(payload, content_type, codec)
    attempt_status(payload, content_type)


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(VALID), st.lists(st.tuples(st.integers(0, 9_999), st.binary(max_size=3)), min_size=1, max_size=4)
)
def test_mutated_messages(valid: tuple[bytes, str | None], changes: list[tuple[int, bytes]]) -> None:
    payload, content_type = valid
    for at, change in changes:
        place = at % len(payload) if payload else 0
        payload = payload[:place] + change + payload[place + (len(change) or 1) :]
    attempt(payload, content_type)


NAMES = st.sampled_from(
    ["deviceId", "device_id", "sensor_id", "schemaVersion", "stream", "epoch", "seq", "messageId", "timestamp",
     "sentAt", "readings", "samples", "sensors", "data", "location", "metadata", "value", "unit", "quality", "latitude",
     "longitude", "t", "min", "count", "", "\x00"]
)  # fmt: skip
LABELS = st.sampled_from(["bn", "bt", "bu", "bv", "bs", "bver", "n", "u", "v", "vs", "vb", "vd", "s", "t", "x_"])
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.integers(2**62, 2**70) | st.floats() | st.text(max_size=5)
    | st.sampled_from(["good", "2024-01-15T10:30:00Z", "urn:dev:x:", NOW, 1_705_314_600, 10**400])
)  # fmt: skip


def trees(names: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=6), max_leaves=12
    )


OBJECTS = st.dictionaries(NAMES, trees(NAMES), max_size=6)
PACKS = st.lists(st.dictionaries(LABELS, LEAVES, max_size=6), max_size=4)


@settings(max_examples=600, deadline=None)
@given(OBJECTS | PACKS)
def test_documents_with_our_fields_and_any_values(tree: Any) -> None:
    attempt(json.dumps(tree).encode(), None)
    attempt(json.dumps(tree).encode(), "application/senml+json")
    attempt(cbor2.dumps(tree), None)
    attempt(cbor2.dumps(tree), "application/senml+cbor")
    attempt_status(json.dumps(tree).encode(), None)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python")
def test_guided_by_coverage(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "fuzz_decode.py"), "-max_total_time=4", "-max_len=512", "-rss_limit_mb=0"],
        check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
