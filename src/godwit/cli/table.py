"""Tables as commands print them: columns as wide as they must be, nothing where nothing is known. Pure."""

from collections.abc import Sequence
from typing import Final

NONE: Final = "-"


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows under their heads."""
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(heads), *texts]) for column in range(len(heads))]
    lines = [[head.upper() for head in heads], *texts]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def when(time: str | None, never: str) -> str:
    """Return a time of the API to the second, as a table shows it."""
    return f"{time[:10]} {time[11:19]} UTC" if time else never


def _text(cell: object) -> str:
    if cell is None or cell in ("", [], ()):
        return NONE
    text = ", ".join(map(str, cell)) if isinstance(cell, list | tuple) else str(cell)
    return "".join(each if each.isprintable() else "?" for each in text)
