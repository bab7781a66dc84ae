"""Cells of CSV files that people open: what strangers sent is never a formula there (OWASP, CSV injection). Pure."""

from typing import Final

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def cell(value: object) -> str:
    """Return a value as a cell: nothing for None, and an apostrophe before what a spreadsheet would work out."""
    shown = "" if value is None else str(value)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
