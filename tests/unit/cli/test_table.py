"""Tables of commands: columns fit, times are people's, and nothing a stranger named moves the cursor."""

from godwit.cli.table import table, when


def test_columns_are_as_wide_as_they_must_be() -> None:
    assert table(("id", "groups"), [("pump-7", ["a", "b"]), ("x", [])]) == "ID      GROUPS\npump-7  a, b\nx       -"


def test_what_cannot_be_printed_is_not() -> None:
    assert table(("name",), [("\x1b[2Jevil",)]).splitlines()[1] == "?[2Jevil"


def test_times_are_to_the_second() -> None:
    assert when("2026-11-24T13:04:51.939847784Z", "never") == "2026-11-24 13:04:51 UTC"
    assert when(None, "never") == "never"
