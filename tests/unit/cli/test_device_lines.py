"""Are lines read as what they say?"""

import pytest

from godwit.cli.device_lines import LINE_BYTES_MAX, CsvLines, JsonLines, Line, LineSplit, reader_of
from godwit.contract.errors import MalformedError
from godwit.contract.samples import Reading


def test_json() -> None:
    read = JsonLines().read
    assert read('{"temperature": 21.5, "on": true, "mode": "eco", "none": null}') == Line(
        None, {"temperature": 21.5, "on": True, "mode": "eco", "none": None}
    )
    assert read('{"timestamp": "2026-01-01T00:00:00Z", "t": 1}') == Line("2026-01-01T00:00:00Z", {"t": 1})
    assert read('{"ts": 1700000000, "readings": {"t": {"value": 1, "unit": "Cel"}, "u": 2}}') == Line(
        1_700_000_000, {"t": Reading(1, "Cel"), "u": 2}
    )
    assert read("  \n") is None


@pytest.mark.parametrize("text", ["{", "[1]", "21.5", '{"a": {"value": {}}}', "\x00"])
def test_what_is_no_json_sample(text: str) -> None:
    with pytest.raises(MalformedError):
        JsonLines().read(text)


def test_csv() -> None:
    read = CsvLines().read
    assert read("time, temperature,mode,on\n") is None
    assert read("1700000000,21.5,eco,true\n") == Line(1_700_000_000, {"temperature": 21.5, "mode": "eco", "on": True})
    assert read("2026-01-01T00:00:00Z,,eco,\n") == Line("2026-01-01T00:00:00Z", {"mode": "eco"})
    assert read('1,2,"a, b",false\n') == Line(1, {"temperature": 2, "mode": "a, b", "on": False})
    assert read("\n") is None
    for bad in ("1,2\n", '1,"2\n', "1,2,3,4,5\n"):
        with pytest.raises(MalformedError):
            read(bad)


@pytest.mark.parametrize("header", ["a,a\n", "a,,b\n"])
def test_a_header_that_names_no_columns(header: str) -> None:
    with pytest.raises(MalformedError):
        CsvLines().read(header)


def test_the_format_is_told_by_the_first_line() -> None:
    assert isinstance(reader_of("auto", '  {"a": 1}'), JsonLines)
    assert isinstance(reader_of("auto", "a,b"), CsvLines)
    assert isinstance(reader_of("csv", '{"a": 1}'), CsvLines)


def test_bytes_are_cut_into_lines() -> None:
    split = LineSplit()
    assert split.feed(b'{"a": 1}\r\n{"b"') == ['{"a": 1}']
    assert split.feed(b": 2}\n\n") == ['{"b": 2}', ""]
    assert split.feed(b"end") == []
    assert split.rest() == ["end"]
    assert split.rest() == []
    (long,) = split.feed(b"x" * (LINE_BYTES_MAX + 1))
    assert len(long) == LINE_BYTES_MAX + 1


def test_what_is_no_utf_8_is_refused() -> None:
    (line,) = LineSplit().feed(b'{"a": "\xff"}\n')
    with pytest.raises(MalformedError):
        JsonLines().read(line)
