"""Can what stands in the box be read, and copied?"""

import io

from godwit.cli.box import can_draw, draw

ROWS = [("Console", "http://127.0.0.1:8080"), ("MQTT", "127.0.0.1:1883"), ("", "ready")]


def test_every_line_of_the_box_is_equally_wide() -> None:
    lines = draw("godwit is up", ROWS, fancy=True).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].startswith("╭─ godwit is up ─")
    assert lines[1] == "│ Console  http://127.0.0.1:8080 │"


def test_a_plain_box_is_ascii() -> None:
    assert draw("godwit is up", ROWS, fancy=False).isascii()


def test_a_long_value_is_never_cut_or_followed_by_a_border() -> None:
    command = "mosquitto_pub " + "x" * 120
    lines = draw("t", [("Try", command)], fancy=True, columns=80).splitlines()
    assert lines[1].endswith(command)
    assert max(len(lines[0]), len(lines[2])) <= 80


def test_only_a_terminal_gets_lines() -> None:
    assert not can_draw(io.StringIO())
