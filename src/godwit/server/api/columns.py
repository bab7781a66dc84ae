"""Telemetry as an answer: which format is asked for, and who encodes it.

Encoding many rows would keep the interpreter from the broker for milliseconds at a time, so it is done in a process of
its own (`encoder`); only small answers are encoded here.
"""

from itertools import chain
from typing import Any, Final

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from godwit.contract.errors import RejectedError
from godwit.server.api.encoder import Encoders
from godwit.server.api.encodings import ARROW, CSV, JSON, PARQUET, encode
from godwit.server.api.tables import Table

FORMATS: Final = {"json": JSON, "csv": CSV, "arrow": ARROW, "parquet": PARQUET}
SMALL_ROWS: Final = 500


def chosen_format(request: Request, asked: str | None) -> str:
    """Return the media type by `format`, else by Accept. Raises RejectedError (`not-acceptable`)."""
    if asked is not None:
        return FORMATS[asked]
    accepted = [each.partition(";")[0].strip() for each in request.headers.get("accept", "*/*").split(",")]
    for each in accepted:
        if each in FORMATS.values():
            return each
        if each in ("*/*", "application/*", ""):
            return JSON
        if each == "text/*":
            return CSV
    raise RejectedError(f"Accept one of {', '.join(FORMATS.values())}", code="not-acceptable")


def respond(table: Table, media_type: str, about: dict[str, Any], encoders: Encoders) -> Response:
    """Return a table in the format asked for. In JSON, `about` stands beside the columns."""
    is_small = len(table) <= SMALL_ROWS and media_type in (JSON, CSV)
    pieces = encode(table, media_type, about) if is_small else encoders.encode(table, media_type, about)
    # The first piece now: what goes wrong becomes a problem document, later it can only cut the answer off.
    first = next(pieces, b"")
    charset = "; charset=utf-8" if media_type == CSV else ""
    return StreamingResponse(chain([first], pieces), media_type=media_type + charset)
