"""The audit log as a file: NDJSON, or CSV that no spreadsheet takes for formulas. A page in memory at a time."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from godwit.contract.spreadsheets import cell
from godwit.contract.times import format_time
from godwit.server.storage.audit import AuditLine

COLUMNS: Final = ("number", "at", "who", "what", "about", "tenant", "address", "before", "after")
MEDIA: Final = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson"}


def line_document(line: AuditLine) -> dict[str, Any]:
    """Return a line as the API shows it."""
    document: dict[str, Any] = msgspec.to_builtins(line)
    document["at"] = format_time(line.at)
    return document


def export(pages: Iterator[Sequence[AuditLine]], form: str) -> Iterator[bytes]:
    """Return the lines as a file of this form: csv or ndjson."""
    return as_csv(pages) if form == "csv" else as_ndjson(pages)


def download_headers(form: str) -> dict[str, str]:
    """Return what makes a browser keep the file, and nobody else."""
    return {"content-disposition": f'attachment; filename="audit.{form}"', "cache-control": "no-store"}


def as_ndjson(pages: Iterator[Sequence[AuditLine]]) -> Iterator[bytes]:
    """Return one JSON document a line."""
    for page in pages:
        yield b"".join(msgspec.json.encode(line_document(each)) + b"\n" for each in page)


def as_csv(pages: Iterator[Sequence[AuditLine]]) -> Iterator[bytes]:
    """Return a table; before and after are JSON. What a spreadsheet would take for a formula is kept from being one."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for page in pages:
        for each in page:
            document = line_document(each)
            document["before"], document["after"] = (
                "" if value is None else msgspec.json.encode(value).decode() for value in (each.before, each.after)
            )
            writer.writerow([cell(document[name]) for name in COLUMNS])
        yield _taken(text)
    if rest := _taken(text):
        yield rest


def _taken(text: io.StringIO) -> bytes:
    data = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return data
