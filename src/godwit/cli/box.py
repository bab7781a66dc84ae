"""One box of lines on the terminal: drawn with lines where the terminal can, plain where nobody looks. Pure."""

from collections.abc import Sequence
from typing import TextIO


def can_draw(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that shows box-drawing characters."""
    return stream.isatty() and (stream.encoding or "").lower().replace("-", "") == "utf8"


def draw(title: str, rows: Sequence[tuple[str, str]], *, fancy: bool, columns: int = 80) -> str:
    """Return a box titled `title` with `(label, value)` rows; an empty label continues the row above.

    Values are never broken or cut, so that links and commands can be copied: a value that does not fit into `columns`
    sets the box's right border aside.
    """
    label_width = max((len(label) for label, _ in rows), default=0)
    lines = [f"{label:<{label_width}}  {value}".rstrip() for label, value in rows]
    width = max(len(title) + 2, *(len(line) for line in lines)) if lines else len(title) + 2
    across, down, corners = ("─", "│", "╭╮╰╯") if fancy else ("-", "|", "++++")
    open_right = width + 4 > columns
    width = min(width, columns - 4)
    top = f"{corners[0]}{across} {title} {across * (width - len(title) - 1)}{corners[1]}"
    bottom = f"{corners[2]}{across * (width + 2)}{corners[3]}"
    body = [f"{down} {line}" if open_right else f"{down} {line:<{width}} {down}" for line in lines]
    return "\n".join([top, *body, bottom])
