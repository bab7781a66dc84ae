"""Is a line of the server's log an object that another program reads, whatever is in it?"""

import json
import logging

from godwit.server.logs import JsonLines


def test_a_line_says_what_where_how_bad_and_when() -> None:
    record = logging.LogRecord("godwit.x", logging.WARNING, "x.py", 1, "commit %d: %s", (7, 'a "b"\n'), None)
    record.created = 1_767_225_600.25
    assert json.loads(JsonLines().format(record)) == {
        "event": 'commit 7: a "b"\n',
        "logger": "godwit.x",
        "level": "warning",
        "timestamp": "2026-01-01T00:00:00.250000Z",
    }


def test_an_exception_is_in_the_line_of_its_message() -> None:
    try:
        open("\udcff/nothing")  # noqa: PTH123, SIM115 - a name that is no UTF-8
    except OSError as error:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "\udcff", (), (type(error), error, None))
    line = JsonLines().format(record)
    assert "\n" not in line
    assert "FileNotFoundError" in json.loads(line)["exception"]
